"""Balls and shells of independent points: densities against quadrature and closed forms, radii against their laws."""

import math

import pytest
import torch
from torch import distributions as laws

from scifm.batch import Batch
from scifm.priors import Ball, Gaussian, Prior, Shell

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n, d, dtype=DOUBLE):
    """One ragged sample of n points."""
    return Batch(torch.zeros(n, d, dtype=dtype), torch.zeros(n, dtype=torch.long), 1)


PRIORS = {
    "ball": Ball(2.0),
    "ball, soft": Ball(0.7, 1.5),
    "sharp ball": Ball(2.0, math.inf),
    "shell": Shell(3.0, 0.1),
    "wide shell": Shell(1.0, 0.5),
}


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("name", PRIORS)
def test_the_density_of_a_point_integrates_to_one(name, d):
    prior, step = PRIORS[name], 1e-3
    r = torch.arange(step / 2, 20.0, step, dtype=DOUBLE)  # along one direction, times the area of the sphere
    x = torch.zeros(len(r), 1, d, dtype=DOUBLE)
    x[:, 0, 0] = r
    area = 2 * math.pi ** (d / 2) / math.gamma(d / 2) * r ** (d - 1)
    assert (prior.log_prob(x, Batch(x)).exp() * area).sum() * step == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("name", PRIORS)
def test_radii_and_directions_follow_their_laws(name, d):
    prior, like = PRIORS[name], cloud(40_000, d)
    x = prior.sample(like, generator())
    r = x.norm(dim=1)
    if isinstance(prior, Shell):
        u = laws.Normal(0.0, 1.0).cdf((r / prior.radius).log() / prior.width)
    elif math.isinf(prior.power):
        u = (r / prior.radius) ** d
    else:
        u = torch.special.gammainc(torch.tensor(d / prior.power, dtype=DOUBLE), (r / prior.radius) ** prior.power)
    gap = (u.sort().values - (torch.arange(len(u)) + 0.5) / len(u)).abs().max()
    assert gap < 1.95 / math.sqrt(len(u))  # Kolmogorov and Smirnov, 0.1 %
    second = (x / r[:, None]).T @ (x / r[:, None]) / len(x)
    assert torch.allclose(second, torch.eye(d, dtype=DOUBLE) / d, atol=0.01)


@pytest.mark.parametrize("name", PRIORS)
def test_points_are_independent_and_sets_of_any_size_add_up(name):
    prior = PRIORS[name]
    index = torch.tensor([0, 0, 0, 2, 3, 3])
    like = Batch(torch.zeros(6, 3, dtype=DOUBLE), index, 5)
    x = prior.sample(like, generator())
    each = prior.log_prob(x[:, None], Batch(x[:, None]))
    wanted = torch.zeros(5, dtype=DOUBLE).index_add(0, index, each)
    assert torch.allclose(prior.log_prob(x, like), wanted)
    assert prior.log_prob(x, like)[[1, 4]].tolist() == [0, 0]
    assert torch.equal(prior.dims(like), torch.tensor([9.0, 0, 3, 6, 0], dtype=DOUBLE))  # the centre is free
    assert torch.allclose(prior.score(x, like), Prior.score(prior, x, like), atol=1e-12)


@pytest.mark.parametrize("name", PRIORS)
def test_turning_and_renumbering_change_nothing(name):
    prior, like = PRIORS[name], cloud(7, 3)
    assert prior.symmetries == {"permutation", "rotation", "reflection"}
    x = prior.sample(like, generator())
    q = torch.linalg.qr(torch.randn(3, 3, generator=generator(), dtype=DOUBLE))[0]
    for same in (x @ q, -x, x.flip(0)):
        assert torch.allclose(prior.log_prob(same, like), prior.log_prob(x, like))


def test_a_ball_of_power_two_is_a_gaussian_and_a_high_power_is_nearly_sharp():
    like = cloud(5, 3)
    x = Ball(2.0, math.inf).sample(like, generator())
    assert torch.allclose(Ball(2.0, 2.0).log_prob(x, like), Gaussian(std=math.sqrt(2)).log_prob(x, like))
    assert torch.allclose(Ball(2.0, 1e4).log_prob(0.9 * x, like), Ball(2.0, math.inf).log_prob(x, like), atol=0.01)


def test_nothing_is_outside_a_sharp_ball_or_at_the_centre_of_a_shell():
    like = cloud(2, 3)
    x = torch.tensor([[0.0, 0, 0], [0, 2.1, 0]], dtype=DOUBLE)
    assert Ball(2.0, math.inf).log_prob(x, like).tolist() == [-math.inf]
    assert Shell(2.0).log_prob(x, like).tolist() == [-math.inf]
    assert Ball(2.0).log_prob(x, like).isfinite().all()
    for prior in PRIORS.values():
        assert prior.score(x, like).isfinite().all()


@pytest.mark.parametrize("name", PRIORS)
def test_fits_are_the_most_likely(name):
    truth, like = PRIORS[name], cloud(5000, 3)
    data = like.replace(truth.sample(like, generator()))
    fitted = Shell(9.0, 0.9) if isinstance(truth, Shell) else Ball(9.0, truth.power)
    fitted.fit(data)
    for n, value in fitted.named_buffers():
        assert torch.allclose(value, getattr(truth, n), rtol=0.05)
        best = fitted.log_prob(data.x, data)
        for change in (0.99, 1.01):
            setattr(fitted, n, value * change)
            assert (fitted.log_prob(data.x, data) < best).all()
        setattr(fitted, n, value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Ball(0.0), "radius must be one positive number"),
        (lambda: Ball(1.0, 1.0), "power must be more than 1"),
        (lambda: Ball(1.0, math.nan), "power must be more than 1"),
        (lambda: Shell(1.0, -0.1), "width must be one positive number"),
        (lambda: Shell(math.inf), "radius must be one positive number"),
        (lambda: Ball().sample(Batch(torch.zeros(2, 3))), r"a set of n points as \(n, 1\)"),
        (lambda: Ball().fit(cloud(4, 3)), "away from the origin"),
        (lambda: Shell().fit(cloud(4, 3).replace(torch.ones(4, 3))), "distances that differ"),
        (lambda: Ball().fit(cloud(4, 3).replace(torch.full((4, 3), math.nan))), "finite points"),
    ],
)
def test_mistakes_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("power", [32.0, 64.0, 1000.0])
def test_balls_with_a_hard_rim_are_filled_to_their_centre(power):
    like = cloud(40_000, 3, torch.float32)
    r = Ball(1.0, power).sample(like, generator()).norm(dim=-1).double()
    inner = (r[:, None] < torch.tensor([0.1, 0.2, 0.25, 0.3, 0.5]).double()).double().mean(0)
    at = torch.tensor([0.1, 0.2, 0.25, 0.3, 0.5]).double()
    wanted = at**3 / math.gamma(1 + 3 / power)  # the density is flat there
    assert ((inner - wanted).abs() < 5 * (wanted / 40_000).sqrt()).all()


@pytest.mark.parametrize("prior", [Ball(), Shell()])
def test_what_is_not_a_number_is_not_taken_for_a_point_of_density_zero(prior):
    x = torch.ones(2, 5, 3)
    x[0, 2, 1] = math.nan
    found = prior.log_prob(x, Batch(x))
    assert found[0].isnan() and found[1].isfinite()
