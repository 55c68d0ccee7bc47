"""What transforms of fields find, against known answers: powers, trends, other calendars, coasts and units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scifm import Batch
from scifm.data.transforms import BoxCox, Chain, Climatology, Detrend, Log, Standardise, convert_units
from scifm.priors import Masked
from scifm.support import log_det


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- Box-Cox ------------------------------------------------------------------------------------------------


def positive(power, n=4000, seed=0):
    """Values whose power transform is normal: mean 6, spread 1, which stays clear of the bound."""
    y = (6 + normal(n, seed=seed)).clamp(min=0.1)
    return y.exp() if power == 0 else (power * y + 1).pow(1 / power)


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0])
def test_box_cox_finds_the_power_that_made_the_data(power):
    batch = Batch(positive(power).reshape(-1, 2))
    fitted = BoxCox().fit(batch)
    assert abs(float(fitted.power) - power) < 0.15
    y = fitted(batch).x
    assert abs(float(((y - y.mean()) / y.std()).pow(3).mean())) < 0.1  # skewness, with an error of 0.04


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_box_cox_agrees_with_scipy_in_any_unit(scale):
    from scipy.stats import boxcox_normmax

    x = scale * positive(0.3, n=500)
    expected = boxcox_normmax((x / x.log().mean().exp()).numpy(), method="mle")
    assert float(BoxCox().fit(Batch(x[:, None])).power) == pytest.approx(expected, abs=1e-5)


def test_box_cox_at_zero_is_the_logarithm_and_continuous_there():
    batch = Batch(positive(0.3, n=60).reshape(20, 3))
    log = Log()
    for power in (0.0, 1e-12, -1e-12):
        transform = BoxCox(power)
        torch.testing.assert_close(transform(batch).x, log(batch).x, rtol=1e-10, atol=0)
        torch.testing.assert_close(transform.log_det(batch), log.log_det(batch), rtol=1e-10, atol=0)
        torch.testing.assert_close(transform.inverse(transform(batch)).x, batch.x, rtol=1e-10, atol=0)


def test_box_cox_per_channel_is_one_of_each():
    x = torch.stack([positive(0.0, n=1000), positive(1.0, n=1000, seed=1)], 1)[..., None]
    found = BoxCox(per="channel").fit(Batch(x)).power
    each = [BoxCox().fit(Batch(channel)).power for channel in x.unbind(1)]
    torch.testing.assert_close(found.flatten(), torch.stack(each))


def test_a_given_power_is_not_fitted():
    assert float(BoxCox(power=0.5).fit(Batch(positive(0.0)[:, None])).power) == 0.5


def test_a_shift_for_zeros_is_found():
    """The smallest amount that is not zero; it is kept with the weights."""
    x = torch.tensor([[0.0, 0.25, 1.0], [3.0, 0.5, 0.0]], dtype=torch.float64)
    fitted = BoxCox(shift=None).fit(Batch(x))
    assert float(fitted.shift) == 0.25
    torch.testing.assert_close(fitted(Batch(x)).x, BoxCox(float(fitted.power), shift=0.25)(Batch(x)).x)
    other = BoxCox(shift=None)
    other.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(other.inverse(fitted(Batch(x))).x, x)
    with pytest.raises(ValueError, match="used before fit"):
        BoxCox(power=1.0, shift=None)(Batch(x))
    for bad in (-x, 0 * x):
        with pytest.raises(ValueError, match="never negative and not all zero"):
            BoxCox(shift=None).fit(Batch(bad))


@pytest.mark.parametrize(("power", "beyond", "nearest"), [(0.5, -2.5, -1.0), (-0.5, 2.5, math.inf)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_model_values_beyond_the_bound_go_to_the_nearest_with_a_warning(power, beyond, nearest, dtype):
    transform = BoxCox(power, shift=1.0)
    with pytest.warns(UserWarning, match="1 of 2 model values lie beyond"):
        x = transform.inverse(Batch(torch.tensor([[beyond, 0.3]], dtype=dtype))).x[0]
    assert x.isfinite().all() and (x[0] > 1e10 if nearest == math.inf else abs(x[0] - nearest) < 1e-12)
    torch.testing.assert_close(transform(Batch(x[None, 1:])).x[0, 0].item(), 0.3, rtol=1e-5, atol=0)


# -- trend --------------------------------------------------------------------------------------------------


def warming(n=50):
    """Two points with their own trends, noise, times that are not even."""
    time = 1000 + 40 * torch.arange(n).double() + normal(n, seed=1)
    return Batch(
        280 + time[:, None, None] * torch.tensor([[2.0, -1.0]]) / 3652 + normal(n, 1, 2), context={"time": time}
    )


def test_detrend_takes_off_the_least_squares_line_and_leaves_the_mean():
    batch = warming()
    y = Detrend().fit(batch)(batch)
    time = batch.context["time"].numpy()
    for k in range(2):
        before, after = (np.polyfit(time, b.x[:, 0, k].numpy(), 1) for b in (batch, y))
        assert Detrend().fit(batch).slope[0, k] == pytest.approx(before[0], rel=1e-8)
        assert abs(after[0]) < 1e-10
    torch.testing.assert_close(y.x.mean(0), batch.x.mean(0), rtol=1e-12, atol=0)


def test_detrend_global_takes_the_trend_of_the_mean_field():
    batch = warming()
    found = Detrend("global").fit(batch)
    assert float(found.slope) == pytest.approx(float(Detrend().fit(batch).slope.mean()), rel=1e-12)
    assert torch.equal(found.trend(batch)[:, 0, 0], found.trend(batch).expand(-1, 1, 2)[:, 0, 1])


def test_a_trend_of_early_years_is_extrapolated_to_late_ones():
    time = torch.arange(100).double() * 365
    exact = Batch((5 + 0.01 * time)[:, None], context={"time": time})
    early = Detrend().fit(exact.select(range(50)))
    assert float(early(exact).x.std()) < 1e-10


# -- cycles -------------------------------------------------------------------------------------------------


def test_a_calendar_of_360_days_has_its_own_year():
    time = torch.arange(2000).double()
    x = 3 * torch.cos(2 * math.pi * time / 360) + 1e-3 * normal(2000)
    batch = Batch(x[:, None], context={"time": time})
    assert Climatology(1, hours=(0,), year=360.0).fit(batch).std < 1.1e-3
    assert Climatology(1, hours=(0,)).fit(batch).std > 0.1


def test_five_harmonics_hold_the_means_of_twelve_months():
    month = torch.arange(240)
    time = 30 * month.double() + 15
    waves = [torch.cos(2 * math.pi * k * month / 12 + k) for k in range(1, 6)]
    batch = Batch((sum(waves) + 1e-6 * normal(240))[:, None], context={"time": time})
    found = Climatology(5, hours=(0,), year=360.0).fit(batch)
    means = torch.stack([batch.x[month % 12 == m].mean() for m in range(12)])
    torch.testing.assert_close(found.mean(batch)[:12, 0], means, atol=1e-6, rtol=0)


@pytest.mark.parametrize("daily", [0, 1, 2])
def test_the_daily_cycle_changes_over_the_year_as_far_as_it_may(daily):
    time = torch.arange(4 * 800).double() / 4
    noon = (time % 1 == 0.5).double()
    x = noon * torch.cos(2 * 2 * math.pi * time / 365.2425) + 1e-3 * normal(len(time))
    batch = Batch(x[:, None], context={"time": time})
    found = Climatology(1, daily=daily).fit(batch)
    assert found.features(batch).shape[1] == 3 + 3 * (1 + 2 * daily)
    assert (found.std < 1.1e-3) == (daily == 2)


# -- coasts -------------------------------------------------------------------------------------------------

SEA = torch.tensor([[True, True, False], [False, True, True]])


def sea_surface(n=80):
    time = torch.arange(n).double() * 5
    x = 15 + torch.arange(6).reshape(1, 2, 3) + torch.cos(2 * math.pi * time / 365.2425)[:, None, None, None]
    return Batch(torch.where(SEA, x + normal(n, 1, 2, 3), 0.0), context={"time": time})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Standardise("global", SEA),
        lambda: Standardise("channel", SEA),
        lambda: Standardise("point", SEA),
        lambda: Climatology(1, hours=(0,), mask=SEA),
        lambda: Climatology(1, hours=(0,), per="global", mask=SEA),
        lambda: Chain(Detrend(), Standardise("point", SEA)),
    ],
)
def test_land_passes_as_it_is_and_counts_for_nothing(make):
    batch = sea_surface()
    transform = make().fit(batch)
    y = transform(batch).x
    assert (y[..., ~SEA] == 0).all()
    assert abs(float(y[..., SEA].mean())) < 1e-10 and float(y[..., SEA].var(correction=0)) == pytest.approx(1)
    # the volume is that of the sea alone, as the masked prior counts it, and what lies on land changes nothing
    torch.testing.assert_close(transform.log_det(batch), log_det(transform, batch, Masked(SEA[None])))
    other = batch.replace(torch.where(SEA, batch.x, 7.0))
    again = make().fit(other)
    torch.testing.assert_close(again(other).x[..., SEA], y[..., SEA])
    assert (again(other).x[..., ~SEA] == 7).all() and (transform.inverse(transform(other)).x[..., ~SEA] == 7).all()


def test_a_channel_without_sea_passes_as_it_is():
    mask = torch.tensor([True, False]).reshape(2, 1, 1)
    batch = Batch(normal(20, 2, 3, 3) * mask)
    assert (Standardise("channel", mask).fit(batch)(batch).x[:, 1] == 0).all()


# -- units --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "expected", "to"),
    [
        (20.0, "degC", 68.0, "degF"),
        (0.0, "K", -459.67, "fahrenheit"),
        (1013.25, "mbar", 1.0, "atm"),
        (36.0, "km/h", 10.0, "m s-1"),
        (1.0, "knot", 1.852, "km h-1"),
        (7.5, "g kg-1", 0.0075, "1"),
        (5500.0, "gpm", 53936.575, "m**2 s**-2"),
        (1.0, "kg m-2 s-1", 86400.0, "mm/day"),
        (30.0, "percent", 0.3, "1"),
        (3.0, "K", 3.0, "kelvin"),
    ],
)
def test_units_are_converted_as_tables_say(value, unit, expected, to):
    batch = Batch(torch.tensor([[value]], dtype=torch.float64))
    there = convert_units(unit, to)
    assert float(there(batch).x) == pytest.approx(expected, rel=1e-12, abs=1e-10)
    assert float(there.inverse(there(batch)).x) == pytest.approx(value, rel=1e-12, abs=1e-10)
    back = convert_units(to, unit)
    assert float(back(there(batch)).x) == pytest.approx(value, rel=1e-12, abs=1e-10)
    assert float(there.log_det(batch) + back.log_det(batch)) == pytest.approx(0, abs=1e-12)


def test_a_density_per_pascal_is_one_per_hectopascal_in_other_units():
    batch = Batch(torch.full((1, 3), 101325.0).double())
    assert float(convert_units("Pa", "hPa").log_det(batch)) == pytest.approx(-3 * math.log(100))
