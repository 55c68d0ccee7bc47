"""Stochastic sampling: it keeps the marginals of the flow, for white and coloured priors, and converges."""

import pytest
import torch
from test_conversions import covariance
from test_objective import Knows, Line

from scifm import Batch, Flow, Objective, Stochastic, paths
from scifm.couplings import OptimalTransport
from scifm.priors import FullGaussian, Gaussian

N = 12_000


def setting(colour, metric="plain", path=paths.Linear()):
    """A flow whose velocity is exact between two Gaussians, and the law it should sample."""
    m0 = torch.tensor([1.0, -2.0], dtype=torch.float64)
    C0 = covariance(2, 1) if colour == "coloured" else torch.eye(2, dtype=torch.float64)
    m1, C1 = torch.tensor([0.5, 0.5], dtype=torch.float64), covariance(2, 2)
    prior, moments = FullGaussian((2,), m0, C0), (m0, C0, m1, C1)
    if metric == "prior":
        values, modes = torch.linalg.eigh(C0)
        back = (modes / values.sqrt()) @ modes.T
        moments = (0 * m0, torch.eye(2, dtype=torch.float64), back @ (m1 - m0), back @ C1 @ back)
    net = Knows(path, "velocity", *moments)
    return Flow(net, prior, path=path, objective=Objective(metric=metric)), m1, C1


def moments_of(flow, solver, seed=0):
    like = Batch(torch.zeros(N, 2, dtype=torch.float64))
    x = flow.sample(like, torch.Generator().manual_seed(seed), solver).x
    return x.mean(0), x.T.cov()


@pytest.mark.parametrize("colour", ["white", "coloured"])
@pytest.mark.parametrize("metric", ["plain", "prior"])
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_the_law_at_the_end_is_that_of_the_data(colour, metric, method):
    flow, m1, C1 = setting(colour, metric)
    steps = 100 if method == "euler" else 40
    mean, C = moments_of(flow, Stochastic(method, steps=steps, strength=1.5))
    assert torch.allclose(mean, m1, atol=0.05) and torch.allclose(C, C1, atol=0.07)


@pytest.mark.parametrize(
    "path", [paths.VariancePreserving(), paths.Trigonometric(), paths.VarianceExploding(0.01, 100)]
)
def test_every_affine_path_can_be_sampled_stochastically(path):
    flow, m1, C1 = setting("coloured", "prior", path)
    mean, C = moments_of(flow, Stochastic("heun", steps=100))
    assert torch.allclose(mean, m1, atol=0.06) and torch.allclose(C, C1, atol=0.1)


def test_taking_a_coloured_prior_for_white_would_be_seen():
    """The law is kept because noise and score have the prior's colour: with the white score it is not."""
    flow, _, C1 = setting("coloured")
    wrong, _, _ = setting("coloured")
    wrong.prior = FullGaussian((2,), torch.tensor([1.0, -2.0]), 0.2 * torch.eye(2, dtype=torch.float64))
    right = moments_of(flow, Stochastic(steps=40, strength=3.0))[1]
    like = Batch(torch.zeros(N, 2, dtype=torch.float64))
    x0 = flow.prior.sample(like, torch.Generator().manual_seed(0))
    off = wrong.sample(like, torch.Generator().manual_seed(1), Stochastic(steps=40, strength=3.0), x0=x0).x.T.cov()
    assert (right - C1).abs().max() < 0.07 < 0.15 < (off - C1).abs().max()


def exact_variance(method, steps, strength=1.0):
    """Variance at t = 1 of the scheme itself for x1 ~ N(0, 2), x0 ~ N(0, 1): each step is linear, so no sampling."""

    def rate(t, eta):  # drift = rate · x, with x̂0 = σ x / C_t
        C = 2 * t**2 + (1 - t) ** 2
        return (2 * t - (1 - t) - eta * (1 - t)) / C

    variance, h = 1.0, 1 / steps
    for i in range(steps):
        eta = strength if i + 1 < steps else 0.0
        noise = 2 * eta * (1 - (i + 0.5) * h) * h
        a = rate(i * h, eta)
        if method == "euler":
            variance = (1 + h * a) ** 2 * variance + noise
            continue
        b = rate((i + 1) * h, eta)
        variance = (1 + 0.5 * h * (a + b * (1 + h * a))) ** 2 * variance + (1 + 0.5 * h * b) ** 2 * noise
    return variance


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_weak_order_of_convergence(method, order):
    """The scheme's own variance, computed step by step, converges at its order; and the sampler is that scheme."""
    errors = [abs(exact_variance(method, n) - 2.0) for n in (40, 80, 160)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 2 ** (order - 0.35) < coarse / fine < 2 ** (order + 0.5)
    one = torch.eye(1, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    flow = Flow(Knows(paths.Linear(), "velocity", zero, one, zero, 2 * one), Gaussian())
    like = Batch(torch.zeros(100_000, 1, dtype=torch.float64))
    x = flow.sample(like, torch.Generator().manual_seed(0), Stochastic(method, steps=10)).x
    assert abs(float(x.var()) - exact_variance(method, 10)) < 0.04


def test_without_noise_it_is_the_ordinary_equation():
    flow, _, _ = setting("coloured")
    like = Batch(torch.zeros(5, 2, dtype=torch.float64))
    x0 = flow.prior.sample(like, torch.Generator().manual_seed(0))
    stochastic = flow.sample(like, solver=Stochastic("heun", steps=50, strength=0.0), x0=x0).x
    from scifm import Solver

    assert torch.allclose(stochastic, flow.sample(like, solver=Solver("heun", steps=50), x0=x0).x, atol=1e-12)


def test_it_is_seeded_and_leaves_the_global_state():
    flow, _, _ = setting("white")
    like, state = Batch(torch.zeros(3, 2, dtype=torch.float64)), torch.get_rng_state()
    a, b, c = (flow.sample(like, torch.Generator().manual_seed(s), Stochastic(steps=10)).x for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(state, torch.get_rng_state())


def test_ragged_sets_are_sampled_too():
    class Pull(torch.nn.Module):
        def forward(self, t, x, batch):
            return batch.spread((2 * t - 1) / (t**2 + (1 - t) ** 2)) * x

    like = Batch(torch.zeros(30_000, 2, dtype=torch.float64), torch.arange(10_000).repeat_interleave(3), 10_000)
    x = Flow(Pull(), Gaussian()).sample(like, torch.Generator().manual_seed(0), Stochastic(steps=50)).x
    assert torch.allclose(x.T.cov(), torch.eye(2, dtype=torch.float64), atol=0.03)


@pytest.mark.parametrize("settings", [{"method": "milstein"}, {"steps": 1}, {"strength": -1.0}])
def test_bad_settings(settings):
    with pytest.raises(ValueError, match="Stochastic"):
        Stochastic(**settings)


def test_refusals():
    like = Batch(torch.zeros(3, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="drawn independently"):
        Flow(Line(), Gaussian(), coupling=OptimalTransport()).sample(like, solver=Stochastic())
    with pytest.raises(ValueError, match="noise of its own"):
        Flow(Line(), Gaussian(), path=paths.Bridge()).sample(like, solver=Stochastic())
    with pytest.raises(ValueError, match="no Solution"):
        Flow(Line(), Gaussian()).sample(like, solver=Stochastic(), statistics=True)
