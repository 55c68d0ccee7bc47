"""Samples that stay in their file are those that would have been read, and what is wrong is known before training."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from scifm.cli import main
from scifm.data import grids
from scifm.data.stored import Stored

zarr = pytest.importorskip("zarr")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Consolidated metadata.*"),
    pytest.mark.filterwarnings("ignore::xarray.SerializationWarning"),
]


def field(count=120, seed=0, **more):
    rng = np.random.default_rng(seed)
    time = np.datetime64("2000-01-01", "ns") + np.arange(count) * np.timedelta64(1, "D")
    values = rng.normal(280, 3, size=(count, 6, 8)).astype("f4")
    coords = {"time": time, "lat": np.linspace(75, -75, 6), "lon": np.arange(8) * 45.0}
    return xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"} | more)}, coords)


def stored(dataset, path, chunk=16, **encoding):
    dataset.to_zarr(path, encoding={n: {"chunks": (chunk, 6, 8), **encoding} for n in dataset.data_vars})
    return path


@pytest.mark.parametrize("kind", ["zarr", "netcdf", "packed", "masked", "several"])
def test_streamed_samples_are_those_that_are_read(tmp_path, kind):
    dataset = field()
    if kind == "masked":
        dataset["t2m"] = dataset.t2m.where(dataset.lat < 70)
    if kind == "several":
        dataset["u"] = dataset.t2m * 2 - 500
    names = [str(n) for n in dataset.data_vars]
    if kind == "netcdf":
        path = tmp_path / "f.nc"
        dataset.to_netcdf(path)
    elif kind == "packed":
        path = stored(dataset, tmp_path / "f.zarr", dtype="i2", scale_factor=0.01, add_offset=280.0)
    else:
        path = stored(dataset, tmp_path / "f.zarr")
    there, spec = grids.stream(path, names)
    here, wanted = grids.read(path, names)
    assert isinstance(there.train, Stored)
    assert torch.equal(there.train.select(range(len(there.train))).x, here.train.x)
    assert torch.equal(there.train.select([5, 2]).context["time"], here.train.context["time"][[5, 2]])
    for split in ("valid", "test"):
        assert torch.equal(getattr(there, split).x, getattr(here, split).x)
    assert spec == wanted and there.delta == here.delta and there.unit == here.unit
    assert there.summary.startswith(here.summary.split(". Samples")[0])
    drawn = there.export(there.test.select([1]))
    xr.testing.assert_identical(drawn, here.export(here.test.select([1])))


def test_held_samples_are_few(tmp_path):
    data, _ = grids.stream(stored(field(), tmp_path / "f.zarr"), held=3)
    assert (len(data.valid), len(data.test)) == (3, 3)
    assert len(data.train) > 20


def test_missing_values_in_the_middle_are_known_before_training(tmp_path):
    dataset = field()
    rows = grids.read(stored(dataset, tmp_path / "whole.zarr"))[0].train.context["time"]
    bad = int(rows[len(rows) // 2] - rows.min()) + int(rows.min() - 10957)
    dataset.t2m[bad, 2, 3] = np.nan
    path = stored(dataset, tmp_path / "f.zarr")
    with pytest.raises(ValueError, match=r"samples \d+ to \d+: .*missing"):
        grids.stream(path)


def test_a_mask_that_changes_is_refused(tmp_path):
    dataset = field(3000)
    dataset["t2m"] = dataset.t2m.where((dataset.lat < 70) | (dataset.time < dataset.time[1500]))
    path = stored(dataset, tmp_path / "f.zarr", chunk=100)
    with pytest.raises(ValueError, match=r"samples \d+ to \d+: .*missing"):
        grids.stream(path, memory=10**6)


def test_several_dims_of_samples_are_refused_with_the_cure(tmp_path):
    dataset = xr.concat([field(40, k) for k in range(2)], "member").transpose("time", "member", ...)
    dataset.to_zarr(tmp_path / "f.zarr")
    with pytest.raises(ValueError, match="along 2 dims, .*name the one"):
        grids.stream(tmp_path / "f.zarr")
    data, spec = grids.stream(tmp_path / "f.zarr", samples="time")
    assert spec.event == (2, 6, 8) and data.train.head.x.shape == (1, 2, 6, 8)


def test_trains_samples_and_scores_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = stored(field(), tmp_path / "f.zarr", chunk=8)
    words = ["--stream", "--steps", "3", "--width", "4", "--batch-size", "4", "--test-samples", "2"]
    assert main(["train", "grid", "--file", str(path), *words, "--out", "run", "--track", "none"]) == 0
    assert "read in chunks" in capsys.readouterr().out
    assert np.isfinite(json.loads((tmp_path / "run" / "score.json").read_text())["value"])
    drawn = xr.open_dataset(next((tmp_path / "run").glob("samples.*nc")))
    assert drawn.t2m.attrs["units"] == "K" and set(drawn.t2m.dims) == {"realization", "lat", "lon"}


def test_samples_cannot_be_dropped_from_a_stream(tmp_path):
    with pytest.raises(ValueError, match='missing must be "refuse"'):
        grids.stream(stored(field(), tmp_path / "f.zarr"), missing="drop")


def test_the_float_type_holds_what_the_file_can_hold(tmp_path):
    """The first samples are small; later ones are whole numbers that float32 cannot tell apart."""
    time = np.datetime64("2000-01-01", "ns") + np.arange(120) * np.timedelta64(1, "D")
    values = np.arange(120 * 6, dtype="i4").reshape(120, 2, 3)
    values[5:] += 2**28
    dataset = xr.Dataset({"n": (("time", "y", "x"), values)}, {"time": time})
    dataset.to_zarr(tmp_path / "n.zarr", encoding={"n": {"chunks": (16, 2, 3)}})
    data, _ = grids.stream(tmp_path / "n.zarr")
    assert data.train.head.x.dtype == torch.float64
    here, _ = grids.read(tmp_path / "n.zarr")
    assert torch.equal(data.train.select(range(len(data.train))).x, here.train.x.double())
    for stored, wide in (("i2", torch.float32), ("u1", torch.float32), ("i4", torch.float64)):
        packing = {"dtype": stored, "scale_factor": 0.01, "add_offset": 280.0}
        field(40).to_zarr(tmp_path / f"{stored}.zarr", encoding={"t2m": {"chunks": (16, 6, 8), **packing}})
        assert grids.stream(tmp_path / f"{stored}.zarr")[0].train.head.x.dtype == wide
    assert grids.stream(stored_as(field(), tmp_path / "f8.zarr", "f8"))[0].train.head.x.dtype == torch.float32


def stored_as(dataset, path, dtype):
    dataset.astype(dtype).to_zarr(path)
    return path


def test_a_dataset_that_xarray_opened_is_streamed_whatever_holds_it(tmp_path):
    """Lazily from a file, and from a store in memory, as from one in the cloud or of icechunk: a Dataset is enough."""
    wanted, spec = grids.read(stored(field(), tmp_path / "f.zarr"))
    store = zarr.storage.MemoryStore()
    field().to_zarr(store, encoding={"t2m": {"chunks": (16, 6, 8)}}, consolidated=False)
    lazy = {
        "file": xr.open_dataset(tmp_path / "f.zarr", engine="zarr"),
        "memory": xr.open_zarr(store, chunks=None, consolidated=False),
        "plain": field(),
    }
    for kind, opened in lazy.items():
        data, found = grids.stream(opened)
        assert isinstance(data.train, Stored) and found.event == spec.event
        assert torch.equal(data.train.select(range(len(data.train))).x, wanted.train.x)
        assert torch.equal(data.test.x, wanted.test.x)
        assert (data.name, data.files) == (("f", (tmp_path / "f.zarr",)) if kind == "file" else ("dataset", ()))
        assert torch.equal(grids.read(opened)[0].train.x, wanted.train.x)
        assert torch.equal(grids.from_xarray(opened)[0].x, grids.from_xarray(tmp_path / "f.zarr")[0].x)


def test_a_dataset_of_dask_arrays_is_streamed(tmp_path):
    pytest.importorskip("dask", reason="dask is not installed; nothing needs it")
    wanted, _ = grids.read(stored(field(), tmp_path / "f.zarr"))
    data, _ = grids.stream(xr.open_zarr(tmp_path / "f.zarr", chunks={}))
    assert torch.equal(data.train.select(range(len(data.train))).x, wanted.train.x)
