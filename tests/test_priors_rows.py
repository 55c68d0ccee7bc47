"""Rows given the rows before: dense normals from the definition, the full covariance as a limit, masks, checkpoints."""

import math

import pytest
import torch

from scifm import checkpoint
from scifm.batch import Batch
from scifm.gaussians import candidates, white
from scifm.priors import FullGaussian, Masked, Prior, RowGaussian, SpectralGaussian, spectra
from scifm.testing import check_prior

DOUBLE = torch.float64
SHAPES = [(1, 4, 5), (1, 5, 6), (2, 4, 3), (3, 3, 4)]
PERIODIC = [False, (False, True), (True, False), True]
EVERY = pytest.mark.parametrize("masked", [False, True])
CLOSED = pytest.mark.parametrize("periodic", PERIODIC)
SHAPE = pytest.mark.parametrize("shape", SHAPES)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def sea(shape, masked=True):
    """Coasts that differ between channels, and a row without any sea."""
    if not masked:
        return torch.ones(shape, dtype=torch.bool)
    mask = torch.arange(math.prod(shape)).reshape(shape) * 7 % 5 > 1
    mask[:, 1] = False
    return mask


def fields(shape, mask, n=60, seed=0, land=0.0):
    """Rows, columns and channels correlate."""
    x = noise(n, *shape, seed=seed)
    x = x + 0.7 * x.roll(1, -1) + 0.8 * x.roll(1, -2) + 0.5 * x.roll(1, 1) + 3
    return Batch(torch.where(mask, x, land))


def covariance(data, mask, periodic, shrink):
    """(1 − a) Ĉ + a C_S between all values inside, scaled to the data's variance: nothing of RowGaussian's own."""
    y = data.x - data.x.mean(0)
    target = SpectralGaussian(data.x.shape[1:], periodic).fit(Batch(y))
    size = mask.numel()
    unit = Batch(torch.eye(size, dtype=DOUBLE).reshape(size, *mask.shape))
    root = (target.colour(unit.x, unit) - target.mean).flatten(1)
    inside = mask.flatten()
    empirical = (y.flatten(1).T @ y.flatten(1) / len(y))[inside][:, inside]
    structured = (root.T @ root)[inside][:, inside]
    return (1 - shrink) * empirical + shrink * structured * empirical.trace() / structured.trace()


def dense(data, mask, periodic, order, shrink):
    """Precision by Vecchia's factors: (I − A)ᵀ D⁻¹ (I − A), each row regressed on those before by least squares."""
    C = covariance(data, mask, periodic, shrink)
    height = torch.arange(mask.shape[1])[:, None].expand(mask.shape)[mask]
    rows = height.unique().tolist()
    precision = torch.zeros_like(C)
    for i, row in enumerate(rows):
        own = (height == row).nonzero()[:, 0]
        before = torch.cat([own[:0]] + [(height == r).nonzero()[:, 0] for r in rows[max(0, i - order) : i]])
        A = C[own][:, before] @ torch.linalg.pinv(C[before][:, before], hermitian=True)
        D = C[own][:, own] - A @ C[before][:, own]
        left = torch.zeros(len(own), len(C), dtype=DOUBLE)
        left[torch.arange(len(own)), own] = 1
        left[:, before] = -A
        precision += left.T @ torch.linalg.inv(D) @ left
    mean = data.x.mean(0)[mask]
    return torch.distributions.MultivariateNormal(mean, precision_matrix=(precision + precision.T) / 2)


@SHAPE
@EVERY
@CLOSED
@pytest.mark.parametrize("order", [1, 2])
def test_it_is_the_dense_normal(shape, masked, periodic, order):
    mask = sea(shape, masked)
    data = fields(shape, mask)
    prior = RowGaussian(shape, mask if masked else None, periodic, order=order, shrink=(0.1,)).fit(data)
    law = dense(data, mask, periodic, order, 0.1)
    wanted = law.log_prob(data.x[:, mask])
    assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-10, atol=1e-10)
    score = prior.score(data.x, data)
    assert torch.allclose(score, Prior.score(prior, data.x, data), rtol=1e-9, atol=1e-9)
    assert torch.allclose(score[:, mask], (law.mean - data.x[:, mask]) @ law.precision_matrix, rtol=1e-8, atol=1e-8)
    assert prior.dims(data).tolist() == [int(mask.sum())] * len(data)
    one = data.select([4])
    assert torch.allclose(prior.log_prob(one.x, one), wanted[4:5], rtol=1e-10)
    single = data.to(torch.float32)
    found = prior.log_prob(single.x, single)
    assert found.dtype == torch.float32 and torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-3)


@SHAPE
@EVERY
@CLOSED
def test_of_all_rows_before_it_is_the_full_covariance(shape, masked, periodic):
    mask = sea(shape, masked)
    data = fields(shape, mask)
    rows = RowGaussian(shape, mask, periodic, order=shape[1] - 1, shrink=(0.2,)).fit(data)
    full = FullGaussian(shape, target=SpectralGaussian(shape, periodic), shrink=(0.2,), mask=mask).fit(data)
    assert torch.allclose(rows.log_prob(data.x, data), full.log_prob(data.x, data), rtol=1e-10, atol=1e-10)
    more = RowGaussian(shape, mask, periodic, order=9, shrink=(0.2,)).fit(data)
    assert torch.equal(more.log_prob(data.x, data), rows.log_prob(data.x, data))


@EVERY
@pytest.mark.parametrize("order", [1, 2, 4])
def test_whitening_is_undone_and_has_the_determinant_of_the_density(masked, order):
    shape = (2, 5, 4)
    mask = sea(shape, masked)
    data = fields(shape, mask)
    prior = RowGaussian(shape, mask, order=order).fit(data)
    z = prior.whiten(data.x, data)
    assert not z[:, ~mask].any() and torch.allclose(prior.colour(z, data), data.x, rtol=1e-12, atol=1e-11)
    size = int(mask.sum())
    unit = torch.zeros(size, *shape, dtype=DOUBLE)
    unit[:, mask] = torch.eye(size, dtype=DOUBLE)
    root = (prior.colour(unit, Batch(unit)) - prior.mean)[:, mask].T  # x = m + root z
    constant = prior.log_prob(prior.mean[None], Batch(prior.mean[None])) + 0.5 * size * math.log(2 * math.pi)
    assert torch.allclose(-torch.linalg.slogdet(root)[1], constant[0], rtol=1e-10)
    height = torch.arange(shape[1])[:, None].expand(shape)[mask]
    for row in height.unique():
        own = root[height == row][:, height == row]
        assert torch.allclose(own, own.T, atol=1e-12) and bool((torch.linalg.eigvalsh(own) > 0).all())
        assert not root[height == row][:, height > row].any()  # later rows say nothing of earlier ones


def test_its_draws_follow_it():
    shape = (1, 4, 5)
    mask = sea(shape)
    data = fields(shape, mask)
    prior = RowGaussian(shape, mask, (False, True), order=1, shrink=(0.1,)).fit(data)
    like = Batch(torch.zeros(30000, *shape, dtype=DOUBLE))
    x = prior.sample(like, torch.Generator().manual_seed(0))
    law = dense(data, mask, (False, True), 1, 0.1)
    z = torch.linalg.solve_triangular(law.scale_tril, (x[:, mask] - law.mean).T, upper=False)
    assert not x[:, ~mask].any() and z.mean(1).abs().max() < 0.03
    assert (z.cov() - torch.eye(len(z), dtype=DOUBLE)).abs().max() < 0.04


@EVERY
def test_it_passes_the_public_check(masked):
    shape = (2, 3, 4)
    mask = sea(shape, masked)
    prior = RowGaussian(shape, mask).fit(fields(shape, mask))
    check_prior(prior, Batch(torch.zeros(3, *shape, dtype=DOUBLE)), samples=1024)


# -- fitting ---------------------------------------------------------------------------------------------------


@CLOSED
def test_fit_looks_at_what_is_inside_only(periodic):
    shape = (2, 4, 5)
    mask = sea(shape)
    zero, land = (RowGaussian(shape, mask, periodic).fit(fields(shape, mask, land=v)) for v in (0.0, math.nan))
    for name, value in zero.state_dict().items():
        assert torch.equal(value, land.state_dict()[name]), name
    assert torch.allclose(land.mean[mask], fields(shape, mask).x[:, mask].mean(0)) and not land.mean[~mask].any()


def test_single_precision_data_are_fitted_in_double():
    mask = sea((1, 4, 5))
    data = fields((1, 4, 5), mask).to(torch.float32)
    prior = RowGaussian((1, 4, 5), mask).fit(data)
    wide = RowGaussian((1, 4, 5), mask).fit(data.to(DOUBLE))
    assert prior.modes0.dtype == DOUBLE and torch.equal(prior.modes0, wide.modes0)
    assert prior.sample(data).dtype == torch.float32
    narrow = RowGaussian((1, 4, 5), mask).float().fit(data)  # as `flow.float()` leaves it
    assert narrow.modes0.dtype == torch.float32
    assert torch.allclose(narrow.log_prob(data.x, data), prior.log_prob(data.x, data), rtol=1e-4, atol=1e-3)


def test_the_shrinkage_is_that_of_the_best_likelihood_of_what_is_held_out():
    shape, mask, grid = (1, 5, 6), sea((1, 5, 6)), (0.05, 0.2, 0.5, 0.9)
    data = fields(shape, mask, n=50)
    head, tail = data.select(range(35)), data.select(range(40, 50))
    own = {a: float(RowGaussian(shape, mask, shrink=(a,)).fit(head).log_prob(tail.x, tail).mean()) for a in grid}
    assert float(RowGaussian(shape, mask, shrink=grid).fit(data).chosen) == max(own, key=lambda a: own[a])
    few = RowGaussian(shape, mask, shrink=grid).fit(fields(shape, mask, n=12))
    many = RowGaussian(shape, mask, shrink=grid).fit(fields(shape, mask, n=4000))
    assert float(few.chosen) > float(many.chosen) == 0.05


def test_it_finds_the_law_that_made_the_data():
    """Rows that follow each other as a Markov chain: no more is lost than is estimated."""
    shape, mask = (1, 6, 4), sea((1, 6, 4))
    truth = RowGaussian(shape, mask, order=1).fit(fields(shape, mask))
    like = Batch(torch.zeros(4000, *shape, dtype=DOUBLE))
    data, test = (like.replace(truth.sample(like, torch.Generator().manual_seed(k))) for k in (0, 1))
    for order in (1, 2):
        fitted = RowGaussian(shape, mask, order=order, shrink=(1e-6,)).fit(data)
        gap = float((truth.log_prob(test.x, test) - fitted.log_prob(test.x, test)).mean()) / int(mask.sum())
        assert -0.001 < gap < 0.005, gap


def test_with_few_samples_fewer_rows_are_better_than_all():
    """What the documentation says, on data whose rows are a Markov chain."""
    shape, mask = (1, 12, 4), sea((1, 12, 4))
    truth = RowGaussian(shape, mask, order=1).fit(fields(shape, mask, n=500))
    like = Batch(torch.zeros(400, *shape, dtype=DOUBLE))
    data, test = (like.replace(truth.sample(like, torch.Generator().manual_seed(k))) for k in (0, 1))
    score = {
        order: float(RowGaussian(shape, mask, order=order).fit(data.select(range(20))).log_prob(test.x, test).mean())
        for order in (1, 11)
    }
    assert score[1] > score[11]


@pytest.mark.parametrize("spectrum", [spectra.PerMode(), spectra.Matern(2.0)])
def test_whatever_spectrum_it_shrinks_to_has_the_variance_of_the_data(spectrum):
    shape, mask = (2, 4, 5), sea((2, 4, 5))
    data = fields(shape, mask)
    prior = RowGaussian(shape, mask, spectrum=spectrum, order=3, shrink=(1.0,)).fit(data)
    size = int(mask.sum())
    unit = torch.zeros(size, *shape, dtype=DOUBLE)
    unit[:, mask] = torch.eye(size, dtype=DOUBLE)
    root = (prior.colour(unit, Batch(unit)) - prior.mean)[:, mask]
    assert float((root.T @ root).trace()) == pytest.approx(float(data.x.var(0, correction=0).sum()), rel=1e-9)


# -- what others do with it ------------------------------------------------------------------------------------


@EVERY
def test_a_checkpoint_restores_it_exactly(masked, tmp_path):
    shape = (2, 4, 5)
    mask = sea(shape, masked)
    data = fields(shape, mask)
    prior, fresh = RowGaussian(shape, mask).fit(data), RowGaussian(shape, mask)
    checkpoint.save(tmp_path, 1, dict(prior.state_dict()), {})
    tensors = checkpoint.load(tmp_path)[0]
    fresh.load_state_dict(tensors)
    assert torch.equal(fresh.log_prob(data.x, data), prior.log_prob(data.x, data))
    assert float(fresh.chosen) == float(prior.chosen)
    draws = [p.sample(data, torch.Generator().manual_seed(0)) for p in (prior, fresh)]
    assert torch.equal(*draws)
    again = RowGaussian(shape, mask).fit(data)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in prior.state_dict().items())
    with pytest.raises(RuntimeError, match="size mismatch for gain"):
        RowGaussian(shape, mask, order=1).load_state_dict(tensors)


def test_the_ladder_of_baselines_stands_on_its_space():
    shape = (1, 4, 5)
    for masked in (False, True):
        mask = sea(shape, masked)
        data = fields(shape, mask)
        prior = RowGaussian(shape, mask, (False, True), order=1).fit(data)
        found = candidates(prior, data, 3000)
        own = found["rows given those before"]().fit(data)
        assert torch.equal(own.log_prob(data.x, data), prior.log_prob(data.x, data))
        assert isinstance(white(prior, data), Masked) == masked
        if masked:
            assert set(found) == {"per value", "full covariance", "rows given those before"}
        else:
            assert found["spectral"]().basis.periodic == (False, True)
    assert "rows given those before" not in candidates(Masked(mask), data, 3000)


def test_the_unfitted_says_so_wherever_it_is_used():
    prior, data = RowGaussian((1, 4, 5)), fields((1, 4, 5), sea((1, 4, 5), False))
    for use in (prior.log_prob, prior.score, prior.whiten, prior.colour):
        with pytest.raises(ValueError, match=r"call \.fit\(batch\) before"):
            use(data.x, data)
    with pytest.raises(ValueError, match=r"call \.fit\(batch\) before"):
        prior.sample(data)


def constant():
    x = fields((1, 4, 5), sea((1, 4, 5), False))
    return x.replace(torch.ones_like(x.x))


def holed():
    x = fields((1, 4, 5), sea((1, 4, 5))).x.clone()
    x[0, sea((1, 4, 5))] = math.nan
    return Batch(x)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: RowGaussian((4, 5)), r"must be \(channels, rows, columns\)"),
        (lambda: RowGaussian((1, 4, 5), order=0), "order must be at least 1"),
        (lambda: RowGaussian((1, 4, 5), shrink=(0.0, 0.1)), r"each shrink in \(0, 1\]"),
        (lambda: RowGaussian((1, 4, 5), shrink=()), r"each shrink in \(0, 1\]"),
        (lambda: RowGaussian((1, 4, 5), sea((1, 4, 5)).float()), "mask must be bool"),
        (lambda: RowGaussian((1, 4, 5), sea((1, 4, 6))), "mask must be bool"),
        (lambda: RowGaussian((1, 4, 5), torch.zeros(1, 4, 5, dtype=torch.bool)), "at least one True"),
        (lambda: RowGaussian((1, 4, 5), periodic=(True,)), "one periodic flag per axis"),
        (lambda: RowGaussian((1, 4, 5)).fit(fields((1, 4, 5), sea((1, 4, 5)), n=9)), "10 finite samples, got 9"),
        (lambda: RowGaussian((1, 4, 5), sea((1, 4, 5))).fit(holed()), "NaN or infinite values inside the mask"),
        (lambda: RowGaussian((1, 4, 5)).fit(constant()), "no variance"),
        (
            lambda: RowGaussian((1, 4, 6)).fit(fields((1, 4, 5), sea((1, 4, 5)))),
            r"made for samples of shape \(1, 4, 6\)",
        ),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_values_on_land_are_a_mistake():
    mask = sea((1, 4, 5))
    prior = RowGaussian((1, 4, 5), mask).fit(fields((1, 4, 5), mask))
    wrong = fields((1, 4, 5), mask, land=1.0)
    with pytest.raises(ValueError, match="outside the mask must be zero"):
        prior.log_prob(wrong.x, wrong)
    right = prior.project(wrong.x, wrong)
    assert prior.log_prob(right, wrong).isfinite().all()
