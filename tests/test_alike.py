"""Another file read as the data of a run were: the same grid, units and times, or an error that says what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from scifm.data import grids
from scifm.data.grids import read_alike
from scifm.data.grids.likeness import lattice_of

DIMS = ("time", "level", "lat", "lon")
SIZES = {"time": 4, "level": 2, "lat": 3, "lon": 5, "member": 3}
PACKED = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 275.0, "_FillValue": -32768}


def file(tmp_path, name="mine.nc", dims=DIMS, seed=0, encoding=None, unit="K", **changes) -> object:
    """Temperatures in steps of 0.01 K, and where they are written."""
    made = fields(dims, seed, unit).assign_coords(changes)
    made.to_netcdf(tmp_path / name, encoding={"t": encoding or {}})
    return tmp_path / name


def fields(dims=DIMS, seed=0, unit="K") -> xr.Dataset:
    values = np.random.default_rng(seed).integers(25000, 30000, [SIZES[d] for d in dims]) / 100
    coords = {
        "time": ("time", np.datetime64("2001-01-01", "ns") + 24 * np.arange(4).astype("timedelta64[h]")),
        "level": ("level", [850.0, 500.0], {"units": "hPa"}),
        "lat": ("lat", [60.0, 45.0, 30.0], {"units": "degrees_north"}),
        "lon": ("lon", 72.0 * np.arange(5), {"units": "degrees_east"}),
        "member": ("member", np.arange(3)),
    }
    kept = {n: c for n, c in coords.items() if n in dims}
    return xr.Dataset({"t": (dims, values, {"units": unit})}, kept, {"title": "by hand"})


@pytest.fixture
def spec(tmp_path):
    """What the run was trained on: packed."""
    return grids.from_xarray(file(tmp_path, "run.nc", encoding=PACKED))[1]


# -- what comes in ---------------------------------------------------------------------------------------


def test_the_file_of_the_run_is_like_itself(tmp_path, spec):
    batch, _ = grids.from_xarray(tmp_path / "run.nc")
    found = read_alike(tmp_path / "run.nc", spec, batch.x.dtype)
    assert torch.equal(found.batch.x, batch.x) and torch.equal(found.batch.context["time"], batch.context["time"])
    assert found.deltas == (0.01, 0.01) and found.delta == 0.01 and found.name == "run.nc"
    assert found.observed.all() and found.inside.all() and found.complete() is found.batch


def test_celsius_become_kelvin_and_go_back(tmp_path, spec):
    path = tmp_path / "warm.nc"
    warm = fields(seed=1, unit="degC")
    warm["t"] = warm.t - 273.0
    warm.t.attrs["units"] = "degC"
    warm.to_netcdf(path)
    found = read_alike(path, spec, torch.float64)
    values = torch.from_numpy(warm.t.transpose(*DIMS).values)
    torch.testing.assert_close(found.batch.x, values + 273.15)
    back = found.maps(found.batch.x[None])
    np.testing.assert_allclose(back.t[0].transpose(*DIMS).values, warm.t.values, atol=1e-9)
    assert back.t.attrs["units"] == "degC" and back.t.dims == ("realization", *DIMS)


def test_the_lattice_is_that_of_the_packing_in_the_run_s_units(tmp_path, spec):
    tenths = file(tmp_path, encoding={**PACKED, "scale_factor": 0.1})
    assert read_alike(tenths, spec).deltas == (0.1, 0.1)
    run = grids.from_xarray(file(tmp_path, "pa.nc", unit="Pa"))[1]
    hecto = file(tmp_path, "hpa.nc", unit="hPa", encoding=PACKED)
    assert read_alike(hecto, run).deltas == pytest.approx((1.0, 1.0))


def test_values_that_lost_their_packing_lie_on_the_lattice_all_the_same(tmp_path, spec):
    assert read_alike(file(tmp_path), spec).delta == 0.01
    noisy = fields()
    noisy["t"] = noisy.t + 1e-3 * xr.ones_like(noisy.t).cumsum("lon")
    noisy.to_netcdf(tmp_path / "noisy.nc")
    assert read_alike(tmp_path / "noisy.nc", spec).deltas == (None, None)


def test_a_lattice_is_not_believed_where_the_numbers_cannot_show_it():
    steps = torch.arange(20, dtype=torch.float64)
    assert lattice_of(300 + 0.01 * steps, None, 0.01) == 0.01
    assert lattice_of((300 + 0.01 * steps).float().double(), None, 0.01) == 0.01
    assert lattice_of(300 + 0.0137 * steps, None, 0.01) is None
    assert lattice_of(1e6 + 0.0137 * steps, None, 0.01) is None  # single precision would be as coarse as the steps
    assert lattice_of(torch.full((3,), torch.nan).double(), None, 0.01) is None
    assert lattice_of(steps, 0.5, 0.01) == 0.5 and lattice_of(steps, None, None) is None


def test_channels_of_several_lattices_are_made_continuous_for_a_score(tmp_path):
    both = fields(dims=("time", "lat", "lon"))
    both["u"] = both.t.astype("f8") * 0.1
    both.to_netcdf(tmp_path / "two.nc", encoding={"t": PACKED})
    spec = grids.from_xarray(tmp_path / "two.nc", ["t", "u"])[1]
    found = read_alike(tmp_path / "two.nc", spec, torch.float64)
    off = found.complete().x - found.batch.x
    assert found.deltas == (0.01, None) and found.delta is None
    assert (off[:, 1] == 0).all() and 0.001 < off[:, 0].abs().max() <= 0.005
    assert torch.equal(found.complete().x, found.complete().x)  # once, from a fixed seed


def test_gaps_stay_nan_and_a_score_of_them_is_refused(tmp_path, spec):
    gappy = fields()
    gappy.t[1, 0, 2, 3], gappy.t[3, :, 0, 0] = np.nan, np.nan
    gappy.to_netcdf(tmp_path / "gaps.nc", encoding={"t": PACKED})
    found = read_alike(tmp_path / "gaps.nc", spec)
    missing = torch.from_numpy(np.isnan(gappy.t.values))
    assert torch.equal(found.batch.x.isnan(), missing) and torch.equal(found.observed, ~missing)
    says = r"gaps.nc: 3 values are missing \(NaN\) in 2 of 4 samples, the first is 1; .*`scifm fill`"
    with pytest.raises(ValueError, match=says):
        found.complete()


def test_what_lies_on_land_plays_no_part(tmp_path):
    sea = fields()
    sea.t[:, :, 0, :2] = np.nan
    sea.to_netcdf(tmp_path / "sea.nc", encoding={"t": {**PACKED, "add_offset": 275.005}})
    spec = grids.from_xarray(tmp_path / "sea.nc")[1]
    other = fields(seed=2)  # land has values, which the run has not
    other["t"] = other.t + 0.005
    other.to_netcdf(tmp_path / "other.nc")
    found = read_alike(tmp_path / "other.nc", spec)
    assert not found.inside[:, 0, :2].any() and int((~found.inside).sum()) == 4
    assert (found.batch.x[:, ~found.inside] == 0).all() and not found.observed[:, ~found.inside].any()
    assert found.delta == 0.01  # the zero on land is on no lattice, and is not asked
    back = found.maps(found.complete().x[None])
    assert np.isnan(back.t.values[0, :, :, 0, :2]).all() and int(np.isnan(back.t.values).sum()) == 4 * 4
    np.testing.assert_allclose(back.t.values[0, :, :, 1:], other.t.values[:, :, 1:], atol=1e-3)


# -- what goes out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [DIMS, ("lon", "level", "time", "lat"), ("member", "time", "level", "lat", "lon")])
def test_maps_are_the_file_s_own_fields(tmp_path, spec, dims):
    """Order, packing, coordinates and extra dims of samples are the file's; members come first."""
    source = grids.open_file(file(tmp_path, dims=dims, seed=3, encoding={**PACKED, "add_offset": 280.0}))
    found = read_alike(tmp_path / "mine.nc", spec, torch.float64)
    x = torch.stack([found.batch.x, found.batch.x + 0.02])
    made = found.maps(x)
    assert made.t.dims == ("realization", *dims) and made.sizes["realization"] == 2
    assert made.realization.attrs["standard_name"] == "realization" and made.attrs == source.attrs
    xr.testing.assert_allclose(made.t[0].drop_vars("realization"), source.t, atol=1e-9)
    np.testing.assert_allclose(made.t[1] - made.t[0], 0.02, atol=1e-9)
    assert {n: c.dims for n, c in source.coords.items()}.items() <= {n: c.dims for n, c in made.coords.items()}.items()
    made.to_netcdf(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as again:
        assert again.t.encoding["dtype"] == np.dtype("i2") and again.t.encoding["add_offset"] == 280.0
        np.testing.assert_allclose(again.t, made.t, atol=1e-6)
        np.testing.assert_array_equal(again.time, source.time)


def test_numbers_per_sample_lie_along_the_file_s_samples(tmp_path, spec):
    source = grids.open_file(file(tmp_path, dims=("member", "time", "level", "lat", "lon")))
    found = read_alike(tmp_path / "mine.nc", spec)
    one, two = torch.arange(12.0), torch.arange(24.0).reshape(2, 12)
    alone = found.beside({"log_prob": (one, {"units": "nats"})})
    assert alone.log_prob.dims == ("member", "time") and alone.log_prob.attrs == {"units": "nats"}
    assert alone.log_prob.sel(member=2).values.tolist() == [8.0, 9.0, 10.0, 11.0]
    assert set(alone.coords) == {"member", "time"} and (alone.time == source.time).all()
    both = found.beside({"w": (two, {}), "t": (one, {})}, found.maps(found.batch.x[None].repeat(2, 1, 1, 1, 1)))
    assert both.w.dims == ("realization", "member", "time") and both.w.values[1, 0].tolist() == [12.0, 13.0, 14.0, 15.0]
    assert both.scifm_t.dims == ("member", "time") and both.t.ndim == 6  # a name that is taken


def test_members_find_a_name_of_their_own(tmp_path):
    ensemble = fields(dims=("member", "time", "lat", "lon")).rename(member="realization")
    ensemble.to_netcdf(tmp_path / "e.nc")
    spec = grids.from_xarray(tmp_path / "e.nc")[1]
    found = read_alike(tmp_path / "e.nc", spec)
    assert found.maps(found.batch.x[None]).t.dims == ("filling", "realization", "time", "lat", "lon")


# -- what is refused -------------------------------------------------------------------------------------


def flipped(d):
    return d.isel(lat=slice(None, None, -1))


def noleap(d):
    pytest.importorskip("cftime")
    return d.convert_calendar("noleap", use_cftime=True)


REFUSED = {
    "no variable": (lambda d: d.rename(t="tas"), r"there is no variable 't', which the run has; there are: tas"),
    "fewer points": (lambda d: d.isel(lon=slice(4)), r"the run has lon with 5 entries; choose, interpolate or rename"),
    "fewer levels": (lambda d: d.isel(level=[0]), r"level 1, .*the run has level with 2 entries"),
    "no level": (lambda d: d.isel(level=0, drop=True), r"the run has level with 2 entries"),
    "other names": (lambda d: d.rename(lat="y"), r"the run has lat with 3 entries; .*ds.rename"),
    "reversed": (flipped, r"'lat' is 30.0 .. 60.0, that of the run is 60.0 .. 30.0: .*\(lat=slice\(None, None, -1\)\)"),
    "elsewhere": (lambda d: d.assign_coords(lon=d.lon + 36), r"'lon' is 36.0 .. 324.0, .*the same grid; interpolate"),
    "other levels": (lambda d: d.assign_coords(level=[850.0, 700.0]), r"'level' is 850.0 .. 700.0, that of the run is"),
    "levels unnamed": (lambda d: d.drop_vars("level"), r"'level' has none, that of the run is 850.0 .. 500.0"),
    "no samples": (lambda d: d.isel(time=0), r"has no dim that counts samples; give it one, ds.expand_dims\('time'\)"),
    "no times": (lambda d: d.drop_vars("time"), r"its samples have no times, .*assign_coords\(time=...\) dates"),
    "calendar": (noleap, r"its calendar is 'noleap', that of the run 'proleptic_gregorian'; .*convert_calendar\("),
    "quantity": (lambda d: d.assign(t=d.t.assign_attrs(units="Pa")), r"'t' is in 'Pa', the run is in 'K'; convert it"),
    "unknown unit": (lambda d: d.assign(t=d.t.assign_attrs(units="furlong")), r"'furlong' is not in the table"),
    "no unit": (lambda d: d.assign(t=d.t.drop_attrs()), r"'t' is in 'no unit', the run is in 'K'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_alike_is_refused_with_its_cure(tmp_path, spec, name):
    change, says = REFUSED[name]
    change(fields(seed=1)).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ValueError, match=f"^other.nc: .*{says}"):
        read_alike(tmp_path / "other.nc", spec)


def test_a_file_that_is_not_there(tmp_path, spec):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_alike(tmp_path / "gone.nc", spec)


def test_what_differs_in_its_last_digits_only_is_the_same(tmp_path, spec):
    near = fields().assign_coords(lon=("lon", (72.0 * np.arange(5) + 0.01).astype("f4"), {"units": "degrees_east"}))
    near["level"] = ("level", np.array([850, 500]), {"units": "hPa"})
    near.to_netcdf(tmp_path / "near.nc")
    assert len(read_alike(tmp_path / "near.nc", spec).batch) == 4


def test_curvilinear_coordinates_may_be_missing_on_land(tmp_path):
    lat, lon = np.meshgrid([60.0, 45.0, 30.0], 10.0 * np.arange(5), indexing="ij")
    lat[0, 0] = lon[0, 0] = np.nan
    attrs = {"units": "degrees_north"}, {"units": "degrees_east"}
    ocean = fields(dims=("time", "lat", "lon")).drop_vars(["lat", "lon"]).rename(lat="j", lon="i")
    ocean = ocean.assign_coords(TLAT=(("j", "i"), lat, attrs[0]), TLONG=(("j", "i"), lon, attrs[1]))
    ocean.to_netcdf(tmp_path / "ocean.nc")
    spec = grids.from_xarray(tmp_path / "ocean.nc")[1]
    assert spec.grid == ("j", "i") and len(read_alike(tmp_path / "ocean.nc", spec).batch) == 4
    ocean.assign_coords(TLAT=(("j", "i"), lat + 1, attrs[0])).to_netcdf(tmp_path / "moved.nc")
    with pytest.raises(ValueError, match=r"moved.nc: 'TLAT' is"):
        read_alike(tmp_path / "moved.nc", spec)
