"""Checks of settings that all energies share."""

from __future__ import annotations

import math

__all__ = ["check_positive"]


def check_positive(who: str, **values: float) -> None:
    """ValueError naming the first value that is not a positive, finite number."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{who}: {name} must be positive and finite, got {value}.")
