"""What is missing: always (land, a cell below the ground) or now and then (clouds, a station that fell out).

Values that are missing in every sample are a mask, known before anything is learnt: x is zero there, no density counts
them, and samples get their NaN back.  Values that are missing in some samples are no mask: a model of the others would
have to say what they might have been.  Such samples are refused, or dropped where the user says so.
"""

from __future__ import annotations

import numpy as np

__all__ = ["constant_mask", "rows_without_gaps"]


def constant_mask(missing: np.ndarray) -> np.ndarray:
    """(*event) True where values exist, from missing (n, *event): False where they are missing in every sample."""
    return np.logical_not(missing.all(0))


def rows_without_gaps(name: str, missing: np.ndarray, infinite: int, how: str) -> np.ndarray:
    """(n,) True for the samples of a variable that lack nothing but what all samples lack.

    Args:
        missing: (n, *event) NaN.
        infinite: how many values are infinite.
        how: "refuse", "drop" or "keep".

    Raises:
        ValueError: for infinite values, for a variable without values, and for gaps that are not to be dropped.
    """
    if infinite:
        raise ValueError(
            f"from_xarray: {infinite} of {missing.size} values of {name!r} are infinite; a division by zero before? "
            "Set them to NaN, or drop the samples that hold them."
        )
    if missing.all():
        raise ValueError(f"from_xarray: {name!r} holds no values, all {missing.size} are missing.")
    if how == "keep":
        return np.ones(len(missing), dtype=bool)
    axes = tuple(range(1, missing.ndim))
    extra = np.asarray((missing & constant_mask(missing)).any(axes))
    if not extra.any() or how == "drop":
        return np.logical_not(extra)
    gaps = int((missing & constant_mask(missing)).sum())
    raise ValueError(
        f"from_xarray: {gaps} of {missing.size} values of {name!r} are missing here and there, in {int(extra.sum())} "
        f'of {len(missing)} samples. Give missing="drop" to leave those samples out, or fill them before (xarray\'s '
        "fillna, interpolate_na)."
    )
