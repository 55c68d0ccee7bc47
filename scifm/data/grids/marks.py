"""Values that stand for missing ones and were not declared as such: nobody trains on them unasked.

valid_range, valid_min, valid_max    what lies outside is missing (CF conventions 1.11, section 2.5.1), but xarray
                                     leaves it; whole numbers are meant as packed where the variable is packed
-9999, 1e20, ...                     usual marks, where one occurs exactly and farther from all other values of its
                                     channel than three times their range
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scifm.data.grids.spec import Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_marks", "check_valid"]

# whole numbers, exactly; large ones (netCDF's own is 9.96921e36) to the five digits that people write
_WHOLE = {sign * int("9" * n) for n in range(2, 10) for sign in (1, -1)} - {99} | {-88888, -8888, -7777, -1e10}
_WHOLE |= {-32768, -32767, 32767, 65535, -2147483648, -2147483647, 2147483647, 4294967295}
_LARGE = np.array([1e15, 1e16, 1e20, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 9.96921e36, 9.999e20, 1e37, 3.40282e38])
_LARGE = np.concatenate([_LARGE, [9e33, 9.9e33, 9.99e33, 9.99e36, 9.999e36, 1.70141e38, 1e38, 1.79769e308]])


def check_valid(array: xr.DataArray, variable: Variable, values: np.ndarray) -> None:
    """Refuse values beyond valid_range, valid_min or valid_max, where no others are missing.

    Args:
        values: of the array, decoded, in any shape; NaN where missing.

    Raises:
        ValueError: how many, beyond what, and what cures it.
    """
    for name, low, high in _bounds(variable):
        bad = (values < low) | (values > high)  # NaN is neither
        if count := int(bad.sum()):
            first, last = values[bad].min(), values[bad].max()
            here = f"ds[{array.name!r}]"
            kept = " & ".join(
                f"({here} {sign} {end:g})" for sign, end in ((">=", low), ("<=", high)) if np.isfinite(end)
            )
            raise ValueError(
                f"from_xarray: {count} of {values.size} values of {array.name!r} lie outside of its {name}, "
                f"{low:g} .. {high:g}: they run from {first:g} to {last:g}, and by CF are missing. Mark them, "
                f"{here}.where({kept}), or where the attribute is wrong, del {here}.attrs[{name!r}]."
            )


def check_marks(name: str, values: np.ndarray, variable: Variable, gone: np.ndarray) -> None:
    """Refuse usual marks of missing values that no attribute declares.

    Args:
        values: (B, channels, *grid), decoded.
        gone: of the same shape, where values are missing.

    Raises:
        ValueError: which, how often, and what cures it.
    """
    for c in range(values.shape[1]):
        part = values[:, c][~gone[:, c]]
        for mark in _marks(part, variable):
            count, here = int((part == mark).sum()), f"ds[{name!r}]"
            others = part[part != mark]
            raise ValueError(
                f"from_xarray: {count} values of {name!r} are {mark:.6g}, far from all others ({others.min():g} .. "
                f"{others.max():g}): a mark of missing values that no attribute declares? Mark them, "
                f"{here}.where({here} != {mark!r}), or set its attribute _FillValue and open the file again."
            )


def _bounds(variable: Variable) -> list[tuple[str, float, float]]:
    """(attribute, lowest, highest) in the units of the decoded values, with room for what rounding does."""
    attrs, found = variable.attrs, []
    for name, low, high in (("valid_range", 0, 1), ("valid_min", 0, None), ("valid_max", None, 0)):
        given = np.asarray(attrs.get(name, [])).ravel()
        if given.dtype.kind not in "iuf" or given.size != (2 if name == "valid_range" else 1):
            continue
        ends = [-np.inf if low is None else float(given[low]), np.inf if high is None else float(given[high])]
        if np.isnan(ends).any() or ends[0] > ends[1]:
            continue
        found.append((name, *_decoded(ends, given, variable)))
    return found


def _decoded(ends: list[float], given: np.ndarray, variable: Variable) -> tuple[float, float]:
    encoding = variable.encoding
    stored = np.dtype(encoding.get("dtype", variable.dtype))
    scale, offset = (float(encoding.get(n) or d) for n, d in (("scale_factor", 1.0), ("add_offset", 0.0)))
    packed = any(encoding.get(n) is not None for n in ("scale_factor", "add_offset"))
    if packed and (given.dtype == stored or (given.dtype.kind in "iu" and stored.kind in "iu")):
        if str(encoding.get("_Unsigned", "")).lower() == "true":
            ends = [e + 2.0 ** (8 * stored.itemsize) if e < 0 and np.isfinite(e) else e for e in ends]
        ends = sorted(e * scale + offset for e in ends)
    room = 0.5 * abs(scale) if packed and stored.kind in "iu" else 0.0
    rough = max(np.finfo(d).eps if d.kind == "f" else 0.0 for d in (np.dtype(variable.dtype), given.dtype))
    low, high = ends
    return low - room - rough * abs(low), high + room + rough * abs(high)


def _marks(values: np.ndarray, variable: Variable) -> list[Any]:
    """Marks among values (n,): the lowest or highest ones, peeled off as long as they look like marks."""
    rest, peeled = values, []
    while rest.size and len(peeled) < 8:
        ends = {v for v in (rest.min(), rest.max()) if _is_mark(v, variable)}
        if not ends:
            break
        peeled += ends
        rest = rest[~np.isin(rest, list(ends))]
    if not rest.size:
        return []
    low, high = float(rest.min()), float(rest.max())
    return [m.item() for m in peeled if max(low - float(m), float(m) - high) > 3 * (high - low)]


def _is_mark(value: Any, variable: Variable) -> bool:
    value = float(value)
    if variable.lattice is not None and variable.lattice != (1.0, 0.0):  # what is stored, before it is unpacked
        scale, offset = variable.lattice
        stored = (value - offset) / scale
        if abs(stored - round(stored)) < 1e-3 and round(stored) in _WHOLE:
            return True
    if abs(value) < 1e12:
        return value in _WHOLE or value in (-999.25, -999.9, -99.9, -9999.9)
    return bool(np.isclose(abs(value), _LARGE, rtol=1e-5, atol=0).any())
