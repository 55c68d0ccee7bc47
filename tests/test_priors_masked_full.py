"""Full covariances on part of a grid: the exact marginal of a field on the points of a mask."""

import math

import pytest
import torch

from scifm.batch import Batch
from scifm.gaussians import candidates, white
from scifm.priors import Conditional, EOFGaussian, FullGaussian, Masked, Prior, SpectralGaussian, ZonalGaussian, spectra
from scifm.testing import check_prior

DOUBLE = torch.float64
SHAPE = (2, 3, 4)
SEA = (torch.arange(24).reshape(SHAPE) * 7 % 5) > 1  # ragged coasts, different in the two channels


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def fields(n=60):
    x = noise(n, *SHAPE)
    return Batch(x + 0.7 * x.roll(1, -1) + 0.5 * x.roll(1, 1) + 3)


def whole():
    """Full covariance of the rectangle, and the normal that it is."""
    prior = FullGaussian(SHAPE).fit(fields())
    return prior, torch.distributions.MultivariateNormal(prior.mean.flatten(), covariance(prior))


def covariance(prior):
    size = math.prod(SHAPE)
    like = Batch(torch.eye(size, dtype=DOUBLE).reshape(size, *SHAPE))
    root = (prior.colour(like.x, like) - prior.colour(torch.zeros_like(like.x), like)).flatten(1)
    return root.T @ root


def marginal(dense):
    inside = SEA.flatten()
    return torch.distributions.MultivariateNormal(dense.mean[inside], dense.covariance_matrix[inside][:, inside])


@pytest.mark.parametrize("kind", ["full", "spectral", "periodic", "zonal", "EOF"])
def test_the_marginal_is_the_dense_normal_of_the_sub_block(kind):
    field = {
        "full": lambda: FullGaussian(SHAPE),
        "spectral": lambda: SpectralGaussian(SHAPE, False, spectra.PerMode()),
        "periodic": lambda: SpectralGaussian(SHAPE, (False, True), spectra.Matern(2.0)),
        "zonal": lambda: ZonalGaussian(SHAPE),
        "EOF": lambda: EOFGaussian(SHAPE, 3),  # whose colouring is no symmetric root
    }[kind]().fit(fields())
    prior = FullGaussian.marginal(field, SEA)
    zero = Batch(torch.zeros(1, *SHAPE, dtype=DOUBLE))
    mean = field.colour(zero.x, zero).flatten()
    dense = marginal(torch.distributions.MultivariateNormal(mean, covariance(field)))
    data = Batch(torch.where(SEA, fields(9).x, 0.0))
    wanted = dense.log_prob(data.x[:, SEA])
    assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-10, atol=1e-10)
    assert torch.allclose(prior.score(data.x, data), Prior.score(prior, data.x, data), rtol=1e-9, atol=1e-9)
    assert prior.dims(data).tolist() == [int(SEA.sum())] * 9
    one = data.select([4])
    assert torch.allclose(prior.log_prob(one.x, one), wanted[4:5], rtol=1e-10)
    single = data.to(torch.float32)
    assert torch.allclose(prior.log_prob(single.x, single).double(), wanted, rtol=1e-4, atol=1e-3)


def test_it_is_what_draws_of_the_whole_field_follow_on_the_mask():
    field, dense = whole()
    prior, like = FullGaussian.marginal(field, SEA), Batch(torch.zeros(30000, *SHAPE, dtype=DOUBLE))
    x = prior.project(field.sample(like, torch.Generator().manual_seed(0)), like)
    z = prior.whiten(x, like)
    assert not z[:, ~SEA].any()
    rows = z[:, SEA]
    assert rows.mean(0).abs().max() < 0.03
    assert (rows.T.cov() - torch.eye(rows.shape[1], dtype=DOUBLE)).abs().max() < 0.04
    own = prior.sample(like, torch.Generator().manual_seed(1))
    assert not own[:, ~SEA].any()
    assert (own[:, SEA].T.cov() - marginal(dense).covariance_matrix).abs().max() < 0.1


def test_it_passes_the_public_check():
    check_prior(FullGaussian.marginal(whole()[0], SEA), Batch(torch.zeros(3, *SHAPE, dtype=DOUBLE)), samples=1024)


@pytest.mark.parametrize("target", [None, "spectral"])
def test_fit_looks_at_what_is_inside_only(target):
    def made():
        return FullGaussian(SHAPE, target=SpectralGaussian(SHAPE) if target else None, mask=SEA)

    data = fields()
    land = data.replace(torch.where(SEA, data.x, torch.nan))
    prior, other = made().fit(land), made().fit(data)
    assert torch.equal(prior.variance, other.variance) and torch.equal(prior.mean, other.mean)
    inside = data.x[:, SEA]
    assert torch.allclose(prior.mean[SEA], inside.mean(0)) and not prior.mean[~SEA].any()
    own = covariance(prior)[SEA.flatten()][:, SEA.flatten()]
    assert float(own.trace()) == pytest.approx(float(inside.var(0, correction=0).sum()), rel=1e-9)
    if target is None:  # shrinking to the diagonal is the same before and after taking the sub-block
        full = FullGaussian(SHAPE, shrink=(prior.chosen,)).fit(data)
        assert torch.allclose(own, marginal_of(full), atol=1e-10)


def marginal_of(full):
    return covariance(full)[SEA.flatten()][:, SEA.flatten()]


def test_it_finds_the_law_that_made_the_data():
    truth = FullGaussian.marginal(whole()[0], SEA)
    like = Batch(torch.zeros(4000, *SHAPE, dtype=DOUBLE))
    data, test = (like.replace(truth.sample(like, torch.Generator().manual_seed(k))) for k in (0, 1))
    fitted = FullGaussian(SHAPE, mask=SEA, shrink=(0.0,)).fit(data)
    gap = float((truth.log_prob(test.x, test) - fitted.log_prob(test.x, test)).mean()) / int(SEA.sum())
    assert -0.001 < gap < 0.005, gap


def test_values_on_land_are_a_mistake():
    prior = FullGaussian.marginal(whole()[0], SEA)
    with pytest.raises(ValueError, match="outside the mask must be zero"):
        prior.log_prob(fields(3).x, fields(3))


def test_it_knows_seasons():
    """A scale per value that varies with the sample stays on the mask."""
    spread = noise(3, *SHAPE, seed=5).exp()
    prior = Conditional(FullGaussian.marginal(whole()[0], SEA), scale="spread")
    like = Batch(torch.zeros(3, *SHAPE, dtype=DOUBLE), context={"spread": spread})
    x = prior.sample(like, torch.Generator().manual_seed(0))
    dense = marginal(whole()[1])
    for b in range(3):
        s = spread[b][SEA]
        own = torch.distributions.MultivariateNormal(s * dense.mean, s[:, None] * dense.covariance_matrix * s)
        assert torch.allclose(prior.log_prob(x, like)[b], own.log_prob(x[b][SEA]), rtol=1e-10)


def test_the_ladder_of_baselines_lives_on_the_mask():
    data = Batch(torch.where(SEA, fields().x, 0.0))
    for prior in (FullGaussian(SHAPE, mask=SEA).fit(data), Masked(SEA)):
        found = candidates(prior, data, 3000)
        assert set(found) == {"per value", "full covariance"} and set(candidates(prior, data, 5)) == {"per value"}
        full = found["full covariance"]().fit(data)
        noise_alone = white(prior, data)
        assert isinstance(noise_alone, Masked) and torch.equal(noise_alone.dims(data), full.dims(data))
        assert float(full.log_prob(data.x, data).mean()) > float(noise_alone.log_prob(data.x, data).mean())


def test_a_checkpoint_brings_mask_and_law():
    prior = FullGaussian.marginal(whole()[0], SEA)
    fresh = FullGaussian(SHAPE, mask=SEA)
    fresh.load_state_dict(prior.state_dict())
    data = Batch(torch.where(SEA, fields(3).x, 0.0))
    assert torch.equal(fresh.log_prob(data.x, data), prior.log_prob(data.x, data))
    assert "mask" not in FullGaussian(SHAPE).state_dict()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: FullGaussian(SHAPE, mask=SEA.float()), "mask must be bool"),
        (lambda: FullGaussian(SHAPE, mask=SEA[0]), "mask must be bool"),
        (lambda: FullGaussian(SHAPE, mask=torch.zeros(SHAPE, dtype=torch.bool)), "at least one True"),
        (lambda: FullGaussian(SHAPE, covariance=torch.eye(24), mask=SEA), r"\(14, 14\).*inside the mask"),
        (lambda: FullGaussian(SHAPE, mask=SEA).sample(fields(2)), "no covariance yet"),
        (lambda: FullGaussian(SHAPE, mask=SEA).fit(Batch(torch.full((20, *SHAPE), math.nan))), "10 finite samples"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
