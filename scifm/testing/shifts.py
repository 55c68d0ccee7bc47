"""The contract of a velocity on a periodic grid: shift a field along the axis, and its velocity is shifted.

    v(S_k x) = S_k v(x)     (S_k x)_j = x_(j-k), indices modulo the length of the axis, k = 0, step, 2 step, ...

What does not flow is shifted too where it is a field on the grid, (B, K, *grid) or (B, *grid) in the batch's context.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from scifm.batch import Batch
from scifm.testing.laws import fresh, rounding, say

__all__ = ["check_shift_equivariant"]


def check_shift_equivariant(
    velocity: nn.Module, batch: Batch, axes: Sequence[int], step: int = 1, seed: int = 0
) -> None:
    """Whether a velocity commutes with all shifts by multiples of `step` along grid axes, to rounding.

    Args:
        batch: fields (B, C, *grid).
        axes: numbers of grid axes, 0 for the one after the channels; negative ones count from the end. Each alone.
        step: points; 1 asks for every shift. A U-Net commutes with those by its `multiple`.

    Raises:
        AssertionError: naming the axis and the first shift that the velocity does not follow; for one that is zero
            everywhere or the same all along the axis, of which nothing is learnt.
        ValueError: for an axis that is not there, or one that has no shift by `step` other than itself.

    Example:
        >>> x = torch.randn(2, 1, 4, 6)
        >>> check_shift_equivariant(lambda t, x, batch: x.roll(1, 3) - x, Batch(x), axes=[1])
    """
    grid = batch.grid("check_shift_equivariant")[1:]
    for axis in axes:
        if not -len(grid) <= axis < len(grid) or step < 1 or grid[axis] <= step:
            raise ValueError(
                f"check_shift_equivariant: expected axes of the grid {grid} that are longer than step={step}, got "
                f"axis {axis}."
            )
    t = torch.rand(len(batch), generator=fresh(seed), dtype=torch.float64).to(batch.x)
    with torch.no_grad():
        v = velocity(t, batch.x, batch)
        size = float(v.abs().max())
        say(
            size > 0,
            "Velocity: zero everywhere, so every law holds and nothing is learnt from that. Give the zero head weights "
            "first (nn.init.normal_).",
        )
        for axis in (a % len(grid) for a in axes):
            varies = float((v - v.roll(step, axis + 2)).abs().max())
            say(
                varies > 10 * rounding(v) * size,
                f"Velocity: the same all along axis {axis}, so nothing is learnt from shifting it.",
            )
            for shift in range(step, grid[axis], step):
                moved = _shifted(batch, shift, axis, grid)
                gap = float((velocity(t, moved.x, moved) - v.roll(shift, axis + 2)).abs().max())
                say(
                    gap < rounding(v) * (1 + size),
                    f"Velocity: shifting a field by {shift} along axis {axis} does not just shift the answer "
                    f"(relative error {gap / (1 + size):.2g}).",
                )


def _shifted(batch: Batch, shift: int, axis: int, grid: tuple[int, ...]) -> Batch:
    from_end = axis - len(grid)
    context = {
        k: v.roll(shift, from_end) if v.ndim > len(grid) and v.shape[-len(grid) :] == grid else v
        for k, v in batch.context.items()
    }
    return Batch(batch.x.roll(shift, from_end), context=context)
