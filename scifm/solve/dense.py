"""States between the ends of a step, at times that were asked for.

    x(θ) = x_0 + θ²(3 − 2θ)(x_1 − x_0) + h θ(1 − θ)² k_0 − h θ²(1 − θ) k_end + h θ²(1 − θ)² Σ_i d_i k_i

is of third order without the last term, which some tableaus have, and of fourth with it.  Each sample is looked up in
the step of its own in which the time lies.  At both ends of the way the states are those of the solver, exactly.

Reference: Hairer, Nørsett and Wanner 1993 (II.6); Shampine 1986.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.solve.stages import Stages
from scifm.solve.walk import Step, Walk

__all__ = ["Recorder", "hermite"]


def hermite(
    start: Tensor, stop: Tensor, first: Tensor, last: Tensor, extra: Tensor | None, h: Tensor, u: Tensor | float
) -> Tensor:
    """x(θ) at θ = u of a step of size h from `start` to `stop`, with the slopes there and Σ d_i k_i; all broadcast."""
    x = start + u * u * (3 - 2 * u) * (stop - start) + h * u * (1 - u) * ((1 - u) * first - u * last)
    return x if extra is None else x + h * (u * (1 - u)) ** 2 * extra


class Recorder:
    """Collects states and log-determinants at `times`, which follow the direction of the walk."""

    def __init__(self, times: Sequence[float], walk: Walk, t0: float, t1: float):
        self.times = torch.tensor(times, dtype=torch.float64, device=walk.x.device)
        self.t0, self.t1, self.sign = t0, t1, 1.0 if walk.span > 0 else -1.0
        self.states: list[tuple[Tensor, Tensor, Tensor]] = []
        self.logdets: list[tuple[Tensor, Tensor, Tensor]] = []
        self._all(self.times == t0, walk.x, walk.logdet)

    def _all(self, when: Tensor, x: Tensor, logdet: Tensor | None) -> None:
        when = when.nonzero().flatten()
        for pieces, value in ((self.states, x), (self.logdets, logdet)):
            if value is not None:
                j = when.repeat_interleave(len(value))
                number = torch.arange(len(value), device=value.device).repeat(len(when))
                pieces.append((j, number, value[number]))

    def note(self, walk: Walk, step: Step, t: Tensor, end: tuple[Tensor, Tensor | None], good: Tensor) -> None:
        """The times inside the step to times t (n,) that the samples `good` are about to take.

        Args:
            end: velocity and divergence at the end of the step.
        """
        inside = ((self.times[:, None] - walk.t) * self.sign > 0) & (self.times != self.t1)[:, None]
        inside &= ((self.times[:, None] - t) * self.sign <= 0) & good
        if not inside.any():
            return
        h = t - walk.t
        owner = walk.like.spread(torch.arange(len(walk.t), device=walk.t.device)).flatten()

        def between(
            stages: Stages | None,
            values: tuple[Tensor, Tensor],
            slopes: tuple[Tensor, Tensor],
            j: Tensor,
            at: Tensor,
            b: Tensor,
        ) -> Tensor:
            (start, stop), (first, last) = values, slopes
            shape = (-1, *[1] * (start.ndim - 1))
            size = h[b].to(start.dtype).reshape(shape)
            u = ((self.times[j] - walk.t[b]) / h[b]).to(start.dtype).reshape(shape)
            extra = None if walk.tableau.dense is None or stages is None else stages.mix("dense")[at]
            return hermite(start[at], stop[at], first[at], last[at], extra, size, u)

        j, at = inside[:, owner].nonzero().unbind(1)
        slopes = walk.v.kept[0], end[0]
        self.states.append((j, walk.rows[at], between(walk.v, (walk.x, step.x), slopes, j, at, owner[at])))
        start = walk.diverging
        if start is not None and walk.logdet is not None and step.logdet is not None and end[1] is not None:
            j, b = inside.nonzero().unbind(1)
            value = between(walk.d, (walk.logdet, step.logdet), (start, end[1]), j, b, b)
            self.logdets.append((j, walk.who[b], value))

    def result(self, x: Tensor, logdet: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(T, rows, *event) and (T, B, K), given the final ones."""
        if self.t0 != self.t1:
            self._all(self.times == self.t1, x, logdet)
        path = self._join(self.states, x)
        return path, None if logdet is None else self._join(self.logdets, logdet)

    def _join(self, pieces: list[tuple[Tensor, Tensor, Tensor]], like: Tensor) -> Tensor:
        j, number, values = (torch.cat(part) for part in zip(*pieces, strict=True))
        return like.new_zeros((len(self.times), *like.shape)).index_put((j, number), values)
