"""Blocks of pixels as channels of one: s^axes times fewer points, and nothing is lost."""

from __future__ import annotations

from torch import Tensor

__all__ = ["fold", "unfold"]


def fold(x: Tensor, s: int) -> Tensor:
    """Pixel-unshuffle in any dimension: (B, C, *grid) -> (B, C·s^axes, *grid/s)."""
    if s == 1:
        return x
    axes = x.ndim - 2
    x = x.reshape(*x.shape[:2], *[m for n in x.shape[2:] for m in (n // s, s)])
    x = x.permute(0, 1, *range(3, 2 * axes + 2, 2), *range(2, 2 * axes + 2, 2))
    return x.flatten(1, axes + 1)


def unfold(h: Tensor, s: int, channels: int) -> Tensor:
    """The inverse of `fold`."""
    if s == 1:
        return h
    grid = h.shape[2:]
    axes = len(grid)
    h = h.reshape(h.shape[0], channels, *[s] * axes, *grid)
    h = h.permute(0, 1, *[k for a in range(axes) for k in (2 + axes + a, 2 + a)])
    return h.reshape(h.shape[0], channels, *[n * s for n in grid])
