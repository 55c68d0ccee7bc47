"""Dates that are written out: as text, or as the digits of a number.

    2000-01-01T06:00, 2000-01-01_06:00:00, b"2000-01"      ISO 8601, and WRF's variable `Times`
    20000101.25, units "day as %Y%m%d.%f"                  absolute times of CDO (its user guide, section 1.3.3)

A zone, other than Z, is none that a grid's file has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["are_stamps", "parts"]

_ISO = re.compile(
    r"([+-]?\d{4,6})-(\d{1,2})(?:-(\d{1,2}))?(?:[T_ ]+(\d{1,2})(?::?(\d{2})(?::?(\d{2}(?:\.\d*)?))?)?)? ?(?:Z|UTC)?"
)
_DIGITS = re.compile(r"\s*days?\s+as\s+%Y%m%d(\.%f)?\s*", re.I)

Stamp = tuple[int, int, int, float]


def are_stamps(values: np.ndarray, attrs: Mapping[str, Any]) -> bool:
    """Whether values are dates written out; of text the first entry that is not empty tells."""
    if values.dtype.kind in "iuf":
        return _DIGITS.fullmatch(str(attrs.get("units", ""))) is not None
    if values.dtype.kind not in "SUO":
        return False
    first = next((text for v in values.ravel() if (text := _text(v))), "")
    return _ISO.fullmatch(first) is not None


def parts(values: np.ndarray, attrs: Mapping[str, Any]) -> Iterator[tuple[str, Stamp | None]]:
    """Each entry as text, and its (year, month, day, seconds of the day); None where it is no date."""
    for value in values.ravel():
        if values.dtype.kind in "iuf":
            yield f"{value}", _digits(float(value)) if np.isfinite(value) else None
        else:
            found = _ISO.fullmatch(text := _text(value))
            yield text, None if found is None else _iso(found.groups())


def _text(value: Any) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return text.strip("\0 \t\n")


def _iso(groups: tuple[str | None, ...]) -> Stamp:
    year, month, day, hour, minute, second = groups
    seconds = 3600 * int(hour or 0) + 60 * int(minute or 0) + float(second or 0)
    return int(year or 0), int(month or 0), int(day or 1), seconds


def _digits(value: float) -> Stamp:
    """20000101.25: a double holds the fraction to a third of a millisecond."""
    whole = int(abs(value))
    seconds = round((abs(value) - whole) * 86400, 2)
    return whole // 10000 * (-1 if value < 0 else 1), whole // 100 % 100, whole % 100, seconds
