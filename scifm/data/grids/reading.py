"""In: variables of a file, a Dataset or a DataArray as a dense batch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data.grids.checks import check_axes, check_variable
from scifm.data.grids.dims import Axes, find_axes
from scifm.data.grids.files import groups_of, open_file
from scifm.data.grids.marks import check_marks, check_valid
from scifm.data.grids.masks import constant_mask, rows_without_gaps
from scifm.data.grids.references import named
from scifm.data.grids.remember import remember, times_of, variable_of
from scifm.data.grids.spec import GridSpec

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["chosen", "from_xarray", "gridded"]


def from_xarray(
    source: xr.Dataset | xr.DataArray | str | Path,
    variable: str | Sequence[str] | None = None,
    sample_dim: str | Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    *,
    dims: Mapping[str, str] | None = None,
    missing: Literal["refuse", "drop", "keep"] = "refuse",
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
        missing: what to do with samples that lack more than all samples do.  "keep" leaves all that is missing as NaN,
            and no mask is made of it: such a batch is to be filled, not to be learnt from.

    Raises:
        FileNotFoundError, ValueError: for a file that is missing or damaged, unknown names, coordinates that are none,
            values that are missing here and there, or look so: beyond valid_range, or -9999 and its like.

    Example:
        >>> import xarray as xr
        >>> field = xr.DataArray(np.zeros((4, 3, 2), "f4"), dims=("time", "x", "y"), name="t2m")
        >>> from_xarray(field)[0].x.shape  # y, or latitude, first
        torch.Size([4, 1, 2, 3])
    """
    if missing not in ("refuse", "drop", "keep"):
        raise ValueError(f'from_xarray: missing must be "refuse", "drop" or "keep", got {missing!r}.')
    dataset, names = chosen(source, variable)
    axes = find_axes(dataset, names, sample_dim, dims)
    for name in names:
        check_variable(dataset[name], axes)
    check_axes(dataset, names, axes)
    values = [_values(dataset[n], axes) for n in names]
    rows = np.ones(len(values[0]), dtype=bool)
    gone = [np.isnan(v) if v.dtype.kind == "f" else np.zeros(v.shape, dtype=bool) for v in values]
    for name, v, m in zip(names, values, gone, strict=True):
        infinite = int(np.isinf(v).sum()) if v.dtype.kind == "f" else 0
        rows &= rows_without_gaps(name, m, infinite, missing)
        if missing != "keep":
            check_valid(dataset[name], variable_of(dataset[name]), v)
            check_marks(name, v, variable_of(dataset[name]), m)
    if not rows.any():
        raise ValueError(f"from_xarray: every sample of {', '.join(names)} has gaps of its own; fill them before.")
    mask = np.concatenate([constant_mask(m) | (missing == "keep") for m in gone])
    time = times_of(dataset, axes)
    spec = remember(dataset, names, axes, mask, time, None if rows.all() else rows.nonzero()[0])
    x = _joined(values, gone, rows, dtype or _float(values, gone, spec), np.nan if missing == "keep" else 0.0)
    context = {} if spec.days is None else {"time": torch.from_numpy(spec.days.copy())}
    return Batch(x, context=context), spec


# -- which variables -----------------------------------------------------------------------------------------


def chosen(source: Any, variable: str | Sequence[str] | None) -> tuple[xr.Dataset, list[str]]:
    """The Dataset, in memory where it is a file, and the names of the variables that are wanted."""
    import xarray as xr

    opened = open_file(source) if isinstance(source, str | Path) else source
    if isinstance(opened, xr.DataArray):
        name = str(opened.name or "x")
        return opened.to_dataset(name=name), [name]
    if not isinstance(opened, xr.Dataset):
        raise TypeError(f"from_xarray: expected a path, a Dataset or a DataArray, got {type(opened).__name__}.")
    return opened, _choose(opened, variable)


def gridded(dataset: xr.Dataset) -> list[str]:
    """Names of the variables that could be fields: numbers along two dims or more, no bounds of cells, no areas."""
    keys = ("bounds", "cell_measures")
    told = {n for v in dataset.variables.values() for key in keys for n in named(key, v.attrs.get(key, ""))}
    found = {str(n): v for n, v in dataset.data_vars.items() if n not in told and not str(n).endswith("_bnds")}
    return [n for n, v in found.items() if v.ndim >= 2 and v.dtype.kind in "iuf" and not n.startswith("bounds_")]


def _choose(dataset: xr.Dataset, variable: str | Sequence[str] | None) -> list[str]:
    if variable is None:
        found = gridded(dataset)
        if len(found) > 1:  # masks, orography and the like have no samples
            found = [n for n in found if _has_samples(dataset, n)] or found
        if len(found) != 1:
            if not found and (groups := groups_of(dataset)):
                raise ValueError(
                    f"from_xarray: there are no variables on a grid at the top of the file, but in its groups: "
                    f"{'; '.join(groups)}. Open one, ds = xr.open_dataset(file, group=...), and give the Dataset, or "
                    "write it to a file of its own, ds.to_netcdf(...)."
                )
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
            groups = groups_of(dataset)
            told = f" Its groups hold {'; '.join(groups)}: ds = xr.open_dataset(file, group=...)." if groups else ""
            raise ValueError(f"from_xarray: there is no variable {name!r}; {hint} {_names(dataset)}.{told}")
    return names


def _has_samples(dataset: xr.Dataset, name: str) -> bool:
    try:
        find_axes(dataset, [name], None)
    except ValueError:
        return False
    return True


def _names(dataset: xr.Dataset) -> str:
    names = [
        f"{n} {v.dims}" + (f" of {_kind(v)}, no numbers" if v.ndim > 1 and v.dtype.kind not in "iuf" else "")
        for n, v in dataset.data_vars.items()
    ]
    return ", ".join([*names[:12], *(["..."] if len(names) > 12 else [])]) or "none"


def _kind(array: xr.DataArray) -> str:
    return 'bool (ds.astype("int8") makes 0 and 1 of it)' if array.dtype.kind == "b" else str(array.dtype)


# -- values --------------------------------------------------------------------------------------------------


def _values(array: xr.DataArray, axes: Axes) -> np.ndarray:
    """(B, channels, *grid) in the dtype of the file."""
    levels = [d for d in array.dims if d not in axes.samples and d not in axes.grid]
    values = array.transpose(*axes.samples, *levels, *axes.grid).values
    count = int(np.prod([array.sizes[d] for d in axes.samples]))
    return values.reshape(count, -1, *[array.sizes[d] for d in axes.grid])


def _joined(
    values: list[np.ndarray], gone: list[np.ndarray], rows: np.ndarray, dtype: torch.dtype, blank: float
) -> torch.Tensor:
    channels = sum(v.shape[1] for v in values)
    x = torch.empty(int(rows.sum()), channels, *values[0].shape[2:], dtype=dtype)
    first = 0
    for v, m in zip(values, gone, strict=True):
        part = x[:, first : first + v.shape[1]]
        # in double precision first: uint16 and the like are no torch types
        part.copy_(torch.from_numpy(np.where(m, blank, v)[rows].astype(np.float64)))
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
