"""Grids by law: what comes in goes out identical, and what cannot come in is refused with a cure."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from scifm import Batch
from scifm.data.grids import GridSpec, from_xarray, to_xarray


def air(n=6, dtype="f4", lon=(200.0, 230.0), dims=("time", "lat", "lon")) -> xr.Dataset:
    """A small file as climate centres write them: descending latitude, named units, a bounds variable."""
    shape = {"time": n, "lat": 3, "lon": 5, "level": 2}
    g = np.random.default_rng(0)
    values = g.uniform(250, 300, [shape[d] for d in dims]).astype(dtype)
    coords = {
        "time": (
            "time",
            np.datetime64("2013-01-01T06", "ns") + 6 * np.arange(n).astype("timedelta64[h]"),
            {"note": "t"},
        ),
        "lat": ("lat", np.array([60, 45, 30], "f4"), {"units": "degrees_north"}),
        "lon": ("lon", np.linspace(*lon, 5), {"units": "degrees_east", "axis": "X"}),
        "height": ((), 2.0, {"units": "m"}),
    }
    if "level" in dims:
        coords["level"] = ("level", [850, 500])
    attrs = {"units": "K", "long_name": "air temperature", "valid_range": np.array([100.0, 400.0])}
    return xr.Dataset({"air": (dims, values, attrs)}, coords, {"title": "made here"})


def packed(tmp_path, scale=0.01, stored="int16", **more):
    """The same, stored as whole numbers."""
    path = tmp_path / "packed.nc"
    encoding = {"dtype": stored, "scale_factor": scale, "add_offset": 275.0, "_FillValue": -32768} | more
    air().to_netcdf(path, encoding={"air": encoding})
    return path


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "dims", ["time lat lon", "lat lon time", "time level lat lon", "lat time", "lon time level lat"]
)
def test_a_dataset_comes_back_identical(dtype, dims):
    dims = dims.split()
    source = air(dtype=dtype, dims=dims)
    source = source.drop_vars([c for c in source.coords if not set(source[c].dims) <= set(dims)])
    batch, spec = from_xarray(source)
    rest = [d for d in dims if d != "time"]
    assert batch.x.dtype == {"f4": torch.float32, "f8": torch.float64}[dtype]
    assert batch.x.shape == (6, *spec.event) and len(spec.event) == 1 + min(2, len(rest))
    spec = GridSpec.from_json(spec.to_json())
    back = to_xarray(batch, spec, None)
    assert back.air.dtype == source.air.dtype and back.air.dims == source.air.dims
    xr.testing.assert_identical(back, source)


def test_samples_take_the_place_of_time():
    source = air(dims=("lat", "time", "lon"))
    batch, spec = from_xarray(source)
    out = to_xarray(batch, spec, history="drawn here")
    assert out.air.dims == ("lat", "realization", "lon")
    assert out.realization.attrs["standard_name"] == "realization"
    assert out.air.attrs["units"] == "K" and out.air.dtype == "f4"
    assert out.attrs == {"title": "made here", "history": "drawn here"}
    np.testing.assert_array_equal(out.time.values, source.time.values)
    again = to_xarray(batch, replace(spec, attrs=out.attrs), history="twice")
    assert again.attrs["history"] == "twice\ndrawn here"
    few = to_xarray(batch.select([4, 1]), spec, "time")
    del source.air.attrs["valid_range"]  # need not hold for samples
    xr.testing.assert_identical(few.drop_encoding(), source.isel(time=[4, 1]).drop_encoding())
    # and the samples can be read again
    second, _ = from_xarray(out, sample_dim="realization")
    assert torch.equal(second.x, batch.x)


def test_time_is_days_since_1970():
    batch, _ = from_xarray(air())
    assert batch.context["time"].dtype == torch.float64
    np.testing.assert_allclose(batch.context["time"][:2], [15706.25, 15706.5], rtol=0, atol=0)


def test_other_sample_dims_carry_no_time():
    source = air().rename(time="number").assign_coords(number=np.arange(6))
    batch, spec = from_xarray(source)
    assert spec.samples == ("number",) and not batch.context
    first, spec = from_xarray(air(), sample_dim="lat")
    assert first.x.shape == (3, 1, 6, 5) and spec.samples == ("lat",)
    xr.testing.assert_identical(to_xarray(first, spec, None), air())


@pytest.mark.parametrize("scale", [0.01, -0.01, 0.001525])
def test_packed_files_know_their_step_and_come_back_identical(tmp_path, scale):
    path = packed(tmp_path, scale)
    with xr.open_dataset(path) as source:
        source.load()
    batch, spec = from_xarray(path)
    assert spec.delta == abs(scale)
    assert batch.x.dtype == (torch.float32 if abs(scale) >= 0.01 else torch.float64)
    back = to_xarray(batch, GridSpec.from_json(spec.to_json()), None)
    xr.testing.assert_identical(back, source)
    back.to_netcdf(tmp_path / "again.nc")
    with (
        xr.open_dataset(tmp_path / "again.nc", mask_and_scale=False) as again,
        xr.open_dataset(path, mask_and_scale=False) as first,
    ):
        assert again.air.dtype == "i2"
        np.testing.assert_array_equal(again.air.values, first.air.values)


def test_rounding_to_the_lattice_undoes_dequantisation(tmp_path):
    batch, spec = from_xarray(packed(tmp_path), dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    noisy = batch.replace(batch.x + spec.delta * (torch.rand(batch.x.shape, generator=g, dtype=torch.float64) - 0.5))
    xr.testing.assert_identical(to_xarray(noisy, spec), to_xarray(batch, spec))
    loose = to_xarray(noisy, spec, lattice=False)
    np.testing.assert_array_equal(loose.air.values, noisy.x[:, 0].numpy())
    assert "scale_factor" not in loose.air.encoding


@pytest.mark.parametrize("value", [-1e4, 1e4, 275 - 327.68])
def test_draws_beyond_the_packed_range_are_written_as_floats(tmp_path, value):
    batch, spec = from_xarray(packed(tmp_path))
    wild = batch.x.clone()
    wild[0, 0, 0, 0] = value  # the last one would be stored as the mark of a missing value
    to_xarray(batch.replace(wild), spec).to_netcdf(tmp_path / "wild.nc")
    with xr.open_dataset(tmp_path / "wild.nc") as out:
        np.testing.assert_allclose(out.air.values, wild[:, 0].numpy(), atol=0.006)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_the_precision_of_the_packing_survives(tmp_path, kind):
    path = packed(tmp_path, np.dtype(kind).type(0.01), add_offset=np.dtype(kind).type(275))
    batch, spec = from_xarray(path)
    to_xarray(batch, GridSpec.from_json(spec.to_json()), None).to_netcdf(tmp_path / "again.nc")
    with xr.open_dataset(tmp_path / "again.nc") as again, xr.open_dataset(path) as source:
        assert source.air.dtype == kind
        xr.testing.assert_identical(again.load(), source.load())
        assert again.air.dtype == kind


def test_a_factor_in_a_list_of_one_is_a_number(tmp_path):
    with xr.open_dataset(packed(tmp_path)) as source:
        source.load()
    source.air.encoding["scale_factor"] = np.array([0.01])
    assert from_xarray(source)[1].delta == 0.01


@pytest.mark.filterwarnings("error")
def test_packing_without_a_mark_for_missing_values_is_written_silently(tmp_path):
    batch, spec = from_xarray(packed(tmp_path))
    only = spec.variables[0]
    marked = {k: v for k, v in only.encoding.items() if k != "_FillValue"}
    spec = replace(spec, variables=(replace(only, encoding=marked),))
    to_xarray(batch, spec).to_netcdf(tmp_path / "again.nc")
    with xr.open_dataset(tmp_path / "again.nc") as out:
        assert out.air.encoding["dtype"] == "i2"
        np.testing.assert_allclose(out.air.values, batch.x[:, 0].numpy(), rtol=1e-6)


def test_whole_numbers():
    source = air()
    source["air"] = source.air.round().astype("i2").assign_attrs(units="m")
    batch, spec = from_xarray(source)
    assert spec.delta == 1.0 and batch.x.dtype == torch.float32
    xr.testing.assert_identical(to_xarray(batch, spec, None), source)
    moved = batch.replace(batch.x + 0.3)
    assert to_xarray(moved, spec).air.dtype == "i2"
    np.testing.assert_allclose(to_xarray(moved, spec, lattice=False).air.values, moved.x[:, 0], rtol=1e-6)


def test_continuous_files_have_no_step():
    assert from_xarray(air())[1].delta is None


@pytest.mark.parametrize(
    ("lon", "closes"), [((0.0, 288.0), True), ((-180.0, 108.0), True), ((200.0, 230.0), False), ((0.0, 360.0), False)]
)
def test_periodic_longitude_is_found(lon, closes):
    _, spec = from_xarray(air(lon=lon))
    assert spec.periodic == (False, closes)
    assert ("periodic: yes" in spec.describe()) == closes


def test_a_description_names_what_was_understood(tmp_path):
    text = from_xarray(packed(tmp_path))[1].describe()
    assert text == (
        "air [K, steps of 0.01]; lat: 3, descending, 60 .. 30; lon: 5, periodic: no, 200 .. 230; time: 6 h, "
        "proleptic_gregorian calendar, 6, 2013-01-01 .. 2013-01-02; 0 missing"
    )


def test_spec_is_plain_json():
    _, spec = from_xarray(air())
    assert GridSpec.from_json(spec.to_json()) == spec
    assert spec != replace(spec, sizes={**spec.sizes, "lat": 4})
    kept = GridSpec.from_json(spec.to_json()).variables[0].attrs["valid_range"]
    assert kept.dtype == "f8" and kept.tolist() == [100.0, 400.0]
    json.loads(spec.to_json())


def cut(tmp_path):
    path = packed(tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def foreign(tmp_path):
    path = tmp_path / "note.nc"
    path.write_text("not a grid")
    return path


def holed():
    source = air()
    source.air[2, 1, 1] = np.nan
    source.air[4] = np.nan
    return source


def undated():
    source = air()
    return source.assign_coords(time=[np.datetime64("NaT", "ns"), *source.time.values[1:]])


def spec_of_air():
    return from_xarray(air())[1]


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda p: from_xarray(p / "none.nc"), FileNotFoundError, "There is no file .*none.nc"),
        (lambda p: from_xarray(cut(p)), ValueError, "packed.nc cannot be read.*fetch it again"),
        (lambda p: from_xarray(foreign(p)), ValueError, "note.nc cannot be read"),
        (lambda p: from_xarray(air(), variable="t2m"), ValueError, "no variable 't2m'; there are air"),
        (lambda p: from_xarray(air(), variable="aire"), ValueError, "no variable 'aire'; did you mean 'air'"),
        (lambda p: from_xarray(undated()), ValueError, r"1 of 6 samples have no date in 'time' \(NaT\)"),
        (lambda p: from_xarray(air().assign(b=air().air)), ValueError, "found 2: air.*b.*name it"),
        (lambda p: from_xarray(air().drop_vars("air")), ValueError, "found 0: none"),
        (lambda p: from_xarray(air(), sample_dim="member"), ValueError, "no dim 'member'; it has time, lat, lon"),
        (lambda p: from_xarray(air().isel(time=0, drop=True)), ValueError, "Give sample_dim"),
        (lambda p: from_xarray(air().air[:, 0, 0]), ValueError, "no grid"),
        (lambda p: from_xarray(air(n=0)), ValueError, "is empty"),
        (lambda p: from_xarray(holed()), ValueError, "16 of 90 values of 'air' are missing.*in 2 of 6.*missing="),
        (lambda p: from_xarray(air().air.astype(str)), ValueError, "expected numbers"),
        (lambda p: from_xarray(np.zeros(3)), TypeError, "a path, a Dataset or a DataArray, got ndarray"),
        (lambda p: to_xarray(Batch(torch.zeros(2, 1, 5, 3)), spec_of_air()), ValueError, r"\(1, 3, 5\).*\(1, 5, 3\)"),
        (lambda p: to_xarray(Batch(torch.zeros(2, 3), torch.tensor([0, 1]), 2), spec_of_air()), ValueError, "ragged"),
        (lambda p: GridSpec.from_json("{}"), ValueError, "expected what to_json wrote"),
        (lambda p: GridSpec.from_json("no json"), ValueError, "expected what to_json wrote"),
        (lambda p: GridSpec.from_json("[1]"), ValueError, "expected what to_json wrote"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_wrong(tmp_path, act, error, message):
    with pytest.raises(error, match=message):
        act(tmp_path)
