"""Samples in the likeness of a file: with all that they refer to, without what held for the file alone."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from scifm import Batch
from scifm.data import Data
from scifm.data.grids import GridSpec, from_xarray, gridded, to_xarray
from scifm.data.grids.alike import Fields
from scifm.data.transforms import Affine
from scifm.samples import Drawn, write_chunks

# -- samples keep what holds for them, and all that they refer to ----------------------------------------------


def projected(curvilinear=False, as_char=False):
    """Fields on a projected grid with edges, areas and a projection, and references to what samples do not have."""
    g, crs = np.random.default_rng(0), np.array(b"" if as_char else 7)
    attrs = {"units": "degC", "grid_mapping": "crs", "cell_measures": "area: cells volume: elsewhere"}
    attrs |= {"ancillary_variables": "quality", "actual_range": np.array([0.0, 1.0]), "valid_min": 0.0}
    y = {"standard_name": "projection_y_coordinate", "units": "m", "bounds": "y_bnds", "actual_range": [0.0, 2e3]}
    x = {"standard_name": "projection_x_coordinate", "units": "m", "bounds": "gone", "valid_range": [0.0, 1e4]}
    time = {"bounds": "time_bnds", "actual_range": np.array([3.0, 9.0]), "valid_max": 9.0}
    found = xr.Dataset(
        {"sst": (("time", "y", "x"), g.uniform(0, 1, (4, 3, 5)).astype("f4"), attrs)},
        {
            "time": ("time", np.datetime64("2001-01-01", "ns") + np.arange(4).astype("timedelta64[D]"), time),
            "y": ("y", 1e3 * np.arange(3), y),
            "x": ("x", 1e3 * np.arange(5), x),
        },
    )
    found["quality"] = ("time", np.arange(4), {"long_name": "along the samples, hence not theirs"})
    found.time.encoding["units"] = "days since 2001-01-01"
    found["time_bnds"] = (("time", "nv"), np.zeros((4, 2)))
    found["y_bnds"] = (("y", "nv"), 1e3 * (np.arange(3)[:, None] + np.array([-0.5, 0.5])))
    found["cells"] = (("y", "x"), np.full((3, 5), 1e6), {"units": "m2", "standard_name": "cell_area"})
    found["crs"] = ((), crs, {"grid_mapping_name": "polar_stereographic", "straight_vertical_longitude_from_pole": 0.0})
    return found


@pytest.mark.parametrize("as_char", [False, True])
@pytest.mark.parametrize("opened", ["in memory", "all", False])
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_samples_have_all_that_they_refer_to(tmp_path, as_char, opened, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    source = projected(as_char=as_char)
    if opened == "all":  # xarray forgets those of which some are lacking
        source.sst.attrs["cell_measures"] = "area: cells"
    if opened != "in memory":
        source.to_netcdf(tmp_path / "source.nc")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not in variables")
            source = xr.load_dataset(tmp_path / "source.nc", decode_coords="all" if opened == "all" else True)
    batch, spec = from_xarray(source, "sst")
    again = GridSpec.from_json(spec.to_json())
    assert again == spec and {"crs", "y_bnds", "cells"} <= {*again.beside, *again.coords}
    data = Data("sea", batch, batch, batch, export=lambda b: to_xarray(b, again))
    how = {"engine": "zarr", "consolidated": False} if suffix == ".zarr" else {}
    drawn = [Drawn(batch.select([0, 1])), Drawn(batch.select([2]))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = write_chunks(lambda: drawn, data, tmp_path / f"s{suffix}", {})
        found = xr.open_dataset(path, decode_coords="all", **how).load()
    assert found.sst.encoding["grid_mapping"] == "crs" and found.sst.encoding["cell_measures"] == "area: cells"
    assert found.crs.attrs == projected().crs.attrs
    np.testing.assert_array_equal(found.y_bnds, projected().y_bnds)
    np.testing.assert_array_equal(found.cells, projected().cells)
    said = {**found.sst.attrs, **found.sst.encoding, **found.x.attrs, **found.x.encoding, **found.time.attrs}
    assert not {"ancillary_variables", "bounds"} & set(said) and found.y.encoding["bounds"] == "y_bnds"
    assert found.sst.dims == ("realization", "y", "x") and found.sst.attrs["units"] == "degC"
    assert gridded(xr.load_dataset(path, **how)) == ["sst"]  # a report reads samples without a word


def test_ranges_of_the_file_are_not_those_of_samples():
    source = projected()
    batch, spec = from_xarray(source, "sst")
    found = to_xarray(batch, spec)
    for name, array in found.variables.items():
        assert not {"valid_range", "valid_min", "valid_max", "actual_range"} & set(array.attrs), name
    back = to_xarray(batch, spec, None)
    xr.testing.assert_identical(back, source[["sst"]])  # the source has all that it had
    filled = Fields(batch, spec, (Affine(),), (None,), "f").maps(torch.stack([batch.x, batch.x]))
    assert "valid_min" not in filled.sst.attrs and "crs" in filled and "bounds" not in filled.time.attrs
    scored = Fields(batch, spec, (Affine(),), (None,), "f").beside({"log_prob": (torch.zeros(4), {})})
    assert scored.time.attrs.keys() == {"actual_range", "valid_max"}  # its own times, but not their bounds


def test_a_spec_of_before_has_nothing_beside():
    spec = from_xarray(projected(), "sst")[1]
    old = json.loads(spec.to_json())
    del old["mapping"]["beside"]
    assert GridSpec.from_json(json.dumps(old)) == replace(spec, beside={})
    external = replace(spec, beside={}, attrs={"external_variables": "cells"})  # CMIP's areas are in files of their own
    found = to_xarray(Batch(torch.zeros(2, 1, 3, 5)), external)
    assert found.sst.attrs["cell_measures"] == "area: cells" and "grid_mapping" not in found.sst.attrs


# -- the name of the samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "coordinate", [None, np.arange(3, dtype="i1"), np.array([7, 8, 9], "i1"), np.array(list("abc"))]
)
def test_realizations_of_a_file_are_counted(tmp_path, coordinate):
    source = xr.Dataset({"t": (("realization", "y", "x"), np.zeros((3, 2, 4), "f4"))})
    if coordinate is not None:
        source = source.assign_coords(realization=coordinate)
    source.to_netcdf(tmp_path / "source.nc")
    _, spec = from_xarray(tmp_path / "source.nc", "t")
    found = to_xarray(Batch(torch.zeros(200, 1, 2, 4)), spec)
    found.to_netcdf(tmp_path / "s.nc")
    found = xr.load_dataset(tmp_path / "s.nc")
    np.testing.assert_array_equal(found.realization, np.arange(200))
    assert found.realization.attrs["standard_name"] == "realization"


@pytest.mark.parametrize("what", ["variable", "level", "coordinate"])
def test_what_is_called_realization_stays(what):
    if what == "variable":
        source = xr.Dataset({"realization": (("time", "y", "x"), np.ones((3, 2, 4), "f4"))})
    elif what == "level":
        source = xr.Dataset({"t": (("time", "realization", "y", "x"), np.ones((3, 2, 2, 4), "f4"))})
    else:
        source = xr.Dataset({"t": (("time", "y", "x"), np.ones((3, 2, 4), "f4"))}, {"realization": ("y", [5, 6])})
    batch, spec = from_xarray(source, sample_dim="time", dims={"lat": "y", "lon": "x"})
    found = to_xarray(batch.select([0, 1, 2, 0, 1]), spec)
    assert found.sizes["draw"] == 5 and found.draw.attrs["standard_name"] == "realization"
    name = "realization" if what == "variable" else "t"
    assert found[name].dims[0] == "draw" and (found[name] == 1).all()
    if what == "coordinate":
        assert found.realization.values.tolist() == [5, 6]
