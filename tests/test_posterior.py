"""Samples given observations: exact for Gaussian data, whatever the prior, the metric, the path and the transform."""

import pytest
import torch

from scifm import Batch, Flow, Objective, Solver, couplings, networks, paths, priors, trace
from scifm.data.transforms import Affine, Log
from scifm.networks import GaussianSkip
from scifm.posterior import posterior
from scifm.priors import spectra

D = 6
TIGHT = Solver(rtol=1e-8, atol=1e-8)


class Nothing(torch.nn.Module):
    """An untrained network: zero."""

    symmetries = frozenset()

    def forward(self, t, x, batch):
        return torch.zeros_like(x)


class Plain(torch.nn.Module):
    """The velocity of Gaussian data N(m, s² C) for a prior N(m, C), in the plain metric."""

    symmetries = frozenset()

    def __init__(self, prior, path, scale):
        super().__init__()
        self.prior, self.skip, self.path = prior, GaussianSkip(Nothing(), path, scale), path

    def forward(self, t, x, batch):
        m = self.prior.colour(torch.zeros_like(x), batch)
        alpha, sigma, alpha_dot, sigma_dot = (batch.spread(c) for c in self.path.coefficients(t.to(x)))
        return (alpha_dot + sigma_dot) * m + self.skip(t, x - (alpha + sigma) * m, batch)


def full(seed=0, shape=(D,)):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(D, D, generator=g, dtype=torch.float64)
    x = torch.randn(4000, D, generator=g, dtype=torch.float64) @ mix + torch.randn(D, generator=g, dtype=torch.float64)
    return priors.FullGaussian(shape).fit(Batch(x.reshape(-1, *shape)))


def moments(prior, like):
    """m (D,) and C (D, D) of a prior that colours."""
    one = like.select([0] * D)
    m = prior.colour(torch.zeros_like(one.x[:1]), one.select([0]))
    L = (prior.colour(torch.eye(D, dtype=one.x.dtype).reshape(one.x.shape), one) - m).reshape(D, D).T
    return m.flatten(), L @ L.T


H = torch.randn(3, D, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
Y = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
R = torch.tensor([0.3, 0.7, 1.1], dtype=torch.float64)


def observe(x):
    return x.flatten(1) @ H.T + 0.25


def flow_of(prior, metric, path, scale):
    velocity = GaussianSkip(Nothing(), path, scale) if metric == "prior" else Plain(prior, path, scale)
    return Flow(velocity, prior, path=path, objective=Objective(metric=metric))


def closed_form(m, C, values=Y):
    """Mean and covariance of x given y, and log p(y)."""
    S = H @ C @ H.T + R.square().diag()
    K = torch.linalg.solve(S, H @ C).T
    law = torch.distributions.MultivariateNormal(H @ m + 0.25, S)
    return m + K @ (values - H @ m - 0.25), C - K @ H @ C, law.log_prob(values)


@pytest.mark.parametrize(
    "metric, path, scale",
    [
        ("prior", paths.Linear(), 1.0),
        ("prior", paths.Linear(), 0.6),
        ("prior", paths.Trigonometric(), 2.0),
        ("plain", paths.Linear(), 1.0),
        ("plain", paths.Trigonometric(), 0.6),
    ],
)
def test_gaussian_data_give_the_exact_posterior(metric, scale, path):
    """The curve is affine in x0, so its matrix gives the covariance without sampling."""
    prior = full()
    like = Batch(torch.zeros(D + 1, D, dtype=torch.float64))
    m, C = moments(prior, like)
    start = torch.cat([torch.zeros(1, D), torch.eye(D)]).double()
    found = posterior(
        flow_of(prior, metric, path, scale), like, observe, Y, R,
        x0=prior.colour(start, like), solver=TIGHT, spread=scale,
    )  # fmt: skip
    mean, cov, _ = closed_form(m, scale**2 * C)
    x = found.samples.x
    M = (x[1:] - x[:1]).T
    torch.testing.assert_close(x[0], mean, atol=2e-5, rtol=0)
    torch.testing.assert_close(M @ M.T, cov, atol=2e-5, rtol=0)


@pytest.mark.parametrize("metric", ["prior", "plain"])
def test_weights_of_gaussian_data_are_the_evidence(metric):
    """log p(x) + log p(y | x) − log q(x | y) = log p(y), for every sample."""
    prior, like = full(1), Batch(torch.zeros(5, D, dtype=torch.float64))
    m, C = moments(prior, like)
    found = posterior(
        flow_of(prior, metric, paths.Linear(), 1.0), like, observe, Y, R,
        generator=torch.Generator().manual_seed(0), solver=TIGHT, trace=trace.Exact(),
    )  # fmt: skip
    mean, cov, evidence = closed_form(m, C)
    law = torch.distributions.MultivariateNormal(mean, cov)
    torch.testing.assert_close(found.log_weight, evidence.expand(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.log_prob, law.log_prob(found.samples.x), atol=1e-5, rtol=0)


def test_wrong_guess_of_the_spread_is_seen_in_the_weights_and_mended_by_them():
    prior, like = full(2), Batch(torch.zeros(1000, D, dtype=torch.float64))
    m, C = moments(prior, like)
    found = posterior(
        flow_of(prior, "prior", paths.Linear(), 1.0), like, observe, Y, R, spread=0.6,
        generator=torch.Generator().manual_seed(0), trace=trace.Exact(),
    )  # fmt: skip
    mean, _, evidence = closed_form(m, C)
    w = (found.log_weight - found.log_weight.max()).exp()
    assert float(found.log_weight.std()) > 0.02
    estimate = found.log_weight.max() + w.mean().log()
    error = float(w.std() / w.mean() / len(w) ** 0.5)
    assert abs(float(estimate - evidence)) < 5 * error + 1e-3
    x = found.samples.x
    weighted = (w[:, None] * x).sum(0) / w.sum()
    spread = ((w / w.sum()).square()[:, None] * (x - weighted).square()).sum(0).sqrt()
    assert ((weighted - mean).abs() < 5 * spread).all()


def test_observations_in_the_users_units_through_a_transform():
    """Kelvin observed, anomalies flown."""
    prior = full(3)
    shift, scale = torch.linspace(-1, 1, D, dtype=torch.float64), torch.linspace(0.5, 2, D, dtype=torch.float64)
    flow = Flow(GaussianSkip(Nothing()), prior, transform=Affine(shift, scale), objective=Objective(metric="prior"))
    like = Batch(torch.zeros(D + 1, D, dtype=torch.float64))
    m, C = moments(prior, like)
    start = prior.colour(torch.cat([torch.zeros(1, D), torch.eye(D)]).double(), like)
    found = posterior(flow, like, observe, Y, R, x0=start, solver=TIGHT)
    inverse = (1 / scale).diag()
    mean, cov, _ = closed_form(m / scale - shift, inverse @ C @ inverse)
    x = found.samples.x
    M = (x[1:] - x[:1]).T
    torch.testing.assert_close(x[0], mean, atol=2e-5, rtol=0)
    torch.testing.assert_close(M @ M.T, cov, atol=2e-5, rtol=0)


def test_each_sample_has_its_own_observations_and_no_other():
    prior, g = full(), torch.Generator().manual_seed(5)
    like = Batch(torch.zeros(4, D, dtype=torch.float64))
    x0, values = prior.sample(like, g), torch.randn(4, 3, generator=g, dtype=torch.float64)
    flow = flow_of(prior, "prior", paths.Linear(), 1.0)
    together = posterior(flow, like, observe, values, R, x0=x0).samples.x
    for k in range(4):
        alone = posterior(flow, like.select([k]), observe, values[k], R, x0=x0[k : k + 1]).samples.x
        torch.testing.assert_close(alone[0], together[k], atol=1e-9, rtol=0)


def test_a_field_with_gaps_in_single_precision():
    """Half of a field is seen with little noise: it is kept, and the rest is what the covariance says."""
    g = torch.Generator().manual_seed(0)
    truth = Batch(torch.nn.functional.interpolate(torch.randn(64, 1, 2, 2, generator=g), (6, 8), mode="bilinear"))
    prior = priors.SpectralGaussian((1, 6, 8), periodic=(False, True), spectrum=spectra.PerMode()).fit(truth)
    flow = Flow(GaussianSkip(networks.UNet(1, widths=(4,))), prior)
    mask = torch.zeros(1, 6, 8, dtype=torch.bool)
    mask[:, ::2] = True
    found = posterior(flow, truth.select(range(8)), lambda x: x[:, mask], truth.x[:8][:, mask], 0.01, generator=g)
    x = found.samples.x
    assert x.dtype == torch.float32 and x.isfinite().all()
    assert float((x - truth.x[:8])[:, mask].std()) < 0.02
    free = flow.sample(truth.select(range(8)), torch.Generator().manual_seed(1)).x
    assert float((x - truth.x[:8]).square().mean()) < 0.3 * float((free - truth.x[:8]).square().mean())


def test_little_noise_of_all_values_gives_them_back():
    prior, like = full(), Batch(torch.zeros(3, D, dtype=torch.float64))
    wanted = torch.randn(3, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = posterior(flow_of(prior, "prior", paths.Linear(), 1.0), like, lambda x: x, wanted, 1e-3, solver=TIGHT)
    assert (found.samples.x - wanted).abs().max() < 1e-2
    much = posterior(flow_of(prior, "prior", paths.Linear(), 1.0), like, lambda x: x, wanted, 1e5, solver=TIGHT,
                     x0=prior.sample(like, torch.Generator().manual_seed(3)))  # fmt: skip
    free = flow_of(prior, "prior", paths.Linear(), 1.0).sample(
        like, solver=TIGHT, x0=prior.sample(like, torch.Generator().manual_seed(3))
    )
    torch.testing.assert_close(much.samples.x, free.x, atol=1e-4, rtol=0)  # what says nothing changes nothing


@pytest.mark.parametrize(
    "change, says",
    [
        ({"noise": 0.0}, "noise must be positive"),
        ({"noise": torch.ones(2)}, "noise must have shape"),
        ({"noise": torch.tensor([1.0, torch.nan, 1.0])}, "noise hold NaN"),
        ({"values": torch.zeros(2)}, "values must have shape"),
        ({"values": torch.tensor([0.0, torch.nan, 0.0])}, "leave out what was not observed"),
        ({"observe": lambda x: x.square()[:, :3]}, "affine"),
        ({"observe": lambda x: x.sum()}, "a row per sample"),
        ({"spread": 0.0}, "spread must be positive"),
    ],
)
def test_refuses(change, says):
    arguments = {"observe": observe, "values": Y, "noise": R} | change
    with pytest.raises(ValueError, match=says):
        posterior(flow_of(full(), "prior", paths.Linear(), 1.0), Batch(torch.zeros(2, D).double()), **arguments)


def test_refuses_flows_that_do_not_tell():
    like = Batch(torch.zeros(2, D))
    with pytest.raises(ValueError, match="independent"):
        paired = Flow(Nothing(), priors.Gaussian(), coupling=couplings.OptimalTransport())
        posterior(paired, like, observe, Y, R)
    with pytest.raises(ValueError, match="Gaussian prior that whitens"):
        posterior(Flow(Nothing(), priors.Empirical(Batch(torch.randn(9, D)))), like, observe, Y, R)
    with pytest.raises(ValueError, match="noise of its own"):
        posterior(Flow(Nothing(), priors.Gaussian(), path=paths.Bridge()), like, observe, Y, R)
    with pytest.raises(ValueError, match="one shape"):
        sets = Batch(torch.zeros(3, 3), torch.tensor([0, 0, 1]), 2)
        posterior(Flow(Nothing(), priors.MeanFreeGaussian()), sets, lambda x: x, torch.zeros(3), 1.0)
    positive = Flow(Nothing(), priors.Gaussian(), transform=Log())
    with pytest.raises(ValueError, match="such as Log"):
        posterior(positive, Batch(torch.ones(2, D).double()), observe, Y, R)


@pytest.mark.parametrize("metric", ["prior", "plain"])
def test_members_of_one_field_are_solved_once_as_each_would_be_alone(metric):
    """With conditions that are all the same there is one system of equations; beside another field, one for each."""
    prior, g = full(), torch.Generator().manual_seed(5)
    like = Batch(torch.zeros(4, D, dtype=torch.float64), context={"time": torch.tensor([7.0, 7, 7, 8]).double()})
    x0, flow = prior.sample(like, g), flow_of(prior, metric, paths.Linear(), 1.0)
    values = torch.randn(4, 3, generator=g, dtype=torch.float64)
    apart = posterior(flow, like, observe, values, R, x0=x0, trace=trace.Exact())
    once = posterior(flow, like.select(range(3)), observe, values[:3], R, x0=x0[:3], trace=trace.Exact())
    torch.testing.assert_close(once.samples.x, apart.samples.x[:3], atol=1e-9, rtol=0)
    torch.testing.assert_close(once.log_weight, apart.log_weight[:3], atol=1e-7, rtol=0)
    assert torch.equal(once.solution.nfe, apart.solution.nfe[:3])


def test_conditions_that_differ_move_what_is_observed():
    """A transform that knows the time: each member has the system of its own day."""

    class Seasonal(Affine):
        def forward(self, batch):
            return batch.replace(batch.x * batch.context["time"][:, None])

        def inverse(self, batch):
            return batch.replace(batch.x / batch.context["time"][:, None])

    day = torch.tensor([1.0, 4], dtype=torch.float64)
    prior, like = full(), Batch(torch.zeros(2, D, dtype=torch.float64), context={"time": day})
    flow = Flow(GaussianSkip(Nothing()), prior, transform=Seasonal(), objective=Objective(metric="prior"))
    x0 = prior.colour(torch.zeros(2, D, dtype=torch.float64), like)
    found = posterior(flow, like, observe, Y, R, x0=x0, solver=TIGHT).samples.x
    m, C = moments(prior, like)
    for k, scale in enumerate((1.0, 4.0)):
        mean, _, _ = closed_form(m / scale, C / scale**2)
        torch.testing.assert_close(found[k], mean, atol=2e-5, rtol=0)
