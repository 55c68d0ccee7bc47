"""Whether a file is like one that was read before, and what to do where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from scifm.data.grids.spec import Coordinate, GridSpec, Variable
from scifm.data.transforms import Affine, convert_units
from scifm.data.transforms.units import same_unit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_coordinates", "check_dims", "lattice_of", "unit_of"]


def check_dims(name: str, array: xr.DataArray, variable: Variable, spec: GridSpec) -> None:
    """Refuse a variable without the run's levels and grid, or without anything that counts samples."""
    fixed = (*spec.levels(variable), *spec.grid)
    have = ", ".join(f"{d} {n}" for d, n in array.sizes.items())
    for d in fixed:
        if array.sizes.get(d) != spec.sizes[d]:
            raise ValueError(
                f"{name}: {variable.name!r} has the dims {have}, but the run has {d} with {spec.sizes[d]} entries; "
                "choose, interpolate or rename (ds.sel, ds.interp, ds.rename) to the grid of the run."
            )
    if set(array.dims) <= set(fixed):
        raise ValueError(
            f"{name}: {variable.name!r} ({have}) has no dim that counts samples; give it one, "
            f"ds.expand_dims({spec.samples[0]!r})."
        )


def check_coordinates(name: str, found: GridSpec, spec: GridSpec) -> None:
    """Refuse other places and levels, another calendar, and samples without the times that the run needs."""
    if found.grid != spec.grid:
        raise ValueError(f"{name}: its grid is {found.grid}, that of the run {spec.grid}; rename the dims.")
    fixed = set(spec.grid) | {d for v in spec.variables for d in spec.levels(v)}
    for key, c in spec.coords.items():
        if not c.dims or not set(c.dims) <= fixed or key not in (*c.dims, *spec.roles.values()):
            continue
        other = found.coords.get(key)
        if other is None or not _equal(other.values, c.values):
            is_ = "has none" if other is None else f"is {_ends(other.values)}"
            cure = (
                f"ds.isel({key}=slice(None, None, -1)) turns it round" if _reversed(other, c) else "interpolate to it"
            )
            raise ValueError(
                f"{name}: {key!r} {is_}, that of the run is {_ends(c.values)}: it must be the same grid; {cure}."
            )
    if spec.days is not None and found.days is None:
        raise ValueError(
            f"{name}: its samples have no times, which the run takes the annual cycle or its conditions from; give "
            f"ds.assign_coords({spec.roles.get('time', 'time')}=...) dates."
        )
    if spec.days is not None and _calendar(found) != _calendar(spec):
        raise ValueError(
            f"{name}: its calendar is {found.calendar!r}, that of the run {spec.calendar!r}; convert it, "
            f"ds.convert_calendar({spec.calendar!r})."
        )


def _calendar(spec: GridSpec) -> str:
    return {"proleptic_gregorian": "standard"}.get(spec.calendar or "", spec.calendar or "")


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or not (a.dtype.kind in "iuf" and b.dtype.kind in "iuf"):
        return bool(np.array_equal(a, b))
    a, b = a.astype(float), b.astype(float)
    steps = np.abs(np.diff(b.ravel()))
    step = float(steps[steps > 0].min()) if (steps > 0).any() else float(np.abs(b).max())
    # curvilinear grids may have no coordinates on land
    return bool(np.allclose(a, b, rtol=0, atol=1e-3 * step, equal_nan=True))


def _reversed(other: Coordinate | None, c: Coordinate) -> bool:
    return other is not None and other.values.ndim == 1 and _equal(other.values[::-1], c.values)


def _ends(values: np.ndarray) -> str:
    flat = values.ravel()
    return f"{flat[0]} .. {flat[-1]}" if len(flat) > 1 else str(flat[0])


def unit_of(name: str, theirs: Variable, ours: Variable) -> Affine:
    """From a variable's unit to that of the run; ValueError where nobody knows how."""
    if not ours.unit or same_unit(theirs.unit, ours.unit):
        return Affine()
    try:
        return convert_units(theirs.unit, ours.unit)
    except ValueError as error:
        raise ValueError(
            f"{name}: {theirs.name!r} is in {theirs.unit or 'no unit'!r}, the run is in {ours.unit!r}; convert it and "
            f"set ds[{theirs.name!r}].attrs['units'] ({error})"
        ) from error


def lattice_of(x: Tensor, step: float | None, usual: float | None) -> float | None:
    """Width of a channel's lattice: that of its packing, or that of the run where values lie on it all the same.

    Args:
        x: its values, those on land left out: a lattice need not hold the zero that stands there.
        step: of its packing, if any.
        usual: of the run.
    """
    if step is not None or usual is None:
        return step
    x = x[x.isfinite()] / usual
    if not len(x):
        return None
    off, blur = x - x[0], 1e-3 + 2.0**-22 * float(x.abs().max())  # of values that were kept in single precision
    return usual if blur < 0.1 and bool(((off - off.round()).abs() < blur).all()) else None
