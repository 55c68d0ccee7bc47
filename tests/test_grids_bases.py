"""The base of a grid: the right kinds for its edges, and of these the one whose likelihood of other data is highest."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from scifm.data import grids
from scifm.data.grids import bases
from scifm.priors import Masked, RowGaussian, SpectralGaussian, ZonalGaussian, spectra

CSM = "csm_trefht_t42_global"


def field(n, shape=(6, 8), longitudes=40.0, latitudes=60.0, land=False, seed=0, members=1, poles=False):
    """Smooth fields (time, lat, lon), on a circle where longitudes span it."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(members, n, *shape))
    x = x + 0.9 * np.roll(x, 1, -1) + 0.7 * np.roll(x, 1, -2) + 0.5 * np.roll(x, 2, -1)
    if poles:
        x[..., 0, :] = x[..., 0, :1]
    if land:
        x[..., 1, 2:5] = np.nan
    coords = {
        "number": range(members),
        "time": np.datetime64("2001-01-01") + 30 * np.arange(n),
        "lat": ("lat", np.linspace(-latitudes, latitudes, shape[0]), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(shape[1]) * longitudes / shape[1], {"units": "degrees_east"}),
    }
    return xr.DataArray(x.astype("f4"), coords, ("number", "time", "lat", "lon"), "t").to_dataset()


def base_of(dataset):
    batch, spec = grids.from_xarray(dataset)
    return grids.base(spec, batch), batch, spec


def offered(dataset):
    """The candidates, in order."""
    batch, spec = grids.from_xarray(dataset)
    return bases.candidates(spec, len(batch))


# -- what there is to choose from ------------------------------------------------------------------------------


def test_a_region_has_cosines_and_a_belt_a_circle():
    region = offered(field(60))
    assert {type(c) for c in region} == {SpectralGaussian}
    assert {c.basis.periodic for c in region} == {(False, False)}
    belt = offered(field(60, longitudes=360.0))
    assert [type(c) for c in belt] == 2 * [SpectralGaussian] + 2 * [ZonalGaussian]
    assert {c.basis.periodic for c in belt[:2]} == {(False, True)}


def test_a_mask_has_white_noise_and_rows():
    for longitudes, closed in ((40.0, False), (360.0, True)):
        white, *rows = offered(field(60, longitudes=longitudes, land=True))
        assert isinstance(white, Masked) and [c.order for c in rows] == [1, 2]
        assert all(c.target.basis.periodic == (False, closed) for c in rows)
        assert all(torch.equal(c.mask, white.mask) and int((~c.mask).sum()) == 3 for c in rows)


def test_many_fields_are_shrunk_less():
    few, many = (offered(field(n, longitudes=360.0)) for n in (23, 24))
    assert [c.shrink for c in few[2:]] == [0.3, 0.5] and [c.shrink for c in many[2:]] == [0.02, 0.1]


def test_what_would_take_too_much_memory_is_no_candidate(monkeypatch):
    monkeypatch.setattr(bases, "ZONAL", 100)
    monkeypatch.setattr(bases, "ROWS", 100)
    assert {type(c) for c in offered(field(60, longitudes=360.0))} == {SpectralGaussian}
    assert {type(c) for c in offered(field(60, land=True))} == {Masked}


def test_of_very_many_fields_some_are_fitted_to(monkeypatch):
    monkeypatch.setattr(bases, "DATA", 100 * 48)
    fitted = []
    monkeypatch.setattr(bases, "best", lambda candidates, batch: fitted.append(batch) or candidates[0].fit(batch))
    _, batch, _ = base_of(field(400))
    (some,) = fitted
    assert len(some) == 100 and torch.equal(some.x[0], batch.x[0]) and torch.equal(some.x[-1], batch.x[-1])
    base_of(field(100))
    assert len(fitted[1]) == 100
    monkeypatch.setattr(bases, "DATA", 1)
    base_of(field(100))
    assert len(fitted[2]) == 64


# -- what is chosen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [16, 400])
def test_a_region_gets_a_cosine_spectrum(n):
    base, batch, _ = base_of(field(n))
    assert isinstance(base, SpectralGaussian) and base.basis.periodic == (False, False)
    assert base.dims(batch)[0] == 48


def test_a_globe_with_data_enough_gets_a_covariance_per_wavenumber():
    data = field(400, longitudes=360.0)
    data["t"] = data.t * xr.DataArray(np.array([0.2, 3, 1, 1, 0.3, 2], "f4"), dims="lat")  # rows are not alike
    base, batch, _ = base_of(data)
    assert isinstance(base, ZonalGaussian) and base.shrink == 0.02
    assert torch.allclose(base.log_prob(batch.x.roll(3, -1), batch), base.log_prob(batch.x, batch), rtol=1e-4)


def test_poles_have_a_density():
    """All longitudes of a pole are one point: without a nugget no zonal covariance would be regular."""
    base, batch, _ = base_of(field(400, longitudes=360.0, latitudes=90.0, poles=True))
    assert isinstance(base, ZonalGaussian) and base.log_prob(batch.x, batch).isfinite().all()
    drawn = base.sample(batch, torch.Generator().manual_seed(0))[:, 0]
    assert drawn[:, 0].std(-1).mean() < 0.01 * drawn[:, 1].std(-1).mean()


def test_the_sea_gets_rows_where_they_help_and_white_noise_where_they_do_not():
    base, batch, _ = base_of(field(60, land=True))
    assert isinstance(base, RowGaussian) and base.dims(batch)[0] == 45
    assert not base.sample(batch)[:, :, 1, 2:5].any()
    data = field(60, land=True)
    noise = xr.zeros_like(data.t) + np.random.default_rng(1).normal(size=data.t.shape).astype("f4")
    data["t"] = noise.where(data.t.notnull())
    assert isinstance(base_of(data)[0], Masked)
    few = field(9, land=True)  # rows want ten, and the smooth field is scored by what is there
    assert isinstance(base_of(few)[0], Masked)


def test_land_may_hold_anything():
    batch, spec = grids.from_xarray(field(60, land=True))
    zero, nan = (
        grids.base(spec, batch.replace(torch.where(torch.from_numpy(spec.mask), batch.x, v))) for v in (0.0, math.nan)
    )
    assert type(zero) is type(nan) and torch.equal(zero.mean, nan.mean)


def test_an_ensemble_of_few_times_does_not_decide():
    """Ten members of two times look like twenty samples; what they decided was worse than the first candidate."""
    base, _, _ = base_of(field(2, members=10))
    assert isinstance(base.spectrum, spectra.Isotropic)


@pytest.mark.parametrize("land", [False, True])
def test_the_same_data_make_the_same_base(land):
    batch, spec = grids.from_xarray(field(60, land=land))
    one, two = grids.base(spec, batch), grids.base(spec, batch)
    assert type(one) is type(two)
    assert all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())


def test_one_axis_and_curves_have_a_base():
    line = xr.Dataset({"u": (("time", "x"), np.random.default_rng(0).normal(size=(40, 16)).cumsum(1))})
    assert isinstance(base_of(line)[0], SpectralGaussian)
    line["u"] = line.u.where(np.arange(16) > 2)
    assert isinstance(base_of(line)[0], Masked)  # rows are of two axes


# -- real data -------------------------------------------------------------------------------------------------


REAL = [
    ("ncep_air_temperature", "air_temperature.nc", "air", SpectralGaussian, -1.626),
    (CSM, "TREFHT.B06.57.atm.1890-1999ANN.nc", "TREFHT", ZonalGaussian, -1.310),
    (CSM, "b003_TS_200-299.nc", "TS", ZonalGaussian, -0.439),
    ("ncep_z500_djf_atlantic", "hgt_djf.nc", "z", SpectralGaussian, -5.848),
    ("ncep_z500_djf_atlantic", "sst_ndjfm_anom.nc", "sst", RowGaussian, -0.394),
]


@pytest.mark.parametrize(("folder", "file", "name", "kind", "expected"), REAL, ids=[r[1] for r in REAL])
def test_what_is_chosen_is_the_best_of_all_on_test_data(scifm_data, folder, file, name, kind, expected):
    """The test blocks are years that neither the fits nor the choice have seen."""
    data, spec = grids.read(scifm_data(folder) / file, (name,))
    anomaly = grids.anomalies(data.train, spec)
    train, test = anomaly(data.train), anomaly(data.test)
    test = test.replace(test.x.double())
    chosen = grids.base(spec, train)
    found = [bits(prior.fit(train), test) for prior in bases.candidates(spec, len(train))]
    assert isinstance(chosen, kind) and bits(chosen, test) == pytest.approx(expected, abs=0.005)
    assert bits(chosen, test) == min(found)


def bits(prior, test):
    return float(-prior.log_prob(test.x, test).mean()) / float(prior.dims(test)[0]) / math.log(2)
