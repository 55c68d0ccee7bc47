"""Samples on their way: where each is, and one Runge–Kutta step for all of them.

Samples that have arrived are set aside (`keep`), so that the rest is evaluated without them, and put back in order at
the end.  Which rows, probes, conditions and edges belong to whom is the batch's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.solve.solver import Field
from scifm.solve.stages import Stages, Weights
from scifm.tableaus import Tableau

__all__ = ["Step", "Walk"]


@dataclass
class Step:
    """Where a step leads: state, log-determinant, and velocity and divergence of the last stage."""

    x: Tensor
    logdet: Tensor | None
    v: Tensor
    d: Tensor | None


class Walk:
    """The carried samples.

    Attributes:
        t: (n,) float64 times, x: (rows, *event) states, logdet: (n, K) float64 or None.
        v, d: stages of the velocity and of the divergence; stage 0 belongs to t and x.
        who: (n,) numbers of the carried samples, rows: (rows,) numbers of their rows, in the whole batch.
        first: what the field said at the start.
        divergence: `(t, x, batch, probes) -> (n, K)`, where the log-determinant is summed along the curve; else None.
        rate: (n, K) float64, what it says at t and x.
        calls: evaluations made so far.
    """

    def __init__(
        self,
        field: Field,
        x: Tensor,
        t0: float,
        t1: float,
        like: Batch,
        probes: Tensor | None,
        tableau: Tableau,
        divergence: Callable[..., Tensor] | None = None,
    ):
        self.field, self.x, self.like, self.probes, self.tableau = field, x, like, probes, tableau
        self.span, self.low, self.high = t1 - t0, min(t0, t1), max(t0, t1)
        self.graph = torch.is_grad_enabled()
        self.t = torch.full((len(like),), t0, dtype=torch.float64, device=x.device)
        self.c = torch.tensor(tableau.c, dtype=torch.float64, device=x.device)[:, None]
        self.who = torch.arange(len(like), device=x.device)
        self.rows = torch.arange(len(x), device=x.device)
        self.calls = 0
        self.done: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        v, d = self.evaluate(self.t.to(x.dtype), x)
        self.first = v, d
        self.logdet = None if d is None else torch.zeros_like(d)
        self.v = Stages(Weights(tableau, x), v, self.graph)
        self.d = None if d is None else Stages(Weights(tableau, d), d, self.graph)
        self.divergence, self.rate = divergence, None
        if divergence is not None:
            self.rate = self.diverge(self.t, x)
            self.calls += 1
            self.logdet = torch.zeros_like(self.rate)

    def diverge(self, t: Tensor, x: Tensor) -> Tensor:
        """Divergence (n, K), float64, at times t (n,)."""
        assert self.divergence is not None
        t = t.clamp(self.low, self.high).to(x.dtype)
        return _columns(self.divergence(t, x, self.like.replace(x), self.probes), len(t))

    def evaluate(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Velocity like x and divergence (n, K), float64, at times t (n,) in the dtype of x."""
        self.calls += 1
        v, d = self.field(t, x, self.like.replace(x), self.probes)
        if v.shape != x.shape or v.dtype != x.dtype:
            raise ValueError(
                f"integrate: the field must return a velocity like x, {x.dtype} {tuple(x.shape)}, got {v.dtype} "
                f"{tuple(v.shape)}."
            )
        if d is None:
            return v, None
        return v, _columns(d, len(t))

    def begin(self, v: Tensor, d: Tensor | None) -> None:
        """Velocity and divergence at the present t and x."""
        self.v.put(0, v)
        if self.d is not None and d is not None:
            self.d.put(0, d)
        elif d is not None:
            self.rate = d

    @property
    def diverging(self) -> Tensor | None:
        """Divergence (n, K) at the present t and x."""
        return self.rate if self.d is None else self.d.kept[0]

    def here(self) -> tuple[Tensor, Tensor | None]:
        """Evaluates at the present t and x."""
        return self.evaluate(self.t.to(self.x.dtype), self.x)

    def step(self, h: Tensor | float) -> Step:
        """One step of signed size h, for all or (n,); stage 0 is there already."""
        times = (self.t + self.c * h).clamp_(self.low, self.high).to(self.x.dtype).unbind()
        wide = self.like.spread(h.to(self.x.dtype)) if isinstance(h, Tensor) else h
        x, v, d = self.x, self.v.kept[0], None if self.d is None else self.d.kept[0]
        for i in range(1, len(times)):
            x = ahead(self.x, wide, self.v.mix(i))
            v, d = self.evaluate(times[i], x)
            self.v.put(i, v)
            if self.d is not None and d is not None:
                self.d.put(i, d)
        if not self.tableau.fsal:
            x = ahead(self.x, wide, self.v.mix("b"))
        logdet = None
        if self.d is not None and self.logdet is not None:
            logdet = ahead(self.logdet, h[:, None] if isinstance(h, Tensor) else h, self.d.mix("b"))
        return Step(x, logdet, v, d)

    def keep(self, moving: Tensor) -> Tensor:
        """Sets the others aside and returns the positions of those that are `moving` (n,)."""
        index, gone = moving.nonzero().flatten(), (~moving).nonzero().flatten()
        numbers = torch.arange(len(self.x), device=self.x.device)
        part = self.like.replace(numbers).select(index)
        stay = part.x
        leave = torch.ones_like(numbers, dtype=torch.bool).index_fill_(0, stay, False).nonzero().flatten()
        logdet = None if self.logdet is None else self.logdet[gone]
        self.done.append((self.who[gone], self.rows[leave], self.x[leave], logdet))
        self.x, self.rows, self.t, self.who = self.x[stay], self.rows[stay], self.t[index], self.who[index]
        self.like = part.replace(self.x)
        self.logdet = None if self.logdet is None else self.logdet[index]
        self.rate = None if self.rate is None else self.rate[index]
        self.probes = None if self.probes is None else self.probes[:, stay]
        self.v, self.d = self.v.cut(stay), None if self.d is None else self.d.cut(index)
        return index

    def result(self) -> tuple[Tensor, Tensor | None]:
        """State and log-determinant of all samples, in the order of the whole batch."""
        if not self.done:
            return self.x, self.logdet
        who, rows, x, logdet = zip(*self.done, (self.who, self.rows, self.x, self.logdet), strict=True)
        x = torch.cat(x)[torch.cat(rows).argsort()]
        return x, None if self.logdet is None else torch.cat(logdet)[torch.cat(who).argsort()]


def _columns(d: Tensor, size: int) -> Tensor:
    if d.ndim != 2 or len(d) != size:
        raise ValueError(
            f"integrate: the field must return a divergence (samples, probes), here ({size}, K), got "
            f"{tuple(d.shape)}; a single estimate is a column, divergence[:, None]."
        )
    return d.double()


def ahead(x: Tensor, h: Tensor | float, slope: Tensor) -> Tensor:
    """x + h slope."""
    return torch.addcmul(x, h, slope) if isinstance(h, Tensor) else torch.add(x, slope, alpha=h)
