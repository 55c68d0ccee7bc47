"""`Data` refuses what training would trip over; the bundled sets keep their splits apart."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from scifm import Batch
from scifm.data import Data, catalogue, fetch, load_dataset


def points(n=4, event=(2,), dtype=torch.float32, **more):
    return Batch(torch.arange(n * int(np.prod(event)), dtype=dtype).reshape(n, *event), **more)


def sets(**more):
    return Batch(torch.rand(3, 2), torch.tensor([0, 0, 1]), 2, **more)


def holed():
    x = torch.rand(4, 2)
    x[2, 1] = torch.nan
    return Batch(x)


@pytest.mark.parametrize(
    ("splits", "more", "error", "message"),
    [
        ((points(), points(0), points()), {}, ValueError, "the valid split is empty"),
        ((points(), points(), holed()), {}, ValueError, "1 samples of test hold NaN or infinity, the first is 2"),
        ((points(event=(1, 4, 4)), points(event=(1, 4, 5)), points(event=(1, 4, 4))), {}, ValueError,
         r"valid is torch.float32 \(1, 4, 5\) per row, train is torch.float32 \(1, 4, 4\)"),
        ((points(), points(dtype=torch.float64), points()), {}, ValueError, "valid is torch.float64"),
        ((points(dtype=torch.int64),) * 3, {}, ValueError, "train holds torch.int64; convert to floats"),
        ((points(), points(), torch.zeros(4, 2)), {}, TypeError, "test must be a Batch, got Tensor"),
        ((points(), points(), sets()), {}, ValueError, "test .ragged, context none. and train .dense"),
        ((points(context={"label": torch.zeros(4)}), points(), points()), {}, ValueError, "context \\['label'\\]"),
        ((sets(nodes={"z": torch.ones(3)}), sets(nodes={"a": torch.ones(3)}), sets()), {}, ValueError,
         r"valid .ragged, context none, nodes \['a'\]. and train .ragged, context none, nodes \['z'\]. differ"),
        (
            (sets(edge_index=torch.zeros(2, 1).long()), sets(), sets()),
            {},
            ValueError,
            "none. and train .*, edge_index.",
        ),
        ((points(),) * 3, {"delta": -0.01}, ValueError, "delta must be positive, got -0.01"),
        ((points(),) * 3, {"delta": float("nan")}, ValueError, "delta must be positive, got nan"),
        ((points(),) * 3, {"delta": 4.0}, ValueError, "4 of 8 values of train are not whole steps of delta=4 apart"),
        ((Batch(300 + points().x),) * 3, {"delta": 1e-5}, ValueError, "torch.float32 cannot tell.*use float64"),
    ],
)  # fmt: skip
def test_data_refuse(splits, more, error, message):
    with pytest.raises(error, match=message):
        Data("points", *splits, **more)


def test_data_keep_a_plain_delta():
    data = Data("points", points(), points(), points(), delta=np.float32(0.5))
    assert type(data.delta) is float and data.delta == 0.5
    off = Batch(0.3 + 0.01 * points(dtype=torch.float64).x)  # an offset of the lattice is no error
    assert Data("points", off, off, off, delta=0.01).delta == 0.01


# -- finding ---------------------------------------------------------------------------------------------------------


def test_every_bundled_set_has_a_page_and_a_function_of_its_name():
    assert {"ncep_air", "terrain"} <= set(catalogue.available())
    for name in catalogue.available():
        assert callable(getattr(load_dataset(name), name))
        assert (catalogue.folder() / name / "README.md").is_file()
    assert not list(catalogue.folder().rglob("__init__.py"))


@pytest.mark.parametrize(
    ("name", "message"), [("terain", "did you mean 'terrain'"), ("zzz", "there are"), ("../terrain", "no dataset")]
)
def test_an_unknown_set_is_told_the_nearest(name, message):
    with pytest.raises(FileNotFoundError, match=message):
        load_dataset(name)


# -- terrain ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def terrain():
    return load_dataset("terrain").terrain()


def rows_of(batch: Batch, grid: torch.Tensor) -> set[int]:
    """Rows of the grid in which patches lie, found by looking for each patch's first line of numbers."""
    found = set()
    width = batch.event[-1]
    lines = grid.unfold(1, width, 1)  # (rows, places, width)
    for patch in batch.x[:: max(1, len(batch) // 40), 0]:
        whole = (lines == patch[0]).all(-1).nonzero()
        match = [int(i) for i, j in whole if torch.equal(grid[i : i + len(patch), j : j + width], patch)]
        assert len(match) == 1
        found |= set(range(match[0], match[0] + len(patch)))
    return found


def test_terrain_splits_share_no_row_and_keep_a_gap(terrain):
    grid, _ = load_dataset("terrain").read()
    rows = {name: rows_of(getattr(terrain, name), grid) for name in ("train", "valid", "test")}
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert min(abs(i - j) for i in rows[a] for j in rows[b]) > 8


def test_terrain_is_whole_metres(terrain):
    assert terrain.unit == "m" and terrain.delta == 1.0
    for batch in (terrain.train, terrain.valid, terrain.test):
        assert batch.event == (1, 32, 32) and batch.x.dtype == torch.float32
        assert torch.equal(batch.x, batch.x.round())
        assert 200 < float(batch.x.min()) and float(batch.x.max()) < 1100
    assert len(terrain.train) > 1000 and len(terrain.test) >= 24
    assert [p.name for p in terrain.files] == ["jacksboro_fault_dem.npz"]


def test_terrain_without_overlap_tests_on_every_pixel_once():
    data = load_dataset("terrain").terrain(patch=16, stride=16)
    assert data.train.event == (1, 16, 16)
    assert len(data.train) == (206 // 16) * (403 // 16)


def test_terrain_goes_out_as_xarray(terrain, tmp_path):
    out = terrain.export(terrain.test)
    assert out.elevation.dims == ("realization", "y", "x") and out.elevation.attrs["units"] == "m"
    np.testing.assert_array_equal(out.elevation.values, terrain.test.x[:, 0].numpy())
    out.to_netcdf(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as back:
        xr.testing.assert_identical(back.load(), out)


@pytest.mark.parametrize("wrong", [{"patch": 1}, {"patch": 43}, {"stride": 0}, {"gap": -1}, {"gap": 40}])
def test_terrain_refuses_patches_that_do_not_fit(wrong):
    with pytest.raises(ValueError, match="terrain: expected 2 <= patch"):
        load_dataset("terrain").terrain(**wrong)


# -- ncep_air --------------------------------------------------------------------------------------------------------

FILE = "air_temperature.nc"


@pytest.fixture(scope="module")
def split():
    time = 15_706 + torch.arange(2920, dtype=torch.float64) / 4
    return time, load_dataset("ncep_air").split


def test_ncep_air_splits_lie_days_apart(split):
    time, rows = split[0], split[1](split[0])
    assert [len(rows[k]) for k in ("train", "valid", "test")] == [1824, 100, 504]
    days = {k: time[v] for k, v in rows.items()}
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert float((days[a][:, None] - days[b]).abs().min()) > 3
    # each split sees all four hours of the day, and every season
    for found in days.values():
        assert set(((found % 1) * 4).tolist()) == {0, 1, 2, 3}
        assert len((((found - 15_706) % 365) / 92).long().unique()) == 4


def test_ncep_air_without_the_second_gap_and_validation_is_the_split_of_the_reference(split):
    rows = split[1](split[0], 0)
    held_back = 5 * 4 * 3  # the gap before each of the five validation parts
    assert len(rows["train"]) + len(rows["valid"]) + held_back == 2200
    assert len(rows["test"]) == 504


@pytest.fixture(scope="module")
def read_air():
    import os
    from pathlib import Path

    path = Path(os.environ.get("SCIFM_DATA", "")) / "ncep_air_temperature" / FILE
    if not os.environ.get("SCIFM_DATA") or not path.is_file():
        pytest.skip("SCIFM_DATA is not set, or holds no ncep_air_temperature")
    return load_dataset("ncep_air").read(path)


def test_climatology_leaves_the_variance_of_the_reference(read_air, split):
    from scifm.data.transforms import Climatology

    batch, _ = read_air
    within = ((split[0] - 15_706).floor() % 40).long()
    train = batch.select((within < 30).nonzero()[:, 0])
    assert len(train) == 2200
    anomaly = train.x.double() - Climatology().fit(train).mean(train).double()
    assert float(anomaly.square().mean()) == pytest.approx(14.21, abs=0.01)


def test_ncep_air_keeps_its_lattice_and_goes_out_as_it_came(read_air, scifm_data, tmp_path):
    data = load_dataset("ncep_air").ncep_air()
    assert data.unit == "K" and data.delta == pytest.approx(0.01) and data.train.x.dtype == torch.float32
    assert data.train.event == (1, 25, 53)
    with xr.open_dataset(scifm_data("ncep_air_temperature") / FILE) as file:
        source = file.load()
    out = data.export(data.test)
    assert out.air.dims == ("realization", "lat", "lon") and out.air.dtype == source.air.dtype
    assert out.air.attrs.keys() == source.air.attrs.keys() - {"actual_range"} and out.attrs == source.attrs
    same = source.air.sel(time=out.time.values)
    np.testing.assert_array_equal(out.air.values, same.values)
    xr.testing.assert_identical(out.lat, source.lat)
    out.to_netcdf(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as back:
        np.testing.assert_array_equal(back.air.values, out.air.values)


def test_ncep_air_climatology_sees_training_only(read_air):
    module = load_dataset("ncep_air")
    data = module.ncep_air()
    climatology = module.climatology(data)
    model = climatology(data.train).x
    torch.testing.assert_close(model.double().square().mean(0), torch.ones(1, 25, 53).double(), rtol=1e-3, atol=0)
    assert float(climatology(data.test).x.var()) > 1.02  # new days vary more than those that were fitted
    back = climatology.inverse(climatology(data.test))
    assert torch.equal((back.x * 100).round(), (data.test.x * 100).round())


def test_a_run_reads_its_own_copy(read_air, scifm_data, tmp_path):
    (tmp_path / "ncep_air_temperature").mkdir()
    copy = shutil.copy(scifm_data("ncep_air_temperature") / FILE, tmp_path / "ncep_air_temperature")
    token = fetch.search_path.set((tmp_path,))
    try:
        assert [str(p) for p in load_dataset("ncep_air").ncep_air().files] == [str(copy)]
    finally:
        fetch.search_path.reset(token)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.rename(air="t2m"), "no variable 'air'; there are t2m"),
        (lambda s: _units(s, "degC"), "expected kelvin, but spoilt.nc is in 'degC'"),
        (lambda s: s.isel(time=slice(100)), r"expected \(2920, 25, 53\).*\(100, 25, 53\)"),
        (lambda s: s.isel(lat=slice(None, None, -1)), "other values than the published ones"),
        (lambda s: s.drop_encoding(), "lost its packing"),
    ],
)
def test_ncep_air_refuses_another_file(read_air, scifm_data, tmp_path, spoil, message):
    with xr.open_dataset(scifm_data("ncep_air_temperature") / FILE) as file:
        spoil(file.load()).to_netcdf(tmp_path / "spoilt.nc")
    with pytest.raises(ValueError, match=message):
        load_dataset("ncep_air").ncep_air(tmp_path / "spoilt.nc")


def _units(source, unit):
    source.air.attrs["units"] = unit
    return source


def test_ncep_air_refuses_a_truncated_file(read_air, scifm_data, tmp_path):
    whole = (scifm_data("ncep_air_temperature") / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"air_temperature\.nc cannot be read.*fetch it again"):
        load_dataset("ncep_air").ncep_air(tmp_path / FILE)


@pytest.mark.parametrize("gap", [-1, 22])
def test_ncep_air_refuses_a_gap_that_leaves_nothing(gap):
    with pytest.raises(ValueError, match="gap_after of 0 to 21 days"):
        load_dataset("ncep_air").ncep_air(gap_after=gap)
