"""Cells of a grid: whether longitude closes the circle, and whether coordinates are what they say.

    periodic    n · Δλ = 360° within half a cell; 200..330 E is not, nor is 0..360 with both ends
    radians     by their units, or longitudes without units for which n · Δλ = 2π to a few thousandths of Δλ

How much of the sphere they cover is in `scifm.areas`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["both_ends", "check_latitude", "check_longitude", "closes", "degrees", "direction", "places_of", "radians"]


def radians(values: np.ndarray, attrs: Mapping[str, Any], longitude: bool = True) -> bool:
    """Whether a coordinate is in radians: its units say so, or it has none and is a longitude that goes once around."""
    if unit := str(attrs.get("units", "")).lower():
        return unit.startswith("rad")
    if not longitude or values.dtype.kind not in "iuf" or values.ndim != 1:
        return False
    n, step = len(values), np.diff(values.astype(float))
    if n < 3 or step[0] == 0 or not np.allclose(step, step[0], rtol=0.01) or np.abs(values).max() > 7:
        return False
    # n or, with both ends, n - 1 steps are a turn, nearly exactly: six steps of a degree are none
    whole, mean = 2 * np.pi, abs(step.mean())
    return bool(min(abs(n * mean - whole), abs((n - 1) * mean - whole)) < 2e-3 * mean)


def degrees(values: np.ndarray, attrs: Mapping[str, Any], longitude: bool = True) -> np.ndarray:
    """A coordinate in degrees, whether it is given in those or in radians."""
    return np.rad2deg(values.astype(float)) if radians(values, attrs, longitude) else values


def places_of(
    lat: tuple[str, np.ndarray, Mapping[str, Any]], lon: tuple[str, np.ndarray, Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Latitudes (H,) and longitudes (W,) in degrees; None where they are something else, such as metres.

    Args:
        lat, lon: name, values and attributes of each.  Without units, latitudes are in radians where longitudes are.
    """
    (y, north, told), (x, east, more) = lat, lon
    if not all(str(a.get("units", "degrees")).lower().startswith(("deg", "rad")) for a in (told, more)):
        return None
    turned = radians(east, more)
    if turned and not told.get("units"):
        if np.abs(north).max() > np.pi / 2 + 1e-6 or {x, y} & {"x", "y"}:
            return None  # a periodic box, and no globe
        return np.rad2deg(north.astype(np.float64)), np.rad2deg(east.astype(np.float64))
    return degrees(north, told, False).astype(np.float64), degrees(east, more).astype(np.float64)


def both_ends(longitude: np.ndarray) -> bool:
    """Whether longitudes (n,) in degrees, evenly spaced, hold one place twice, as 0 and 360 do."""
    values = np.asarray(longitude, dtype=float)
    if values.ndim != 1 or len(values) < 4 or not np.isfinite(values).all():
        return False
    step = np.diff(values)
    return bool(abs(abs(values[-1] - values[0]) - 360) < 0.01 * abs(step[0]) and np.allclose(step, step[0], rtol=0.01))


def closes(longitude: np.ndarray, axis: int = -1) -> bool:
    """Whether longitudes (n,) or (rows, columns) in degrees close the circle along an axis."""
    rows = np.moveaxis(np.asarray(longitude, dtype=float), axis, -1)
    if rows.shape[-1] < 3 or not np.isfinite(rows).all():
        return False
    steps = _steps(rows)
    step = np.abs(np.median(steps, axis=-1, keepdims=True))
    # the last step leads back to the first point: they add up to a whole turn if it is as long as the others
    back = np.abs((rows[..., :1] - rows[..., -1:] + 180) % 360 - 180)
    once = np.abs(np.abs(steps.sum(-1, keepdims=True)) + step - 360) < step / 2
    good = once & (np.abs(back - step) < step / 2) & (step > 0)
    even = np.allclose(np.abs(steps), step, rtol=0.01, atol=1e-3) if rows.ndim == 1 else True
    return bool(np.mean(good) > 0.5 and even)


def _steps(longitude: np.ndarray) -> np.ndarray:
    """Differences of neighbours, a jump over the date line taken out."""
    return (np.diff(longitude, axis=-1) + 180) % 360 - 180


def direction(values: np.ndarray) -> str:
    """ascending, descending, or "" for what is neither."""
    steps = np.diff(np.asarray(values, dtype=float))
    return "ascending" if (steps > 0).all() else "descending" if (steps < 0).all() else ""


def check_latitude(name: str, values: np.ndarray) -> None:
    """Refuse latitudes that are no latitudes.

    Raises:
        ValueError: for missing values, a place beyond the poles, or an order that is none.
    """
    _finite(name, values)
    if np.nanmax(np.abs(values)) > 90 + 1e-3:
        raise ValueError(
            f"from_xarray: latitudes of {name!r} run from {np.nanmin(values):g} to {np.nanmax(values):g}, beyond the "
            'poles; is it what its units say, and not longitude? dims={"lat": ...} says which coordinate is meant.'
        )
    if values.ndim == 1 and len(values) > 1 and not direction(values):
        raise ValueError(
            f"from_xarray: latitudes of {name!r} neither rise nor fall all the way; sort them, ds.sortby({name!r})."
        )


def check_longitude(name: str, values: np.ndarray) -> None:
    """Refuse longitudes that are no longitudes.

    Raises:
        ValueError: for missing values, more than a turn, or an order that is none (one jump at the date line is fine).
    """
    _finite(name, values)
    if np.nanmax(values) - np.nanmin(values) > 360 + 1e-3 or np.nanmax(np.abs(values)) > 540:
        raise ValueError(
            f"from_xarray: longitudes of {name!r} run from {np.nanmin(values):g} to {np.nanmax(values):g}, more than a "
            "turn; are they in degrees?"
        )
    if values.ndim == 1 and len(values) > 1:
        steps = _steps(np.asarray(values, dtype=float))
        if not ((steps > 0).all() or (steps < 0).all()) and not np.isclose(np.abs(values[-1] - values[0]), 360):
            raise ValueError(
                f"from_xarray: longitudes of {name!r} do not follow each other; sort them, ds.sortby({name!r})."
            )


def _finite(name: str, values: np.ndarray) -> None:
    # ocean models leave the places of land cells out
    if (bad := int((~np.isfinite(values)).sum())) and (values.ndim == 1 or bad == values.size):
        raise ValueError(f"from_xarray: {bad} of {values.size} values of the coordinate {name!r} are missing.")
