"""What a file says beside its values, as a `GridSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scifm.areas import cell_areas
from scifm.data.grids.calendar import days_since_1970, is_time
from scifm.data.grids.cells import places_of
from scifm.data.grids.dims import Axes
from scifm.data.grids.references import REFERENCES, standing
from scifm.data.grids.spec import Coordinate, GridSpec, Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["remember", "times_of", "variable_of"]

_STORED = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "units", "calendar")
_REFERRED = [r for r in REFERENCES if r != "coordinates"]  # which xarray finds anew when it writes

_BESIDE = ("Times",)  # where WRF writes the dates of a dim that has no coordinate


def times_of(dataset: xr.Dataset, axes: Axes) -> tuple[np.ndarray, str] | None:
    """Days and calendar of each sample, where a coordinate along the sample dims tells."""
    name = axes.roles.get("time", "")
    if name not in dataset.coords:
        name = next((n for n in _BESIDE if n in dataset.variables and dataset[n].dims == (name,)), "")
    if name not in dataset.variables or not set(dataset[name].dims) <= set(axes.samples):
        return None
    time = dataset[name]
    if not is_time(time.values, time.attrs):
        return None
    found = days_since_1970(name, time.values, time.attrs, time.encoding.get("calendar"))
    days, calendar = np.atleast_1d(np.asarray(found[0], dtype=np.float64)), found[1]
    if (time.dims == (name,) or name in _BESIDE) and (twice := len(days) - len(np.unique(days))):
        raise ValueError(
            f"from_xarray: {twice} of {len(days)} times of {name!r} occur more than once; drop them, "
            f"ds.drop_duplicates({name!r}), or say what tells them apart."
        )
    shape = [dataset.sizes[d] for d in axes.samples]
    at = [dataset.sizes[d] if d in time.dims else 1 for d in axes.samples]
    order = [d for d in axes.samples if d in time.dims]
    days = days.reshape(time.shape).transpose([time.dims.index(d) for d in order]).reshape(at)
    return np.broadcast_to(days, shape).ravel().copy(), calendar


def remember(
    dataset: xr.Dataset,
    names: Sequence[str],
    axes: Axes,
    mask: np.ndarray,
    time: tuple[np.ndarray, str] | None,
    rows: np.ndarray | None,
) -> GridSpec:
    """The spec of some variables.

    Args:
        mask: bool (C, *grid), True where values exist.
        time: days and calendar, see `times_of`.
        rows: entries that are kept, of those along the sample dims; None for all.
    """
    part = dataset[list(names)]
    days, calendar = (None, None) if time is None else time
    unlimited = sorted(d for d in dataset.encoding.get("unlimited_dims", ()) if d in part.sizes)
    return GridSpec(
        variables=tuple(variable_of(dataset[n]) for n in names),
        samples=axes.samples,
        grid=axes.grid,
        sizes={str(d): int(n) for d, n in part.sizes.items()},
        roles=axes.roles,
        coords={str(n): _coordinate(c) for n, c in part.coords.items()},
        attrs=dict(dataset.attrs),
        encoding={"unlimited_dims": unlimited} if unlimited else {},
        mask=None if mask.all() else mask,
        area=_area(dataset, names[0], axes),
        calendar=calendar,
        days=days if days is None or rows is None else days[rows],
        rows=rows,
        beside={n: _coordinate(dataset[n]) for n in standing(dataset, names, axes.samples)},
    )


def _coordinate(array: xr.DataArray) -> Coordinate:
    return Coordinate(tuple(map(str, array.dims)), array.values, dict(array.attrs), _stored(array))


def variable_of(array: xr.DataArray) -> Variable:
    """A variable without its values."""
    return Variable(str(array.name), tuple(map(str, array.dims)), array.dtype.str, dict(array.attrs), _stored(array))


def _stored(array: xr.DataArray) -> dict[str, Any]:
    """How values are stored, in numpy's types; some writers make lists of one number of the packing."""
    found = {k: v for k, v in array.encoding.items() if k in (*_STORED, *_REFERRED) and v is not None}
    for key in ("scale_factor", "add_offset", "_FillValue", "missing_value"):
        if key in found and not isinstance(found[key], str | bytes):
            found[key] = np.asarray(found[key]).reshape(-1)[0]
    return found | ({"dtype": np.dtype(found["dtype"])} if "dtype" in found else {})


def _area(dataset: xr.Dataset, name: str, axes: Axes) -> np.ndarray | None:
    """Areas that the file gives (CF's cell_measures, or TAREA as ocean models call it), else from the coordinates."""
    measures = str(dataset[name].attrs.get("cell_measures", dataset[name].encoding.get("cell_measures", "")))
    named = measures.split("area:")[-1].split()[:1] if "area:" in measures else []
    for n in [*named, "TAREA", "tarea", "areacello", "areacella", "cell_area", "area"]:
        if n in dataset.variables and set(dataset[n].dims) == set(axes.grid):
            return dataset[n].transpose(*axes.grid).values.astype(np.float64)
    lat, lon = (axes.roles.get(r, "") for r in ("lat", "lon"))
    known = [n for n in (lat, lon) if n in dataset.coords]
    if len(known) < 2:
        return None
    if [dataset[n].dims for n in known] != [(d,) for d in axes.grid]:
        return None
    places = places_of(*((n, dataset[n].values, dataset[n].attrs) for n in (lat, lon)))
    if places is None:
        return None
    latitude, longitude = (torch.from_numpy(place) for place in places)
    return cell_areas(latitude, longitude).numpy() if min(len(latitude), len(longitude)) > 1 else None
