"""Cells of a grid: whether longitude closes the circle, and whether coordinates are what they say.

    periodic    n · Δλ = 360° within half a cell; 200..330 E is not, nor is 0..360 with both ends

How much of the sphere they cover is in `scifm.areas`.
"""

from __future__ import annotations

import numpy as np

__all__ = ["check_latitude", "check_longitude", "closes", "direction"]


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
            'poles; is it in degrees, and not longitude? dims={"lat": ...} says which coordinate is meant.'
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
