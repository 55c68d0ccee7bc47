"""EOFs on a spectral residual, against dense normals, Woodbury's formula and the data's own variances."""

import math

import pytest
import torch

from scifm.baselines import baselines
from scifm.batch import Batch
from scifm.flow import Flow
from scifm.gaussians import candidates
from scifm.networks import MLP
from scifm.priors import EOFGaussian, Gaussian, Prior, SpectralGaussian, spectra
from scifm.priors.spectral import dct_matrix

DOUBLE = torch.float64
SHAPES = [(1, 4, 5), (2, 3, 4), (1, 9), (1, 2, 3, 3)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def fields(shape, n=80, seed=0):
    """Two strong patterns on correlated noise, and a mean that is large beside all of it."""
    x = noise(n, *shape, seed=seed)
    patterns = noise(2, *shape, seed=100)
    amplitudes = noise(n, 2, seed=seed + 1) * torch.tensor([3.0, 2.0], dtype=DOUBLE)
    return Batch(270 + x + 0.7 * x.roll(1, -1) + torch.einsum("nk,k...->n...", amplitudes, patterns))


def matrices(prior, shape):
    """L Λ Lᵀ + R as it is defined, and the model's root G, from the parts of a fitted prior."""
    size = math.prod(shape)
    unit = Batch(torch.eye(size, dtype=DOUBLE).reshape(size, *shape))
    mean = prior.residual.mean.flatten()
    half = (prior.residual.colour(unit.x, unit)).reshape(size, size) - mean  # R^½, symmetric
    low = half @ (prior.modes * prior.gain) @ prior.modes.T @ half
    root = prior.colour(unit.x, unit).reshape(size, size) - mean  # rows are images of unit vectors
    return low + half @ half, root.T


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("spectrum", [spectra.White(), spectra.Isotropic(4), spectra.PerMode(0.5)])
@pytest.mark.parametrize("rank", [1, 4])
def test_it_is_the_dense_normal(shape, periodic, spectrum, rank):
    data = fields(shape)
    prior = EOFGaussian(shape, rank, periodic, spectrum).fit(data)
    covariance, root = matrices(prior, shape)
    assert torch.allclose(root @ root.T, covariance, rtol=1e-10, atol=1e-10 * float(covariance.max()))
    dense = torch.distributions.MultivariateNormal(prior.residual.mean.flatten(), covariance)
    wanted = dense.log_prob(data.x.flatten(1))
    assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-10, atol=1e-10)
    assert torch.allclose(prior.score(data.x, data), Prior.score(prior, data.x, data), rtol=1e-9, atol=1e-9)
    white = prior.whiten(data.x, data)
    assert torch.allclose(prior.colour(white, data), data.x, rtol=1e-12, atol=1e-10)
    few = data.select([0, 1]).to(torch.float32)
    assert torch.allclose(prior.log_prob(few.x, few).double(), wanted[:2], rtol=1e-5, atol=2e-3)  # x itself is rounded


def test_single_precision_of_centred_fields_is_good_to_five_digits():
    data = fields((1, 4, 5))
    data = data.replace(data.x - 270)
    prior = EOFGaussian((1, 4, 5), 3).fit(data)
    single = data.to(torch.float32)
    wanted = prior.log_prob(single.x.double(), data)
    assert torch.allclose(prior.log_prob(single.x, single).double(), wanted, rtol=1e-5, atol=1e-5)


def test_it_is_woodbury_in_spectral_coordinates():
    """The formula of the textbook, coefficient by coefficient, which shares no code with the prior."""
    shape = (1, 4, 5)
    data = fields(shape)
    prior = EOFGaussian(shape, 3, False, spectra.Isotropic(4)).fit(data)
    F = torch.kron(dct_matrix(4), dct_matrix(5))
    s = prior.residual.variance.flatten()
    # L √Λ = R^½ V √d, in DCT coordinates
    A = s.sqrt()[:, None] * (F @ prior.modes) * prior.gain.sqrt()
    u = (data.x - prior.residual.mean).flatten(1) @ F.T
    M = torch.eye(3, dtype=DOUBLE) + A.T @ (A / s[:, None])
    b = (u / s) @ A
    quadratic = (u.square() / s).sum(1) - (b * torch.linalg.solve(M, b.T).T).sum(1)
    wanted = -0.5 * (quadratic + s.log().sum() + torch.logdet(M) + 20 * math.log(2 * math.pi))
    assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("periodic", [True, False])
def test_variance_along_an_eof_is_that_of_the_data_and_is_not_counted_twice(periodic):
    shape = (1, 5, 6)
    data = fields(shape, n=200)
    prior = EOFGaussian(shape, 2, periodic, spectra.Isotropic(6)).fit(data)
    covariance, _ = matrices(prior, shape)
    y = (data.x - data.x.mean(0)).flatten(1)
    values, vectors = torch.linalg.eigh(y.T @ y / len(y))
    modes, wanted = vectors[:, -2:], values[-2:]
    assert torch.allclose((modes.T @ covariance @ modes).diagonal(), wanted, rtol=1e-9)
    assert covariance.trace() < values.sum() * (1 + 1e-9)
    residual = SpectralGaussian(shape, periodic, spectra.Isotropic(6))
    residual.fit(Batch((y - y @ modes @ modes.T).reshape(data.x.shape)))
    assert torch.allclose(prior.residual.variance, residual.variance, rtol=1e-9)


def test_an_eof_weaker_than_its_residual_is_clipped_and_harmless():
    data = Batch(noise(300, 1, 4, 4))  # white: no EOF stands out, and the last of many have less than their share
    prior = EOFGaussian((1, 4, 4), 12, False, spectra.White()).fit(data)
    assert (prior.gain >= 0).all() and torch.allclose(prior.modes.T @ prior.modes, torch.eye(12, dtype=DOUBLE))
    covariance, _ = matrices(prior, (1, 4, 4))
    assert torch.linalg.eigvalsh(covariance)[0] > 0


def test_whitened_data_of_the_law_are_standard_normal():
    shape = (1, 4, 4)
    prior = EOFGaussian(shape, 3).fit(fields(shape, 400))
    like = Batch(torch.zeros(40000, *shape, dtype=DOUBLE))
    covariance, _ = matrices(prior, shape)
    x = torch.distributions.MultivariateNormal(prior.residual.mean.flatten(), covariance)
    torch.manual_seed(0)
    z = prior.whiten(x.sample((40000,)).reshape(-1, *shape), like).flatten(1)
    assert z.mean(0).abs().max() < 0.03
    assert (z.T.cov() - torch.eye(16, dtype=DOUBLE)).abs().max() < 0.04


def test_more_data_find_the_law_that_made_them():
    shape = (1, 6, 6)
    truth = EOFGaussian(shape, 2, False, spectra.Isotropic(6)).fit(fields(shape, 200))
    like = Batch(torch.zeros(4000, *shape, dtype=DOUBLE))
    data = like.replace(truth.sample(like, torch.Generator().manual_seed(0)))
    test = like.replace(truth.sample(like, torch.Generator().manual_seed(1)))
    fitted = EOFGaussian(shape, 2, False, spectra.Isotropic(6)).fit(data)
    gap = float((truth.log_prob(test.x, test) - fitted.log_prob(test.x, test)).mean()) / 36
    assert -0.001 < gap < 0.01, gap  # nats per value


def test_a_spectral_residual_beats_a_white_one_and_eofs_beat_none():
    shape = (1, 8, 8)
    base = SpectralGaussian(shape, False, spectra.Matern(length=3.0, nugget=0.01))
    like = Batch(torch.zeros(300, *shape, dtype=DOUBLE))
    patterns = noise(2, *shape, seed=5)

    def data(seed):
        g = torch.Generator().manual_seed(seed)
        strong = 3 * torch.randn(300, 2, generator=g, dtype=DOUBLE)
        return like.replace(base.sample(like, g) + torch.einsum("nk,k...->n...", strong, patterns))

    train, test = data(0), data(1)

    def held_out(prior):
        return float(prior.fit(train).log_prob(test.x, test).mean()) / 64

    eof = held_out(EOFGaussian(shape, 2, False, spectra.Isotropic()))
    assert eof > held_out(EOFGaussian(shape, 2, False, spectra.White())) + 0.1
    assert eof > held_out(SpectralGaussian(shape, False, spectra.Isotropic())) + 0.1
    assert eof > held_out(Gaussian(per="value")) + 0.1


def test_more_values_than_fields_and_more_fields_than_values_agree_with_the_singular_vectors():
    for n in (12, 60):
        data = fields((1, 4, 6), n)
        prior = EOFGaussian((1, 4, 6), 2).fit(data)
        y = (data.x - data.x.mean(0)).flatten(1)
        vectors = torch.linalg.svd(y, full_matrices=False)[2][:2].T
        half = prior._power(vectors.T, -0.5).T  # what stands out, stands out along R^-½ L
        inside = prior.modes @ (prior.modes.T @ half)
        assert torch.allclose(inside, half, atol=1e-9 * float(half.abs().max()))


def test_channels_share_their_eofs():
    common = noise(200, 1, 1, 1)
    data = Batch(0.1 * noise(200, 2, 4, 4, seed=1) + torch.cat([common, -common], 1))
    prior = EOFGaussian((2, 4, 4), 1).fit(data)
    draw = prior.sample(Batch(torch.zeros(2000, 2, 4, 4, dtype=DOUBLE)), torch.Generator().manual_seed(0))
    first, second = draw.mean((2, 3)).unbind(1)
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) < -0.98


def test_fitting_is_the_same_twice_and_draws_nothing():
    before = torch.get_rng_state()
    a, b = (EOFGaussian((1, 4, 5), 3).fit(fields((1, 4, 5))) for _ in range(2))
    assert torch.equal(a.modes, b.modes) and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: EOFGaussian((1, 4, 4), 0), "rank must be in 1..15"),
        (lambda: EOFGaussian((1, 4, 4), 16), "rank must be in 1..15"),
        (lambda: EOFGaussian((8,), 2), r"\(channels, \*grid\)"),
        (lambda: EOFGaussian((1, 4, 4), 3).sample(Batch(torch.zeros(2, 1, 4, 4))), "call .fit"),
        (lambda: EOFGaussian((1, 4, 5), 8).fit(fields((1, 4, 5), 9)), "needs at least 10 finite fields, got 9"),
        (lambda: EOFGaussian((1, 4, 4), 2).fit(Batch(torch.full((9, 1, 4, 4), math.nan))), "got 9 with NaN"),
        (lambda: EOFGaussian((1, 4, 5), 2).fit(fields((1, 5, 4))), "made for samples of shape"),
        (lambda: EOFGaussian((1, 2), 1).sample(Batch(torch.zeros(2, 1), torch.tensor([0, 0]), 1)), "ragged"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("periodic", [True, False])
def test_the_ladder_of_baselines_knows_it(periodic):
    shape = (1, 8, 8)
    base = SpectralGaussian(shape, periodic, spectra.Matern(length=3.0, nugget=0.01))
    like = Batch(torch.zeros(120, *shape, dtype=DOUBLE))
    patterns = noise(2, *shape, seed=5)

    def data(seed):
        g = torch.Generator().manual_seed(seed)
        strong = 5 * torch.randn(120, 2, generator=g, dtype=DOUBLE)
        return like.replace(base.sample(like, g) + torch.einsum("nk,k...->n...", strong, patterns))

    train, test = data(0), data(1)
    prior = EOFGaussian(shape, 2, periodic).fit(train)
    flow = Flow(MLP(64), prior)
    ladder = baselines(flow, train, test, largest=10)
    assert not any("EOF" in name for name in ladder)  # neither so few values nor so few fields
    makers = candidates(prior, train, 3000)
    assert makers["EOF + spectral residual"]().residual.basis.periodic == (periodic, periodic)
    assert abs(ladder["prior"].value + float(prior.log_prob(test.x, test).mean()) / 64 / math.log(2)) < 1e-6
