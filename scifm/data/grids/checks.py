"""What is no field on a grid, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scifm.data.grids import cells
from scifm.data.grids.dims import Axes

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_axes", "check_variable"]


def check_variable(array: xr.DataArray, axes: Axes) -> None:
    """Refuse what holds no numbers, is empty, or does not share samples and grid."""
    if array.dtype.kind not in "iuf":
        cure = f" {array.name}.astype('int8') makes 0 and 1 of it." if array.dtype.kind == "b" else ""
        raise ValueError(f"from_xarray: {array.name!r} holds {array.dtype}, expected numbers.{cure}")
    if empty := [str(d) for d, n in array.sizes.items() if n == 0]:
        raise ValueError(f"from_xarray: {array.name!r} is empty along {', '.join(empty)}, {dict(array.sizes)}.")
    if lacking := [d for d in (*axes.samples, *axes.grid) if d not in array.dims]:
        raise ValueError(
            f"from_xarray: {array.name!r} {array.dims} does not share {', '.join(lacking)} with the other variables; "
            "channels need the same samples and the same grid. Leave it out, or interpolate it before."
        )


def check_axes(dataset: xr.Dataset, names: Sequence[str], axes: Axes) -> None:
    """Refuse coordinates that are no latitudes and longitudes in degrees or radians, and mixed units."""
    for name, index in dataset[list(names)].indexes.items():
        if getattr(index, "nlevels", 1) > 1:
            levels = [str(n) for n in index.names]
            raise ValueError(
                f"from_xarray: {name!r} is a MultiIndex of {', '.join(levels)} (xarray's stack), which no file holds; "
                f"ds.unstack({name!r}) and sample_dim={levels}, or ds.reset_index({name!r})."
            )
    for role, check in (("lat", cells.check_latitude), ("lon", cells.check_longitude)):
        name = axes.roles.get(role, "")
        if name in dataset.coords:
            coordinate = dataset[name]
            if coordinate.dtype.kind not in "iuf":
                raise ValueError(f"from_xarray: the coordinate {name!r} holds {coordinate.dtype}, expected degrees.")
            unit = str(coordinate.attrs.get("units", "degrees")).lower()
            if not unit.startswith(("deg", "rad")) and str(coordinate.attrs.get("standard_name", "")).endswith("itude"):
                raise ValueError(
                    f"from_xarray: {name!r} is a {coordinate.attrs['standard_name']} in {unit!r}, expected degrees."
                )
            if unit.startswith(("deg", "rad")) and name not in ("x", "y"):
                check(name, cells.degrees(coordinate.values, coordinate.attrs, role == "lon"))
        elif name in axes.grid and name.lower() in ("lat", "latitude", "lon", "longitude"):
            raise ValueError(
                f"from_xarray: the dim {name!r} has no coordinate, so neither areas nor periodicity are known; give "
                f"it one, ds.assign_coords({name}=...), or call the dims y and x."
            )
    unit = {n: str(dataset[n].attrs.get("units", "")) for n in names}
    if odd := [n for n, u in unit.items() if "," in u or ";" in u]:
        raise ValueError(f"from_xarray: {odd[0]!r} has several units, {unit[odd[0]]!r}; split it into variables.")
