"""What lies beyond each edge of a grid, as the networks on grids want it: see `scifm.networks.padding`.

    longitude that closes the circle           circular
      and beside it latitudes that reach       Pole: beyond the pole comes the opposite meridian, and the components of
      both poles                               vectors, winds, change their sign
    all else                                   replicate, a wall

Latitudes reach a pole where their last row lies on it or half a cell before it.  The number of longitudes must be even,
so that each has an opposite one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from scifm.data.grids.spec import GridSpec

if TYPE_CHECKING:
    from scifm.networks import Pole

__all__ = ["edges"]

VECTOR = re.compile(r"(u|v)(\d+m?|a|as|wnd|gr?d|g)?|(u|v)_component.*|(eastward|northward)_.*", re.IGNORECASE)


def edges(spec: GridSpec) -> list[str | Pole]:
    """A rule for each axis of the grid.

    Example:
        >>> import xarray as xr
        >>> from scifm.data import grids
        >>> globe = xr.DataArray(np.arange(120.0).reshape(5, 3, 8), dims=("time", "lat", "lon"), name="t")
        >>> globe = globe.assign_coords(lat=[-60.0, 0, 60], lon=45.0 * np.arange(8))
        >>> grids.edges(grids.from_xarray(globe)[1])
        [Pole(rows=False, vectors=()), 'circular']
    """
    rules: list[str | Pole] = ["circular" if closed else "replicate" for closed in spec.periodic]
    latitude = spec.coords.get(spec.roles.get("lat", ""))
    if rules.count("circular") != 1 or latitude is None or len(latitude.dims) != 1 or latitude.dims[0] not in spec.grid:
        return rules
    axis, around = spec.grid.index(latitude.dims[0]), rules.index("circular")
    rows = _rows(np.asarray(latitude.values, dtype=float))
    if axis != around and rows is not None and spec.event[1 + around] % 2 == 0:
        from scifm.networks import Pole

        rules[axis] = Pole(rows, _vectors(spec))
    return rules


def _rows(latitude: np.ndarray) -> bool | None:
    """Whether the outer rows lie on the poles, or half a cell before them; None where they do neither."""
    if len(latitude) < 2:
        return None
    steps = np.abs(np.diff(latitude))
    short = [(90 - abs(latitude[i])) / steps[i] for i in (0, -1)]  # of the poles, in steps
    if latitude[0] * latitude[-1] >= 0:
        return None
    if all(abs(s) < 0.05 for s in short):
        return True
    return False if all(0.3 < s < 0.8 for s in short) else None  # 0.43 .. 0.44 on Gaussian grids


def _vectors(spec: GridSpec) -> tuple[int, ...]:
    """Channels that are components of winds or currents."""
    named = [(v.name, str(v.attrs.get("standard_name", ""))) for v in spec.variables for _ in spec.channels_of(v)]
    return tuple(c for c, names in enumerate(named) if any(VECTOR.fullmatch(n) for n in names))
