"""In: variables of a file, a Dataset or a DataArray as a dense batch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data.grids import cells
from scifm.data.grids.calendar import days_since_1970, is_time
from scifm.data.grids.dims import Axes, find_axes
from scifm.data.grids.files import open_file
from scifm.data.grids.masks import constant_mask, rows_without_gaps
from scifm.data.grids.spec import Coordinate, GridSpec, Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["from_xarray", "gridded"]

_STORED = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "units", "calendar")


def from_xarray(
    source: xr.Dataset | xr.DataArray | str | Path,
    variable: str | Sequence[str] | None = None,
    sample_dim: str | Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    *,
    dims: Mapping[str, str] | None = None,
    missing: Literal["refuse", "drop"] = "refuse",
) -> tuple[Batch, GridSpec]:
    """Variables on one grid as a dense batch x (B, C, *grid), in the file's units.

    Samples with a time carry `context["time"]`, days since 1970-01-01 in the calendar of the file, (B,) float64.

    Args:
        source: a file (netCDF, Zarr, GRIB where cfgrib is there), a Dataset or a DataArray.
        variable: one name or several; needed where a Dataset has more than one on a grid.
        sample_dim: whose entries become samples, one dim or several; by default those of time and realization.
        dtype: of x; by default float32 where the values survive it (to a hundredth of a lattice step), else float64.
        dims: role -> dim or coordinate, such as {"lat": "TLAT"}, where attributes and names mislead; roles are time,
            realization, lat, lon and level.
        missing: what to do with samples that lack more than all samples do.

    Raises:
        FileNotFoundError, ValueError: for a file that is missing or damaged, unknown names, coordinates that are none,
            values that are missing here and there.

    Example:
        >>> import xarray as xr
        >>> field = xr.DataArray(np.zeros((4, 3, 2), "f4"), dims=("time", "lon", "lat"), name="t2m")
        >>> from_xarray(field)[0].x.shape  # latitude first
        torch.Size([4, 1, 2, 3])
    """
    if missing not in ("refuse", "drop"):
        raise ValueError(f'from_xarray: missing must be "refuse" or "drop", got {missing!r}.')
    dataset, names = _source(source, variable)
    axes = find_axes(dataset, names, sample_dim, dims)
    for name in names:
        _check_variable(dataset[name], axes)
    _check_axes(dataset, names, axes)
    values = [_values(dataset[n], axes) for n in names]
    rows = np.ones(len(values[0]), dtype=bool)
    gone = [np.isnan(v) if v.dtype.kind == "f" else np.zeros(v.shape, dtype=bool) for v in values]
    for name, v, m in zip(names, values, gone, strict=True):
        infinite = int(np.isinf(v).sum()) if v.dtype.kind == "f" else 0
        rows &= rows_without_gaps(name, m, infinite, missing)
    if not rows.any():
        raise ValueError(f"from_xarray: every sample of {', '.join(names)} has gaps of its own; fill them before.")
    mask = np.concatenate([constant_mask(m) for m in gone])
    time = _times(dataset, axes)
    spec = _spec(dataset, names, axes, mask, time, None if rows.all() else rows.nonzero()[0])
    x = _joined(values, gone, rows, dtype or _float(values, gone, spec))
    context = {} if spec.days is None else {"time": torch.from_numpy(spec.days.copy())}
    return Batch(x, context=context), spec


# -- which variables -----------------------------------------------------------------------------------------


def _source(source: Any, variable: str | Sequence[str] | None) -> tuple[xr.Dataset, list[str]]:
    import xarray as xr

    opened = open_file(source) if isinstance(source, str | Path) else source
    if isinstance(opened, xr.DataArray):
        name = str(opened.name or "x")
        return opened.to_dataset(name=name), [name]
    if not isinstance(opened, xr.Dataset):
        raise TypeError(f"from_xarray: expected a path, a Dataset or a DataArray, got {type(opened).__name__}.")
    return opened, _choose(opened, variable)


def gridded(dataset: xr.Dataset) -> list[str]:
    """Names of the variables that could be fields: numbers along two dims or more, no bounds of cells."""
    bounds = {v.attrs.get("bounds") for v in dataset.variables.values()}
    found = {str(n): v for n, v in dataset.data_vars.items() if n not in bounds and not str(n).endswith("_bnds")}
    return [n for n, v in found.items() if v.ndim >= 2 and v.dtype.kind in "iuf" and not n.startswith("bounds_")]


def _choose(dataset: xr.Dataset, variable: str | Sequence[str] | None) -> list[str]:
    if variable is None:
        found = gridded(dataset)
        if len(found) != 1:
            raise ValueError(
                f"from_xarray: expected one variable on a grid, found {len(found)}: {_names(dataset)}; name it, or "
                "several of them."
            )
        return found
    names = [variable] if isinstance(variable, str) else [str(n) for n in variable]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"from_xarray: expected the names of variables, each once, got {names}.")
    for name in names:
        if name not in dataset.data_vars:
            near = difflib.get_close_matches(name, [str(n) for n in dataset.data_vars], 1)
            hint = f"did you mean {near[0]!r}? There are" if near else "there are"
            raise ValueError(f"from_xarray: there is no variable {name!r}; {hint} {_names(dataset)}.")
    return names


def _names(dataset: xr.Dataset) -> str:
    names = [f"{n} {v.dims}" for n, v in dataset.data_vars.items()]
    return ", ".join([*names[:12], *(["..."] if len(names) > 12 else [])]) or "none"


# -- what is refused -----------------------------------------------------------------------------------------


def _check_variable(array: xr.DataArray, axes: Axes) -> None:
    if array.dtype.kind not in "iuf":
        raise ValueError(f"from_xarray: {array.name!r} holds {array.dtype}, expected numbers.")
    if empty := [str(d) for d, n in array.sizes.items() if n == 0]:
        raise ValueError(f"from_xarray: {array.name!r} is empty along {', '.join(empty)}, {dict(array.sizes)}.")
    if lacking := [d for d in (*axes.samples, *axes.grid) if d not in array.dims]:
        raise ValueError(
            f"from_xarray: {array.name!r} {array.dims} does not share {', '.join(lacking)} with the other variables; "
            "channels need the same samples and the same grid. Leave it out, or interpolate it before."
        )


def _check_axes(dataset: xr.Dataset, names: Sequence[str], axes: Axes) -> None:
    for role, check in (("lat", cells.check_latitude), ("lon", cells.check_longitude)):
        name = axes.roles.get(role, "")
        if name in dataset.coords:
            coordinate = dataset[name]
            if coordinate.dtype.kind not in "iuf":
                raise ValueError(f"from_xarray: the coordinate {name!r} holds {coordinate.dtype}, expected degrees.")
            unit = str(coordinate.attrs.get("units", "degrees")).lower()
            if unit.startswith("rad"):
                raise ValueError(f"from_xarray: {name!r} is in radians, expected degrees; convert it and its units.")
            if not unit.startswith("deg") and str(coordinate.attrs.get("standard_name", "")).endswith("itude"):
                raise ValueError(
                    f"from_xarray: {name!r} is a {coordinate.attrs['standard_name']} in {unit!r}, expected degrees."
                )
            if unit.startswith("deg") and name not in ("x", "y"):
                check(name, coordinate.values)
        elif name in axes.grid and name.lower() in ("lat", "latitude", "lon", "longitude"):
            raise ValueError(
                f"from_xarray: the dim {name!r} has no coordinate, so neither areas nor periodicity are known; give "
                f"it one, ds.assign_coords({name}=...), or call the dims y and x."
            )
    unit = {n: str(dataset[n].attrs.get("units", "")) for n in names}
    if odd := [n for n, u in unit.items() if "," in u or ";" in u]:
        raise ValueError(f"from_xarray: {odd[0]!r} has several units, {unit[odd[0]]!r}; split it into variables.")


# -- values --------------------------------------------------------------------------------------------------


def _values(array: xr.DataArray, axes: Axes) -> np.ndarray:
    """(B, channels, *grid) in the dtype of the file."""
    levels = [d for d in array.dims if d not in axes.samples and d not in axes.grid]
    values = array.transpose(*axes.samples, *levels, *axes.grid).values
    count = int(np.prod([array.sizes[d] for d in axes.samples]))
    return values.reshape(count, -1, *[array.sizes[d] for d in axes.grid])


def _joined(values: list[np.ndarray], gone: list[np.ndarray], rows: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    channels = sum(v.shape[1] for v in values)
    x = torch.empty(int(rows.sum()), channels, *values[0].shape[2:], dtype=dtype)
    first = 0
    for v, m in zip(values, gone, strict=True):
        part = x[:, first : first + v.shape[1]]
        # in double precision first: uint16 and the like are no torch types
        part.copy_(torch.from_numpy(np.where(m, 0, v)[rows].astype(np.float64)))
        first += v.shape[1]
    return x


def _float(values: list[np.ndarray], gone: list[np.ndarray], spec: GridSpec) -> torch.dtype:
    for v, m, variable in zip(values, gone, spec.variables, strict=True):
        if variable.delta is None:
            if v.dtype.itemsize > 4:
                return torch.float64
        elif np.spacing(np.float32(np.abs(np.where(m, 0, v)).max())) > 0.01 * variable.delta:
            return torch.float64
    return torch.float32


# -- what is remembered --------------------------------------------------------------------------------------


def _times(dataset: xr.Dataset, axes: Axes) -> tuple[np.ndarray, str] | None:
    """Days and calendar of each sample, where a coordinate along the sample dims tells."""
    name = axes.roles.get("time", "")
    if name not in dataset.coords or not set(dataset[name].dims) <= set(axes.samples):
        return None
    time = dataset[name]
    if not is_time(time.values, time.attrs):
        return None
    found = days_since_1970(name, time.values, time.attrs, time.encoding.get("calendar"))
    days, calendar = np.atleast_1d(np.asarray(found[0], dtype=np.float64)), found[1]
    if time.dims == (name,) and (twice := len(days) - len(np.unique(days))):
        raise ValueError(
            f"from_xarray: {twice} of {len(days)} times of {name!r} occur more than once; drop them, "
            f"ds.drop_duplicates({name!r}), or say what tells them apart."
        )
    shape = [dataset.sizes[d] for d in axes.samples]
    at = [dataset.sizes[d] if d in time.dims else 1 for d in axes.samples]
    order = [d for d in axes.samples if d in time.dims]
    days = days.reshape(time.shape).transpose([time.dims.index(d) for d in order]).reshape(at)
    return np.broadcast_to(days, shape).ravel().copy(), calendar


def _spec(
    dataset: xr.Dataset,
    names: Sequence[str],
    axes: Axes,
    mask: np.ndarray,
    time: tuple[np.ndarray, str] | None,
    rows: np.ndarray | None,
) -> GridSpec:
    part = dataset[list(names)]
    days, calendar = (None, None) if time is None else time
    unlimited = sorted(d for d in dataset.encoding.get("unlimited_dims", ()) if d in part.sizes)
    return GridSpec(
        variables=tuple(_variable(dataset[n]) for n in names),
        samples=axes.samples,
        grid=axes.grid,
        sizes={str(d): int(n) for d, n in part.sizes.items()},
        roles=axes.roles,
        coords={
            str(n): Coordinate(tuple(map(str, c.dims)), c.values, dict(c.attrs), _stored(c))
            for n, c in part.coords.items()
        },
        attrs=dict(dataset.attrs),
        encoding={"unlimited_dims": unlimited} if unlimited else {},
        mask=None if mask.all() else mask,
        area=_area(dataset, names[0], axes),
        calendar=calendar,
        days=days if days is None or rows is None else days[rows],
        rows=rows,
    )


def _variable(array: xr.DataArray) -> Variable:
    return Variable(str(array.name), tuple(map(str, array.dims)), array.dtype.str, dict(array.attrs), _stored(array))


def _stored(array: xr.DataArray) -> dict[str, Any]:
    """How values are stored, in numpy's types; some writers make lists of one number of the packing."""
    found = {k: v for k, v in array.encoding.items() if k in _STORED and v is not None}
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
    if not all(str(dataset[n].attrs.get("units", "degrees")).lower().startswith("deg") for n in known):
        return None
    return cells.areas(dataset[lat].values, dataset[lon].values)
