"""Times as days since 1970-01-01 in their own calendar, and back.

    calendar              year in days     who writes it
    standard              365.2425         observations, reanalyses ("gregorian", "proleptic_gregorian")
    julian                365.25
    noleap, 365_day       365              many climate models
    all_leap, 366_day     366
    360_day               360              the Hadley Centre's models

A day count is what a flow is conditioned on, and it must be counted in the calendar of the file: twelve months of 30
days are a year there, and an annual harmonic has that period (`year_of`).  Dates that numpy cannot hold are cftime's.

Some old models write what is no CF time at all, "days since 0000-00-00" in the calendar "365_days".  Where month and
day are zero the first is meant, and a calendar's name may carry a plural; such counts are understood, and kept as the
numbers they are.  Dates as text and dates as digits are understood as well (`stamps`).  Reference: CF conventions
1.11, section 4.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from scifm.data.grids import stamps

__all__ = ["YEARS", "dates", "days_since_1970", "from_days", "is_time", "lead", "microseconds", "step_of", "year_of"]

YEARS = {
    "standard": 365.2425, "gregorian": 365.2425, "proleptic_gregorian": 365.2425, "julian": 365.25,
    "noleap": 365.0, "365_day": 365.0, "all_leap": 366.0, "366_day": 366.0, "360_day": 360.0,
}  # fmt: skip
_SAME = {"gregorian": "standard", "365_day": "noleap", "366_day": "all_leap"}
EPOCH = np.datetime64("1970-01-01", "us")
_UNITS = {"microsecond": 1e-6, "millisecond": 1e-3, "second": 1, "sec": 1, "s": 1, "minute": 60, "min": 60}
_UNITS |= {"hour": 3600, "hr": 3600, "h": 3600, "day": 86400, "d": 86400, "week": 604800}
_SINCE = re.compile(r"\s*(\w+?)s?\s+since\s+(-?\d+)-(\d+)-(\d+)(?:[T ]\s*(\d+):(\d+)(?::(\d+))?)?")


def year_of(calendar: str | None) -> float:
    """Length of the year in days; the mean Gregorian year where there is no calendar."""
    return YEARS.get(calendar or "standard", YEARS["standard"])


def is_time(values: np.ndarray, attrs: Mapping[str, Any]) -> bool:
    """Whether a coordinate counts time: dates, numbers with "since" in their units, dates as text or as digits."""
    counted = values.dtype.kind == "M" or _is_cftime(values) or " since " in str(attrs.get("units", ""))
    return counted or stamps.are_stamps(values, attrs)


def days_since_1970(name: str, values: np.ndarray, attrs: Mapping[str, Any], calendar: str | None) -> tuple[Any, str]:
    """Days (n,) float64 in the calendar's own arithmetic, and the calendar.

    Args:
        values: datetime64, cftime objects, text, or numbers whose units in attrs say since when, or which digits.
        calendar: that the file names, where xarray has taken it out of attrs.

    Raises:
        ValueError: for missing dates, and for units or a calendar that nobody can read; the message says which.
    """
    if values.dtype.kind == "M":
        if bad := int(np.isnat(values).sum()):
            raise ValueError(f"from_xarray: {bad} of {values.size} samples have no date in {name!r} (NaT); drop them.")
        return (values.astype("datetime64[us]") - EPOCH) / np.timedelta64(1, "D"), _SAME.get(
            calendar or "", calendar or "standard"
        )
    if _is_cftime(values):
        calendar = str(values.ravel()[0].calendar)
        return microseconds(values, calendar) / 86_400_000_000, calendar
    if stamps.are_stamps(values, attrs):
        return _stamped(name, values, attrs, calendar)
    return _count(name, values, attrs, calendar)


def _known(name: str, attrs: Mapping[str, Any], calendar: str | None, cure: str) -> str:
    """The calendar that CF knows by the name that the file has for it."""
    named = str(calendar or attrs.get("calendar", "standard")).lower()
    known = named.removesuffix("s") if named.removesuffix("s") in YEARS else named
    if known not in YEARS:
        raise ValueError(
            f"from_xarray: {name!r} has the calendar {named!r}, which CF does not know (it knows {', '.join(YEARS)}); "
            f"{cure}"
        )
    return _SAME.get(known, known)


def _stamped(name: str, values: np.ndarray, attrs: Mapping[str, Any], calendar: str | None) -> tuple[Any, str]:
    """Dates that are written out, each as (year, month, day, seconds)."""
    known = _known(name, attrs, calendar, f"correct the attribute calendar of {name!r}.")
    days = []
    for text, stamp in stamps.parts(values, attrs):
        try:
            if stamp is None:
                raise ValueError("no year, month and day")
            year, month, day, seconds = stamp
            if year_of(known) == YEARS["standard"]:
                start = (np.datetime64(f"{year:04d}-{month:02d}-{day:02d}", "us") - EPOCH) / np.timedelta64(1, "D")
            else:
                date = _cftime().datetime(year, month, day, calendar=known, has_year_zero=True)
                start = microseconds(np.array([date]), known)[0] / 86_400_000_000
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"from_xarray: {text!r} among the times of {name!r} is no date of the calendar {known!r} ({error}); "
                "correct it, or drop that sample."
            ) from error
        days.append(start + seconds / 86400)
    return np.array(days).reshape(values.shape), known


def _count(name: str, values: np.ndarray, attrs: Mapping[str, Any], calendar: str | None) -> tuple[Any, str]:
    """Numbers with "days since ..." that xarray has left as they are."""
    units = str(attrs.get("units", ""))
    cure = f"correct the attributes of {name!r}, or open the file with decode_times=False and take its units away."
    known = _known(name, attrs, calendar, cure)
    found = _SINCE.match(units)
    step = _UNITS.get(found[1].lower()) if found else None
    if found is None or step is None:
        raise ValueError(
            f"from_xarray: the times of {name!r} cannot be decoded: units {units!r}. Months and years have no fixed "
            f"length; {cure}"
        )
    if not np.isfinite(values.astype(float)).all():
        raise ValueError(f"from_xarray: some times of {name!r} are missing; drop those samples.")
    year, month, day, hour, minute, second = (int(n or 0) for n in found.groups()[1:])
    try:
        start = _cftime().datetime(
            year, max(month, 1), max(day, 1), hour, minute, second, calendar=known, has_year_zero=True
        )
    except ValueError as error:
        raise ValueError(f"from_xarray: {units!r} is no date of the calendar {known!r} ({error}); {cure}") from error
    offset = microseconds(np.array([start]), known)[0] / 86_400_000_000
    return values.astype(float) * (step / 86400) + offset, known


def from_days(days: np.ndarray, calendar: str) -> np.ndarray:
    """Dates from days since 1970-01-01, to the millisecond: datetime64[ns] where numpy can, else cftime's."""
    ms = np.rint(np.asarray(days, dtype=float) * 86_400_000).astype(np.int64)
    if year_of(calendar) == YEARS["standard"] and (abs(ms) < 9.2e15 / 1000).all():
        return (np.datetime64("1970-01-01", "ms") + ms.astype("timedelta64[ms]")).astype("datetime64[ns]")
    return dates(ms * 1000, calendar)


def dates(counts: np.ndarray, calendar: str) -> np.ndarray:
    """cftime dates (n,) from microseconds since 1970-01-01 in a calendar."""
    units = "microseconds since 1970-01-01"
    found = _cftime().num2date(np.asarray(counts, np.int64), units, calendar, has_year_zero=True)
    return np.asarray(found, dtype=object)


def microseconds(values: np.ndarray, calendar: str) -> np.ndarray:
    """Exact counts since 1970-01-01; the whole-number units keep cftime from rounding."""
    numbers = _cftime().date2num(values, "microseconds since 1970-01-01", calendar, has_year_zero=True)
    return np.asarray(numbers).astype(np.int64)


def step_of(days: np.ndarray, year: float) -> str:
    """The usual distance of two times that follow each other, as one would say it: 6 h, 1 d, 1 month, 1 year."""
    steps = np.diff(np.unique(days))
    if not len(steps):
        return "a single time"
    step = float(np.median(steps))
    if abs(step - year) < 2:
        return "1 year"
    if 28 <= step <= 31 and len(steps) > 1:
        return "1 month"
    return f"{step:.4g} d" if step >= 1 else f"{step * 24:.4g} h" if step * 24 >= 1 else f"{step * 86400:.4g} s"


def lead(step: np.timedelta64) -> str:
    """A lead time in hours, as forecasters count them, or in minutes or seconds where it is shorter: 6 h, 240 h."""
    if np.isnat(step):
        return "no time"
    seconds = float(step / np.timedelta64(1, "s"))
    unit, length = next(((u, n) for u, n in (("h", 3600), ("min", 60)) if seconds % n == 0), ("s", 1))
    return f"{seconds / length:.10g} {unit}"


def _is_cftime(values: np.ndarray) -> bool:
    return values.dtype == object and values.size > 0 and type(values.ravel()[0]).__module__.startswith("cftime")


def _cftime() -> Any:
    try:
        import cftime
    except ImportError as error:
        raise ValueError("from_xarray: its calendar needs one more package: pip install cftime.") from error
    return cftime
