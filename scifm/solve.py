"""Runge–Kutta integration of dx/dt = v(t, x), every sample with its own clock.

Step size, error control and step counts are per sample, so that a sample's answer never depends on its batch mates (a
shared step moves log-likelihoods by the solver's tolerance, depending on who else is in the batch).  The log-density
change is integrated and error-controlled together with x.

Reference: Hairer, Nørsett and Wanner 1993 (II.4: starting step and PI control).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.tableaus import METHODS, Tableau

__all__ = ["Field", "Solution", "Solver", "SolverError", "integrate"]

Field = Callable[[Tensor, Tensor], "tuple[Tensor, Tensor | None]"]


class SolverError(RuntimeError):
    """The integration could not be finished; the message says where it stopped and what usually cures it."""


@dataclass(frozen=True)
class Solver:
    """How to integrate.

    Args:
        method: euler, midpoint, heun, rk4, bosh3, dopri5 or tsit5.
        rtol, atol: tolerances per step on the root mean square over a sample's values, for adaptive methods.
            For the log-density they hold per dimension.
        steps: number of equal steps. None means adaptive, which needs a method with an error estimate
            (heun, bosh3, dopri5, tsit5).
        max_steps: adaptive steps, accepted and rejected, after which the solver gives up.

    Raises:
        ValueError: for an unknown method, or one that does not fit the other settings.
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int | None = None
    max_steps: int = 1000

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"Solver: unknown method {self.method!r}; there are {', '.join(METHODS)}.")
        if self.steps is None and METHODS[self.method].error is None:
            raise ValueError(f"Solver: {self.method} has no error estimate; give steps=, or use dopri5 or tsit5.")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"Solver: steps must be at least 1, got {self.steps}.")
        if not (self.rtol > 0 and self.atol > 0 and self.max_steps > 0):
            raise ValueError(
                f"Solver: rtol, atol and max_steps must be positive, got {self.rtol}, {self.atol}, {self.max_steps}."
            )

    def tighter(self, dtype: torch.dtype) -> tuple[Solver, float]:
        """To measure this solver's error: the same with a tenth of the tolerance or twice the steps, and the factor
        from the difference of both answers to this one's error (2^p/(2^p − 1) for halved steps at order p)."""
        if self.steps is not None:
            gain = 2.0 ** METHODS[self.method].order
            return replace(self, steps=2 * self.steps), gain / (gain - 1)
        rtol = max(self.rtol / 10, 4 * torch.finfo(dtype).eps)
        return replace(self, rtol=rtol, atol=self.atol / 10, max_steps=4 * self.max_steps), 1.0

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.method} {self.steps} steps"
        return f"{self.method} rtol {self.rtol:g}" + (f" atol {self.atol:g}" if self.atol != self.rtol else "")


@dataclass(frozen=True)
class Solution:
    """What an integration returns.

    Attributes:
        x: final state, shaped like the initial one.
        logdet: (B, K) integral of the divergence along the way, one per probe, float64; None if not asked for.
        nfe: (B,) velocity evaluations of each sample.
        accepted, rejected: (B,) steps of each sample.
        solver: the settings that were used.
    """

    x: Tensor
    logdet: Tensor | None
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    solver: Solver


def integrate(field: Field, x: Tensor, t0: float, t1: float, like: Batch, solver: Solver = Solver()) -> Solution:
    """Carry x from time t0 to t1, forward or backward.

    Args:
        field: `(t (B,), x) -> (v, divergence (B, K) or None)`; sample b's part may depend on sample b only.
        x: (rows, *event) initial state.
        t0, t1: times; t1 < t0 runs backward.
        like: the batch that knows which rows belong to which sample.
        solver: method, tolerances or steps.

    Raises:
        SolverError: after `max_steps`, or where the velocity is not finite.
        ValueError: for a tolerance that the dtype cannot resolve.
    """
    state = _State(field, x, t0, t1, like, METHODS[solver.method])
    if t0 == t1 or len(like) == 0:
        return state.solution(solver)
    if solver.steps is not None:
        grid = torch.linspace(t0, t1, solver.steps + 1, dtype=torch.float64).tolist()
        for start, end in zip(grid[:-1], grid[1:], strict=True):
            step = state.step(torch.full_like(state.t, end - start))
            state.accept(step, torch.ones_like(state.active), torch.full_like(state.t, end))
            state.check(start)
        return state.solution(solver)
    _adaptive(state, t1, solver)
    return state.solution(solver)


@dataclass
class _Step:
    x: Tensor
    logdet: Tensor | None
    last: tuple[Tensor, Tensor | None]
    error_x: Tensor | None
    error_l: Tensor | None


class _State:
    """Where each sample is: time, value, log-determinant, first stage of its next step, and its counts."""

    def __init__(self, field: Field, x: Tensor, t0: float, t1: float, like: Batch, tableau: Tableau):
        self.field, self.like, self.tableau, self.x, self.span = field, like, tableau, x, t1 - t0
        self.t = torch.full((len(like),), t0, dtype=torch.float64, device=x.device)
        self.active = torch.ones_like(self.t, dtype=torch.bool)
        self.dims = like.dims.to(x.device).clamp(min=1).double()
        self.nfe, self.accepted, self.rejected = (torch.zeros_like(self.t, dtype=torch.long) for _ in range(3))
        self.logdet: Tensor | None = None
        self.first: tuple[Tensor, Tensor | None] | None = self.evaluate(self.t, x)
        if self.first[1] is not None:
            self.logdet = torch.zeros_like(self.first[1])
        self.check(t0)

    def evaluate(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        self.nfe += self.active
        v, divergence = self.field(t.to(x.dtype), x)
        return v, None if divergence is None else divergence.double()

    def check(self, t: float) -> None:
        finite = self.x.isfinite() if self.first is None else self.x.isfinite() & self.first[0].isfinite()
        bad = self.like.total((~finite).double()) > 0
        if bad.any():
            raise SolverError(
                f"integrate: the velocity or the state is not finite near t={t:.4g} for sample(s) {_some(bad)}. "
                "Usually the data or the network's weights hold NaN, or fixed steps are too long: look at the "
                "training loss, or use an adaptive method."
            )

    def step(self, h: Tensor) -> _Step:
        """All stages of one step of size h (B,), signed."""
        tab = self.tableau
        wide = self.like.spread(h.to(self.x.dtype))
        if self.first is None:
            self.first = self.evaluate(self.t, self.x)
        v, d = [self.first[0]], [self.first[1]]
        x = self.x
        for c, row in zip(tab.c[1:], tab.a[1:], strict=True):
            x = self.x + wide * _combine(row, v)
            stage = self.evaluate(self.t + c * h, x)
            v.append(stage[0])
            d.append(stage[1])
        if not tab.fsal:
            x = self.x + wide * _combine(tab.b, v)
        logdet = error_x = error_l = None
        if self.logdet is not None:
            logdet = self.logdet + h[:, None] * _combine(tab.b, d)
        if tab.error is not None:
            error_x = wide * _combine(tab.error, v)
            if self.logdet is not None:
                error_l = h * _combine(tab.error, d).mean(1)
        return _Step(x, logdet, (v[-1], d[-1]), error_x, error_l)

    def accept(self, step: _Step, who: Tensor, t: Tensor) -> None:
        """Move the samples `who` (B,) to the end of the step, at times t (B,)."""
        rows = self.like.spread(who)
        self.x = torch.where(rows, step.x, self.x)
        self.t = torch.where(who, t, self.t)
        self.accepted += who
        self.logdet = _choose(who, step.logdet, self.logdet)
        if not self.tableau.fsal or self.first is None:
            self.first = None  # evaluated when the next step needs it
            return
        # First same as last: the final stage of an accepted step was evaluated exactly at its end.
        v = torch.where(rows, step.last[0], self.first[0])
        self.first = (v, _choose(who, step.last[1], self.first[1]))

    def error(self, step: _Step, solver: Solver) -> Tensor:
        """Error of each sample relative to the tolerance, (B,)."""
        assert step.error_x is not None
        size = torch.maximum(self.x.abs(), step.x.abs())
        relative = self.like.total((step.error_x / (solver.atol + solver.rtol * size)).square().double())
        error = (relative / self.dims).sqrt()
        if step.error_l is not None and step.logdet is not None and self.logdet is not None:
            # Per dimension, or the divergence, which grows with the dimension, would dictate every step.
            size = torch.maximum(self.logdet.mean(1).abs(), step.logdet.mean(1).abs())
            error = torch.maximum(error, step.error_l.abs() / (solver.atol * self.dims + solver.rtol * size))
        return error

    def first_step(self, solver: Solver, order: int) -> Tensor:
        """A starting step per sample (Hairer, Nørsett and Wanner 1993, II.4), positive."""
        assert self.first is not None
        scale = solver.atol + solver.rtol * self.x.abs()

        def norm(value: Tensor) -> Tensor:
            return (self.like.total((value / scale).square().double()) / self.dims).sqrt()

        d0, d1 = norm(self.x), norm(self.first[0])
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).clamp(max=abs(self.span))
        signed = h0 if self.span > 0 else -h0
        x = self.x + self.like.spread(signed.to(self.x.dtype)) * self.first[0]
        d2 = norm(self.evaluate(self.t + signed, x)[0] - self.first[0]) / h0
        steep = torch.maximum(d1, d2)
        h1 = torch.where(steep <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steep).pow(1 / order))
        h = torch.minimum(100 * h0, h1)
        return torch.where(h.isfinite(), h, h0).clamp(max=abs(self.span))

    def solution(self, solver: Solver) -> Solution:
        return Solution(self.x, self.logdet, self.nfe, self.accepted, self.rejected, solver)


def _adaptive(state: _State, t1: float, solver: Solver) -> None:
    """PI control of the step, per sample, landing on t1 exactly."""
    eps = torch.finfo(state.x.dtype).eps
    if solver.rtol < 4 * eps:
        raise ValueError(
            f"integrate: rtol={solver.rtol:g} is below what {state.x.dtype} resolves ({4 * eps:.1g}); "
            "loosen it, or convert flow and data to float64."
        )
    order, sign = state.tableau.order, 1.0 if state.span > 0 else -1.0
    h = state.first_step(solver, order)
    previous = torch.ones_like(h)
    refused = torch.zeros_like(state.active)
    for _ in range(solver.max_steps):
        left = (t1 - state.t).abs()
        h = torch.minimum(h, left)
        # A last step that would leave a sliver is stretched onto the end.
        h = torch.where((left - h) < 1e-9 * abs(state.span), left, h) * state.active
        step = state.step(sign * h)
        error = torch.nan_to_num(state.error(step, solver), nan=torch.inf)
        good = state.active & (error <= 1)
        ended = good & (h >= left)
        state.accept(step, good, torch.where(ended, t1, state.t + sign * h))
        state.rejected += state.active & ~good
        state.active = state.active & ~ended
        if not state.active.any():
            return
        safe = error.clamp(1e-10, 1e10)
        factor = 0.9 * torch.where(good, safe.pow(-0.7 / order) * previous.pow(0.4 / order), safe.pow(-1 / order))
        factor = factor.clamp(0.2, 10.0)
        factor = torch.where(refused & good, factor.clamp(max=1.0), factor)
        previous = torch.where(good, safe.clamp(min=1e-4), previous)
        refused = state.active & ~good
        h = torch.where(state.active, h * factor, h)
        stuck = state.active & (h < 1e-12 * abs(state.span))
        if stuck.any():
            _give_up(state, stuck, "the step shrank below 1e-12 of the interval")
    _give_up(state, state.active, f"{solver.max_steps} steps were not enough")


def _give_up(state: _State, who: Tensor, why: str) -> None:
    first = int(who.nonzero()[0])
    raise SolverError(
        f"integrate: {why}; sample(s) {_some(who)} did not finish, the first is at t={float(state.t[first]):.4g} after "
        f"{int(state.accepted[first])} accepted and {int(state.rejected[first])} rejected steps. Usually the velocity "
        "is steep or hardly trained there: loosen rtol and atol, raise max_steps, use fixed steps "
        '(Solver("rk4", steps=100)), or convert to float64 where the tolerance is near the rounding of float32.'
    )


def _combine(weights: tuple[float, ...], stages: list) -> Tensor:
    """Σ weights · stages, leaving out the zeros."""
    total = None
    for w, stage in zip(weights, stages, strict=False):
        if w != 0:
            total = w * stage if total is None else torch.add(total, stage, alpha=w)
    return torch.zeros_like(stages[0]) if total is None else total


def _choose(who: Tensor, new: Tensor | None, old: Tensor | None) -> Tensor | None:
    """Columns (B, K) of `new` for the samples `who`, of `old` for the others; None where nothing is counted."""
    return None if new is None or old is None else torch.where(who[:, None], new, old)


def _some(who: Tensor) -> str:
    numbers = who.nonzero().flatten().tolist()
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
