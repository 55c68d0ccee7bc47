"""Units of gridded data, as their files write them.

Each unit is a multiple of its SI unit, and temperatures have another zero:  SI = scale · value + offset.  The table
holds what weather, climate and ocean files come in, no more; a pair that it does not know is refused rather than
guessed, and `Affine` takes any numbers.
"""

from __future__ import annotations

import difflib

from scifm.data.transforms.affine import Affine

__all__ = ["convert_units", "same_unit"]

G = 9.80665  # m s-2, of geopotential metres; the water of mm day-1 has 1000 kg m-3
HOUR, DAY = 3600.0, 86400.0
FOOT, KNOT = 0.3048, 1852 / HOUR

# quantity -> unit -> (scale, offset)
TABLE: dict[str, dict[str, tuple[float, float]]] = {
    "temperature": {"K": (1, 0), "degC": (1, 273.15), "degF": (5 / 9, 459.67 * 5 / 9)},
    "pressure": {"Pa": (1, 0), "hPa": (100, 0), "kPa": (1000, 0), "bar": (1e5, 0), "atm": (101325, 0)},
    "length": {"m": (1, 0), "km": (1000, 0), "cm": (0.01, 0), "mm": (0.001, 0), "ft": (FOOT, 0)},
    "speed": {"m s-1": (1, 0), "km h-1": (1000 / HOUR, 0), "cm s-1": (0.01, 0), "knot": (KNOT, 0)},
    "share": {"1": (1, 0), "kg kg-1": (1, 0), "g kg-1": (1e-3, 0), "mg kg-1": (1e-6, 0), "%": (0.01, 0)},
    "geopotential": {"m2 s-2": (1, 0), "J kg-1": (1, 0), "gpm": (G, 0), "gpdam": (10 * G, 0)},
    "water flux": {"kg m-2 s-1": (1, 0), "mm s-1": (1, 0), "mm h-1": (1 / HOUR, 0), "mm day-1": (1 / DAY, 0)},
    "energy flux": {"W m-2": (1, 0), "kW m-2": (1000, 0)},
}
SAME = {
    "kelvin": "K", "degK": "K", "deg_K": "K", "°C": "degC", "celsius": "degC", "degrees_celsius": "degC",
    "degree_Celsius": "degC", "deg_C": "degC", "°F": "degF", "fahrenheit": "degF", "mbar": "hPa", "mb": "hPa",
    "millibar": "hPa", "millibars": "hPa", "pascal": "Pa", "metre": "m", "meter": "m", "metres": "m", "meters": "m",
    "m/s": "m s-1", "m s**-1": "m s-1", "m.s-1": "m s-1", "km/h": "km h-1", "knots": "knot", "kt": "knot",
    "g/kg": "g kg-1", "kg/kg": "kg kg-1", "kg kg**-1": "kg kg-1", "percent": "%", "m2/s2": "m2 s-2",
    "m**2 s**-2": "m2 s-2", "mm/day": "mm day-1", "mm/d": "mm day-1", "mm d-1": "mm day-1", "mm/h": "mm h-1",
    "mm/hr": "mm h-1", "kg m**-2 s**-1": "kg m-2 s-1", "kg/m2/s": "kg m-2 s-1", "W/m2": "W m-2", "W m**-2": "W m-2",
}  # fmt: skip


def convert_units(unit: str, to: str) -> Affine:
    """The transform from one unit to another of the same quantity, with its log|det|.

    Raises:
        ValueError: for a unit that is not in the table, or two of different quantities.

    Example:
        >>> import torch
        >>> from scifm import Batch
        >>> convert_units("degC", "K")(Batch(torch.tensor([[20.0]]))).x
        tensor([[293.1500]])
    """
    (kind, scale, offset), (other, new_scale, new_offset) = _look_up(unit), _look_up(to)
    if kind != other:
        raise ValueError(f"convert_units: {unit!r} is a unit of {kind} and {to!r} one of {other}; check the units.")
    return Affine(shift=(offset - new_offset) / scale, scale=scale / new_scale)


def same_unit(one: str, other: str) -> bool:
    """Whether two spellings mean one unit."""
    a, b = (SAME.get(u.strip(), u.strip()) for u in (one, other))
    return a == b


def _look_up(unit: str) -> tuple[str, float, float]:
    name = SAME.get(unit.strip(), unit.strip())
    for kind, units in TABLE.items():
        if name in units:
            return kind, *units[name]
    known = [u for units in TABLE.values() for u in units] + list(SAME)
    near = difflib.get_close_matches(unit, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else "give Affine(shift, scale) its numbers."
    raise ValueError(f"convert_units: the unit {unit!r} is not in the table; {hint}")
