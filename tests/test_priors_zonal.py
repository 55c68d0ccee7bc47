"""Zonally stationary Gaussians: dense covariances in real space, turned fields, poles, and what composes with them."""

import copy
import math

import pytest
import torch

from scifm import Flow
from scifm.baselines import baselines
from scifm.batch import Batch
from scifm.data.transforms import Standardise
from scifm.gaussians import candidates
from scifm.networks import MLP
from scifm.priors import Conditional, Prior, SpectralGaussian, ZonalGaussian, spectra
from scifm.testing import check_prior

DOUBLE = torch.float64
SHAPES = pytest.mark.parametrize("shape", [(1, 3, 8), (1, 4, 7), (2, 3, 6), (2, 2, 2, 5), (4, 9)])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def fields(shape, n=60, seed=0):
    """Rows and longitudes correlate, rows differ in scale and are shifted against each other."""
    x = noise(n, *shape, seed=seed)
    rows = x.flatten(1, -2)
    rows = rows + 0.9 * rows.roll(1, -1) + 0.6 * rows.roll((1, 2), (1, 2))
    scale = torch.linspace(0.5, 2, rows.shape[1], dtype=DOUBLE)[:, None]
    return Batch((scale * rows + 3 * scale).reshape(x.shape))


def stationary(x, shrink, nugget=0.0):
    """Mean and covariance in real space: products averaged over fields and turns, rows shrunk towards independence."""
    rows = x.flatten(1, -2)
    mean = rows.mean((0, 2), keepdim=True)
    y, W = rows - mean, rows.shape[-1]
    n, D = y.shape[0], y.shape[1]
    lag = torch.stack([torch.einsum("bij,bkj->ik", y, y.roll(d, -1)) / (n * W) for d in range(W)])  # y_ij y_k,j−d
    weight = (1 - shrink) + shrink * torch.eye(D, dtype=DOUBLE)
    j = torch.arange(W)
    covariance = (weight * lag)[(j[:, None] - j) % W].permute(2, 0, 3, 1).reshape(D * W, D * W)
    white = nugget * float(lag[0].diagonal().mean())
    return mean[0].expand(D, W).flatten(), covariance + white * torch.eye(D * W, dtype=DOUBLE)


@SHAPES
@pytest.mark.parametrize("shrink", [0.05, 1.0])
def test_it_is_a_dense_normal_whose_covariance_is_stationary_along_longitude(shape, shrink):
    data = fields(shape)
    prior = ZonalGaussian(shape, shrink).fit(data)
    mean, covariance = stationary(data.x, shrink)
    dense = torch.distributions.MultivariateNormal(mean, covariance)
    wanted = dense.log_prob(data.x.flatten(1))
    assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-10, atol=1e-10)
    assert torch.allclose(prior.score(data.x, data), Prior.score(prior, data.x, data), rtol=1e-9, atol=1e-9)
    z = prior.whiten(data.x, data)
    assert torch.allclose(prior.colour(z, data), data.x, rtol=1e-10, atol=1e-10)
    one = data.select([3])
    assert torch.allclose(prior.log_prob(one.x, one), wanted[3:4], rtol=1e-10, atol=1e-10)
    single = data.to(torch.float32)
    assert torch.allclose(prior.log_prob(single.x, single).double(), wanted, rtol=1e-4, atol=1e-3)
    assert prior.dims(data).tolist() == [math.prod(shape)] * len(data)


@SHAPES
def test_whitening_is_the_symmetric_root(shape):
    prior = ZonalGaussian(shape, 0.1).fit(fields(shape))
    size = math.prod(shape)
    like = Batch(torch.eye(size, dtype=DOUBLE).reshape(size, *shape))
    zero = prior.colour(torch.zeros_like(like.x), like)
    root = (prior.colour(like.x, like) - zero).flatten(1)
    assert torch.allclose(root, root.T, atol=1e-12) and bool((torch.linalg.eigvalsh(root) > 0).all())
    assert torch.allclose(root @ root, stationary(fields(shape).x, 0.1)[1], rtol=1e-10, atol=1e-10)


@SHAPES
def test_turned_fields_are_as_likely_and_whiten_to_turned_fields(shape):
    data = fields(shape)
    prior = ZonalGaussian(shape).fit(data)
    z = prior.whiten(data.x, data)
    for shift in (1, shape[-1] - 2):
        turned = data.x.roll(shift, -1)
        assert torch.allclose(prior.log_prob(turned, data), prior.log_prob(data.x, data), rtol=1e-11, atol=1e-11)
        assert torch.allclose(prior.whiten(turned, data), z.roll(shift, -1), atol=1e-10)
    same = ZonalGaussian(shape).fit(data.replace(data.x.roll(1, -1)))
    assert torch.allclose(same.variance, prior.variance, rtol=1e-9)


def test_it_passes_the_public_check_and_its_draws_whiten():
    shape = (1, 3, 5)
    prior = ZonalGaussian(shape).fit(fields(shape))
    check_prior(prior, Batch(torch.zeros(3, *shape, dtype=DOUBLE)), samples=2048)
    like = Batch(torch.zeros(20000, *shape, dtype=DOUBLE))
    x = prior.sample(like, torch.Generator().manual_seed(0))
    mean, covariance = stationary(fields(shape).x, 0.02)
    L = torch.linalg.cholesky(covariance)
    z = torch.linalg.solve_triangular(L, (x.flatten(1) - mean).T, upper=False)
    assert z.mean(1).abs().max() < 0.04 and (z.cov() - torch.eye(15, dtype=DOUBLE)).abs().max() < 0.05


def test_more_data_find_the_law_that_made_them():
    shape = (2, 3, 8)
    truth = ZonalGaussian(shape).fit(fields(shape))
    like = Batch(torch.zeros(3000, *shape, dtype=DOUBLE))
    data = like.replace(truth.sample(like, torch.Generator().manual_seed(0)))
    test = like.replace(truth.sample(like, torch.Generator().manual_seed(1)))
    fitted = ZonalGaussian(shape, 1e-6).fit(data)
    gap = float((truth.log_prob(test.x, test) - fitted.log_prob(test.x, test)).mean()) / 48
    assert -0.001 < gap < 0.01, gap  # nats per value


def test_fewer_fields_than_rows_are_enough():
    shape = (1, 12, 6)
    prior = ZonalGaussian(shape, 0.1).fit(fields(shape, n=4))
    x = prior.sample(Batch(torch.zeros(1, *shape)), torch.Generator().manual_seed(0))
    assert x.shape == (1, *shape) and bool(x.isfinite().all())


def test_a_pole_needs_a_nugget():
    data = fields((1, 4, 6))
    pole = data.x.clone()
    pole[..., 0, :] = pole[..., 0, :1]  # all longitudes are one point
    with pytest.raises(ValueError, match="needs a nugget"):
        ZonalGaussian((1, 4, 6)).fit(data.replace(pole))
    prior = ZonalGaussian((1, 4, 6), 0.05, nugget=1e-4).fit(data.replace(pole))
    dense = torch.distributions.MultivariateNormal(*stationary(pole, 0.05, 1e-4))
    assert torch.allclose(prior.log_prob(pole, data), dense.log_prob(pole.flatten(1)), rtol=1e-10)
    draw = prior.sample(data, torch.Generator().manual_seed(0))
    assert draw[..., 0, :].std(-1).max() < 0.1 * draw[..., 1, :].std(-1).min()


def test_the_separable_spectrum_is_a_special_case():
    """One independent row of a ring is the spectral Gaussian of it."""
    data = fields((1, 1, 7))
    ring = SpectralGaussian((1, 1, 7), (False, True), spectra.PerMode(1e-12), mean=data.x.mean()).fit(data, mean=False)
    prior = ZonalGaussian((1, 1, 7)).fit(data)
    assert torch.allclose(prior.log_prob(data.x, data), ring.log_prob(data.x, data), rtol=1e-9)


def test_a_map_of_standard_deviations_is_a_transform():
    """x = m + σ z, σ per point and z zonally stationary: Standardise(per="point") in front of it, nothing new."""
    shape = (1, 3, 6)
    data = fields(shape)
    scale = Standardise(per="point").fit(data)
    model = scale(data)
    prior = ZonalGaussian(shape, 0.1).fit(model)
    mean, covariance = stationary(model.x, 0.1)
    σ = scale.std.flatten()
    dense = torch.distributions.MultivariateNormal(scale.mean.flatten() + σ * mean, σ[:, None] * covariance * σ)
    found = prior.log_prob(model.x, model) + scale.log_det(data)
    assert torch.allclose(found, dense.log_prob(data.x.flatten(1)), rtol=1e-10, atol=1e-10)


def test_seasons_move_and_scale_it():
    """Mean and scale of the day of the year: each sample has a normal of its own."""
    shape = (1, 3, 6)
    time = torch.tensor([15.0, 105.0, 196.0], dtype=DOUBLE)

    def season(batch):
        return torch.cos(2 * math.pi * batch.context["time"] / 365.2425).reshape(-1, 1, 1, 1)

    base = ZonalGaussian(shape, 0.1).fit(fields(shape))
    prior = Conditional(base, lambda b: 5 * season(b), lambda b: 1.5 + season(b), names=["time"])
    like = Batch(torch.zeros(3, *shape, dtype=DOUBLE), context={"time": time})
    check_prior(prior, like, samples=1024)
    x = prior.sample(like, torch.Generator().manual_seed(0))
    mean, covariance = stationary(fields(shape).x, 0.1)
    for b, s in enumerate(season(like).flatten().tolist()):
        dense = torch.distributions.MultivariateNormal(5 * s + (1.5 + s) * mean, (1.5 + s) ** 2 * covariance)
        assert torch.allclose(prior.log_prob(x, like)[b], dense.log_prob(x[b].flatten()), rtol=1e-10)


def test_the_ladder_of_baselines_knows_it():
    shape = (1, 4, 8)
    train, test = fields(shape, 100), fields(shape, 40, seed=1)
    closed = SpectralGaussian(shape, (False, True), spectra.PerMode()).fit(train)
    walls = SpectralGaussian(shape, False, spectra.PerMode()).fit(train)
    assert "zonally stationary" in candidates(closed, train, 3000)
    assert "zonally stationary" not in candidates(walls, train, 3000)
    zonal = ZonalGaussian(shape).fit(train)
    assert candidates(zonal, train, 3000)["spectral"]().basis.periodic == (False, True)
    ladder = baselines(Flow(MLP(32), zonal), train, test)
    assert "best Gaussian (zonally stationary)" in ladder


def test_a_checkpoint_loads_into_a_fresh_one_and_casting_keeps_the_phases():
    data = fields((1, 3, 8))
    prior = ZonalGaussian((1, 3, 8)).fit(data)
    fresh = ZonalGaussian((1, 3, 8))
    fresh.load_state_dict(prior.state_dict())
    assert torch.equal(fresh.log_prob(data.x, data), prior.log_prob(data.x, data))
    cast = copy.deepcopy(prior).to(torch.float32)
    assert torch.allclose(cast.log_prob(data.x, data), prior.log_prob(data.x, data), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ZonalGaussian((8,)), "at least 2 longitudes"),
        (lambda: ZonalGaussian((1, 3, 1)), "at least 2 longitudes"),
        (lambda: ZonalGaussian((1, 3, 4), 0.0), r"shrink must be in \(0, 1\]"),
        (lambda: ZonalGaussian((1, 3, 4), mean=torch.zeros(1, 3, 4)), "same at all longitudes"),
        (lambda: ZonalGaussian((1, 3, 4)).sample(Batch(torch.zeros(2, 1, 3, 4))), "call .fit"),
        (lambda: ZonalGaussian((1, 3, 4)).fit(fields((1, 4, 3))), "made for samples of shape"),
        (lambda: ZonalGaussian((1, 3, 4)).fit(fields((1, 3, 4), 1)), "at least 2 finite fields, got 1"),
        (lambda: ZonalGaussian((1, 3, 4)).fit(Batch(torch.full((9, 1, 3, 4), math.nan))), "got 9 with NaN"),
        (lambda: ZonalGaussian((1, 3, 4)).fit(Batch(torch.ones(9, 1, 3, 4))), "no variance"),
        (lambda: ZonalGaussian((1, 2)).sample(Batch(torch.zeros(2, 1), torch.tensor([0, 0]), 1)), "ragged"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
