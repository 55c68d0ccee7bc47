"""Reported likelihoods against known densities: the field in closed form, every trace, and whether errors mean it."""

import math

import pytest
import torch

from scifm import Batch, Flow, Objective, Solver
from scifm.likelihood import bits_per_dim
from scifm.paths import Linear
from scifm.testing.known import KnownMixture
from scifm.trace import Colours, Exact, Hutchinson, HutchPlusPlus

LAWS = {"plane": KnownMixture.plane(), "coloured": KnownMixture.coloured((1, 4, 4), 3)}
RANDOM = [Hutchinson(2), Hutchinson(2, "gaussian"), HutchPlusPlus(6), Colours(1, signs=2)]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def flow_of(law):
    return Flow(law, law.prior, objective=Objective(metric="plain"))


@pytest.mark.parametrize("name", LAWS)
def test_the_velocity_is_the_conditional_mean_of_the_path(name):
    """E[(u − v(t, x_t)) f(x_t)] vanishes for any f: here f = 1 and f = x_t."""
    law = LAWS[name]
    like = Batch(law.sample(60_000, rng()))
    x0 = law.prior.sample(like, rng(1))
    for moment in (0.2, 0.7):
        t = torch.full((len(like),), moment, dtype=torch.float64)
        x_t, u_t = Linear()(x0, like.x, t, like)
        gap = (u_t - law(t, x_t, like)).flatten(1)
        for weight in (torch.ones_like(gap), x_t.flatten(1), x_t.flatten(1).roll(1, 1)):
            product = gap * weight
            assert (product.mean(0).abs() < 5 * product.std(0) / len(like) ** 0.5).all()


@pytest.mark.parametrize("name", LAWS)
def test_its_flow_has_the_mixtures_own_density(name):
    law = LAWS[name]
    batch = Batch(law.sample(20, rng()))
    for solver in (Solver(rtol=1e-8, atol=1e-8), Solver("rk4", steps=200)):
        found = flow_of(law).log_prob(batch, Exact(), solver)
        assert torch.allclose(found, law.log_prob(batch.x), atol=1e-5)


@pytest.mark.parametrize("trace", RANDOM, ids=str)
def test_reported_errors_cover_the_truth(trace):
    """Of 40 sets: the law's entropy within two standard errors, the samples' own value within two of the probes'."""
    law = LAWS["coloured"]
    truth = law.bits(400_000, rng(100))
    flow, covered, exact = flow_of(law), 0, 0
    for seed in range(40):
        batch = Batch(law.sample(10, rng(seed)))
        result = bits_per_dim(flow, batch, trace=trace, solver=Solver("rk4", steps=8), check=0, generator=rng(seed))
        own = -float(law.log_prob(batch.x).mean()) / (16 * math.log(2))
        covered += abs(result.value - truth) < 2 * result.stderr
        exact += abs(result.value - own) < 2 * result.probe_stderr + 2e-3
    assert covered >= 33 and exact >= 33


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="event of d numbers"):
        KnownMixture(torch.zeros(2, 3), torch.ones(2, 3), torch.ones(3), torch.eye(3), (2, 2))
