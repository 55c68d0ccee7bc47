"""What the door understood, said back in one line, so that a wrong axis is seen before the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scifm.data.grids.calendar import from_days
from scifm.data.grids.cells import both_ends, degrees, direction

if TYPE_CHECKING:
    from scifm.data.grids.spec import GridSpec, Variable

__all__ = ["describe"]


def describe(spec: GridSpec) -> str:
    """`air [K, steps of 0.01]; lat: 25, descending, 75 .. 15; lon: 53, periodic: no; time: 6 h, ...; 0 missing`."""
    said = [", ".join(_variable(spec, v) for v in spec.variables)]
    if len(spec.channels) > 1:
        said.append(f"{len(spec.channels)} channels: {_some(spec.channels)}")
    said += [_axis(spec, dim, spec.periodic[number]) for number, dim in enumerate(spec.grid)]
    said += [_samples(spec, dim) for dim in spec.samples]
    said.append(_missing(spec))
    return "; ".join(said)


def _variable(spec: GridSpec, variable: Variable) -> str:
    steps = "" if variable.delta is None else f", steps of {variable.delta:g}"
    return f"{variable.name} [{variable.unit or 'no unit'}{steps}]"


def _some(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 8 else [*names[:4], "...", *names[-2:]])


def _axis(spec: GridSpec, dim: str, periodic: bool) -> str:
    text = f"{dim}: {spec.sizes[dim]}"
    role = next((r for r in ("lat", "lon") if spec.roles.get(r) == dim or _dims(spec, r) == (dim,)), None)
    two = [r for r in ("lat", "lon") if len(_dims(spec, r)) == 2 and dim in _dims(spec, r)]
    coord = spec.coords.get(spec.roles[role] if role else dim, spec.coords.get(dim))
    if role == "lat" and coord is not None and (way := direction(coord.values)):
        text += f", {way}"
    if role == "lon" or two or periodic:
        text += f", periodic: {'yes' if periodic else 'no'}"
    if role == "lon" and coord is not None and both_ends(degrees(coord.values, coord.attrs)):
        text += " (both ends of the circle are there)"
    if two:
        return f"{text}, of {' and '.join(spec.roles[r] for r in two)}"
    if coord is None or coord.values.dtype.kind not in "iuf":
        return text
    return f"{text}, {coord.values[0]:g} .. {coord.values[-1]:g}"


def _dims(spec: GridSpec, role: str) -> tuple[str, ...]:
    coord = spec.coords.get(spec.roles.get(role, ""))
    return () if coord is None else coord.dims


def _samples(spec: GridSpec, dim: str) -> str:
    if spec.days is None or spec.calendar is None or spec.roles.get("time") not in (dim, *_named(spec, dim)):
        return f"{dim}: {spec.sizes[dim]} samples" + (", no dates" if spec.roles.get("time") == dim else "")
    first, last = (str(from_days(np.array([d]), spec.calendar)[0])[:10] for d in (spec.days.min(), spec.days.max()))
    return f"{dim}: {spec.step}, {spec.calendar} calendar, {spec.sizes[dim]}, {first} .. {last}"


def _named(spec: GridSpec, dim: str) -> list[str]:
    return [n for n, c in spec.coords.items() if c.dims == (dim,)]


def _missing(spec: GridSpec) -> str:
    total = int(np.prod([spec.sizes[d] for d in spec.samples]))
    dropped = 0 if spec.rows is None else total - len(spec.rows)
    gone = 0 if spec.mask is None else int((~spec.mask).sum())
    said = "0 missing" if spec.mask is None else f"{gone} of {spec.mask.size} points masked (missing in all samples)"
    return said if not dropped else f"{said}, {dropped} of {total} samples with other gaps dropped"
