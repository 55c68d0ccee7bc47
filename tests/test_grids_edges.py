"""Edges of grids: which rule a network is told, and that fields are continued beyond the poles as they should be."""

import numpy as np
import pytest
import xarray as xr

from scifm.data.grids import edges, from_xarray
from scifm.networks import Pole


def spec_of(lat, lon, names=("t",), dims=("time", "lat", "lon"), **attrs):
    sizes = {"time": 5, "lat": len(lat), "lon": len(lon)}
    shape = [sizes[d] for d in dims]
    field = {n: (dims, np.random.default_rng(0).normal(size=shape), attrs.get(n, {})) for n in names}
    return from_xarray(xr.Dataset(field, {"lat": lat, "lon": lon, "time": np.arange(5)}), list(names))[1]


WHOLE = 30.0 * np.arange(12)


@pytest.mark.parametrize(
    ("lat", "rows"),
    [
        (np.linspace(-90, 90, 7), True),
        (np.linspace(90, -90, 7), True),
        (np.linspace(-75, 75, 6), False),  # half a cell before
        (np.degrees(np.arcsin(np.polynomial.legendre.leggauss(64)[0])), False),  # Gaussian
    ],
)
@pytest.mark.parametrize("dims", [("time", "lat", "lon"), ("lon", "time", "lat")])
def test_latitudes_from_pole_to_pole(lat, rows, dims):
    assert edges(spec_of(lat, WHOLE, dims=dims)) == [Pole(rows), "circular"]


@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        (np.linspace(-60, 60, 7), WHOLE),  # a belt
        (np.linspace(0, 90, 7), WHOLE),  # half a globe
        (np.linspace(-75, 90, 7), WHOLE),  # one pole and half a cell before the other
        (np.linspace(-90, 90, 7), 40.0 * np.arange(9)),  # no meridian has its opposite
        (np.array([-45.0, 45.0]), WHOLE[:11]),  # no circle
    ],
)
def test_all_else_has_walls(lat, lon):
    rules = edges(spec_of(lat, lon))
    assert rules[0] == "replicate" and rules[1] == ("replicate" if len(lon) == 11 else "circular")


def test_winds_change_their_sign():
    named = {"ew": {"standard_name": "eastward_wind"}, "ns": {"standard_name": "northward_wind"}}
    spec = spec_of(np.linspace(-90, 90, 7), WHOLE, ("t", "u", "v10", "uas", "ew", "ns", "q", "value"), **named)
    assert edges(spec)[0] == Pole(True, (1, 2, 3, 4, 5))


def test_regions_and_boxes():
    box = xr.DataArray(np.zeros((5, 4, 6)), dims=("time", "y", "x"))
    line = xr.DataArray(np.zeros((5, 6)), dims=("time", "x"))
    assert edges(from_xarray(box + np.arange(6))[1]) == ["replicate", "replicate"]
    assert edges(from_xarray(line + np.arange(6))[1]) == ["replicate"]
