"""Autoregressions in time: dense normals of whole trajectories, products of innovations, fits, bases of every kind."""

import math

import pytest
import torch

from scifm.batch import Batch
from scifm.priors import (
    AR1,
    Conditional,
    EOFGaussian,
    FullGaussian,
    Gaussian,
    Masked,
    MeanFreeGaussian,
    Mixture,
    Prior,
    SpectralGaussian,
    ZonalGaussian,
    spectra,
)
from scifm.testing import check_prior

DOUBLE = torch.float64
T = 4
SPD = torch.tensor([[2.0, 1, 0.3], [1, 2, 0.5], [0.3, 0.5, 1]], dtype=DOUBLE)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def zeros(*event, n=3, **context):
    return Batch(torch.zeros(n, *event, dtype=DOUBLE), context=context)


def draws(prior, like, seed=0):
    return like.replace(prior.sample(like, torch.Generator().manual_seed(seed)))


def moments(prior, *event):
    """Mean and covariance of a base, from its colouring of unit vectors."""
    size = math.prod(event)
    like = Batch(torch.eye(size, dtype=DOUBLE).reshape(size, *event))
    mean = prior.colour(torch.zeros_like(like.x), like)
    root = (prior.colour(like.x, like) - mean).flatten(1)
    return mean[0].flatten(), root.T @ root


def falls(phi, steps=T):
    t = torch.arange(steps)
    return torch.as_tensor(phi, dtype=DOUBLE) ** (t[:, None] - t).abs()


def bases():
    x = noise(50, 2, 3, 5)
    data = Batch(x + x.roll(1, -1) + 1)
    return {
        "white": (Gaussian(1.0, 2.0), (2, 3)),
        "full": (FullGaussian((3,), 1.0, SPD), (3,)),
        "spectral": (SpectralGaussian((2, 3, 5), (False, True), spectra.PerMode()).fit(data), (2, 3, 5)),
        "zonal": (ZonalGaussian((2, 3, 5)).fit(data), (2, 3, 5)),
        "EOF": (EOFGaussian((2, 3, 5), 3).fit(data), (2, 3, 5)),
    }


@pytest.mark.parametrize("name", ["white", "full", "spectral", "zonal", "EOF"])
@pytest.mark.parametrize("phi", [0.8, -0.3, 0.0])
def test_a_trajectory_is_a_dense_normal(name, phi):
    base, event = bases()[name]
    prior, shape = AR1(base, T, phi), (T * event[0], *event[1:])
    mean, covariance = moments(base, *event)
    dense = torch.distributions.MultivariateNormal(mean.repeat(T), torch.kron(falls(phi), covariance))
    data = draws(prior, zeros(*shape, n=5))
    wanted = dense.log_prob(data.x.flatten(1))
    assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-10, atol=1e-10)
    assert torch.allclose(prior.score(data.x, data), Prior.score(prior, data.x, data), rtol=1e-9, atol=1e-9)
    assert torch.allclose(prior.colour(prior.whiten(data.x, data), data), data.x, rtol=1e-10, atol=1e-10)
    one = data.select([2])
    assert torch.allclose(prior.log_prob(one.x, one), wanted[2:3], rtol=1e-10, atol=1e-10)
    single = data.to(torch.float32)
    assert torch.allclose(prior.log_prob(single.x, single).double(), wanted, rtol=1e-4, atol=1e-3)


def test_the_density_is_the_product_of_the_densities_of_the_innovations():
    base, event = bases()["spectral"]
    φ, prior = 0.7, AR1(base, T, 0.7)
    data = draws(prior, zeros(T * 2, 3, 5))
    steps = data.x.reshape(3, T, *event)
    like = zeros(*event)
    m, s = base.mean, math.sqrt(1 - φ * φ)
    total = base.log_prob(steps[:, 0], like)
    for t in range(1, T):
        η = m + ((steps[:, t] - m) - φ * (steps[:, t - 1] - m)) / s
        total = total + base.log_prob(η, like) - 30 * math.log(s)
    assert torch.allclose(prior.log_prob(data.x, data), total, rtol=1e-11)


def test_every_step_keeps_the_law_of_the_base_with_a_memory_per_channel():
    """Channels that correlate and forget at different speeds: each step's covariance is still the base's."""
    base, φ = FullGaussian((3,), covariance=SPD), torch.tensor([0.9, 0.2, -0.5], dtype=DOUBLE)
    prior = AR1(base, T, φ)
    values, modes = torch.linalg.eigh(SPD)
    R = (modes * values.sqrt()) @ modes.T
    blocks = [[R @ torch.diag(φ ** abs(t - s)) @ R for s in range(T)] for t in range(T)]
    covariance = torch.cat([torch.cat(row, 1) for row in blocks])
    assert torch.allclose(covariance[9:, 9:], SPD, atol=1e-12)
    dense = torch.distributions.MultivariateNormal(torch.zeros(3 * T, dtype=DOUBLE), covariance)
    data = draws(prior, zeros(3 * T, n=6))
    assert torch.allclose(prior.log_prob(data.x, data), dense.log_prob(data.x), rtol=1e-10)
    check_prior(prior, zeros(3 * T), samples=1024)
    steps = draws(prior, zeros(3 * T, n=40000)).x.reshape(-1, T, 3)
    for t in range(T):
        assert (steps[:, t].T.cov() - SPD).abs().max() < 0.08


def test_fit_finds_base_and_memory():
    like = zeros(T * 2, 3, 5, n=2000)
    base, event = bases()["spectral"]
    both = AR1(SpectralGaussian(event, (False, True), spectra.PerMode()), T)
    both.fit(draws(AR1(base, T, 0.85), like))
    assert float(both.phi) == pytest.approx(0.85, abs=0.01)
    assert torch.allclose(both.base.variance, base.variance, rtol=0.3)
    each = AR1(SpectralGaussian(event, (False, True), spectra.PerMode()), T, per="channel")
    each.fit(draws(AR1(base, T, torch.tensor([0.9, -0.4])), like))
    assert torch.allclose(each.phi, torch.tensor([0.9, -0.4], dtype=DOUBLE), atol=0.02)


def test_masked_bases_count_what_is_inside_only():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    std = torch.tensor([[1.0, 2, 1], [0.5, 1, 1]], dtype=DOUBLE)
    for phi in (0.6, torch.tensor([0.6, -0.3], dtype=DOUBLE)):
        prior = AR1(Masked(mask, std), T, phi)
        data = draws(prior, zeros(T * 2, 3))
        assert prior.dims(data).tolist() == [3 * T] * 3
        φ = torch.as_tensor(phi, dtype=DOUBLE).expand(2)
        wanted = 0.0
        for c, w in mask.nonzero().tolist():
            along = data.x.reshape(3, T, 2, 3)[:, :, c, w]
            one = torch.distributions.MultivariateNormal(torch.zeros(T, dtype=DOUBLE), std[c, w] ** 2 * falls(φ[c]))
            wanted = wanted + one.log_prob(along)
        assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-10)
        check_prior(prior, zeros(T * 2, 3), samples=1024)


def test_sets_with_a_fixed_centre_may_move():
    check_prior(AR1(MeanFreeGaussian(), 3, 0.5), zeros(6, 2), samples=1024)


def test_conditions_belong_to_the_trajectory_and_reach_the_base():
    spread = torch.tensor([0.5, 1.0, 3.0], dtype=DOUBLE)
    inner = AR1(Conditional(Gaussian(), scale="spread"), T, 0.6)
    outer = Conditional(AR1(Gaussian(), T, 0.6), scale="spread")
    like = zeros(T * 2, 3, spread=spread)
    data = draws(inner, like)
    assert inner.conditional == ("spread",)
    assert torch.allclose(inner.log_prob(data.x, data), outer.log_prob(data.x, data), rtol=1e-11)
    check_prior(inner, like, samples=1024)


def test_one_step_is_the_base():
    base, event = bases()["zonal"]
    prior, data = AR1(base, 1, 0.9), Batch(noise(4, *event))
    assert torch.allclose(prior.log_prob(data.x, data), base.log_prob(data.x, data), rtol=1e-12)
    assert torch.allclose(prior.score(data.x, data), base.score(data.x, data), rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: AR1(Mixture([Gaussian(), Gaussian(1.0)]), 3), "must be a Gaussian that whitens"),
        (lambda: AR1(Gaussian(), 0), "steps of at least 1"),
        (lambda: AR1(Gaussian(), 3, per="mode"), '"all" or "channel"'),
        (lambda: AR1(Gaussian(), 3, 1.0), r"must be in \(-1, 1\)"),
        (lambda: AR1(Gaussian(), 3, torch.tensor([0.5, -2.0])), r"must be in \(-1, 1\)"),
        (lambda: AR1(Gaussian(), 3, torch.tensor([0.5, 0.2])).sample(zeros(9, 2)), "phi has 2 channels, a step has 3"),
        (lambda: AR1(Gaussian(), 3).sample(zeros(8, 2)), "with 3 steps, got"),
        (lambda: AR1(Gaussian(), 1).fit(zeros(2)), "nothing about the next"),
        (lambda: AR1(Gaussian(per="value"), 2).fit(Batch(noise(9, 1, 3).repeat(1, 2, 1))), r"must be in \(-1, 1\)"),
        (lambda: AR1(Gaussian(), 2).sample(Batch(torch.zeros(2, 1), torch.tensor([0, 0]), 1)), "ragged"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
