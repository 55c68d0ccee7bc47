"""Calibration: what is drawn with its members is uniform among them, and what is not shows the known signs."""

import math
import warnings

import numpy as np
import pytest
import torch

from scifm.metrics import interval_coverage, latitude_weights, pit, rank_histogram, ranks, spread_skill

DOUBLE = torch.float64


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def era5(scifm_data):
    import xarray as xr

    with xr.open_dataset(scifm_data("era5_ensemble_members_3deg") / "era5_members_zt_3deg.nc") as file:
        return torch.from_numpy(file["z"].values.copy()), torch.from_numpy(file["latitude"].values.copy())


def turns(x):
    """Each member in turn against the rest: members (M − 1, M, ...), observed (M, ...)."""
    rest = [torch.cat([x[:k], x[k + 1 :]]) for k in range(len(x))]
    return torch.stack(rest, 1), x


# -- spread and skill -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["1deg", "0p25deg"])
def test_it_is_the_convention_of_published_scores(scifm_data, which):
    """Ensembles of 50 with the variance and the squared error of each published row give its ratio and RMSE."""
    import xarray as xr

    with xr.open_dataset(scifm_data("published_gencast_scores") / f"gencast_{which}_ensemble_metrics.nc") as file:
        table = file.load()
    z = normal(50)
    z = (z - z.mean()) / z.std()
    for name in table.data_vars:
        for lead in table["prediction_timedelta"].values:
            row = {str(m): float(table[name].sel(metric=m, prediction_timedelta=lead)) for m in table["metric"].values}
            members = math.sqrt(row["mse"]) + math.sqrt(row["var"]) * z[:, None]
            found = spread_skill(members, torch.zeros(1, dtype=DOUBLE))
            assert found.ratio == pytest.approx(row["spskr"], rel=1e-5)
            assert found.unbiased_rmse == pytest.approx(row["frmse"], rel=1e-5)
            assert found.spread**2 == pytest.approx(row["var"], rel=1e-9)


def test_members_in_turn_have_ratio_one_exactly(era5):
    """(x_k − mean of the others)² averages to M/(M−1) of the variance, whatever the law."""
    x, latitude = era5
    members, observed = turns(x[:, :2, 0, ::3, ::5])
    found = spread_skill(members, observed, latitude_weights(latitude[::3])[:, None])
    assert found.ratio == pytest.approx(1, abs=1e-9) and found.members == 9
    assert "spread-skill 1.000" in str(found)


def test_it_is_a_ratio_of_means_with_weights():
    x, y = normal(6, 50, 3), normal(50, 3, seed=1) * torch.tensor([1.0, 3.0, 9.0])
    w = torch.tensor([2.0, 1.0, 0.0], dtype=DOUBLE)
    x[:, :, 2], y[:, 2] = math.nan, math.nan
    mse = np.average(((x.mean(0) - y) ** 2)[:, :2].numpy(), axis=1, weights=[2, 1]).mean()
    var = np.average(x.var(0)[:, :2].numpy(), axis=1, weights=[2, 1]).mean()
    found = spread_skill(x, y, w)
    assert found.rmse == pytest.approx(math.sqrt(mse)) and found.spread == pytest.approx(math.sqrt(var))
    assert found.ratio == pytest.approx(math.sqrt(7 / 6 * var / mse))
    assert found.unbiased_rmse == pytest.approx(math.sqrt(mse - var / 6))
    exact = spread_skill(torch.tensor([[1.0], [-1.0]]), torch.zeros(1))
    assert math.isnan(exact.ratio) and math.isnan(exact.unbiased_rmse)


# -- ranks ----------------------------------------------------------------------------------------------------------


def test_members_in_turn_have_each_rank_once(era5):
    x, _ = era5
    members, observed = turns(x[:, :2, 0, ::3, ::5].double() + 1e-6 * normal(10, 2, 21, 24))  # no ties
    found = rank_histogram(members, observed)
    torch.testing.assert_close(found.shares, torch.full((10,), 0.1, dtype=DOUBLE), rtol=1e-12, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found.chi_square()[0] == pytest.approx(0, abs=1e-9)


def test_published_histograms_are_shares_of_mean_one(scifm_data):
    import xarray as xr

    folder = scifm_data("published_gencast_scores")
    with xr.open_dataset(folder / "gencast_1deg_rank_histogram_50_members.nc") as file:
        published = file["2m_temperature"].values
    assert published.shape[-1] == 51
    np.testing.assert_allclose(published.mean(-1), 1, rtol=1e-4)
    ours = rank_histogram(normal(50, 400), normal(400, seed=1)).shares * 51
    assert len(ours) == 51 and float(ours.mean()) == pytest.approx(1)


def test_ranks_count_and_ties_are_drawn_evenly():
    x, y = normal(5, 300), normal(300, seed=1)
    assert torch.equal(ranks(x, y), (x < y).sum(0))
    tied = ranks(torch.zeros(4, 20000), torch.zeros(20000), seeded())
    share = torch.bincount(tied, minlength=5) / 20000
    assert float((share - 0.2).abs().max()) < 0.012
    half = ranks(torch.tensor([[0.0], [1.0], [1.0]]).expand(3, 2000), torch.ones(2000), seeded())
    assert half.unique().tolist() == [1, 2, 3]
    assert torch.equal(
        ranks(torch.zeros(4, 9), torch.zeros(9), seeded(1)), ranks(torch.zeros(4, 9), torch.zeros(9), seeded(1))
    )


@pytest.mark.parametrize(("scale", "shift", "shape"), [(0.5, 0.0, "∪"), (2.0, 0.0, "∩"), (1.0, 1.0, "slope")])
def test_histograms_have_the_known_shapes(scale, shift, shape):
    found = rank_histogram(scale * normal(9, 4000) + shift, normal(4000, seed=1))
    ends, middle = float(found.shares[[0, -1]].mean()), float(found.shares[4:6].mean())
    assert {"∪": ends > 2 * middle, "∩": middle > 2 * ends, "slope": found.shares[0] > 3 * found.shares[-1]}[shape]
    assert found.chi_square()[1] < 1e-6


def test_chi_square_is_chi_square_for_independent_cases():
    """Over repetitions the p-values are uniform; the statistic is SciPy's."""
    from scipy.stats import chisquare

    values = []
    for seed in range(300):
        found = rank_histogram(normal(4, 200, seed=2 * seed), normal(200, seed=2 * seed + 1))
        values.append(found.chi_square()[1])
    p = torch.tensor(values).sort().values
    assert float((p - (torch.arange(300) + 0.5) / 300).abs().max()) < 1.63 / math.sqrt(300)  # Kolmogorov at 1 %
    wanted = chisquare((found.shares * 200).numpy())
    assert found.chi_square() == pytest.approx((wanted.statistic, wanted.pvalue), rel=1e-6)


def test_it_warns_of_neighbours_that_go_together():
    walk = normal(10, 400).cumsum(-1)
    with pytest.warns(UserWarning, match="far fewer than 400 independent cases"):
        rank_histogram(walk[1:], walk[0]).chi_square()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rank_histogram(normal(9, 400), normal(400, seed=1)).chi_square()
        assert math.isnan(rank_histogram(normal(9, 1), normal(1, seed=1)).correlation)
    noise = rank_histogram(normal(9, 20, 30), normal(20, 30, seed=1))
    assert abs(noise.correlation) < 0.15 and noise.cases == 600


def test_weights_of_a_histogram():
    x, y = normal(5, 40, 3), normal(40, 3, seed=1)
    w = torch.tensor([1.0, 0.0, 3.0])
    x[:, :, 1] = math.nan
    found = rank_histogram(x, y, w)
    each = [rank_histogram(x[..., k], y[:, k]).shares for k in (0, 2)]
    torch.testing.assert_close(found.shares, 0.25 * each[0] + 0.75 * each[1])
    assert found.cases == pytest.approx(40 * 16 / 10)


# -- PIT and coverage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 50])
def test_pit_is_uniform_for_any_number_of_members(count):
    x = normal(count + 1, 3000).exp()  # of any law
    found = pit(x[1:], x[0], seeded(7)).sort().values
    gap = float((found - (torch.arange(3000) + 0.5) / 3000).abs().max())
    assert found.dtype == DOUBLE and gap < 1.63 / math.sqrt(3000)  # Kolmogorov at 1 %


@pytest.mark.parametrize("count", [9, 20])
def test_intervals_cover_what_they_say(count):
    levels = [0.3, 0.5, (count - 3) / (count + 1), (count - 1) / (count + 1)]
    x = normal(count + 1, 40000)
    found = interval_coverage(x[1:], x[0], levels)
    for c, share in zip(levels, found.tolist(), strict=True):
        assert share == pytest.approx(c, abs=3.5 * math.sqrt(c * (1 - c) / 40000) + 0.004)
    narrow = interval_coverage(0.5 * x[1:], x[0], levels)
    assert (narrow < found - 0.05).all()


def test_members_in_turn_are_covered_exactly(era5):
    x, _ = era5
    members, observed = turns(x[:, :1, 0, ::3, ::5].double() + 1e-6 * normal(10, 1, 21, 24))
    torch.testing.assert_close(interval_coverage(members, observed, [0.4, 0.8]), torch.tensor([0.4, 0.8], dtype=DOUBLE))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spread_skill(normal(1, 4), normal(4)), "at least 2 members"),
        (lambda: ranks(torch.full((2, 3), math.nan), torch.zeros(3)), "finite values"),
        (lambda: ranks(normal(2, 3), normal(4)), "movedim"),
        (lambda: interval_coverage(normal(9, 4), normal(4), [0.9]), r"levels in \(0, 0.8\]"),
        (lambda: interval_coverage(normal(9, 4), normal(4), []), "levels in"),
        (lambda: interval_coverage(torch.full((2, 3), math.inf), torch.zeros(3)), "finite"),
        (lambda: rank_histogram(normal(9, 4), normal(4), torch.zeros(4)), "finite weights"),
        (lambda: rank_histogram(normal(9, 4), normal(4), torch.ones(3, 4)), "of the last dims"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
