"""The flow against closed forms: Gaussian to Gaussian with full covariances, dense and ragged.

With x0 ~ N(m0, C0), x1 ~ N(m1, C1) independent and x_t = α x1 + σ x0, the marginal is N(m_t, C_t) with
C_t = α² C1 + σ² C0, and the velocity that minimises the loss is

    u_t(x) = ṁ_t + (α̇ α C1 + σ̇ σ C0) C_t⁻¹ (x − m_t).
"""

import math

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Objective, Solver, Stochastic, networks, paths, times
from scifm.couplings import (
    ConditionalTransport,
    OptimalTransport,
    Partial,
    Sinkhorn,
    Unbalanced,
    crossed_by,
    independent,
)
from scifm.priors import (
    Conditional,
    FullGaussian,
    Gaussian,
    Masked,
    MeanFreeGaussian,
    Prior,
    SpectralGaussian,
    spectra,
)
from scifm.trace import Exact, Hutchinson

TIGHT = Solver("dopri5", rtol=1e-10, atol=1e-10)


def covariance(size, seed):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / size + 0.3 * torch.eye(size, dtype=torch.float64)


class Oracle(nn.Module):
    """The exact velocity between two Gaussians, in the prior's whitened coordinates or plain ones."""

    def __init__(self, m0, C0, m1, C1, path=paths.Linear(), white=None):
        super().__init__()
        if white is not None:  # z = R⁻¹ (x − m0): the prior becomes N(0, I)
            inverse = torch.linalg.inv(white)
            m1, C1 = inverse @ (m1 - m0), inverse @ C1 @ inverse.T
            m0, C0 = torch.zeros_like(m0), torch.eye(len(m0), dtype=m0.dtype)
        self.m0, self.C0, self.m1, self.C1, self.path = m0, C0, m1, C1, path

    def forward(self, t, x, batch):
        alpha, sigma, alpha_dot, sigma_dot = (c[:, None, None] for c in self.path.coefficients(t))
        C_t = alpha**2 * self.C1 + sigma**2 * self.C0
        D_t = alpha_dot * alpha * self.C1 + sigma_dot * sigma * self.C0
        m_t = (alpha * self.m1 + sigma * self.m0[None, None])[:, 0]
        drift = (alpha_dot * self.m1 + sigma_dot * self.m0[None, None])[:, 0]
        flat = x.reshape(len(t), -1) - m_t
        return (drift + (D_t @ torch.linalg.solve(C_t, flat[..., None]))[..., 0]).reshape(x.shape)


def gaussians(size):
    g = torch.Generator().manual_seed(7)
    m0, m1 = torch.randn(2, size, generator=g, dtype=torch.float64)
    return m0, covariance(size, 1), m1, covariance(size, 2)


def normal(mean, C):
    return torch.distributions.MultivariateNormal(mean, C)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)  # torch.distributions draw from the global state


@pytest.mark.parametrize("size", [2, 6, 20])
@pytest.mark.parametrize("metric", ["plain", "prior"])
@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
def test_log_density_matches_the_closed_form_dense(size, metric, sigma_min):
    m0, C0, m1, C1 = gaussians(size)
    path = paths.Linear(sigma_min)
    prior = FullGaussian((size,), m0, C0)
    values, modes = torch.linalg.eigh(C0)
    root = (modes * values.sqrt()) @ modes.T
    flow = Flow(
        Oracle(m0, C0, m1, C1, path, root if metric == "prior" else None),
        prior,
        path=path,
        objective=Objective(metric=metric),
    )
    # At t = 1 the flow ends in x1 + σ_min x0; whitened, x0 is centred first.
    left = m0 if metric == "plain" else torch.zeros_like(m0)
    target = normal(m1 + sigma_min * left, C1 + sigma_min**2 * C0)
    x = Batch(target.sample((5,)))
    assert torch.allclose(flow.log_prob(x, Exact(), TIGHT), target.log_prob(x.x), atol=1e-6)


def test_samples_are_the_closed_form_map():
    """In a common eigenbasis the flow carries x0 to m1 + √(c1/c0) (x0 − m0), mode by mode."""
    g = torch.Generator().manual_seed(0)
    modes = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64))[0]
    c0, c1 = torch.rand(2, 6, generator=g, dtype=torch.float64) + 0.2
    m0, m1 = torch.randn(2, 6, generator=g, dtype=torch.float64)
    C0, C1 = (modes * c0) @ modes.T, (modes * c1) @ modes.T
    flow = Flow(Oracle(m0, C0, m1, C1), FullGaussian((6,), m0, C0), objective=Objective(metric="plain"))
    like = Batch(torch.zeros(4, 6, dtype=torch.float64))
    x0 = flow.prior.sample(like, g)
    wanted = m1 + ((x0 - m0) @ modes * (c1 / c0).sqrt()) @ modes.T
    samples = flow.sample(like, x0=x0, solver=TIGHT)
    assert torch.allclose(samples.x, wanted, atol=1e-6)
    assert torch.allclose(flow.encode(samples, TIGHT).x, x0, atol=1e-6)


def test_the_path_has_the_closed_form_marginal_and_the_oracle_is_its_mean_velocity():
    """E[u_t | x_t] is the regression of u_t on x_t: for Gaussians, linear least squares finds the oracle's matrix."""
    m0, C0, m1, C1 = gaussians(3)
    g = torch.Generator().manual_seed(1)
    n = 400_000
    like = Batch(torch.zeros(n, 3, dtype=torch.float64))
    x0 = FullGaussian((3,), m0, C0).sample(like, g)
    x1 = FullGaussian((3,), m1, C1).sample(like, g)
    t = torch.full((n,), 0.3, dtype=torch.float64)
    x_t, u_t = paths.Linear()(x0, x1, t, like)
    C_t = 0.3**2 * C1 + 0.7**2 * C0
    assert torch.allclose(x_t.T.cov(), C_t, atol=0.01) and torch.allclose(x_t.mean(0), 0.3 * m1 + 0.7 * m0, atol=0.01)
    y = x_t - x_t.mean(0)
    slope = torch.linalg.lstsq(y, u_t - u_t.mean(0)).solution.T
    exact = torch.linalg.solve(C_t, 0.3 * C1 - 0.7 * C0, left=False)
    assert torch.allclose(slope, exact, atol=0.02)


class RaggedOracle(nn.Module):
    """Rows independent N(m0, s0²) -> N(m1, s1²) per coordinate, plus a mean mode of its own per sample.

    Within a sample of n points the covariance is s² (I + (n c) P), P the projection on the sample's mean, so rows are
    correlated and every sample size has another law.
    """

    def __init__(self, c):
        super().__init__()
        self.c = c

    def forward(self, t, x, batch):
        n = batch.counts.to(x)
        mean = batch_mean(batch, x)
        a, s = t, 1 - t
        rate_bulk = (a * 1.0 - s) / (a**2 + s**2)
        big = 1 + n * self.c
        rate_mean = (a * big - s) / (a**2 * big + s**2)
        return batch.spread(rate_bulk) * (x - mean) + batch.spread(rate_mean) * mean


def batch_mean(batch, x):
    """Mean over the rows of each sample, given back to the rows, for any event."""
    columns = [batch.spread(batch.total(x[:, k]) / batch.counts.clamp(min=1).to(x))[:, 0] for k in range(x.shape[1])]
    return torch.stack(columns, 1)


def test_log_density_matches_the_closed_form_ragged():
    c = 0.8
    index = torch.tensor([0, 0, 0, 1, 3, 3, 3, 3])
    g = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(8, 2, generator=g, dtype=torch.float64), index, 4)
    flow = Flow(RaggedOracle(c), Gaussian())
    log_prob = flow.log_prob(batch, Exact(), TIGHT)
    for b, part in enumerate(batch.split()):
        n = len(part)
        if n == 0:
            assert float(log_prob[b]) == 0
            continue
        C = torch.eye(n, dtype=torch.float64) + c * torch.ones(n, n, dtype=torch.float64)
        wanted = normal(torch.zeros(n, dtype=torch.float64), C).log_prob(part.T).sum()
        assert abs(float(log_prob[b] - wanted)) < 1e-6


class Narrows(nn.Module):
    """The exact velocity N(0, I) -> N(0, s² I); backward, all of it happens where 1 − t is about s."""

    def __init__(self, s):
        super().__init__()
        self.s = s

    def forward(self, t, x, batch):
        return batch.spread((self.s**2 * t - (1 - t)) / (self.s**2 * t**2 + (1 - t) ** 2)) * x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("s", [0.05, 0.01, 0.003])
def test_narrow_data_are_encoded_and_scored_by_the_usual_solver(s, dtype):
    """A first step that jumps over the layer at the data sees nothing of it, and its error estimate neither."""
    x0 = torch.randn(6, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batch((s * x0).to(dtype))
    flow = Flow(Narrows(s), Gaussian())
    assert (flow.encode(batch).x - x0).abs().max() < 1e-3
    wanted = normal(torch.zeros(16).double(), s**2 * torch.eye(16).double()).log_prob(s * x0)
    assert (flow.log_prob(batch, Exact()) - wanted).abs().max() < 5e-3
    assert (flow.log_prob(batch, Hutchinson(1)) - wanted).abs().max() < 5e-3  # J is a number times I


def test_a_network_that_rests_is_carried_both_ways():
    """As it is after an initialisation with zeros; an empty sample rests as well."""

    class Rests(nn.Module):
        def forward(self, t, x, batch):
            return torch.zeros_like(x)

    flow = Flow(Rests(), Gaussian())
    batch = Batch(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 2, 2, 2]), 3)
    assert torch.equal(flow.encode(batch).x, batch.x)
    assert torch.allclose(flow.log_prob(batch), Gaussian().log_prob(batch.x, batch).double())


def test_hutchinson_agrees_with_the_exact_trace_within_its_standard_error():
    m0, C0, m1, C1 = gaussians(20)
    flow = Flow(Oracle(m0, C0, m1, C1), FullGaussian((20,), m0, C0), objective=Objective(metric="plain"))
    batch = Batch(normal(m1, C1).sample((6,)))
    exact = flow.log_prob(batch, Exact())
    _, solution = flow.density(batch, Hutchinson(400), generator=torch.Generator().manual_seed(0))
    estimate, _ = flow.density(batch, Hutchinson(400), generator=torch.Generator().manual_seed(0))
    error = solution.logdet.std(1) / 400**0.5
    assert (error > 1e-3).all()
    assert ((estimate - exact).abs() < 4 * error).all()


def test_whitening_is_the_same_flow_for_a_linear_velocity():
    """Base N(m, C) on x and base N(0, I) on z = C^-½ (x − m) are one process (linear path)."""
    data = Batch(torch.randn(40, 1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    prior = SpectralGaussian((1, 4, 3), (False, True), spectra.PerMode()).fit(data)
    unit = Batch(torch.eye(12, dtype=torch.float64).reshape(12, 1, 4, 3))
    root = (prior.colour(unit.x, unit) - prior.colour(0 * unit.x, unit)).reshape(12, 12)
    m0, C0, m1, C1 = prior.mean.flatten(), root @ root, torch.ones(12, dtype=torch.float64), covariance(12, 3)
    plain = Flow(Oracle(m0, C0, m1, C1), prior, objective=Objective(metric="plain"))
    white = Flow(Oracle(m0, C0, m1, C1, white=root), prior)
    assert white.metric == "prior"
    batch = Batch(normal(m1, C1).sample((3,)).reshape(3, 1, 4, 3))
    assert torch.allclose(plain.log_prob(batch, solver=TIGHT), white.log_prob(batch, solver=TIGHT), atol=1e-6)
    x0 = prior.sample(batch, torch.Generator().manual_seed(1))
    a, b = (f.sample(batch, x0=x0, solver=TIGHT).x for f in (plain, white))
    assert torch.allclose(a, b, atol=1e-6)


class Net(nn.Module):
    """A small nonlinear network that mixes all numbers of a sample."""

    def __init__(self, size, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(size + 1, 32), nn.Tanh(), nn.Linear(32, size)).to(dtype)

    def forward(self, t, x, batch):
        flat = x.reshape(len(t), -1)
        return self.layers(torch.cat([flat, t[:, None]], 1)).reshape(x.shape)


def test_a_likelihood_does_not_depend_on_batch_mates():
    flow = Flow(Net(4), Gaussian())
    x = torch.randn(33, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[1:] *= 100  # stiff neighbours
    (alone, a), (beside, b) = flow.density(Batch(x[:1]), Exact()), flow.density(Batch(x), Exact())
    assert abs(float(alone[0] - beside[0])) < 1e-10
    assert int(a.accepted[0]) == int(b.accepted[0]) and int(a.nfe[0]) == int(b.nfe[0])


def test_density_integrates_to_one_on_a_grid():
    flow = Flow(Net(2), Gaussian())
    axis = torch.linspace(-8, 8, 121, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    log_prob = flow.log_prob(Batch(points), Exact(), Solver("rk4", steps=20))
    assert abs(float(log_prob.exp().sum() * (axis[1] - axis[0]) ** 2) - 1) < 1e-3


def test_log_prob_is_the_jacobian_of_sampling():
    flow = Flow(Net(3), Gaussian())
    like = Batch(torch.zeros(1, 3, dtype=torch.float64))
    x0 = flow.prior.sample(like, torch.Generator().manual_seed(0))

    def carry(z):
        steps, x = 200, z
        for i in range(steps):  # an integrator of its own, differentiable
            h, t = 1 / steps, torch.full((1,), i / steps, dtype=torch.float64)
            k1 = flow.velocity(t, x, like)
            k2 = flow.velocity(t + h / 2, x + h / 2 * k1, like)
            k3 = flow.velocity(t + h / 2, x + h / 2 * k2, like)
            k4 = flow.velocity(t + h, x + h * k3, like)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x

    jacobian = torch.autograd.functional.jacobian(carry, x0).reshape(3, 3)
    wanted = flow.prior.log_prob(x0, like) - torch.linalg.slogdet(jacobian)[1]
    assert abs(float(flow.log_prob(Batch(carry(x0).detach()), Exact(), TIGHT) - wanted)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_is_seeded_per_sample_and_trains_every_weight(dtype):
    flow = Flow(Net(2, dtype), Gaussian(), coupling=OptimalTransport(), objective=Objective(times=times.stratified))
    batch = Batch(torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=dtype))
    state = torch.get_rng_state()
    a, b, c = (flow.loss(batch, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert a.shape == (16,) and a.dtype == dtype and torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(state, torch.get_rng_state())
    a.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in flow.velocity.parameters())


def test_training_a_linear_network_finds_the_oracle():
    """End to end: gradient descent on the loss ends in the closed-form velocity at a fixed time."""
    m0, C0, m1, C1 = gaussians(2)

    class Affine(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Linear(2, 2).double()

        def forward(self, t, x, batch):
            return self.map(x)

    t0 = 0.4
    flow = Flow(
        Affine(),
        FullGaussian((2,), m0, C0),
        objective=Objective(metric="plain", times=lambda n, g=None: torch.full((n,), t0, dtype=torch.float64)),
    )
    g = torch.Generator().manual_seed(0)
    data = FullGaussian((2,), m1, C1)
    optimiser = torch.optim.Adam(flow.parameters(), 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 600)
    for _ in range(600):
        like = Batch(torch.zeros(2048, 2, dtype=torch.float64))
        optimiser.zero_grad()
        flow.loss(like.replace(data.sample(like, g)), g).mean().backward()
        optimiser.step()
        schedule.step()
    x = torch.randn(50, 2, generator=g, dtype=torch.float64)
    exact = Oracle(m0, C0, m1, C1)(torch.full((50,), t0, dtype=torch.float64), x, None)
    assert (flow.velocity(None, x, None) - exact).abs().max() < 0.1


def test_sampling_is_seeded_and_returns_statistics():
    flow = Flow(Net(3), Gaussian())
    like = Batch(torch.zeros(5, 3, dtype=torch.float64))
    a, b = (flow.sample(like, torch.Generator().manual_seed(1)).x for _ in range(2))
    assert torch.equal(a, b)
    samples, solution = flow.sample(like, torch.Generator().manual_seed(1), statistics=True)
    assert torch.equal(samples.x, a) and solution.nfe.shape == (5,) and (solution.nfe > 0).all()


def test_context_travels_to_the_network_and_back():
    class Shift(nn.Module):
        def forward(self, t, x, batch):
            return batch.context["shift"][:, None] * torch.ones_like(x)

    flow = Flow(Shift(), Gaussian(std=1e-6))
    like = Batch(torch.zeros(2, 3), context={"shift": torch.tensor([1.0, -2.0])})
    samples = flow.sample(like)
    assert torch.allclose(samples.x, torch.tensor([[1.0], [-2.0]]).expand(2, 3), atol=1e-4)
    assert torch.equal(samples.context["shift"], like.context["shift"])


def test_refusals():
    with pytest.raises(TypeError, match="must be a scifm.Prior"):
        Flow(Net(2), torch.distributions.Normal(0, 1))
    with pytest.raises(ValueError, match='metric must be "plain" or "prior"'):
        Flow(Net(2), Gaussian(), objective=Objective(metric="whitened"))
    flow = Flow(Net(2), Gaussian())
    with pytest.raises(ValueError, match="single step"):
        flow.log_prob(Batch(torch.zeros(1, 2, dtype=torch.float64)), solver=Solver("euler", steps=1))
    assert math.isfinite(float(flow.log_prob(Batch(torch.zeros(1, 2, dtype=torch.float64)))))


def test_a_ragged_likelihood_does_not_depend_on_batch_mates():
    torch.manual_seed(0)
    network = networks.PointNet(2, hidden=(16, 16)).double()
    for p in network.parameters():
        nn.init.normal_(p, std=0.2)  # tame: a chaotic field would blow up rounding
    flow = Flow(network, Gaussian())
    sizes = torch.tensor([4, 1, 7, 2])
    index = torch.repeat_interleave(torch.arange(4), sizes)
    x = torch.randn(14, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[4:] *= 30  # stiff neighbours
    batch = Batch(x, index, 4)
    beside, b = flow.density(batch, Exact())
    alone, a = flow.density(batch.select([0]), Exact())
    assert abs(float(alone[0] - beside[0])) < 1e-10
    assert int(a.accepted[0]) == int(b.accepted[0]) and int(a.nfe[0]) == int(b.nfe[0])
    assert len(b.accepted.unique()) > 1  # the neighbours really step otherwise


class Shaped(nn.Module):
    """A velocity of the wrong shape, which would broadcast."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.weight = shape, nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, t, x, batch):
        return self.weight * x.sum(1).reshape(self.shape)


@pytest.mark.parametrize("shape", [(3, 1), (3,), (1, 3)])
def test_what_would_broadcast_is_refused(shape):
    batch = Batch(torch.randn(3, 3, dtype=torch.float64))  # B == D on purpose
    flow = Flow(Shaped(shape), Gaussian())
    for call in (flow.loss, flow.log_prob, flow.sample):
        with pytest.raises(ValueError, match=r"Velocity: expected torch.float64 of shape \(3, 3\)"):
            call(batch)

    class OneDraw(Prior):
        def sample(self, like, generator=None):
            return like.randn(generator)[0]

        def log_prob(self, x, like):
            return Gaussian().log_prob(x, like).sum()

    flow = Flow(Net(3), OneDraw())
    with pytest.raises(ValueError, match="Prior.sample: expected"):
        flow.loss(batch)
    with pytest.raises(ValueError, match="Prior.log_prob: expected one number per sample"):
        flow.log_prob(batch)


def test_inference_mode_is_refused_where_it_would_give_zero_divergence():
    flow, batch = Flow(Net(3), Gaussian()), Batch(torch.zeros(2, 3, dtype=torch.float64))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="no_grad"):
        flow.log_prob(batch)
    with torch.no_grad():
        assert flow.log_prob(batch).isfinite().all()


def test_a_prior_on_a_subspace_without_a_projection_is_refused():
    class Centred(Prior):
        def sample(self, like, generator=None):
            x = like.randn(generator)
            return x - x.mean(1, keepdim=True)

        def log_prob(self, x, like):
            return Gaussian().log_prob(x, like) + 0.5 * math.log(2 * math.pi)

        def dims(self, like):
            return like.dims - 1

    with pytest.raises(ValueError, match="subspace.*has no project"):
        Flow(Net(3), Centred()).log_prob(Batch(torch.zeros(2, 3, dtype=torch.float64)))


def test_a_likelihood_is_of_one_network_even_while_training():
    net = Net(4)
    net.layers.insert(1, nn.Dropout(0.5))
    flow = Flow(net, Gaussian()).train()
    batch = Batch(torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert torch.equal(flow.log_prob(batch), flow.log_prob(batch))
    assert flow.velocity.training


def test_a_stochastic_equation_has_no_likelihood_and_no_inverse():
    flow, batch = Flow(Net(2), Gaussian()), Batch(torch.zeros(3, 2, dtype=torch.float64))
    for call in (flow.log_prob, flow.encode, flow.sample_and_log_prob, flow.density):
        with pytest.raises(TypeError, match=r"needs an ordinary equation, a Solver\(\.\.\.\), got Stochastic"):
            call(batch, solver=Stochastic(steps=10))


def test_a_single_step_is_refused_for_every_likelihood():
    flow, batch = Flow(Net(2), Gaussian()), Batch(torch.zeros(3, 2, dtype=torch.float64))
    for call in (flow.log_prob, flow.sample_and_log_prob, flow.density):
        for solver in (Solver("rk4", steps=1), Solver("rk4", spacing=(0, 1))):
            with pytest.raises(ValueError, match="a single step gives no usable likelihood"):
                call(batch, solver=solver)
    assert flow.sample(batch, solver=Solver("rk4", steps=1)).x.shape == (3, 2)  # samples may be as rough as one likes


CONDITIONAL = Conditional(mean=lambda b: b.context["c"][:, None], names=("c",))
CROSSING = [
    OptimalTransport(ignore=("c",)),
    Sinkhorn(ignore=("d", "c")),
    Partial(share=0.5, ignore=("c",)),
    Unbalanced(ignore=("c",)),
    ConditionalTransport(on=("c",)),
    ConditionalTransport(on=("d",), ignore=("c",)),
]


@pytest.mark.parametrize("coupling", CROSSING, ids=lambda c: type(c).__name__)
def test_pairs_must_not_cross_what_the_prior_depends_on(coupling):
    assert "c" in crossed_by(coupling)
    with pytest.raises(
        ValueError, match=r"Flow: the law of Conditional depends on c, and the coupling pairs across it"
    ):
        Flow(Net(2), CONDITIONAL, coupling=coupling)
    Flow(Net(2), Gaussian(), coupling=coupling)


@pytest.mark.parametrize(
    "coupling", [independent, OptimalTransport(), ConditionalTransport(on=("d",)), lambda *a: a[0]]
)
def test_pairs_within_what_the_prior_depends_on_are_fine(coupling):
    assert "c" not in crossed_by(coupling)
    Flow(Net(2), CONDITIONAL, coupling=coupling)


MASK = torch.tensor([True, False, False, True, False, False, False, False])
SUBSPACES = {
    "masked": (Masked(MASK), Batch(torch.zeros(3000, 8, dtype=torch.float64))),
    "mean-free": (MeanFreeGaussian(), Batch(torch.zeros(1000, 3, 2, dtype=torch.float64))),
    "mean-free, ragged": (
        MeanFreeGaussian(),
        Batch(torch.zeros(4000, 2, dtype=torch.float64), torch.arange(2000).repeat_interleave(2), 2000),
    ),
}


@pytest.mark.parametrize("metric", ["plain", "prior"])
@pytest.mark.parametrize("name", SUBSPACES)
def test_the_noise_of_a_bridge_stays_where_the_prior_lives(name, metric):
    prior, like = SUBSPACES[name]
    seen = []

    class Spy(nn.Module):
        def forward(self, t, x, batch):
            seen.append(x)
            return torch.zeros_like(x)

    if metric == "prior" and not prior.whitens:
        pytest.skip("it does not whiten")
    at = Objective(metric=metric, times=lambda n, g=None: torch.full((n,), 0.25, dtype=torch.float64))
    flow = Flow(Spy(), prior, path=paths.Bridge(2.0), objective=at)
    data = like.replace(prior.sample(like, torch.Generator().manual_seed(0)))
    loss = flow.loss(data, torch.Generator().manual_seed(1))
    assert torch.allclose(prior.project(seen[0], like), seen[0], atol=1e-12)
    free = prior.dims(like).sum()
    noise = 4 * 0.25 * 0.75
    assert abs(float(seen[0].square().sum() / free) / (0.25**2 + 0.75**2 + noise) - 1) < 0.06
    # E u_t² = 1 + 1 + γ̇² per degree of freedom, γ̇ = s (1 − 2t) / 2√(t(1 − t)), times the weight 4t(1 − t)
    wanted = 4 * 0.25 * 0.75 * (2 + 4 * 0.25 / (4 * 0.25 * 0.75))
    assert abs(float((loss * prior.dims(like)).sum() / free) / wanted - 1) < 0.06


def test_parts_that_were_not_made_are_refused():
    for settings, says in (
        ({"path": paths.Linear}, "path must be a Path instance"),
        ({"coupling": OptimalTransport}, "coupling must be a callable, made"),
        ({"objective": Objective}, "objective must be an Objective"),
    ):
        with pytest.raises(TypeError, match=says):
            Flow(Net(2), Gaussian(), **settings)
    with pytest.raises(TypeError, match="velocity must be a network"):
        Flow(Net, Gaussian())
    with pytest.raises(ValueError, match="like is empty"):
        Flow(Net(2), Gaussian()).sample(Batch(torch.zeros(0, 2, dtype=torch.float64)))
