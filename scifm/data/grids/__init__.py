"""Grids in, grids out: xarray at the door, `Batch` in the house.

    batch, spec          from_xarray(file, Dataset or DataArray)
    Dataset              to_xarray(batch, spec)
    data, spec           read(file): in blocks of time with gaps; stream(file): and left in the file

`from_xarray` turns variables on a grid into a dense batch (B, C, *grid) and a `GridSpec`, which remembers what a tensor
forgets; `to_xarray` puts data and samples back into that form.  Files that cannot go in are refused with their reason.

    series      data for training: splits, anomalies
    bases       the Gaussian that suits a grid and its data
    edges       what lies beyond each edge, for networks
    dims        which dim is time, latitude, longitude, level: attributes, names, or your word
    calendar    times as days in the file's own calendar
    stamps      dates that are written out
    blocks      which samples are for training, validation and test
    alike       another file, as the data of a run were read; likeness, what is to be the same
    masks       what is always missing, and what is missing now and then
    marks       values that stand for missing ones, undeclared
    lattices    steps of packed files
    cells       coordinates that are none, and whether longitude closes the circle
    codec       the spec as JSON, bit for bit
"""

from __future__ import annotations

from scifm.data.grids.alike import Fields, read_alike
from scifm.data.grids.bases import base
from scifm.data.grids.dims import SAMPLE_DIMS, roles
from scifm.data.grids.edges import edges
from scifm.data.grids.files import open_file
from scifm.data.grids.reading import from_xarray, gridded
from scifm.data.grids.series import anomalies, read
from scifm.data.grids.spec import Coordinate, GridSpec, Variable
from scifm.data.grids.streaming import stream
from scifm.data.grids.writing import to_xarray

__all__ = [
    "SAMPLE_DIMS",
    "Coordinate",
    "Fields",
    "GridSpec",
    "Variable",
    "anomalies",
    "base",
    "edges",
    "from_xarray",
    "gridded",
    "open_file",
    "read",
    "read_alike",
    "roles",
    "stream",
    "to_xarray",
]
