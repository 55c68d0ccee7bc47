"""Where a fixed number of steps is spent: a monotone map u in [0, 1] -> t in [0, 1], from the prior to the data.

A trained flow is smooth near the prior and steep near the data, so short steps belong at t = 1:

    warp      t = 1 − (1 − u)^p      dense at the data for p > 1, p = 1 is even
    cosine    t = (1 − cos πu)/2     dense at both ends

The same times serve both directions, so that a likelihood walks the grid of the samples backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Spacing", "Warp", "cosine", "times_of"]

Spacing = Callable[[float], float] | tuple[float, ...]


@dataclass(frozen=True)
class Warp:
    """t = 1 − (1 − u)^power.

    Example:
        >>> [Warp(2)(u) for u in (0, 0.5, 1)]
        [0, 0.75, 1]
    """

    power: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.power < math.inf:
            raise ValueError(f"Warp: power must be positive and finite, got {self.power}.")

    def __call__(self, u: float) -> float:
        return 1 - (1 - u) ** self.power

    def __str__(self) -> str:
        return f"warp({self.power:g})"


def cosine(u: float) -> float:
    """t = (1 − cos πu)/2.

    Example:
        >>> round(cosine(0.5), 12)
        0.5
    """
    return 0.5 * (1 - math.cos(math.pi * u))


def times_of(spacing: Spacing | None, steps: int) -> list[float]:
    """The steps + 1 times from 0 to 1, exactly at both ends.

    Raises:
        ValueError: where they do not run from 0 to 1 without turning or standing still.
    """
    if isinstance(spacing, tuple):
        times = list(spacing)
    else:
        times = [i / steps if spacing is None else float(spacing(i / steps)) for i in range(steps + 1)]
    ends = len(times) > 1 and abs(times[0]) < 1e-9 and abs(times[-1] - 1) < 1e-9
    if not ends or not all(a < b for a, b in pairwise(times)):
        few = ", ".join(f"{t:.4g}" for t in times[:6]) + (", ..." if len(times) > 6 else "")
        raise ValueError(
            f"Solver: spacing must rise from 0 (prior) to 1 (data), got the times {few}; give a map of [0, 1] onto "
            "itself such as Warp(1.5) or cosine, or a tuple of times such as (0, 0.5, 0.8, 1)."
        )
    return [0.0, *times[1:-1], 1.0]
