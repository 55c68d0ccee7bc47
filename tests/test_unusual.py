"""Scores of single samples, and how unusual they are: closed forms, and the conformal law."""

from __future__ import annotations

import math

import pytest
import torch

from scifm import Batch, Flow, Solver, networks, priors, trace
from scifm.data.transforms import Affine
from scifm.likelihood import bits_per_dim
from scifm.parts import Parts
from scifm.unusual import densities, p_values

D = 5
TIGHT = Solver(rtol=1e-8, atol=1e-8)


class Nothing(torch.nn.Module):
    """An untrained network: zero."""

    symmetries = frozenset()

    def forward(self, t, x, batch):
        return torch.zeros_like(x)


class Bend(torch.nn.Module):
    """A network that has learnt something, which counts its calls."""

    symmetries = frozenset()

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, t, x, batch):
        self.calls += 1
        return 0.5 * torch.tanh(x + 0.5 * x.roll(1, -1))


def gaussian(dtype=torch.float64):
    """A flow that is N(m, C) in the user's units, and that law."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(D, D, generator=g, dtype=dtype)
    prior = priors.FullGaussian((D,)).fit(Batch(torch.randn(500, D, generator=g, dtype=dtype) @ mix))
    flow = Flow(networks.GaussianSkip(Nothing()), prior, transform=Affine(shift=-280.0, scale=0.25))
    m = prior.colour(torch.zeros(1, D, dtype=dtype), Batch(torch.zeros(1, D, dtype=dtype)))
    L = (prior.colour(torch.eye(D, dtype=dtype), Batch(torch.zeros(D, D, dtype=dtype))) - m).T
    law = torch.distributions.MultivariateNormal(m[0] / 0.25 + 280, L @ L.T / 0.25**2)
    return flow, law


# -- densities -------------------------------------------------------------------------------------------


def test_an_untrained_flow_has_the_density_of_its_gaussian():
    flow, law = gaussian()
    x = law.sample((7,))
    found = densities(flow, Batch(x), solver=TIGHT)
    torch.testing.assert_close(found.log_prob, law.log_prob(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.prior, law.log_prob(x), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.bits_per_dim, -law.log_prob(x) / (D * math.log(2)), atol=1e-6, rtol=0)
    assert found.trace == "exact trace" and found.nfe > 0


@pytest.mark.parametrize("delta", [None, 0.5])
def test_densities_are_those_of_bits_per_dim(delta):
    flow = Flow(Bend(), priors.Gaussian(), transform=Affine(scale=0.5))
    x = torch.randn(6, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = Batch(x if delta is None else (x / delta).round() * delta)
    how = {"delta": delta, "draws": 3, "trace": trace.Hutchinson(2)}
    found = densities(flow, batch, seed=4, **how)
    theirs = bits_per_dim(flow, batch, generator=torch.Generator().manual_seed(4), **how)
    assert tuple(found.bits_per_dim.tolist()) == theirs.per_sample and found.nfe == theirs.nfe
    volume = 0.0 if delta is None else D * math.log(delta)  # of a density, what a bin holds is δ^D times as much
    torch.testing.assert_close(found.log_prob + volume, -found.bits_per_dim * D * math.log(2))


def test_packed_values_have_the_mean_density_of_their_bin():
    flow, law = gaussian()
    delta, x = 2.0, (law.sample((4,)) / 2.0).round() * 2.0
    few = densities(flow, Batch(x), delta=delta, draws=3, solver=TIGHT, chunk=3)
    torch.testing.assert_close(few.log_prob, few.prior, atol=1e-6, rtol=0)  # the same noise, whatever the chunk
    many = densities(flow, Batch(x), delta=delta, draws=200, solver=Solver("heun", steps=2)).prior
    u = torch.rand(100_000, 1, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64) - 0.5
    logs = law.log_prob(x + delta * u)
    mean = logs.logsumexp(0) - math.log(len(logs))
    error = (logs - mean).exp().std(0) / math.sqrt(200)
    assert ((many - mean).abs() < 5 * error + 0.01).all()


def test_a_sample_s_density_does_not_depend_on_its_batch_mates_nor_on_chunks():
    flow = Flow(Bend(), priors.Gaussian())
    batch = Batch(torch.randn(6, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    together = densities(flow, batch)
    pieces = densities(flow, batch, chunk=4)
    alone = torch.cat([densities(flow, batch.select([k])).log_prob for k in range(6)])
    torch.testing.assert_close(together.log_prob, alone, atol=1e-9, rtol=0)
    torch.testing.assert_close(together.log_prob, pieces.log_prob, atol=1e-9, rtol=0)
    torch.testing.assert_close(together.prior, pieces.prior, atol=1e-9, rtol=0)


def test_on_part_of_a_grid_the_values_inside_count():
    mask = torch.tensor([[True, True, False], [True, False, True]])[None]
    flow = Flow(networks.GaussianSkip(Nothing()), priors.Masked(mask))
    x = torch.randn(3, 1, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * mask
    found = densities(flow, Batch(x), solver=TIGHT)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x)[:, mask].sum(1)
    torch.testing.assert_close(found.log_prob, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.bits_per_dim, -expected / (4 * math.log(2)), atol=1e-6, rtol=0)


def test_single_precision():
    flow, law = gaussian(torch.float32)
    x = law.sample((3,))
    found = densities(flow, Batch(x))
    assert found.log_prob.dtype == found.prior.dtype == torch.float64
    torch.testing.assert_close(found.log_prob, law.log_prob(x).double(), atol=2e-3, rtol=0)


def test_finished_chunks_are_not_scored_again(tmp_path):
    flow = Flow(Bend(), priors.Gaussian())
    batch = Batch(torch.randn(6, D, generator=torch.Generator().manual_seed(1)))
    straight = densities(flow, batch, chunk=2)
    calls, seen = flow.velocity.calls, []

    def stop(samples):
        seen.append(samples)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with Parts.of(tmp_path / "s.nc", {}) as parts:
        with pytest.raises(KeyboardInterrupt):
            densities(flow, batch, chunk=2, keep=parts, first=10, progress=stop)
        assert parts.done == 4 and (parts.folder / "0000000012-0000000014.safetensors").exists()
        flow.velocity.calls = 0
        again = densities(flow, batch, chunk=2, keep=parts, first=10)
        assert 0 < flow.velocity.calls < calls
        flow.velocity.calls = 0
        densities(flow, batch, chunk=2, keep=parts, first=10)
        assert flow.velocity.calls == 0
        parts.remove()
    for name in ("log_prob", "prior", "bits_per_dim"):
        assert torch.equal(getattr(again, name), getattr(straight, name))
    assert again.nfe == straight.nfe


def test_gaps_are_refused():
    with pytest.raises(ValueError, match="sample 1 holds NaN"):
        densities(Flow(Bend(), priors.Gaussian()), Batch(torch.tensor([[0.0, 1.0], [0.0, math.nan]])))


# -- p-values --------------------------------------------------------------------------------------------


def test_p_values_by_their_definition():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 9, (40,), generator=g).double(), torch.randint(0, 9, (25,), generator=g).double()
    expected = [(1 + sum(float(b) <= float(a) for b in y)) / 26 for a in x]  # ties count
    assert p_values(x, y).tolist() == expected


@pytest.mark.parametrize("n", [1, 4, 19])
def test_p_values_of_exchangeable_scores_are_uniform(n):
    """P(p = k / (n + 1)) = 1 / (n + 1) for k = 1 ... n + 1, whatever the law of the scores."""
    g, turns = torch.Generator().manual_seed(n), 4000
    scores = torch.randn(turns, n + 1, generator=g, dtype=torch.float64).exp()
    p = torch.cat([p_values(s[:1], s[1:]) for s in scores])
    counts = torch.bincount((p * (n + 1)).round().long(), minlength=n + 2)
    assert counts[0] == 0
    share, expected = counts[1:] / turns, 1 / (n + 1)
    assert ((share - expected).abs() < 5 * math.sqrt(expected / turns)).all()


def test_with_ties_they_are_no_smaller_than_a_level_more_often_than_that():
    g, n = torch.Generator().manual_seed(0), 9
    scores = torch.randint(0, 3, (4000, n + 1), generator=g).double()
    p = torch.cat([p_values(s[:1], s[1:]) for s in scores])
    for level in (0.1, 0.2, 0.5, 0.9):
        assert float((p <= level).double().mean()) < level + 0.03


def test_at_the_ends():
    assert p_values(torch.tensor([-5.0, 5.0]), torch.tensor([])).tolist() == [1.0, 1.0]  # beside nothing all is usual
    assert p_values(torch.tensor([]), torch.tensor([0.0])).shape == (0,)
    assert p_values(torch.tensor([-math.inf]), torch.zeros(99)).tolist() == [0.01]


def test_what_does_not_belong_is_found_and_more_of_the_same_is_not():
    flow, law = gaussian()
    usual, other = law.sample((200,)), law.sample((50,)) + 60.0
    beside = densities(flow, Batch(usual[:100])).log_prob
    p_usual = p_values(densities(flow, Batch(usual[100:])).log_prob, beside)
    p_other = p_values(densities(flow, Batch(other)).log_prob, beside)
    assert float(p_other.max()) < 0.1 and 0.3 < float(p_usual.mean()) < 0.7
