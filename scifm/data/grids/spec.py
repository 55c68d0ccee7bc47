"""What a tensor forgets of a file: names, dims and their order, coordinates, units, packing, calendar, mask, cells.

A `GridSpec` is made by `from_xarray`, read by `to_xarray`, and travels as JSON, with its arrays compressed.

Channels are the variables in the order given, and within a variable its dims beside samples and grid, in the file's
order: z@500, z@850, t@500.  Latitude comes before longitude in the tensor, whatever the file's order.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from scifm.data.grids import cells
from scifm.data.grids.calendar import lead, step_of, year_of
from scifm.data.grids.codec import from_plain, to_plain

__all__ = ["Coordinate", "GridSpec", "Variable"]


@dataclass(frozen=True, eq=False)
class Coordinate:
    """A coordinate as the file has it: dims, values of any dtype, attributes, and how they are stored."""

    dims: tuple[str, ...]
    values: np.ndarray
    attrs: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Variable:
    """A variable without its values.

    Attributes:
        name: of the variable.
        dims: in the file's order.
        dtype: of the values as xarray decodes them.
        attrs: units for one.
        encoding: dtype, scale_factor, add_offset, marks of missing values, as stored, where they are known.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lattice(self) -> tuple[float, float] | None:
        """(scale, offset) of values k · scale + offset with whole k; None for continuous ones."""
        if np.dtype(self.encoding.get("dtype", self.dtype)).kind not in "iu":
            return None
        return float(self.encoding.get("scale_factor", 1.0)), float(self.encoding.get("add_offset", 0.0))

    @property
    def delta(self) -> float | None:
        """Width of the lattice in the user's units; None for continuous values."""
        return None if self.lattice is None else abs(self.lattice[0])

    @property
    def unit(self) -> str:
        return str(self.attrs.get("units", ""))


@dataclass(frozen=True, eq=False)
class GridSpec:
    """What a file says about variables on a grid. Equal where their JSON is.

    Attributes:
        variables: that became channels, in this order.
        samples: dims whose entries became samples, in the file's order.
        grid: dims of the grid, in the tensor's order.
        sizes: of all dims.
        roles: time, realization, lat, lon, level -> name of the coordinate or dim.
        coords: by name.
        attrs, encoding: of the whole file.
        mask: bool (C, *grid), True where values exist; None where all do.
        area: (*grid) areas of the cells: what the file gives, else steradians; None where neither tells.
        calendar: of the times; None where samples carry none.
        days: (B,) the times of the samples, days since 1970-01-01 in that calendar; None without a calendar.
        rows: which entries of `samples`, counted in the file's order, are in the batch; None for all.
        beside: what variables and coordinates refer to, by name: projection, edges of the cells, their areas.
    """

    variables: tuple[Variable, ...]
    samples: tuple[str, ...]
    grid: tuple[str, ...]
    sizes: Mapping[str, int]
    roles: Mapping[str, str] = field(default_factory=dict)
    coords: Mapping[str, Coordinate] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)
    mask: np.ndarray | None = None
    area: np.ndarray | None = None
    calendar: str | None = None
    days: np.ndarray | None = None
    rows: np.ndarray | None = None
    beside: Mapping[str, Coordinate] = field(default_factory=dict)

    # -- channels --------------------------------------------------------------------------------------------

    def levels(self, variable: Variable) -> tuple[str, ...]:
        """Dims of a variable that became channels."""
        return tuple(d for d in variable.dims if d not in self.samples and d not in self.grid)

    def channels_of(self, variable: Variable) -> list[str]:
        """Its channels by name: z@500; the plain name where there are no levels."""
        dims = self.levels(variable)
        if not dims:
            return [variable.name]
        named = [[self._level(d, i) for i in range(self.sizes[d])] for d in dims]
        return [f"{variable.name}@{','.join(each)}" for each in itertools.product(*named)]

    def _level(self, dim: str, i: int) -> str:
        coord = self.coords.get(dim)
        value = i if coord is None else coord.values[i]
        if isinstance(value, np.timedelta64):
            return lead(value)
        return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)

    @property
    def channels(self) -> list[str]:
        """Names of the channels, in the order of the tensor."""
        return [c for v in self.variables for c in self.channels_of(v)]

    @property
    def event(self) -> tuple[int, ...]:
        """Shape (C, *grid) of a sample."""
        return (len(self.channels), *(self.sizes[d] for d in self.grid))

    @property
    def units(self) -> list[str]:
        """Unit of each channel."""
        return [v.unit for v in self.variables for _ in self.channels_of(v)]

    @property
    def unit(self) -> str:
        """The unit of all channels; "" where they differ or there is none."""
        return self.units[0] if len(set(self.units)) == 1 else ""

    @property
    def deltas(self) -> list[float | None]:
        """Width of the lattice of each channel in its unit; None for a continuous one."""
        return [v.delta for v in self.variables for _ in self.channels_of(v)]

    @property
    def delta(self) -> float | None:
        """The lattice of all channels; None where they differ or one is continuous."""
        return self.deltas[0] if len(set(self.deltas)) == 1 else None

    # -- grid and time ---------------------------------------------------------------------------------------

    @property
    def periodic(self) -> tuple[bool, ...]:
        """For each grid axis: is it a longitude that closes the circle, n · step = 360° within half a step?"""
        coord = self.coords.get(self.roles.get("lon", ""))
        if coord is None or coord.values.dtype.kind not in "iuf":
            return tuple(False for _ in self.grid)
        values = cells.degrees(coord.values, coord.attrs)
        if len(coord.dims) == 1:
            return tuple(coord.dims == (d,) and cells.closes(values) for d in self.grid)
        return tuple(d in coord.dims and cells.closes(values, coord.dims.index(d)) for d in self.grid)

    @property
    def year(self) -> float:
        """Length of the year in days, in the calendar of the file."""
        return year_of(self.calendar)

    # -- words and JSON --------------------------------------------------------------------------------------

    def describe(self) -> str:
        """What was understood, for the user to check before training."""
        from scifm.data.grids.words import describe

        return describe(self)

    def to_json(self) -> str:
        """The spec as text; `from_json` gives back an equal one."""
        return json.dumps(self._plain())

    def _plain(self) -> Any:
        held: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        held["variables"] = [vars(v) for v in self.variables]
        held |= {of: {name: vars(c) for name, c in held[of].items()} for of in ("coords", "beside")}
        return to_plain(held)

    @staticmethod
    def from_json(text: str) -> GridSpec:
        """Raises ValueError for a text that is no spec."""
        try:
            held = from_plain(json.loads(text))
            held["variables"] = tuple(Variable(**v | {"dims": tuple(v["dims"])}) for v in held["variables"])
            for of in ("coords", "beside"):  # of which older specs know nothing
                told = held.get(of, {}) if of == "beside" else held[of]
                held[of] = {n: Coordinate(**c | {"dims": tuple(c["dims"])}) for n, c in told.items()}
            return GridSpec(**held | {"samples": tuple(held["samples"]), "grid": tuple(held["grid"])})
        except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"GridSpec.from_json: expected what to_json wrote, got {text[:60]!r} ({error})."
            ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GridSpec):
            return False
        # as text, where NaN is NaN; a Zarr store names its coordinates now in this order and now in that
        one, two = (json.dumps(spec._plain(), sort_keys=True) for spec in (self, other))
        return one == two

    def __hash__(self) -> int:
        return hash((self.samples, self.grid, tuple(v.name for v in self.variables)))

    @property
    def step(self) -> str:
        """The usual distance in time of two samples, in words; "" without times."""
        return "" if self.days is None else step_of(self.days, self.year)
