"""What every network asks of its arguments and of its times."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_count", "check_sizes", "check_times"]


def check_sizes(who: str, name: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Layer widths as a tuple of positive ints; a ValueError that names the argument otherwise."""
    if not sizes or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(f"{who}: {name} must be one or more positive whole numbers, got {sizes!r}.")
    return sizes


def check_times(who: str, t: Tensor, size: int) -> None:
    """One time per sample, (B,); anything else broadcasts silently to nonsense when B equals D."""
    if t.shape != (size,):
        raise ValueError(f"{who}: t must hold one time per sample, shape ({size},), got {tuple(t.shape)}.")


def check_count(who: str, name: str, n: int) -> int:
    """A whole number of 0 or more; a ValueError that names the argument otherwise."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError(f"{who}: {name} must be a whole number, 0 or more, got {n!r}.")
    return n
