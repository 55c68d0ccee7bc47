"""Scores of ensembles, against plain NumPy, closed forms, what fairness and propriety promise, and published tables."""

import math

import numpy as np
import pytest
import torch

from scifm.metrics import (
    area_mean,
    brier,
    crps,
    energy_score,
    latitude_weights,
    threshold_weighted_crps,
    variogram_score,
)

DOUBLE = torch.float64


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_pairs(x, y, fair):
    """CRPS from all pairs, in NumPy."""
    x, y = x.numpy().astype(np.float64), y.numpy().astype(np.float64)
    m = len(x)
    return abs(x - y).mean(0) - 0.5 * abs(x[:, None] - x[None]).sum((0, 1)) / (m * (m - 1) if fair else m * m)


@pytest.fixture(scope="module")
def era5():
    """Temperature of 10 members, (10, 4 times, 2 levels, 61, 120), and weights of the latitudes."""
    import os
    from pathlib import Path

    path = Path(os.environ.get("SCIFM_DATA", "")) / "era5_ensemble_members_3deg" / "era5_members_zt_3deg.nc"
    if not os.environ.get("SCIFM_DATA") or not path.exists():
        pytest.skip("SCIFM_DATA does not hold era5_ensemble_members_3deg")
    import xarray as xr

    with xr.open_dataset(path) as file:
        x, latitude = torch.from_numpy(file["t"].values.copy()), torch.from_numpy(file["latitude"].values.copy())
    return x, latitude_weights(latitude)[:, None]


# -- CRPS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (7, 4, 5), (10,), (31, 1)])
def test_crps_is_that_of_all_pairs(shape, fair):
    x, y = normal(*shape), normal(*shape[1:], seed=1)
    torch.testing.assert_close(crps(x, y, fair), torch.as_tensor(by_pairs(x, y, fair)), rtol=1e-12, atol=1e-14)
    warm, at = (280 + x).float(), (280 + y).float()
    error = (crps(warm, at, fair).double() - torch.as_tensor(by_pairs(warm, at, fair))).abs()
    assert float(error.max()) < 2e-6 and crps(warm, at).dtype == torch.float32


def test_crps_is_the_integral_of_its_definition():
    """∫ (F − H)² dr on a fine grid, and between two thresholds."""
    x, y = normal(6, 5), normal(5, seed=1)
    r = torch.linspace(-6, 6, 120001, dtype=DOUBLE)
    gap = (x[:, :, None] <= r).double().mean(0) - (y[:, None] <= r).double()
    torch.testing.assert_close(crps(x, y), gap.square().sum(-1) * 1e-4, rtol=1e-3, atol=1e-4)
    some = gap.square()[:, (r > -0.5) & (r < 1.5)].sum(-1) * 1e-4
    torch.testing.assert_close(threshold_weighted_crps(x, y, -0.5, 1.5), some, rtol=1e-3, atol=1e-4)
    parts = threshold_weighted_crps(x, y, high=0.3) + threshold_weighted_crps(x, y, low=0.3)
    torch.testing.assert_close(parts, crps(x, y))
    torch.testing.assert_close(threshold_weighted_crps(x, y), crps(x, y))


def test_a_large_normal_ensemble_has_the_crps_of_its_law():
    """Gneiting et al. 2005: σ (z (2Φ(z) − 1) + 2φ(z) − 1/√π)."""
    unit = torch.distributions.Normal(torch.zeros((), dtype=DOUBLE), 1.0)
    x = unit.icdf((torch.arange(4000, dtype=DOUBLE) + 0.5) / 4000)[:, None].expand(-1, 3) * 2 + 1
    y = torch.tensor([-3.0, 1.0, 2.5], dtype=DOUBLE)
    z = (y - 1) / 2
    wanted = 2 * (z * (2 * unit.cdf(z) - 1) + 2 * unit.log_prob(z).exp() - 1 / math.sqrt(math.pi))
    torch.testing.assert_close(crps(x, y), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("score", [crps, lambda *a: energy_score(*a, event=1)])
def test_fair_does_not_depend_on_the_number_of_members(score):
    x, y = normal(64, 1500, 2), normal(1500, 2, seed=1)
    few = {fair: float(score(x[:3], y, None, fair).mean() if score is not crps else crps(x[:3], y, fair).mean())
           for fair in (False, True)}  # fmt: skip
    many = float(score(x, y, None, True).mean() if score is not crps else crps(x, y, True).mean())
    assert few[True] == pytest.approx(many, abs=0.03) and few[False] > many + 0.1


def test_single_members_missing_values_and_float32():
    x, y = normal(1, 4), normal(4, seed=1)
    torch.testing.assert_close(crps(x, y), (x[0] - y).abs())
    x = normal(5, 4)
    x[2, 1] = math.nan
    assert crps(x, y).isnan().tolist() == brier(x, y, 0.0).isnan().tolist() == [False, True, False, False]


# -- whole fields ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fair", [False, True])
def test_the_energy_score_is_that_of_all_pairs(fair):
    x, y = normal(6, 3, 4, 5), normal(3, 4, 5, seed=1)
    w = torch.rand(4, 1, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    w[1] = 0
    share = (w.expand(4, 5) / w.expand(4, 5).sum()).numpy()

    def norm(v):
        return np.sqrt((v.numpy() ** 2 * share).sum((-1, -2)))

    pairs = norm(x[:, None] - x[None]).sum((0, 1)) / (30 if fair else 36)
    wanted = torch.as_tensor(norm(x - y).mean(0) - pairs / 2)
    y[:, 1], x[:, :, 1] = math.nan, math.nan  # of no weight
    torch.testing.assert_close(energy_score(x, y, w, fair), wanted, rtol=1e-12, atol=1e-12)
    alone = energy_score(x[:, 1], y[1], w, fair)
    torch.testing.assert_close(alone, wanted[1])


def test_the_energy_score_of_single_values_is_the_crps():
    x, y = normal(6, 9), normal(9, seed=1)
    for fair in (False, True):
        torch.testing.assert_close(energy_score(x[..., None], y[..., None], fair=fair, event=1), crps(x, y, fair))


def test_the_variogram_score_sees_correlation_that_the_energy_score_hardly_sees():
    """All pairs by hand; and an ensemble with the right margins but independent places."""
    x, y = normal(5, 2, 1, 3), normal(2, 1, 3, seed=1)
    found = variogram_score(x, y, p=0.5, pairs=30000, generator=torch.Generator().manual_seed(0))
    a, b = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])
    gaps = [(v[..., 0, a] - v[..., 0, b]).abs().sqrt() for v in (x, y)]
    torch.testing.assert_close(found, (gaps[1] - gaps[0].mean(0)).square().mean(-1), rtol=0.05, atol=0.01)

    common = normal(20, 100, 1, 1).expand(20, 100, 4, 5) + 0.1 * normal(20, 100, 4, 5, seed=1)
    truth = normal(100, 1, 1, seed=2).expand(100, 4, 5) + 0.1 * normal(100, 4, 5, seed=3)
    free = normal(20, 100, 4, 5, seed=4)
    seen = [variogram_score(e, truth, generator=torch.Generator().manual_seed(0)).mean() for e in (common, free)]
    assert float(seen[1] / seen[0]) > 5
    assert float(crps(free, truth).mean() / crps(common, truth).mean()) < 1.1  # the CRPS sees nothing


def test_pairs_follow_the_weights_and_the_generator():
    x, y = normal(3, 4, 5), normal(4, 5, seed=1)
    w = torch.zeros(4, 5)
    w[0, 0] = w[2, 3] = 1.0  # the one pair there is
    made = (x[:, 0, 0] - x[:, 2, 3]).abs().sqrt().mean()
    wanted = ((y[0, 0] - y[2, 3]).abs().sqrt() - made).square()
    torch.testing.assert_close(variogram_score(x, y, w, pairs=7), wanted)
    again = [variogram_score(x, y, generator=torch.Generator().manual_seed(3)) for _ in "ab"]
    assert torch.equal(*again)


def test_the_integral_of_brier_scores_is_the_crps():
    x, y = normal(6, 50), normal(50, seed=1)
    thresholds = torch.linspace(-5, 5, 4001, dtype=DOUBLE)
    for fair in (False, True):
        total = sum(brier(x, y, float(c), fair) for c in thresholds) * (10 / 4000)
        torch.testing.assert_close(total, crps(x, y, fair), rtol=0.02, atol=5e-3)
    each = brier(x, y, y - 0.1)
    torch.testing.assert_close(each, ((x > y - 0.1).double().mean(0) - 1).square())


# -- real ensembles and published numbers -----------------------------------------------------------------------------


def test_on_members_of_era5_they_are_the_definitions(era5):
    """Area-weighted means over the globe, one member against the others, by NumPy from all pairs."""
    x, w = era5
    members, observed = x[1:, :, 0], x[0, :, 0]
    globe = np.broadcast_to(w.numpy(), (61, 120))
    for fair in (False, True):
        wanted = [np.average(v, weights=globe) for v in by_pairs(members, observed, fair)]
        found = area_mean(crps(members, observed, fair), w)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)
    # each member in turn against the rest: the mean fair CRPS is half the mean difference of two members
    turns = [area_mean(crps(torch.cat([x[:k], x[k + 1 :]]), x[k], fair=True).double(), w) for k in range(len(x))]
    pairs = sum(area_mean((x[i] - x[j]).abs().double(), w) for i in range(10) for j in range(i)) / 45
    torch.testing.assert_close(torch.stack(turns).mean(0), pairs / 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("which", ["1deg", "0p25deg"])
def test_published_scores_obey_our_definitions(scifm_data, which):
    """What two definitions of 50 members leave between them: (M − 1)/M of all pairs differ, and pairs have a bound."""
    import xarray as xr

    with xr.open_dataset(scifm_data("published_gencast_scores") / f"gencast_{which}_ensemble_metrics.nc") as file:
        table = file.load()
    for name in table.data_vars:
        row = {str(m): table[name].sel(metric=m).values.astype(float) for m in table["metric"].values}
        std = np.sqrt(row["var"])
        difference = 2 * 50 * (row["crps"] - row["fcrps"])  # mean |x − x'| of two members
        distance = 2 * 50 * (row["energyscore"] - row["fenergyscore"])
        assert (difference < std * 2 / math.sqrt(3) * 1.02).all()  # Gini's bound, reached by a uniform law
        assert (difference > 0.75 * std).all()
        assert (distance < math.sqrt(2) * std * 1.001).all()  # Jensen: the norm is a root *mean* square
        assert (distance > 0.9 * math.sqrt(2) * std).all()


def test_our_scores_of_an_ensemble_obey_what_the_published_ones_do(era5):
    x, w = era5
    members, observed = x[1:, :, 0], x[0, :, 0]
    std = float(area_mean(members.double().var(0), w).mean().sqrt())
    difference, distance = (
        2 * 9 * float((score(False) - score(True)).mean())
        for score in (
            lambda fair: area_mean(crps(members, observed, fair).double(), w),
            lambda fair: energy_score(members, observed, w, fair),
        )
    )
    assert 0.75 * std < difference < std * 2 / math.sqrt(3) and 0.9 < distance / (math.sqrt(2) * std) < 1.001


@pytest.mark.parametrize("fair", [False, True])
def test_scores_says_the_same(era5, fair):
    """The package of that name, an independent implementation."""
    import operator

    import xarray as xr
    from scores import probability

    x, _ = era5
    dims = ("number", "time", "latitude", "longitude")
    m, o = x[1:, :, 0], x[0, :, 0]
    members, observed = xr.DataArray(m.numpy(), dims=dims), xr.DataArray(o.numpy(), dims=dims[1:])
    how = {"method": "fair" if fair else "ecdf", "preserve_dims": "all"}
    theirs = probability.crps_for_ensemble(members, observed, "number", **how)
    np.testing.assert_allclose(crps(m, o, fair).numpy(), theirs.values, atol=1e-4)
    threshold = float(o.quantile(0.7))
    theirs = probability.tail_tw_crps_for_ensemble(members, observed, "number", threshold, tail="upper", **how)
    np.testing.assert_allclose(threshold_weighted_crps(m, o, threshold, fair=fair).numpy(), theirs.values, atol=1e-4)
    theirs = probability.brier_score_for_ensemble(
        members, observed, "number", threshold, preserve_dims="all", fair_correction=fair,
        event_threshold_operator=operator.gt,
    )  # fmt: skip
    np.testing.assert_allclose(brier(m, o, threshold, fair).numpy(), theirs.values[..., 0], atol=1e-6)


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crps(torch.zeros(3, 4), torch.zeros(5)), r"members \(M, ...\) and observed"),
        (lambda: crps(torch.zeros(4), torch.zeros(4)), "movedim"),
        (lambda: crps(torch.zeros(1, 4), torch.zeros(4), fair=True), "at least 2 members for what is fair"),
        (lambda: crps(torch.zeros(0, 4), torch.zeros(4)), "at least 1 members"),
        (lambda: crps(torch.zeros(2, 4, dtype=torch.int64), torch.zeros(4)), "floating-point"),
        (lambda: threshold_weighted_crps(torch.zeros(2, 4), torch.zeros(4), 1.0, 1.0), "low < high"),
        (lambda: energy_score(torch.zeros(2, 4), torch.zeros(4)), "fields of 2 dims"),
        (lambda: energy_score(torch.zeros(2, 4, 5), torch.zeros(4, 5), torch.ones(4)), "do not fit the grid"),
        (lambda: energy_score(torch.zeros(2, 4, 5), torch.zeros(4, 5), -torch.ones(4, 1)), "none negative"),
        (lambda: variogram_score(torch.zeros(2, 1, 1), torch.zeros(1, 1)), "two places"),
        (lambda: variogram_score(torch.zeros(2, 1, 2), torch.zeros(1, 2), p=0.0), "p > 0"),
        (lambda: brier(torch.zeros(1, 2), torch.zeros(2), 0.0, fair=True), "2 members"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
