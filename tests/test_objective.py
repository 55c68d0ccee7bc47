"""What the network predicts, the metric, the weight and the thickening: special cases and closed forms."""

import math

import pytest
import torch
from test_conversions import Centred, closed_forms, covariance
from test_paths import AFFINE
from torch import nn

from scifm import Batch, Flow, Objective, Solver, paths, times
from scifm.couplings import OptimalTransport
from scifm.priors import FullGaussian, Gaussian
from scifm.trace import Exact

TIGHT = Solver("dopri5", rtol=1e-8, atol=1e-8)


class Knows(nn.Module):
    """The exact conditional mean of what it is asked to predict, between two Gaussians."""

    def __init__(self, path, kind, *moments):
        super().__init__()
        self.path, self.kind, self.moments = path, kind, moments

    def forward(self, t, x, batch):
        return closed_forms(self.path, t, x, *self.moments)[self.kind]


def commuting(size, seed=0):
    """Two Gaussians with common eigenvectors, between which every affine path has a closed-form map."""
    g = torch.Generator().manual_seed(seed)
    modes = torch.linalg.qr(torch.randn(size, size, generator=g, dtype=torch.float64))[0]
    c0, c1 = torch.rand(2, size, generator=g, dtype=torch.float64) + 0.3
    m0, m1 = torch.randn(2, size, generator=g, dtype=torch.float64)
    return modes, m0, c0, m1, c1


def map_of(path, modes, m0, c0, m1, c1):
    """Where the exact flow takes its base N(σ_0 m0, σ_0² C0), after division by α_1: mean and covariance."""
    (a0, a1), (s0, s1) = (c.tolist() for c in path.coefficients(torch.tensor([0.0, 1.0], dtype=torch.float64))[:2])
    scale = ((a1**2 * c1 + s1**2 * c0) / (a0**2 * c1 + s0**2 * c0)).sqrt()
    # The marginal at t = 0 has mean α_0 m1 + σ_0 m0; the base lacks the first part.
    mean = a1 * m1 + s1 * m0 + modes @ (scale * (modes.T @ (-a0 * m1)))
    return mean / a1, (modes * (scale**2 * s0**2 * c0)) @ modes.T / a1**2


NAMES = ("linear", "linear with σ_min", "trigonometric", "VP", "VE", "own")
CASES = [(n, k) for n in NAMES for k in ("velocity", "x1", "noise", "score")]


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("metric", ["plain", "prior"])
def test_the_density_is_the_closed_form_whatever_path_and_prediction(name, kind, metric):
    size, path = 3, AFFINE[name]
    modes, m0, c0, m1, c1 = commuting(size)
    if metric == "prior":  # whitened by the symmetric root, the prior is standard normal and the data are centred on it
        m0, m1, c0, c1 = torch.zeros_like(m0), modes @ ((modes.T @ (m1 - m0)) / c0.sqrt()), torch.ones_like(c0), c1 / c0
        true_m0, true_c0 = commuting(size)[1:3]
    else:
        true_m0, true_c0 = m0, c0
    C0, C1 = (modes * c0) @ modes.T, (modes * c1) @ modes.T
    prior = FullGaussian((size,), true_m0, (modes * true_c0) @ modes.T)
    net = Knows(path, kind, m0, C0, m1, C1)
    flow = Flow(net, prior, path=path, objective=Objective(predict=kind, metric=metric))
    mean, covariance = map_of(path, modes, m0, c0, m1, c1)
    if metric == "prior":
        root = (modes * true_c0.sqrt()) @ modes.T
        mean, covariance = true_m0 + root @ mean, root @ covariance @ root
    target = torch.distributions.MultivariateNormal(mean, covariance)
    x = mean + torch.randn(4, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(flow.log_prob(Batch(x), Exact(), TIGHT), target.log_prob(x), atol=1e-5)
    samples, log_prob, _ = flow.sample_and_log_prob(Batch(x), torch.Generator().manual_seed(2), TIGHT)
    assert torch.allclose(log_prob, target.log_prob(samples.x), atol=1e-5)
    x0 = prior.sample(Batch(x), torch.Generator().manual_seed(2))
    assert torch.allclose(flow.encode(samples, TIGHT).x, x0, atol=1e-5)


@pytest.mark.parametrize("kind", ["x1", "noise", "score"])
@pytest.mark.parametrize("name", ["linear", "trigonometric"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fixed_steps_are_as_good_for_every_prediction_as_for_the_velocity(kind, name, dtype):
    """Fixed steps stand on both ends, where a velocity made of x1, noise or score is 0/0."""
    modes, m0, c0, m1, c1 = commuting(2)
    C0, C1 = (modes * c0) @ modes.T, (modes * c1) @ modes.T
    x = m1 + torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch, found = Batch(x.to(dtype)), {}
    for predict in ("velocity", kind):
        net = Knows(AFFINE[name], predict, *(m.to(dtype) for m in (m0, C0, m1, C1)))
        flow = Flow(
            net,
            FullGaussian((2,), m0, C0),
            path=AFFINE[name],
            objective=Objective(predict=predict, metric="plain"),
        )
        solver = Solver("rk4", steps=20)
        samples = flow.sample(batch, torch.Generator().manual_seed(2), solver).x
        found[predict] = flow.log_prob(batch, Exact(), solver), samples.double(), flow.encode(batch, solver).x.double()
    target = torch.distributions.MultivariateNormal(m1, C1)
    bound = 1e-4 if dtype == torch.float64 else 3e-3  # √ε of float32 is 3e-4
    assert (found[kind][0] - target.log_prob(x)).abs().max() < bound
    for mine, velocity in zip(found[kind], found["velocity"], strict=True):
        assert (mine - velocity).abs().max() < bound


@pytest.mark.parametrize("kind", ["x1", "noise", "score"])
@pytest.mark.parametrize("name", ["linear", "trigonometric"])
def test_paths_that_reach_their_ends_are_close_to_the_closed_form_in_every_prediction(kind, name):
    """The time is kept 1.5e-8 away from the ends, so the answer is right to about that."""
    modes, m0, c0, m1, c1 = commuting(2)
    C0, C1 = (modes * c0) @ modes.T, (modes * c1) @ modes.T
    flow = Flow(
        Knows(AFFINE[name], kind, m0, C0, m1, C1),
        FullGaussian((2,), m0, C0),
        path=AFFINE[name],
        objective=Objective(predict=kind, metric="plain"),
    )
    target = torch.distributions.MultivariateNormal(m1, C1)
    x = m1 + torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = flow.log_prob(Batch(x), Exact(), Solver("dopri5", rtol=1e-7, atol=1e-7))
    assert torch.allclose(found, target.log_prob(x), atol=1e-4)


class Line(nn.Module):
    """A linear network whose gradients can be compared between objectives."""

    def __init__(self, size=3):
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(size + 1, size).double()

    def forward(self, t, x, batch):
        return self.map(torch.cat([x, t.to(x)[:, None]], 1))


def gradient(loss, net):
    net.zero_grad()
    loss.mean().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])


DATA = Batch(torch.randn(64, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64))


def at(t0):
    return lambda n, g=None: torch.full((n,), t0, dtype=torch.float64)


@pytest.mark.parametrize("path", [paths.VariancePreserving(), paths.Linear(), paths.VarianceExploding()])
def test_the_ddpm_loss_is_a_special_case(path):
    """predict="noise" from a standard normal is E‖ε̂(x_t) − ε‖², the simple loss of Ho et al. 2020, gradient and all."""
    net = Line()
    flow = Flow(net, Gaussian(), path=path, objective=Objective(predict="noise", times=at(0.4)))
    mine = gradient(flow.loss(DATA, torch.Generator().manual_seed(0)), net)
    epsilon = DATA.randn(torch.Generator().manual_seed(0))  # the draw that the flow makes first
    t = at(0.4)(64)
    alpha, sigma, _, _ = (c[:, None] for c in path.coefficients(t))
    written = (net(t, alpha * DATA.x + sigma * epsilon, DATA) - epsilon).square().mean(1)
    assert torch.allclose(mine, gradient(written, net), atol=1e-12)


@pytest.mark.parametrize("t0", [0.2, 0.7])
def test_denoising_score_matching_is_a_special_case_up_to_the_known_weight(t0):
    """Vincent 2011: E‖s(x_t) − ∇ log N(x_t; α x1, σ²)‖² has σ⁻² times the gradient of the flow's loss."""
    net, path = Line(), paths.VariancePreserving()
    flow = Flow(net, Gaussian(), path=path, objective=Objective(predict="score", times=at(t0)))
    mine = gradient(flow.loss(DATA, torch.Generator().manual_seed(0)), net)
    epsilon, t = DATA.randn(torch.Generator().manual_seed(0)), at(t0)(64)
    alpha, sigma, _, _ = (c[:, None] for c in path.coefficients(t))
    x_t = alpha * DATA.x + sigma * epsilon
    conditional = -(x_t - alpha * DATA.x) / sigma**2
    written = gradient((net(t, x_t, DATA) - conditional).square().mean(1), net)
    assert torch.allclose(mine, written * float(sigma[0]) ** 2, atol=1e-12)


@pytest.mark.parametrize("prior", ["white", "coloured"])
@pytest.mark.parametrize("metric", ["plain", "prior"])
def test_all_predictions_have_the_same_minimiser(prior, metric):
    """Least squares at a fixed time, in closed form: each prediction's best linear network gives the same velocity."""
    C0 = covariance(3, 1) if prior == "coloured" else torch.eye(3, dtype=torch.float64)
    base = FullGaussian((3,), torch.zeros(3), C0)
    C1, m1, t0 = covariance(3, 2), torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64), 0.3
    n, g = 4000, torch.Generator().manual_seed(0)
    like = Batch(torch.zeros(n, 3, dtype=torch.float64))
    x1 = m1 + torch.randn(n, 3, generator=g, dtype=torch.float64) @ torch.linalg.cholesky(C1).T
    velocities = {}
    for kind in ("velocity", "x1", "noise", "score"):
        net = Line()
        flow = Flow(net, base, objective=Objective(predict=kind, metric=metric, times=at(t0)))

        def closure(flow=flow, net=net):
            for p in net.parameters():
                p.grad = None
            loss = flow.loss(like.replace(x1), torch.Generator().manual_seed(5)).mean()
            loss.backward()
            return loss

        optimiser = torch.optim.LBFGS(net.parameters(), max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-16)
        optimiser.step(closure)
        points = Batch(x1[:10])
        velocities[kind] = flow.estimate("velocity", at(t0)(10), points).detach()
    for kind, v in velocities.items():
        assert torch.allclose(v, velocities["velocity"], atol=1e-5), kind


@pytest.mark.parametrize("metric", ["plain", "prior"])
def test_estimates_are_the_closed_forms_in_model_units(metric):
    modes, m0, c0, m1, c1 = commuting(3)
    C0, C1 = (modes * c0) @ modes.T, (modes * c1) @ modes.T
    prior, path = FullGaussian((3,), m0, C0), paths.Linear()
    moments = (m0, C0, m1, C1)
    if metric == "prior":
        back = (modes / c0.sqrt()) @ modes.T
        moments = (0 * m0, torch.eye(3, dtype=torch.float64), back @ (m1 - m0), back @ C1 @ back)
    flow = Flow(Knows(path, "velocity", *moments), prior, path=path, objective=Objective(metric=metric))
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)  # B == D
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = closed_forms(path, t, x, m0, C0, m1, C1)  # α + σ = 1, so colouring commutes with mixing
    for kind, wanted in exact.items():
        assert torch.allclose(flow.estimate(kind, t, Batch(x)), wanted, atol=1e-9), kind
    with pytest.raises(ValueError, match="kind must be one of"):
        flow.estimate("energy", t, Batch(x))


def test_a_score_is_refused_where_pairs_are_not_independent():
    flow = Flow(Line(), Gaussian(), coupling=OptimalTransport())
    flow.estimate("x1", torch.full((64,), 0.5), DATA)  # a mean given x_t needs no independence
    with pytest.raises(ValueError, match="drawn independently"):
        flow.estimate("score", torch.full((64,), 0.5), DATA)


def test_a_weight_multiplies_the_loss_of_its_own_sample():
    plain = Flow(Line(), Gaussian())
    weighted = Flow(Line(), Gaussian(), objective=Objective(weight=lambda t: 3 * t))
    seen = Flow(Line(), Gaussian(), objective=Objective(weight=lambda t: t))
    a, b, c = (f.loss(DATA, torch.Generator().manual_seed(0)) for f in (plain, weighted, seen))
    t = times.uniform(64, _after(DATA.randn))
    assert torch.allclose(b, 3 * c) and torch.allclose(c, t * a)
    with pytest.raises(ValueError, match="one number per sample"):
        Flow(Line(), Gaussian(), objective=Objective(weight=lambda t: t[:, None])).loss(DATA)


def _after(draw):
    generator = torch.Generator().manual_seed(0)
    draw(generator)
    return generator


def test_a_bridge_brings_its_own_weight():
    flow = Flow(Line(), Gaussian(), path=paths.Bridge(), objective=Objective(times=at(1.0)))
    assert (flow.loss(DATA) == 0).all()
    losses = Flow(Line(), Gaussian(), path=paths.Bridge()).loss(
        DATA.select(range(64)), torch.Generator().manual_seed(0)
    )
    assert losses.isfinite().all() and float(losses.detach().max()) < 1000


def test_thickened_data_have_the_density_of_the_thickened_law():
    """Points on a line have no density in the plane; with σ_data = 0.3 they have one, and training finds it."""
    seen = []

    class Spy(nn.Module):
        def forward(self, t, x, batch):
            seen.append(x)
            return torch.zeros_like(x)

    line = torch.zeros(20_000, 2, dtype=torch.float64)
    line[:, 0] = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    flow = Flow(Spy(), Gaussian(), objective=Objective(thickening=0.3, times=at(1.0)))
    flow.loss(Batch(line), torch.Generator().manual_seed(1))
    assert torch.allclose(seen[0].T.cov(), torch.diag(torch.tensor([1.09, 0.09], dtype=torch.float64)), atol=0.03)


def test_a_flow_on_a_subspace_has_the_closed_form_density_there():
    """Centred sets N(0, 4 P) -> N(0, 2.25 P), any number of points: the velocity is one number times x."""

    class Radial(nn.Module):
        def forward(self, t, x, batch):
            c0, c1 = 4.0, 2.25
            rate = (t * c1 - (1 - t) * c0) / ((1 - t) ** 2 * c0 + t**2 * c1)
            return batch.spread(rate) * x + 7.0  # the constant leaves the subspace and is projected away

    prior = Centred()
    flow = Flow(Radial(), prior, objective=Objective(metric="plain"))
    like = Batch(torch.zeros(9, 2, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2]), 3)
    x = 0.75 * prior.sample(like, torch.Generator().manual_seed(0))
    batch = like.replace(x)
    dims = prior.dims(like)
    exact = -0.5 * like.total(x.square()) / 2.25 - dims * (0.5 * math.log(2 * math.pi) + math.log(1.5))
    assert torch.allclose(flow.log_prob(batch, Exact(), TIGHT), exact, atol=1e-6)
    for b in range(3):
        assert torch.allclose(flow.log_prob(batch.select([b]), Exact(), TIGHT), exact[b : b + 1], atol=1e-6)
    with pytest.raises(ValueError, match="lives on a subspace, and sample 1 is"):
        flow.log_prob(like.replace(x + like.spread(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))))


def test_log_prob_has_gradients_when_asked():
    modes, m0, c0, m1, c1 = commuting(2)
    C0, C1 = (modes * c0) @ modes.T, (modes * c1) @ modes.T
    net = Knows(paths.Linear(), "velocity", m0, C0, m1, C1)
    flow = Flow(net, FullGaussian((2,), m0, C0), objective=Objective(metric="plain"))
    x = (m1 + torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    log_prob = flow.log_prob(Batch(x), Exact(), Solver("rk4", steps=20), differentiable=True)
    (slope,) = torch.autograd.grad(log_prob.sum(), x)
    assert torch.allclose(slope, -torch.linalg.solve(C1, (x - m1).T).T, atol=1e-4)
    assert not flow.log_prob(Batch(x), Exact(), Solver("rk4", steps=20)).requires_grad


def test_the_weights_of_a_network_learn_from_its_likelihood():
    net = Line(2)
    nn.init.normal_(net.map.weight, std=0.3)
    flow = Flow(net, Gaussian())
    batch = Batch(DATA.x[:5, :2])
    solver = Solver("rk4", steps=8)
    flow.log_prob(batch, Exact(), solver, differentiable=True).sum().backward()
    for p in net.parameters():
        for i in range(p.numel()):
            values = []
            for h in (1e-5, -1e-5):
                with torch.no_grad():
                    p.view(-1)[i] += h
                values.append(float(flow.log_prob(batch, Exact(), solver).sum()))
                with torch.no_grad():
                    p.view(-1)[i] -= h
            assert abs((values[0] - values[1]) / 2e-5 - float(p.grad.view(-1)[i])) < 1e-6


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"predict": "x0"}, ValueError, "predict must be one of"),
        ({"metric": "L2"}, ValueError, 'must be "plain" or "prior"'),
        ({"times": 0.5}, TypeError, "times must be a callable"),
        ({"weight": 2.0}, TypeError, "weight must be a callable"),
        ({"thickening": -1.0}, ValueError, "thickening must be finite"),
        ({"thickening": math.nan}, ValueError, "thickening must be finite"),
    ],
)
def test_what_is_no_objective_is_refused_when_it_is_made(settings, error, says):
    with pytest.raises(error, match=says):
        Objective(**settings)


def test_predictions_that_do_not_exist_on_a_path_are_refused_when_the_flow_is_made():
    with pytest.raises(ValueError, match="noise of its own"):
        Flow(Line(), Gaussian(), path=paths.Bridge(), objective=Objective(predict="noise"))
