"""Adaptive steps: each sample's error decides about its own next step.

The error is relative to atol + rtol |x|, root mean square over a sample's values; that of the log-density is taken per
dimension, since the divergence grows with the dimension and would dictate every step.  Control is
proportional-integral, h ← 0.9 h e^(−0.6/p) e_before^(0.2/p), Söderlind's PI.4.2: smoother steps need fewer evaluations
for the same error.  Where less than two steps are left they are made equal, so that none is wasted on a sliver.

One transfer to the host per step says how many samples are good, and how many are left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.solve.along import PER_STEP, along
from scifm.solve.dense import Recorder
from scifm.solve.solver import Solver, SolverError, some
from scifm.solve.walk import Step, Walk

__all__ = ["adaptive"]

FULL = 0.75  # share of the carried samples that must still be moving for the batch to stay together


def adaptive(
    walk: Walk, t1: float, solver: Solver, recorder: Recorder | None, dims: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Moves all samples to t1; returns their evaluations, accepted and rejected steps, (B,) each."""
    order, sign = walk.tableau.order, 1.0 if walk.span > 0 else -1.0
    dims = (walk.like.dims if dims is None else dims).to(walk.x.device).clamp(min=1).double()
    h = first_step(walk, solver, dims)
    start, before = walk.calls, torch.ones_like(h)
    refused: Tensor | None = None  # who was refused in the last attempt; None where nobody was
    counts = torch.zeros(3, len(h), dtype=torch.long, device=h.device)  # attempts, accepted, summed along the curve
    ledger = torch.zeros_like(counts)
    per_attempt = len(walk.tableau.c) - walk.tableau.fsal
    for _ in range(solver.max_steps):
        left = (t1 - walk.t).abs()
        pieces = left / h  # 0/0 where a sample has arrived: its h stays 0
        h = torch.where(pieces <= 1 + 1e-9, left, torch.where(pieces < 2, left / 2, h))
        step = walk.step(sign * h)
        error = _error(walk, step, h, solver, dims)
        moving = left > 0
        end = (step.v, step.d) if walk.tableau.fsal else walk.evaluate(_end(walk, sign * h), step.x)
        if walk.divergence is not None:
            fit = moving & (error <= 1)  # the others are refused without it
            counts[2] += fit
            if fit.any():
                error, end = _sum_along(walk, step, end[0], sign * h, error, fit, solver, dims)
        good = moving & (error <= 1)
        arrived = good & (h >= left)
        stuck = moving & (h < 1e-12 * abs(walk.span)) & (h < left)
        moving_on = moving & ~arrived
        passed, remaining, lost = torch.stack([good.sum(), moving_on.sum(), stuck.sum()]).tolist()
        if lost:
            _give_up(walk, stuck, counts, "the step shrank below 1e-12 of the interval")
        counts[:2] += torch.stack([moving, good])
        t = torch.where(arrived, t1, walk.t + sign * h)
        if recorder is not None:
            recorder.note(walk, step, t, end, good)
        _accept(walk, step, end, None if passed == len(h) else good, t)
        if remaining == 0:
            break
        h, before = _next(h, error, before, good, refused, order, passed == len(h))
        refused = None if passed == len(h) else moving & ~good
        if remaining <= FULL * len(h):
            ledger[:, walk.who] = counts
            index = walk.keep(moving_on)
            h, before, dims, counts = h[index], before[index], dims[index], counts[:, index]
            refused = None if refused is None else refused[index]
    else:
        _give_up(walk, walk.t != t1, counts, f"{solver.max_steps} steps were not enough")
    ledger[:, walk.who] = counts
    attempts, accepted, summed = ledger
    calls = start + per_attempt * attempts + PER_STEP * summed
    return calls, accepted, attempts - accepted


def _sum_along(
    walk: Walk, step: Step, slope: Tensor, h: Tensor, error: Tensor, fit: Tensor, solver: Solver, dims: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Gives the step its log-determinant; returns for the samples that are `fit` the larger of its error and `error`,
    else `error`, (n,), and velocity and divergence at the end."""
    gain, gap, rate = along(walk, step, slope, h)
    assert walk.logdet is not None
    step.logdet = walk.logdet + gain
    with torch.no_grad():
        size = torch.maximum(walk.logdet.mean(1).abs(), step.logdet.mean(1).abs())
        gap = torch.nan_to_num(gap / (solver.atol * dims + solver.rtol * size), nan=torch.inf, posinf=torch.inf)
        return torch.where(fit, torch.maximum(error, gap), error), (slope, rate)


def _end(walk: Walk, h: Tensor) -> Tensor:
    return (walk.t + h).clamp(walk.low, walk.high).to(walk.x.dtype)


def _accept(walk: Walk, step: Step, end: tuple[Tensor, Tensor | None], who: Tensor | None, t: Tensor) -> None:
    """Moves the samples `who` (n,), None for all, to the end of the step, at times t (n,)."""
    if who is None:
        walk.x, walk.logdet, walk.t = step.x, step.logdet, t
        walk.begin(*end)
        return
    rows = walk.like.spread(who)
    v = torch.where(rows, end[0], walk.v.kept[0])
    d, start = end[1], walk.diverging
    if d is not None and start is not None:
        d = torch.where(who[:, None], d, start)
    if walk.logdet is not None and step.logdet is not None:
        walk.logdet = torch.where(who[:, None], step.logdet, walk.logdet)
    walk.x, walk.t = torch.where(rows, step.x, walk.x), torch.where(who, t, walk.t)
    walk.begin(v, d)


@torch.no_grad()
def _error(walk: Walk, step: Step, h: Tensor, solver: Solver, dims: Tensor) -> Tensor:
    """Error of each sample relative to the tolerance, (n,) float64; infinite where it is not a number."""
    scale = torch.maximum(walk.x.abs(), step.x.abs()).mul_(solver.rtol).add_(solver.atol)
    relative = walk.v.mix("error").div_(scale).square_()
    error = (walk.like.total(relative) / dims).sqrt_() * h
    if walk.d is not None and step.logdet is not None and walk.logdet is not None:
        size = torch.maximum(walk.logdet.mean(1).abs(), step.logdet.mean(1).abs())
        logdet = walk.d.mix("error").mean(1).abs() * h / (solver.atol * dims + solver.rtol * size)
        error = torch.maximum(error, logdet)
    return torch.nan_to_num(error, nan=torch.inf, posinf=torch.inf)


def _next(
    h: Tensor, error: Tensor, before: Tensor, good: Tensor, refused: Tensor | None, order: int, all_good: bool
) -> tuple[Tensor, Tensor]:
    """Size of the next step, and the error to remember, (n,) each."""
    error = error.clamp(1e-10, 1e10)
    factor = error.pow(-0.6 / order) * before.pow(0.2 / order)
    if not all_good:
        factor = torch.where(good, factor, error.pow(-1 / order))
    factor = (0.9 * factor).clamp_(0.2, 10.0)
    if refused is not None:  # or the step would jump back onto what it was refused for
        factor = torch.where(refused & good, factor.clamp(max=1.0), factor)
    error = error.clamp(min=1e-4)
    return h * factor, error if all_good else torch.where(good, error, before)


@torch.no_grad()
def first_step(walk: Walk, solver: Solver, dims: Tensor) -> Tensor:
    """A starting step per sample, positive: half the way times the p-th root of the tolerance relative to the state,
    but none that would move the state by more than its own size.

    The guess of Hairer, Nørsett and Wanner (1993, II.4) costs an evaluation, and on trained flows more steps after it.
    Backward the walk starts at the data, where a velocity is steepest: narrow data have a layer there that a long first
    step would jump over, with an error estimate that does not see it.  So that way one evaluation, a thousandth of the
    way on, asks how fast the velocity changes, and the first step is none over which it would change by its own size.
    """
    scale, span = solver.atol + solver.rtol * walk.x.abs(), abs(walk.span)

    def norm(value: Tensor) -> Tensor:
        return (walk.like.total((value / scale).square().double()) / dims).sqrt()

    size = norm(walk.x).clamp(min=1)
    v = walk.v.kept[0]
    guess = torch.minimum(0.5 * span * size.pow(-1 / walk.tableau.order), size / norm(v))
    if walk.span > 0:
        return guess
    little = 1e-3 * span
    next_v, _ = walk.evaluate(_end(walk, torch.full_like(walk.t, -little)), walk.x - little * v)
    changes = norm(next_v - v)
    own = little * (norm(v) + norm(next_v)) / (2 * changes)
    return torch.where(changes > 0, torch.minimum(guess, own), guess)  # a field that rests has no size of its own


def _give_up(walk: Walk, who: Tensor, counts: Tensor, why: str) -> None:
    first = int(who.nonzero()[0])
    attempts, accepted = counts[:2, first].tolist()
    raise SolverError(
        f"integrate: {why}; sample(s) {some(walk.who[who].tolist())} did not finish, the first is at "
        f"t={float(walk.t[first]):.4g} after {accepted} accepted and {attempts - accepted} rejected steps. Usually the "
        "velocity is steep or hardly trained there: loosen rtol and atol, raise max_steps, use fixed steps "
        '(Solver("rk4", steps=100)), or convert to float64 where the tolerance is near the rounding of float32.'
    )
