"""Kinds of grids that files come in: levels, orders, calendars, masks, curvilinear and Gaussian, packings, Zarr."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from test_grids import air

from scifm.areas import cell_areas
from scifm.data.grids import GridSpec, anomalies, base, from_xarray, open_file, read, stream, to_xarray
from scifm.data.grids.cells import closes, radians
from scifm.data.transforms import Climatology
from scifm.report.labels import Labels

G = np.random.default_rng(0)
HOURS = 6 * np.arange(6).astype("timedelta64[h]")
TIME = np.datetime64("2013-01-01", "ns") + HOURS


def back(source, *names, **settings):
    """Through the door, JSON, and back: identical."""
    batch, spec = from_xarray(source, names or None, **settings)
    spec = GridSpec.from_json(spec.to_json())
    found = to_xarray(batch, spec, None)
    xr.testing.assert_identical(found, source[list(names)] if names else source)
    return batch, spec, found


def levels():
    lat, lon = np.linspace(-60, 60, 4), np.arange(0, 360, 72.0)
    return xr.Dataset(
        {
            "z": (("time", "plev", "lat", "lon"), G.normal(size=(6, 2, 4, 5)).astype("f4"), {"units": "m"}),
            "ps": (("lon", "time", "lat"), G.normal(size=(5, 6, 4)).astype("f4"), {"units": "Pa"}),
            "t": (("lat", "time", "depth", "lon"), G.normal(size=(4, 6, 3, 5)).astype("f4"), {"units": "K"}),
        },
        {"time": TIME, "plev": [500, 850], "lat": lat, "lon": lon, "depth": [0.5, 10.0, 100.0]},
    )


def test_levels_and_variables_are_channels_in_their_order():
    source = levels()
    batch, spec, _ = back(source, "z", "ps", "t")
    assert spec.channels == ["z@500", "z@850", "ps", "t@0.5", "t@10", "t@100"]
    assert spec.event == (6, 4, 5) and spec.grid == ("lat", "lon") and spec.periodic == (False, True)
    assert spec.units == ["m", "m", "Pa", "K", "K", "K"] and spec.unit == ""
    for channel, values in {1: source.z.sel(plev=850), 2: source.ps, 4: source.t.sel(depth=10)}.items():
        wanted = values.transpose("time", "lat", "lon").values
        np.testing.assert_array_equal(batch.x[:, channel].numpy(), wanted)
    assert from_xarray(source, ["t", "z"])[1].channels[0] == "t@0.5"


def test_times_and_members_together_count_the_samples():
    x = G.normal(size=(2, 4, 6, 5)).astype("f4")
    lat, lon = ("lat", [10.0, 20, 30, 40], {"units": "degrees_north"}), ("lon", np.arange(5.0))
    source = xr.Dataset(
        {"t": (("number", "lat", "time", "lon"), x)}, {"time": TIME, "number": [3, 7], "lat": lat, "lon": lon}
    )
    batch, spec, _ = back(source)
    assert spec.samples == ("number", "time") and len(batch) == 12
    assert torch.equal(batch.context["time"][:6], batch.context["time"][6:])
    np.testing.assert_array_equal(batch.x[7, 0].numpy(), x[1, :, 1])
    out = to_xarray(batch.select([1, 8]), spec)
    assert out.t.dims == ("realization", "lat", "lon")
    np.testing.assert_array_equal(out.time.values, TIME[[1, 2]])


# -- which dim is which ----------------------------------------------------------------------------------------


def field(dims, **coords):
    sizes = dict(zip(dims, (6, 4, 5), strict=True))
    coords = {
        n: (n if not isinstance(v, tuple) else v[0], *(v if not isinstance(v, tuple) else v[1:]))
        for n, v in coords.items()
    }
    return xr.DataArray(G.normal(size=list(sizes.values())), dims=dims, name="t", coords=coords).to_dataset()


@pytest.mark.parametrize(
    "attrs", [{"axis": "Y"}, {"standard_name": "latitude"}, {"units": "degrees_north"}, {"units": "degrees north"}]
)
def test_attributes_come_before_names(attrs):
    """b looks like nothing, and is the latitude: it comes first in the tensor."""
    source = field(("time", "lon", "b")).assign_coords(time=TIME, b=("b", np.linspace(10, 50, 5), attrs))
    source = source.assign_coords(lon=("lon", np.arange(4.0), {"units": "degrees_east"}))
    _, spec, _ = back(source)
    assert spec.grid == ("b", "lon") and spec.roles["lat"] == "b" and spec.event == (1, 5, 4)


def test_the_user_has_the_last_word():
    source = field(("month", "lon", "lat")).assign_coords(month=np.arange(6), lon=np.arange(4.0), lat=np.arange(5.0))
    assert from_xarray(source)[1].grid == ("lat", "lon")
    turned = from_xarray(source, dims={"lat": "lon", "lon": "lat"})[1]
    assert turned.grid == ("lon", "lat") and turned.event == (1, 4, 5)
    assert from_xarray(source, dims={"time": "month"}, sample_dim="month")[1].samples == ("month",)


def test_coordinates_of_another_name_than_their_dims():
    source = field(("time", "y", "x")).assign_coords(
        time=TIME,
        latitude=("y", np.linspace(50, 20, 4), {"standard_name": "latitude", "units": "degrees_north"}),
        longitude=("x", 72.0 * np.arange(5), {"standard_name": "longitude", "units": "degrees_east"}),
    )
    _, spec, _ = back(source)
    assert spec.grid == ("y", "x") and spec.periodic == (False, True) and spec.area is not None
    assert "y: 4, descending, 50 .. 20; x: 5, periodic: yes" in spec.describe()


def curvilinear():
    j, i = np.meshgrid(np.linspace(-40, 60, 6), 60.0 * np.arange(6), indexing="ij")
    tlat, tlong = j + 2 * np.sin(np.deg2rad(i)), (i + 5 * np.sin(np.deg2rad(3 * j))) % 360
    x = G.normal(size=(6, 6, 6)).astype("f4")
    x[:, 2, 3:5] = np.nan
    return xr.Dataset(
        {"SST": (("time", "nlat", "nlon"), x, {"units": "degC"}), "TAREA": (("nlat", "nlon"), G.uniform(1, 2, (6, 6)))},
        {
            "time": TIME,
            "TLAT": (("nlat", "nlon"), tlat, {"units": "degrees_north"}),
            "TLONG": (("nlat", "nlon"), tlong, {"units": "degrees_east"}),
        },
    )


def test_curvilinear_grids_keep_their_places_and_areas():
    source = curvilinear()
    _, spec, _ = back(source, "SST")
    assert spec.grid == ("nlat", "nlon") and spec.roles["lat"] == "TLAT" and spec.periodic == (False, True)
    np.testing.assert_array_equal(spec.area, source.TAREA.values)
    part = source.isel(nlon=slice(0, 4))
    assert from_xarray(part, "SST")[1].periodic == (False, False)
    assert "nlat: 6, periodic: no, of TLAT and TLONG" in spec.describe()
    source.TLAT[0, 0] = np.nan  # no place for a land cell
    back(source, "SST")


# -- cells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lat",
    [np.linspace(90, -90, 37), np.linspace(-88, 88, 45), np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))],
)
def test_areas_of_a_globe_add_up(lat):
    found = cell_areas(torch.from_numpy(lat), torch.arange(-180, 180, 5.0)).numpy()
    assert found.sum() == pytest.approx(4 * np.pi, rel=1e-12) and (found > 0).all()
    inner = np.diff(np.sin(np.deg2rad(np.sort((lat[1:] + lat[:-1]) / 2))))
    np.testing.assert_allclose(np.sort(found[1:-1, 0]), np.sort(inner * np.deg2rad(5)))


@pytest.mark.parametrize(
    ("lon", "yes"),
    [
        (np.arange(0, 360, 2.5), True),
        (np.arange(-180, 180, 2.5), True),
        (np.arange(360, 0, -2.5), True),
        (np.roll((np.arange(0, 360, 2.5) + 180) % 360 - 180, 7), True),  # a jump at the date line
        (np.arange(0, 361, 2.5), False),  # both ends
        (np.arange(0, 355, 2.5), False),
        (np.arange(200, 331, 2.5), False),
        (np.array([0.0, 180.0]), False),
    ],
)
def test_a_circle_closes_within_half_a_cell(lon, yes):
    assert closes(lon) == yes


# -- calendars -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calendar", "year"), [("360_day", 360), ("noleap", 365), ("all_leap", 366), ("julian", 365.25)]
)
def test_other_calendars_count_in_their_own_days(calendar, year, tmp_path):
    pytest.importorskip("cftime")
    dates = xr.date_range("2000-01-16", periods=24, freq="MS", calendar=calendar, use_cftime=True)
    x = 3 * np.cos(2 * np.pi * np.arange(24) / 12)[:, None, None] + np.zeros((1, 3, 5))
    source = xr.Dataset(
        {"t": (("time", "lat", "lon"), x)}, {"time": ("time", dates), "lat": [10.0, 20, 30], "lon": np.arange(5.0)}
    )
    batch, spec, found = back(source)
    assert spec.calendar == calendar and spec.year == year and found.time.values[0].calendar == calendar
    days = batch.context["time"].numpy()
    assert days[0] == (dates[0] - type(dates[0])(1970, 1, 1)).days
    assert days[12] - days[0] in ({360} if calendar == "360_day" else {365} if calendar == "noleap" else {366})
    source.to_netcdf(tmp_path / "c.nc")
    again, other = from_xarray(tmp_path / "c.nc")
    assert torch.equal(again.context["time"], batch.context["time"]) and other.calendar == calendar
    raw, third = from_xarray(xr.open_dataset(tmp_path / "c.nc", decode_times=False))
    assert torch.equal(raw.context["time"], batch.context["time"]) and third.calendar == calendar
    drawn = to_xarray(batch.select([5, 2]), spec)
    assert list(drawn.time.values) == [dates[5], dates[2]] and drawn.t.dims[0] == "realization"
    if calendar == "360_day":  # months of 30 days: the harmonic is exact in this year, and in no other
        noisy = batch.replace(batch.x + 0.1 * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(0)))
        own, wrong = (float(Climatology(1, (0,), "global", year=y).fit(noisy).std) for y in (spec.year, 365.2425))
        assert own == pytest.approx(0.1, rel=0.2) and wrong > own


def test_days_before_numpy_and_hours_are_exact():
    cftime = pytest.importorskip("cftime")
    source = air().assign_coords(time=[cftime.DatetimeGregorian(1200, 1, 1, h) for h in range(0, 24, 4)])
    batch, spec, _ = back(source)
    np.testing.assert_allclose(batch.context["time"].diff().numpy(), 1 / 6, rtol=1e-9)
    assert "time: 4 h, standard calendar" in spec.describe()


def test_months_are_no_dates():
    source = air().rename(time="month").assign_coords(month=np.arange(1, 7, dtype="i4"))
    batch, spec, _ = back(source)
    assert not batch.context and spec.calendar is None and "month: 6 samples, no dates" in spec.describe()


# -- masks ---------------------------------------------------------------------------------------------------------


def coast(dtype="f4"):
    source = air(dtype=dtype)
    source.air[:, 0, 2:4] = np.nan
    return source


def test_land_is_a_mask_with_zeros_and_comes_back():
    batch, spec, _ = back(coast())
    assert spec.mask.shape == (1, 3, 5) and (~spec.mask).sum() == 2 and not spec.mask[0, 0, 2]
    assert (batch.x[:, ~torch.from_numpy(spec.mask)] == 0).all() and batch.x.isfinite().all()
    assert spec.describe().endswith("2 of 15 points masked (missing in all samples)")
    drawn = to_xarray(batch.replace(batch.x + 1), spec)
    np.testing.assert_array_equal(np.isnan(drawn.air.values), np.isnan(coast().air.values))


def test_each_channel_has_its_own_mask():
    source = levels()
    source.t[:, :, 2, 0] = np.nan
    _, spec, _ = back(source, "z", "t")
    assert spec.mask.sum((1, 2)).tolist() == [20, 20, 20, 20, 16]


def test_gaps_of_their_own_are_refused_or_dropped():
    source = coast()
    source.air[1, 2, 2] = source.air[4, 1] = np.nan
    with pytest.raises(ValueError, match='6 of 90 values.*in 2 of 6 samples.*missing="drop"'):
        from_xarray(source)
    batch, spec = from_xarray(source, missing="drop")
    assert len(batch) == 4 and len(batch.context["time"]) == 4 and spec.rows.tolist() == [0, 2, 3, 5]
    assert spec.describe().endswith("2 of 6 samples with other gaps dropped")
    found = to_xarray(batch, GridSpec.from_json(spec.to_json()), None)
    xr.testing.assert_identical(
        found, source.where(source.time.isin(source.time[[0, 2, 3, 5]])).assign_attrs(source.attrs)
    )
    kept = source.isel(time=[0, 2, 3, 5])
    kept.air.attrs.pop("valid_range", None)  # draws need not keep to it
    xr.testing.assert_identical(to_xarray(batch, spec, "time").drop_encoding(), kept)


# -- packing and stores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["int8", "uint8", "int16", "uint16", "int32"])
def test_packed_integers_of_all_kinds_with_land(tmp_path, stored):
    source = coast("f8")
    source["air"] = (source.air - 250).round(0) + 250
    fill = {"i": -128, "u": 255}[stored[0]] if stored.endswith("8") else 32767
    encoding = {"dtype": stored, "scale_factor": 0.5, "add_offset": 250.0, "_FillValue": fill}
    source.to_netcdf(tmp_path / "p.nc", encoding={"air": encoding})
    opened = open_file(tmp_path / "p.nc")
    batch, spec, found = back(opened)
    assert spec.delta == 0.5 and spec.mask is not None
    found.to_netcdf(tmp_path / "again.nc")
    with (
        xr.open_dataset(tmp_path / "again.nc", decode_cf=False) as a,
        xr.open_dataset(tmp_path / "p.nc", decode_cf=False) as b,
    ):
        assert a.air.dtype == stored
        np.testing.assert_array_equal(a.air.values, b.air.values)


def test_unsigned_numbers_of_files_that_know_none(tmp_path):
    """netCDF 3 keeps bytes signed and says _Unsigned in an attribute."""
    values = np.array([0, 1, 127, 128, 200, 254] * 15, dtype="u1").astype("i1").reshape(6, 3, 5)
    attrs = {"_Unsigned": "true", "scale_factor": 0.1, "_FillValue": np.int8(-1)}
    source = air().assign(air=(("time", "lat", "lon"), values, attrs))
    source.to_netcdf(tmp_path / "u.nc", format="NETCDF3_CLASSIC", engine="scipy")
    _, spec, found = back(open_file(tmp_path / "u.nc"))
    assert found.air.max() == pytest.approx(25.4) and spec.delta == pytest.approx(0.1)
    found.to_netcdf(tmp_path / "again.nc", engine="h5netcdf")
    xr.testing.assert_allclose(open_file(tmp_path / "again.nc").air, found.air, rtol=1e-6)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_of_both_versions(tmp_path, version):
    pytest.importorskip("zarr")
    source = coast()
    source.to_zarr(tmp_path / "s.zarr", zarr_format=version, consolidated=version == 2)
    batch, spec = from_xarray(tmp_path / "s.zarr")
    opened = open_file(tmp_path / "s.zarr")
    xr.testing.assert_identical(to_xarray(batch, spec, None), opened)
    assert torch.equal(batch.x, from_xarray(source)[0].x)


def test_zarr_and_grib_without_their_packages_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("scifm.data.grids.files.find_spec", lambda name: None)
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "m.grib").write_bytes(b"GRIB")
    for name, says in (("s.zarr", "pip install zarr"), ("m.grib", "pip install cfgrib")):
        with pytest.raises(ValueError, match=says):
            from_xarray(tmp_path / name)


def test_what_has_no_samples_is_not_what_is_meant():
    source = levels()[["z"]].assign(orography=(("lat", "lon"), np.ones((4, 5), dtype="f4")))
    assert from_xarray(source)[1].channels == ["z@500", "z@850"]
    with pytest.raises(ValueError, match="expected one variable on a grid, found 2"):
        from_xarray(levels()[["z", "ps"]])


def test_a_dim_named_t_is_time():
    assert from_xarray(xr.DataArray(G.normal(size=(6, 4, 5)), dims=("t", "y", "x")))[1].samples == ("t",)


# -- times that xarray does not decode -------------------------------------------------------------------------------


def undated(time, n=60, dims=("time", "y", "x")):
    x = G.normal(size=[{"time": n, "number": 2, "y": 4, "x": 5}[d] for d in dims]).astype("f4")
    return xr.Dataset({"t": (dims, x)}, {} if time is None else {"time": time})


DAYS = np.datetime64("2000-01-01") + np.arange(60)
TEXT = {
    "ISO": DAYS.astype("M8[m]").astype(str),
    "bytes": DAYS.astype("M8[s]").astype("S"),
    "WRF": np.char.replace(DAYS.astype("M8[s]").astype(str), "T", "_").astype("S19"),
    "objects": DAYS.astype("M8[s]").astype("S").astype(object),
    "CDO": np.array([float(str(d).replace("-", "")) for d in DAYS]) + 0.25,
}


@pytest.mark.parametrize("kind", TEXT)
def test_dates_that_are_written_out_are_dates(kind):
    attrs = {"units": "day as %Y%m%d.%f"} if kind == "CDO" else {}
    source = undated(("time", TEXT[kind], attrs))
    batch, spec, found = back(source)
    wanted = (DAYS - np.datetime64("1970-01-01")).astype(float) + (0.25 if kind == "CDO" else 0)
    np.testing.assert_allclose(batch.context["time"].numpy(), wanted, atol=1e-6)
    assert "time: 1 d, standard calendar, 60, 2000-01-01 .. 2000-02-29" in spec.describe()
    assert found.time.dtype == source.time.dtype
    drawn = to_xarray(batch.select([3, 1]), spec)
    assert drawn.time.values[0].astype("M8[D]") == DAYS[3]
    data, _ = read(source)
    assert "Samples in blocks with gaps" in data.summary
    t = {s: getattr(data, s).context["time"] for s in ("train", "valid", "test")}
    assert min((t["train"][:, None] - t[s]).abs().min() for s in ("valid", "test")) > 1.9


def test_text_dates_in_the_calendar_that_is_named_and_through_a_file(tmp_path):
    pytest.importorskip("cftime")
    source = undated(("time", np.array(["2000-02-28", "2000-02-30"] * 3), {"calendar": "360_day"}), n=6)
    source = source.isel(time=[0, 1])
    batch, spec, _ = back(source)
    assert batch.context["time"].diff().tolist() == [2.0] and spec.calendar == "360_day"
    wrong = source.assign_coords(time=["2000-02-28", "2000-02-30"])
    with pytest.raises(ValueError, match="'2000-02-30' among the times of 'time' is no date of the calendar 'sta"):
        from_xarray(wrong)
    source = undated(("time", TEXT["bytes"]))
    source.to_netcdf(tmp_path / "t.nc")
    again = back(open_file(tmp_path / "t.nc"))[0]
    assert again.context["time"].diff().tolist() == [1.0] * 59
    to_xarray(again, from_xarray(tmp_path / "t.nc")[1]).to_netcdf(tmp_path / "drawn.nc")
    assert open_file(tmp_path / "drawn.nc").time.values[5].astype("M8[D]") == DAYS[5]


def test_times_of_wrf_lie_beside_a_dim_without_a_coordinate():
    source = undated(None).rename(time="Time").assign(Times=("Time", TEXT["WRF"]))
    batch, spec = from_xarray(source, "t")
    assert batch.context["time"].diff().tolist() == [1.0] * 59 and "Time: 1 d, standard" in spec.describe()
    xr.testing.assert_identical(to_xarray(batch, spec, None), source[["t"]])


@pytest.mark.parametrize("kind", ["months", "lead times", "nothing", "text"])
@pytest.mark.parametrize("members", [False, True])
def test_times_without_dates_have_gaps_of_one_where_there_are_enough(kind, members, tmp_path):
    time = {
        "months": np.arange(60),
        "lead times": np.arange(60) * np.timedelta64(6, "h"),
        "nothing": None,
        "text": np.array([f"day {i}" for i in range(60)]),
    }[kind]
    dims = ("number", "time", "y", "x") if members else ("time", "y", "x")
    source = undated(time if time is None else ("time", time), dims=dims)
    source["t"] = source.t * 0 + xr.DataArray(np.arange(60.0), dims="time")
    data, _ = read(source)
    assert ". Samples in blocks with gaps: " in data.summary
    at = {s: getattr(data, s).x[:, 0, 0, 0] for s in ("train", "valid", "test")}
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert (at[a][:, None] - at[b]).abs().min() > 1
    few, _ = read(source.isel(time=slice(20)))
    assert ". Samples in blocks without gaps: " in few.summary
    if not members:
        there, _ = stream(source)
        assert "samples in blocks with gaps" in there.summary and torch.equal(there.test.x[:, 0, 0, 0], at["test"])
        assert "samples in blocks without gaps" in stream(source.isel(time=slice(20)))[0].summary


def test_members_have_no_gaps_and_nobody_says_so():
    source = undated(None).rename(time="number")
    assert ". Samples in blocks without gaps: " in read(source)[0].summary


def test_lead_times_are_levels_in_hours():
    steps = np.array([0, 6, 240]).astype("timedelta64[h]").astype("timedelta64[ns]")
    source = undated(("time", DAYS.astype("M8[ns]")), 60).expand_dims({"step": steps}, axis=1).copy()
    source["t"] = source.t + G.normal(size=source.t.shape).astype("f4")
    _, spec, _ = back(source)
    assert spec.channels == ["t@0 h", "t@6 h", "t@240 h"] and GridSpec.from_json(spec.to_json()) == spec
    data, _ = read(source)
    anomaly = anomalies(data.train, spec)
    assert base(spec, anomaly(data.train)).dims(data.test).tolist() == [60] * len(data.test)
    short = source.assign_coords(step=np.array([0, 90, 600]).astype("timedelta64[s]"))
    assert from_xarray(short)[1].channels == ["t@0 h", "t@90 s", "t@10 min"]


# -- radians -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", ["radian", "radians", "rad", ""])
@pytest.mark.parametrize("n", [8, 72])
def test_radians_close_the_circle_and_have_the_areas_of_degrees(units, n):
    lat, lon = np.linspace(80, -80, 9), np.arange(n) * 360 / n
    x = G.normal(size=(6, 9, n)).astype("f4")
    attrs = {"units": units} if units else {}
    source = xr.Dataset({"t": (("time", "lat", "lon"), x)}, {"time": TIME})
    turned = source.assign_coords(lat=("lat", np.deg2rad(lat), attrs), lon=("lon", np.deg2rad(lon), attrs))
    _, spec, _ = back(turned)
    wanted = from_xarray(source.assign_coords(lat=lat, lon=lon))[1]
    assert spec.periodic == wanted.periodic == (False, True) and "periodic: yes" in spec.describe()
    np.testing.assert_allclose(spec.area, wanted.area, rtol=1e-9)
    np.testing.assert_allclose(Labels.of(spec).latitude, lat)
    np.testing.assert_allclose(Labels.of(spec).longitude, lon)
    part = from_xarray(turned.isel(lon=slice(0, n // 2)))[1]
    assert part.periodic == (False, False)


@pytest.mark.parametrize("lon", [np.arange(5.0, 11.0), np.arange(25) / 4, np.arange(377) / 60, np.arange(63) / 10])
def test_some_degrees_without_units_are_no_radians(lon):
    assert not radians(lon, {}) and radians(lon, {"units": "radians"})


def test_a_box_of_two_pi_is_periodic_and_no_globe():
    x = 2 * np.pi * np.arange(16) / 16
    source = xr.Dataset({"u": (("time", "y", "x"), G.normal(size=(6, 16, 16)))}, {"time": TIME, "y": x, "x": x})
    spec = back(source)[1]
    assert spec.periodic == (False, True) and spec.area is None


@pytest.mark.parametrize("units", ["degrees_east", "radians"])
def test_both_ends_of_the_circle_are_said_to_be_there(units):
    lon = np.linspace(0, 360, 9)
    lon = np.deg2rad(lon) if units == "radians" else lon
    source = xr.Dataset({"t": (("time", "lat", "lon"), G.normal(size=(6, 3, 9)))}, {"time": TIME, "lat": [1.0, 2, 3]})
    spec = back(source.assign_coords(lon=("lon", lon, {"units": units})))[1]
    assert "lon: 9, periodic: no (both ends of the circle are there), 0 .. " in spec.describe()
    spec = from_xarray(source.assign_coords(lon=("lon", lon, {"units": units})).isel(lon=slice(0, 8)))[1]
    assert "lon: 8, periodic: yes, 0 .. " in spec.describe()
