"""Networks around networks: the Gaussian velocity beside one, and one in data coordinates within the prior's metric."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Objective, Solver, networks, paths, priors, trace
from scifm.networks import GaussianSkip, Unwhitened
from scifm.testing import check_equivariant, check_velocity

DOUBLE = torch.float64
FINE = Solver(rtol=1e-9, atol=1e-9)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def ragged(*counts, scale=3.0, seed=0):
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    like = Batch(scale * noise(sum(counts), 3, seed=seed), index, len(counts))
    return like.replace(priors.MeanFreeGaussian().project(like.x, like))


class Zero(nn.Module):
    symmetries = frozenset({"translation", "rotation", "reflection", "permutation"})

    def forward(self, t, x, batch):
        return torch.zeros_like(x)


def loud(network):
    """With weights everywhere: the untrained head is zero, for which all laws hold."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator, dtype=DOUBLE))
    return network


class Linear(nn.Module):
    """Each coordinate a multiple of itself that depends on time: w = a(t) x with a matrix on the last axis."""

    def __init__(self, width):
        super().__init__()
        self.matrix = nn.Parameter(0.3 * noise(width, width, seed=7))

    def forward(self, t, x, batch):
        return batch.spread(1 + t) * (x @ self.matrix)


# -- GaussianSkip ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [paths.Linear(), paths.Trigonometric(), paths.Polynomial(2.0)], ids=repr)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_alone_it_carries_the_prior_to_gaussian_data_of_that_scale(path, scale):
    prior = priors.HarmonicChain(0.2)
    flow = Flow(GaussianSkip(Zero(), path, scale), prior, path=path)
    data = ragged(4, 7, 2)
    wanted = prior.log_prob(data.x / scale, data) - prior.dims(data) * torch.log(torch.tensor(scale, dtype=DOUBLE))
    assert torch.allclose(flow.log_prob(data, solver=FINE), wanted, atol=1e-6)


def test_it_is_the_regression_of_the_velocity_on_the_point():
    path, s, n = paths.Trigonometric(), 1.7, 200_000
    x0, x1 = noise(n, 1), s * noise(n, 1, seed=1)
    like, t = Batch(x1), torch.full((n,), 0.3, dtype=DOUBLE)
    x_t, u_t = path(x0, x1, t, like)
    slope = (x_t * u_t).mean() / x_t.square().mean()
    one = Batch(torch.ones(1, 1, dtype=DOUBLE))
    found = GaussianSkip(Zero(), path, s)(torch.full((1,), 0.3, dtype=DOUBLE), one.x, one)
    assert float(found) == pytest.approx(float(slope), abs=0.02)


def test_it_keeps_what_the_network_has_but_translations():
    x = noise(3, 6, 3, seed=2)
    skip = GaussianSkip(loud(networks.EGNN(3, 8, 2).double()))
    assert skip.symmetries == networks.EGNN.symmetries - {"translation"} | {"automorphism"}
    check_equivariant(skip, Batch(x - x.mean(1, keepdim=True)))
    check_velocity(skip, ragged(3, 0, 1, 5))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match="scale must be positive"):
        GaussianSkip(Zero(), scale=scale)


# -- Unwhitened -----------------------------------------------------------------------------------------


def spread(shape):
    rows = noise(60, *shape, seed=3)
    return priors.FullGaussian(shape).fit(Batch(1.5 * rows + rows.roll(1, -1) + 2))


def test_one_flow_in_either_metric_with_a_mean():
    """dz = C^-½ w(m + C^½ z) dt is dx = w(x) dt: the same flow, so the same density."""
    prior, network, data = spread((4,)), Linear(4), Batch(noise(5, 4, seed=5))
    plain = Flow(network, prior, objective=Objective(metric="plain"))
    whitened = Flow(Unwhitened(network, prior), prior, objective=Objective(metric="prior"))
    found = [flow.log_prob(data, trace.Exact(), FINE).detach() for flow in (plain, whitened)]
    assert torch.allclose(*found, atol=1e-6)
    x0 = prior.sample(data, torch.Generator().manual_seed(0))
    drawn = [flow.sample(data, solver=FINE, x0=x0).x for flow in (plain, whitened)]
    assert torch.allclose(*drawn, atol=1e-6)


def test_one_flow_in_either_metric_on_ragged_chains():
    prior, network, data = priors.HarmonicChain(0.2), Linear(3), ragged(5, 1, 3)
    plain = Flow(network, prior, objective=Objective(metric="plain"))
    whitened = Flow(Unwhitened(network, prior), prior, objective=Objective(metric="prior"))
    assert torch.allclose(
        plain.log_prob(data, solver=FINE).detach(), whitened.log_prob(data, solver=FINE).detach(), atol=1e-6
    )


def test_losses_differ_by_the_metric_only():
    """|C^-½ (w − u)|² whatever the way there."""
    prior, network, data = priors.HarmonicChain(0.2), Linear(3), ragged(5, 4)
    flow = Flow(Unwhitened(network, prior), prior, objective=Objective(metric="prior"))
    loss = flow.loss(data, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    x0 = flow.pair(data, generator)
    t = flow.objective.times(len(data), generator).to(DOUBLE)
    x_t, u_t = paths.Linear()(x0, data.x, t, data)
    off = prior.whiten(prior.project(network(t, x_t, data), data) - u_t, data)
    assert torch.allclose(loss, data.total(off.square()) / prior.dims(data))


def test_symmetries_are_those_that_network_and_prior_share():
    prior = priors.HarmonicChain()
    velocity = Unwhitened(loud(networks.EGNN(3, 8, 2).double()), prior)
    assert velocity.symmetries == {"rotation", "reflection"}
    check_equivariant(velocity, ragged(4, 6, 2), lacks=("permutation",))
    check_velocity(velocity, ragged(4, 0, 2))


def test_a_prior_that_does_not_whiten_is_refused():
    with pytest.raises(ValueError, match="Ball does not whiten"):
        Unwhitened(Zero(), priors.Ball(1.0))


def test_both_together_start_as_the_prior():
    prior, data = priors.SpectralChain().fit(ragged(9, 12, 7, 30)), ragged(8, 3)
    velocity = GaussianSkip(Unwhitened(networks.Residues(16, 2, scale=3.8), prior).double())
    flow = Flow(velocity, prior, objective=Objective(metric="prior"))
    assert torch.allclose(flow.log_prob(data, solver=FINE).detach(), prior.log_prob(data.x, data), atol=1e-6)
