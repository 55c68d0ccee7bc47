"""Malformed files, each with an error of its own, before anything is trained or written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from test_grids import air

from scifm.data.grids import anomalies, base, from_xarray, read, read_alike
from scifm.data.splits import block_split

NAN = np.nan


def changed(**coords):
    return air().assign_coords(coords)


def values(**at):
    source = air()
    source["air"] = source.air.astype("f8")
    for value, index in at.values():
        source.air[index] = value
    return source


def written(tmp_path, cut=None, **settings):
    path = tmp_path / "file.nc"
    air(n=40).to_netcdf(path, **settings)
    data = path.read_bytes()
    path.write_bytes(data[:cut] if cut else data)
    return path


def stamped(units, calendar="standard"):
    return changed(time=("time", np.arange(6.0), {"units": units, "calendar": calendar}))


def lat(values, **attrs):
    return changed(lat=("lat", values, {"units": "degrees_north"} | attrs))


def lon(values, **attrs):
    return changed(lon=("lon", values, {"units": "degrees_east"} | attrs))


def days(*of):
    return changed(time=np.datetime64("2013-01-01", "ns") + np.array(of).astype("timedelta64[D]"))


def no_coordinate(name):
    return air().drop_vars(name)


def second(**coords):
    other = air().rename(air="b")
    return air().merge(other.b.isel(lat=0, drop=True)) if not coords else air().merge(other.rename(coords))


# what is wrong -> (source, settings, what the error says)
BAD = {
    "no file": (lambda p: p / "none.nc", {}, "There is no file"),
    "truncated netCDF 4": (lambda p: written(p, 4000, engine="h5netcdf"), {}, "file.nc cannot be read.*cut short"),
    "truncated netCDF 3": (lambda p: written(p, 700, engine="scipy"), {}, "file.nc cannot be read.*cut short"),
    "text": (lambda p: (p / "a.nc", (p / "a.nc").write_text("a,b"))[0], {}, "a.nc cannot be read"),
    "empty file": (lambda p: (p / "e.nc", (p / "e.nc").write_bytes(b""))[0], {}, "e.nc cannot be read"),
    "a folder": (lambda p: p, {}, "a folder and no Zarr store|needs one more package"),
    "unknown variable": (lambda p: air(), {"variable": "airr"}, "did you mean 'air'"),
    "one variable twice": (lambda p: air(), {"variable": ["air", "air"]}, "each once"),
    "no variable on a grid": (lambda p: air().drop_vars("air"), {}, "found 0"),
    "variables that share no grid": (lambda p: second(), {"variable": ["air", "b"]}, "'b' .* does not share lat"),
    "unknown dim": (lambda p: air(), {"sample_dim": "date"}, "no dim 'date'; it has time, lat, lon"),
    "unknown role": (lambda p: air(), {"dims": {"north": "lat"}}, "dims= names roles.*'north'"),
    "role of what is not there": (lambda p: air(), {"dims": {"lat": "TLAT"}}, "'TLAT' is lat, but there are"),
    "unknown treatment": (lambda p: air(), {"missing": "fill"}, '"refuse", "drop" or "keep", got \'fill\''),
    "missing coordinate": (lambda p: no_coordinate("lat"), {}, "dim 'lat' has no coordinate"),
    "missing longitudes": (lambda p: lon([0.0, 1, NAN, 3, 4]), {}, "1 of 5 values of the coordinate 'lon' are missing"),
    "names for latitudes": (lambda p: changed(lat=["a", "b", "c"]), {}, "coordinate 'lat' holds <U1, expected degrees"),
    "latitudes beyond the poles": (lambda p: lat([60.0, 95, 120]), {}, "'lat' run from 60 to 120, beyond the poles"),
    "latitudes that turn": (lambda p: lat([30.0, 60, 45]), {}, "neither rise nor fall.*sortby"),
    "latitude twice": (lambda p: lat([30.0, 30, 45]), {}, "neither rise nor fall"),
    "longitudes of more than a turn": (lambda p: lon([0.0, 100, 200, 300, 400]), {}, "0 to 400, more than a turn"),
    "longitudes in disorder": (lambda p: lon([0.0, 3, 1, 2, 4]), {}, "'lon' do not follow each other"),
    "radians beyond the poles": (lambda p: lat([2.0, 0.8, 0.5], units="radians"), {}, "28.6479 to 114.592, beyond"),
    "mixed units of axes": (lambda p: lat([1, 2, 3], units="m", standard_name="latitude"), {}, "is a latitude in 'm'"),
    "mixed units": (lambda p: air().assign(air=air().air.assign_attrs(units="K, C")), {}, "several units, 'K, C'"),
    "duplicate times": (lambda p: days(0, 1, 1, 2, 3, 3), {}, "2 of 6 times of 'time' occur more than once"),
    "no date": (lambda p: days("NaT", 1, 2, 3, 4, 5), {}, r"1 of 6 samples have no date.*NaT"),
    "a number that is missing among times": (
        lambda p: changed(time=("time", [0, 1, NAN, 3, 4, 5], {"units": "days since 2000-01-01"})),
        {},
        "some times of 'time' are missing",
    ),
    "unknown calendar": (lambda p: stamped("days since 2000-01-01", "mars"), {}, "'mars', which CF does not know"),
    "date that is none": (lambda p: stamped("days since 2001-02-30", "noleap"), {}, "no date of the calendar"),
    "units without a length": (lambda p: stamped("months since 2000-01-01"), {}, "no fixed length"),
    "units without a date": (lambda p: stamped("days since launch"), {}, "cannot be decoded: units 'days since l"),
    "empty variable": (lambda p: air(n=0), {}, "'air' is empty"),
    "dim of length zero": (lambda p: air().isel(lat=slice(0, 0)), {}, "'air' is empty, .*'lat': 0"),
    "no grid": (lambda p: air().air[:, 0, 0], {}, "one number per time, no grid"),
    "text for numbers": (lambda p: air().astype(str), {"variable": "air"}, "expected numbers"),
    "complex numbers": (lambda p: air() * 1j, {"variable": "air"}, "holds complex.*expected numbers"),
    "yes and no": (lambda p: air() > 0, {"variable": "air"}, "holds bool, expected numbers"),
    "all missing": (lambda p: values(a=(NAN, ...)), {}, "holds no values, all 90 are missing"),
    "infinite values": (lambda p: values(a=(np.inf, (0, 0, 0))), {}, "1 of 90 values of 'air' are infinite"),
    "mask that moves": (lambda p: values(a=(NAN, (0, 0, 0)), b=(NAN, (3, 1))), {}, "6 of 90 values.*in 2 of 6 samples"),
    "no sample whole": (
        lambda p: values(**{str(i): (NAN, (i, 0, i % 5)) for i in range(6)}),
        {"missing": "drop"},
        "every sample of air has gaps of its own",
    ),
    "list of numbers": (lambda p: [1, 2, 3], {}, "expected a path, a Dataset or a DataArray, got list"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD)
def test_it_has_an_error_of_its_own(tmp_path, name):
    make, settings, says = BAD[name]
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=says) as caught:
        from_xarray(make(tmp_path), **settings)
    assert len(str(caught.value)) < 600


def test_one_time_step_is_no_series():
    batch, _ = from_xarray(air(n=1))
    with pytest.raises(ValueError, match="1 different time.*at least 3"):
        block_split(batch.context["time"])


def test_there_are_thirty_and_their_words_differ():
    assert len(BAD) >= 30
    said = [says for _, _, says in BAD.values()]
    assert len(set(said)) > 0.9 * len(said)


# -- the split ---------------------------------------------------------------------------------------------------------


def members():
    return torch.tensor([0.0, 0.5, 1.0, 1.5]).repeat(10)


SERIES = {
    "6-hourly": torch.arange(2920.0) / 4,
    "daily": torch.arange(400.0),
    "monthly": torch.tensor(np.arange("2010-01", "2020-09", dtype="M8[M]").astype("M8[D]").astype(float)),
    "annual": torch.tensor(np.arange("1890", "2000", dtype="M8[Y]").astype("M8[D]").astype(float)),
    "a few days": torch.arange(40.0) / 4,
    "members": members(),
    "shuffled": torch.arange(500.0)[torch.randperm(500, generator=torch.Generator().manual_seed(0))],
    "with a hole": torch.cat([torch.arange(200.0), torch.arange(900.0, 1100.0)]),
}


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("gap", [None, 0.0])
def test_nothing_leaks_across_a_gap(name, gap):
    t = SERIES[name]
    rows = block_split(t, gap=gap)
    step, span = float(t.unique().diff().quantile(0.9)), float(t.max() - t.min())
    wanted = min(max(3.0, step), span / 30) if gap is None else gap
    every = torch.cat(list(rows.values()))
    assert len(every.unique()) == len(every) <= len(t)
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert (t[rows[a]][:, None] - t[rows[b]]).abs().min() > wanted
    shares = {k: len(v) / len(t) for k, v in rows.items()}
    assert shares["train"] > 0.4 and 0.1 < shares["test"] < 0.35 and shares["valid"] > 0
    if gap == 0:
        assert len(every) == len(t)


def test_a_split_does_not_depend_on_the_order_of_the_samples():
    t, order = torch.arange(300.0), torch.randperm(300, generator=torch.Generator().manual_seed(1))
    one, two = block_split(t), block_split(t[order])
    for name in one:
        assert torch.equal(t[one[name]], t[order][two[name]].sort().values)


def test_test_blocks_see_all_seasons():
    t = SERIES["6-hourly"]
    season = (t[block_split(t)["test"]] % 365.25 / 91.32).floor()
    assert set(season.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"time": 2}, "expected at least 3"),
        ({"time": torch.zeros(9)}, r"1 different time\(s\)"),
        ({"time": torch.tensor([0, 1, 2, NAN])}, "1 of 4 times are missing"),
        ({"time": 9, "test": 1.0}, "expected shares"),
        ({"time": torch.arange(9.0), "gap": 8.0}, "between 0 and the whole span of 8"),
        ({"time": torch.arange(9.0), "gap": 4.0}, "a gap of 4 leaves nothing for train"),
    ],
)
def test_splits_that_cannot_be(settings, says):
    with pytest.raises(ValueError, match=says):
        block_split(**settings)


# -- values that stand for missing ones --------------------------------------------------------------------------------


def valid(value, stored=None, **attrs):
    source = values(a=(value, (2, 1, 3)), b=(value, (4, 0, 0)))
    del source.air.attrs["valid_range"]
    source.air.attrs |= attrs
    source.air.encoding = stored or {}
    return source


PACKED = {"dtype": np.dtype("i2"), "scale_factor": 0.01, "add_offset": 275.0}


@pytest.mark.parametrize(
    ("value", "stored", "attrs", "says"),
    [
        (401.0, None, {"valid_range": np.array([100.0, 400.0])}, "valid_range, 100 .. 400: they run from 401 to 401"),
        (20.0, None, {"valid_min": 100.0}, r"valid_min, 100 .. inf: .* ds\['air'\].where\(\(ds\['air'\] >= 100\)\)"),
        (401.0, None, {"valid_max": np.float32(400)}, r"valid_max, .*del ds\['air'\].attrs\['valid_max'\]"),
        (305.0, PACKED, {"valid_range": np.array([-2500, 2500], "i2")}, "valid_range, 249.995 .. 300.005"),
        (305.0, PACKED | {"scale_factor": -0.01}, {"valid_min": np.int16(-2500)}, "valid_min, -inf .. 300.005"),
        (401.0, PACKED, {"valid_range": np.array([100.0, 400.0])}, "valid_range, 99.995 .. 400.005"),
    ],
)
def test_values_that_are_not_valid_are_refused(value, stored, attrs, says):
    with pytest.raises(ValueError, match=f"2 of 90 values of 'air' lie outside of its {says}") as caught:
        from_xarray(valid(value, stored, **attrs))
    assert "\n" not in str(caught.value)
    mended = valid(value, stored, **attrs)
    mended["air"] = mended.air.where(mended.air != value)
    mended.air.encoding = stored or {}
    assert len(from_xarray(mended, missing="drop")[0]) == 4


def test_what_is_valid_passes_at_the_very_ends():
    source = valid(250.0)
    ends = np.array([source.air.min(), source.air.max()])
    for attrs in ({"valid_range": ends}, {"valid_range": ends.astype("f4")}, {"valid_range": "250 300"}):
        assert len(from_xarray(source.assign(air=source.air.assign_attrs(attrs)))[0]) == 6
        assert len(from_xarray(source.astype("f4").assign_attrs(attrs))[0]) == 6


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("mark", [-9999, -999, 9999, 99999, 1e20, 1e30, -1e30, 9.96921e36, -1e34, -32768, -2147483648])
def test_marks_that_nobody_declared_are_refused(mark, dtype):
    source = valid(mark).astype(dtype, keep_attrs=True)
    with pytest.raises(ValueError, match=r"2 values of 'air' are .*, far from all others.*\.where\(.*_FillValue"):
        from_xarray(source)
    everywhere = valid(mark).astype(dtype, keep_attrs=True)
    everywhere.air[:, 1] = mark  # land
    with pytest.raises(ValueError, match="far from all others"):
        from_xarray(everywhere)


def test_marks_of_packed_and_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="2 values of 'air' are -52.68, far"):
        from_xarray(valid(-32768 * 0.01 + 275, PACKED))
    with pytest.raises(ValueError, match="2 values of 'air' are -999, far"):
        from_xarray(valid(-999).astype("i2", keep_attrs=True))
    two = valid(-999)
    two.air[0, 0, 0] = -9999
    with pytest.raises(ValueError, match="values of 'air' are -9"):
        from_xarray(two)


def test_values_that_only_look_like_marks_pass():
    wide = valid(9999)  # a height among others
    wide["air"] = wide.air * 0 + np.linspace(0, 9999, 90).reshape(wide.air.shape)
    near = valid(-999)
    near["air"] = near.air * 0 - np.linspace(700, 999, 90).reshape(near.air.shape)
    alone = valid(0)
    alone["air"] = alone.air * 0 + 9999 + np.zeros(90).reshape(alone.air.shape)
    for source in (wide, near, alone, valid(-998.0), valid(12345.0)):
        assert len(from_xarray(source)[0]) == 6


def test_a_file_like_that_of_a_run_is_looked_at_inside_its_mask(tmp_path):
    source = valid(NAN)
    source.air[:, 1] = NAN
    spec = from_xarray(source, missing="drop")[1]
    source.air[:, 1] = source.air[2, 2, 3] = -9999.0
    source.to_netcdf(tmp_path / "gaps.nc")
    with pytest.raises(ValueError, match="1 values of 'air' are -9999"):
        read_alike(tmp_path / "gaps.nc", spec)
    source.air[2, 2, 3] = NAN
    source.to_netcdf(tmp_path / "land.nc")
    assert int(read_alike(tmp_path / "land.nc", spec).observed.sum()) == 6 * 10 - 2


HOLES = {
    "months apart by years": torch.cat([torch.arange(30.0), torch.arange(30.0) + 11 * 365]),
    "one date far away": torch.cat([torch.tensor([-54000.0]), torch.arange(100.0)]),
    "three seasons": torch.cat([torch.arange(12.0) + 4000 * k for k in range(3)]),
    "with members": torch.cat([torch.arange(30.0), torch.arange(30.0) + 11 * 365]).repeat(3),
}


@pytest.mark.parametrize("name", HOLES)
def test_series_with_large_holes_are_cut_all_the_same(name):
    t = HOLES[name]
    rows = block_split(t)
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert (t[rows[a]][:, None] - t[rows[b]]).abs().min() > 3
    shares = {k: len(v) / len(t) for k, v in rows.items()}
    assert shares["train"] > 0.25 and shares["test"] > 0.08 and shares["valid"] > 0.03, shares


def test_variables_in_groups_are_named(tmp_path):
    path = tmp_path / "groups.nc"
    air().to_netcdf(path, group="product/surface", engine="h5netcdf")
    says = r"in its groups: product/surface: air\. .*xr.open_dataset\(file, group=...\)"
    with pytest.raises(ValueError, match=says):
        from_xarray(path)
    with pytest.raises(ValueError, match="no variable 'air'.*Its groups hold product/surface: air"):
        from_xarray(path, "air")
    assert len(from_xarray(xr.open_dataset(path, group="product/surface"))[0]) == 6


def test_a_variable_of_yes_and_no_is_said_to_be_bool():
    with pytest.raises(ValueError, match="found 0: air .* of bool .*int8"):
        from_xarray(air() > 0)
    with pytest.raises(ValueError, match="holds bool, expected numbers.*int8"):
        from_xarray(air() > 0, "air")


def test_three_times_are_too_few():
    data, spec = read(air(n=3))
    with pytest.raises(ValueError, match="too few samples: 1 for training.*3 along time"):
        base(spec, anomalies(data.train, spec)(data.train))
    data, spec = read(air(n=4))
    assert base(spec, anomalies(data.train, spec)(data.train)) is not None


def test_a_stacked_dim_is_refused_with_its_cure():
    wide = air().expand_dims(member=3).copy()
    stacked = wide.stack(sample=("time", "member"))
    with pytest.raises(ValueError, match="'sample' is a MultiIndex of time, member.*unstack.*reset_index"):
        from_xarray(stacked)
    assert len(from_xarray(stacked.unstack("sample"), sample_dim=["time", "member"])[0]) == 18
    assert len(from_xarray(stacked.reset_index("sample"), sample_dim="sample")[0]) == 18


def test_whole_numbers_too_large_for_double_precision_are_refused_with_a_cure():
    source = air(n=30).astype("i8", keep_attrs=False)
    source["air"] = source.air + 10**17
    with pytest.raises(ValueError, match=r"float64 cannot tell values 1 apart near 1e\+17; subtract what is common"):
        read(source)
    source["air"] = source.air - 10**17
    assert read(source)[0].delta == 1.0
