"""Fixed steps on a grid of times that all samples share: Runge–Kutta and Adams–Bashforth.

Adams–Bashforth integrates the polynomial through the last q velocities, so each step costs one evaluation:

    x_{n+1} = x_n + h Σ_j w_j v_{n−j},   Σ_j w_j τ_j^m = 1/(m + 1) for m = 0 ... q − 1,   τ_j = (t_{n−j} − t_n)/h.

The weights follow from the times, so grids need not be even.  Reference: Hairer, Nørsett and Wanner 1993 (III.5).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from scifm.solve.dense import Recorder
from scifm.solve.stages import combine
from scifm.solve.walk import Step, Walk, ahead
from scifm.tableaus import Adams, Tableau

__all__ = ["fixed"]


def fixed(
    walk: Walk,
    grid: list[float],
    method: Tableau | Adams,
    recorder: Recorder | None = None,
    check: Callable[[Walk, float, Tensor], None] | None = None,
) -> None:
    """Moves all samples along the grid; `walk` has been evaluated at its start.

    Args:
        check: looks at the walk, the start and the first velocity of each step, after it.
    """
    weights = _weights(grid, method.order) if isinstance(method, Adams) else []
    memory = len(weights) and method.order - 1
    past: list[tuple[Tensor, Tensor | None]] = []  # velocities and divergences before, the latest first
    now: tuple[Tensor, Tensor | None] | None = walk.first
    for n, (start, end) in enumerate(pairwise(grid)):
        if now is None:
            now = walk.here()
        h = end - start
        past = [now, *past[:memory]]
        walk.begin(*now)
        if isinstance(method, Adams) and len(past) == method.order:
            step = _adams(walk, h, weights[n], past)
        else:
            step = walk.step(h)
        now = (step.v, step.d) if method.fsal else None
        if recorder is not None:
            if now is None:
                now = walk.evaluate(torch.full_like(walk.t, end).to(walk.x.dtype), step.x)
            everyone = torch.ones_like(walk.t, dtype=torch.bool)
            recorder.note(walk, step, torch.full_like(walk.t, end), now, everyone)
        walk.x, walk.logdet, walk.t = step.x, step.logdet, torch.full_like(walk.t, end)
        if check is not None:
            check(walk, start, past[0][0])


def _adams(walk: Walk, h: float, weights: list[float], past: list[tuple[Tensor, Tensor | None]]) -> Step:
    v, d = past[0]
    x = ahead(walk.x, h, combine(weights, [v for v, _ in past]))
    logdet = walk.logdet
    if logdet is not None:
        logdet = ahead(logdet, h, combine(weights, [d for _, d in past if d is not None]))
    return Step(x, logdet, v, d)


def _weights(grid: list[float], order: int) -> list[list[float]]:
    """Of the velocities at the last `order` times, the latest first, for each step; of no use for the first steps."""
    t = torch.tensor(grid, dtype=torch.float64)
    steps = torch.arange(len(grid) - 1)
    back = (steps[:, None] - torch.arange(order)).clamp(min=0)
    tau = (t[back] - t[:-1, None]) / t.diff()[:, None]
    tau = torch.where(steps[:, None] < torch.arange(order), -torch.arange(order).to(tau), tau)  # anything regular
    powers = torch.arange(order, dtype=torch.float64)
    system = tau[:, None, :] ** powers[None, :, None]
    return torch.linalg.solve(system, (1 / (powers + 1)).expand(len(steps), order)).tolist()
