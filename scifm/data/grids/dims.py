"""Which dim is which: by CF attributes, then by name, or as the user says.

    role          attributes (CF conventions 1.11, section 4)                      names
    time          axis T, dates, units "... since ...", standard_name ...time      time, valid_time, date, month, year
    realization   standard_name realization, axis E                                realization, number, member, sample
    lat           axis Y, units degrees_north, latitude, projection_y_coordinate   lat, latitude, TLAT, y
    lon           axis X, units degrees_east, longitude, projection_x_coordinate   lon, longitude, TLONG, x
    level         axis Z, positive, air_pressure, height, depth                    level, lev, plev, pressure

Dims of time and realization count the samples; latitude before longitude are the grid, whatever the file's order; all
other dims become channels.  Latitudes and longitudes may be two-dimensional (curvilinear grids): their dims are the
grid then, in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scifm.data.grids.calendar import is_time

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ROLES", "SAMPLE_DIMS", "Axes", "find_axes", "role_of", "roles"]

SAMPLE_DIMS = ("time", "realization", "number", "member", "sample", "ensemble", "valid_time")
_NAMES = {
    "time": ("time", "valid_time", "date", "datetime", "month", "year", "day", "season", "t"),
    "realization": ("realization", "number", "member", "members", "sample", "samples", "ensemble", "ens", "run"),
    "lat": ("lat", "latitude", "lats", "rlat", "ylat", "nav_lat", "tlat", "ulat", "y", "nlat", "south_north", "xlat"),
    "lon": ("lon", "longitude", "lons", "rlon", "xlon", "nav_lon", "tlong", "ulong", "tlon", "x", "nlon", "west_east"),
    "level": ("level", "lev", "plev", "pressure", "isobaricinhpa", "height", "depth", "altitude", "z"),
}
_STANDARD = {
    "realization": ("realization",),
    "lat": ("latitude", "grid_latitude", "projection_y_coordinate"),
    "lon": ("longitude", "grid_longitude", "projection_x_coordinate"),
    "level": ("air_pressure", "height", "altitude", "depth", "model_level_number", "atmosphere_sigma_coordinate"),
}
_AXIS = {"T": "time", "E": "realization", "Y": "lat", "X": "lon", "Z": "level"}
ROLES = tuple(_NAMES)


@dataclass(frozen=True)
class Axes:
    """What was found.

    Attributes:
        samples: dims that count samples.
        grid: dims of the grid, one to three.
        roles: role -> the coordinate or dim that has it.
    """

    samples: tuple[str, ...]
    grid: tuple[str, ...]
    roles: Mapping[str, str]


def role_of(name: str, coordinate: xr.DataArray | None) -> str | None:
    """Role of a coordinate by its attributes; None where they do not tell."""
    if coordinate is None:
        return None
    attrs, units = coordinate.attrs, str(coordinate.attrs.get("units", "")).lower().replace(" ", "_")
    standard = str(attrs.get("standard_name", ""))
    for role, words in _STANDARD.items():
        if standard in words:
            return role
    if " since " in str(attrs.get("units", "")) or " as %y" in units.replace("_", " "):
        return "time"
    if coordinate.dtype.kind in "MOSU" and is_time(coordinate.values, attrs):
        return "time"
    if standard == "time" or standard.endswith("_time"):
        return "time"
    if units.startswith(("degrees_n", "degree_n", "degreesn", "degreen")):
        return "lat"
    if units.startswith(("degrees_e", "degree_e", "degreese", "degreee")):
        return "lon"
    if (axis := str(attrs.get("axis", "")).upper()) in _AXIS:
        return _AXIS[axis]
    return "level" if "positive" in attrs else None


def find_axes(
    dataset: xr.Dataset,
    variables: Sequence[str],
    sample_dim: str | Sequence[str] | None,
    override: Mapping[str, str] | None = None,
) -> Axes:
    """Roles of the dims of some variables that share a grid.

    Args:
        sample_dim: one dim or several whose entries are samples; those of time and realization if None.
        override: role -> name of a dim or a coordinate; it has the last word.

    Raises:
        ValueError: for roles and names that do not exist, and where nothing tells what counts the samples.
    """
    every = list(dict.fromkeys(str(d) for n in variables for d in dataset[n].dims))
    common = [d for d in every if all(d in dataset[n].dims for n in variables)]
    roles = _given(dataset, override or {}) | {}
    for certain in (True, False):  # attributes of all dims come before the names of any
        for name in [*every, *_beside(dataset, every)]:
            if name in roles.values():
                continue
            coordinate = dataset[name] if name in dataset.coords else None
            role = role_of(name, coordinate) if certain else _by_name(name)
            if role is not None and role not in roles:
                roles[role] = name
    samples = _samples(dataset, variables[0], sample_dim, roles)
    rest = [d for d in common if d not in samples]
    if not rest:
        raise ValueError(f"from_xarray: {variables[0]!r} has one number per {', '.join(samples)}, no grid.")
    return Axes(samples, _grid(dataset, [d for d in every if d not in samples], rest, roles), roles)


def roles(words: Sequence[str]) -> dict[str, str]:
    """Role -> dim or coordinate, from words such as "lat=TLAT".

    Raises:
        ValueError: for words of another form, and for a role that is given twice.
    """
    pairs = [[part.strip() for part in word.split("=")] for word in words]
    if wrong := [word for word, pair in zip(words, pairs, strict=True) if len(pair) != 2 or not all(pair)]:
        raise ValueError(
            f"--dims: expected roles and the dims or coordinates that have them, lat=NAME,lon=NAME, got {wrong[0]!r}."
        )
    if len({role for role, _ in pairs}) < len(pairs):
        raise ValueError(f"--dims: expected each role once, got {','.join(words)!r}.")
    return dict(pairs)


def _given(dataset: xr.Dataset, override: Mapping[str, str]) -> dict[str, str]:
    known = {str(n) for n in (*dataset.sizes, *dataset.variables)}
    for role, name in override.items():
        if role not in ROLES:
            raise ValueError(f"from_xarray: dims= names roles, {', '.join(ROLES)}; got {role!r}.")
        if name not in known:
            raise ValueError(f"from_xarray: dims= says that {name!r} is {role}, but there are {', '.join(known)}.")
    return dict(override)


def _beside(dataset: xr.Dataset, dims: Sequence[str]) -> list[str]:
    """Coordinates along these dims that are not named as they are."""
    beside = [(str(n), c) for n, c in dataset.coords.items() if str(n) not in dims]
    return [n for n, c in beside if 1 <= c.ndim <= 2 and set(map(str, c.dims)) <= set(dims)]


def _by_name(name: str) -> str | None:
    return next((role for role, names in _NAMES.items() if name.lower() in names), None)


def _samples(dataset: xr.Dataset, first: str, wanted: Any, roles: Mapping[str, str]) -> tuple[str, ...]:
    dims = [str(d) for d in dataset[first].dims]
    if not dims or dataset[first].size == 0:
        raise ValueError(f"from_xarray: {first!r} is empty, {dict(dataset[first].sizes)}.")
    if wanted is not None:
        names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        for name in names:
            if name not in dims:
                raise ValueError(f"from_xarray: {first!r} has no dim {name!r}; it has {', '.join(dims)}.")
        return tuple(d for d in dims if d in names)
    counted = {d for role in ("time", "realization") if role in roles for d in _dims_of(dataset, roles[role])}
    counted |= {d for d in dims if d in SAMPLE_DIMS}
    found = tuple(d for d in dims if d in counted)
    if not found:
        raise ValueError(
            f"from_xarray: which dim of {first!r} {tuple(dims)} counts the samples? None looks like time or "
            f"realization. Give sample_dim ({dims[0]!r}, say), or --samples {dims[0]} to a recipe."
        )
    return found


def _dims_of(dataset: xr.Dataset, name: str) -> tuple[str, ...]:
    return tuple(str(d) for d in dataset[name].dims) if name in dataset.variables else (name,)


def _grid(dataset: xr.Dataset, every: Sequence[str], rest: Sequence[str], roles: Mapping[str, str]) -> tuple[str, ...]:
    """Latitude before longitude, the dims of a 2-D coordinate, or the last two dims that all variables share."""
    found = [_dims_of(dataset, roles[r]) for r in ("lat", "lon") if r in roles]
    dims = tuple(dict.fromkeys(d for each in found for d in each))
    if len(dims) == 2 and set(dims) <= set(every):
        return dims
    return tuple(rest[-2:])
