"""The one entry: checks what comes in, walks, and puts the answer together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.solve.adaptive import adaptive
from scifm.solve.dense import Recorder
from scifm.solve.fixed import fixed
from scifm.solve.solver import Field, Solution, Solver, SolverError, some
from scifm.solve.walk import Walk
from scifm.tableaus import METHODS, Adams, Tableau

__all__ = ["integrate"]


def integrate(
    field: Field,
    x: Tensor,
    t0: float,
    t1: float,
    like: Batch,
    solver: Solver = Solver(),
    probes: Tensor | None = None,
    times: Sequence[float] | Tensor | None = None,
    divergence: Callable[..., Tensor] | None = None,
    dims: Tensor | None = None,
) -> Solution:
    """Carry x from time t0 to t1, forward or backward.

    The result is differentiable in x and in whatever the field depends on if gradients are enabled here; the choice of
    steps is not differentiated.

    Args:
        field: `(t (B,), x, batch, probes) -> (v like x, divergence (B, K) or None)`; B shrinks as samples arrive.
        x: (rows, *event) initial state, floating point.
        t0, t1: times in [0, 1], 0 is the prior and 1 the data; t1 < t0 runs backward.
        like: the batch that knows which rows belong to which sample.
        solver: method, tolerances or steps.
        probes: (K, rows, *event), cut to the samples the field is called with.
        times: where to note the path, in the order of the walk, between t0 and t1.
        divergence: `(t (B,), x, batch, probes) -> (B, K)` of a field that gives none itself. Adaptive steps then sum it
            along the curve (`scifm.solve.along`), in fewer evaluations. Not for fixed steps, which take that of the
            field.
        dims: (B,) degrees of freedom of each sample, over which errors are averaged, where they are fewer than its
            numbers: zeros outside of a mask would dilute the error.

    Raises:
        SolverError: after `max_steps`, or where the velocity is not finite.
        ValueError: for a tolerance that the dtype cannot resolve, times out of order or range, or shapes that disagree.
    """
    t0, t1 = float(t0), float(t1)
    wanted = _checked(x, t0, t1, like, solver, probes, times)
    if divergence is not None and solver.steps is not None:
        raise ValueError("integrate: fixed steps take the divergence of the field; return it there.")
    if dims is not None and dims.shape != (len(like),):  # (B, 1) would broadcast
        raise ValueError(f"integrate: dims must be one number per sample, ({len(like)},), got {tuple(dims.shape)}.")
    method = METHODS[solver.method]
    tableau = METHODS[method.start] if isinstance(method, Adams) else method
    assert isinstance(tableau, Tableau)
    walk = Walk(field, x, t0, t1, like, probes, tableau, divergence)
    _finite(walk, t0, walk.first[0])  # what is NaN at once would only look like a step too long
    recorder = None if wanted is None else Recorder(wanted, walk, t0, t1)
    if t0 == t1 or len(like) == 0:
        accepted = rejected = torch.zeros_like(walk.who)
        nfe = accepted + walk.calls
    elif solver.steps is None:
        nfe, accepted, rejected = adaptive(walk, t1, solver, recorder, dims)
    else:
        grid = solver.grid(t0, t1)
        fixed(walk, grid, method, recorder)
        if not (walk.x.isfinite().all() and (walk.logdet is None or walk.logdet.isfinite().all())):
            # The steps were not looked at one by one; walk again to find the place.
            fixed(Walk(field, x, t0, t1, like, probes, tableau), grid, method, None, _finite)
            _finite(walk, t1, walk.x)
        nfe, accepted = (torch.full_like(walk.who, n) for n in (walk.calls, solver.steps))
        rejected = torch.zeros_like(accepted)
    end, logdet = walk.result()
    path = path_logdet = None
    if recorder is not None:
        path, path_logdet = recorder.result(end, logdet)
    return Solution(end, logdet, nfe, accepted, rejected, solver, path, path_logdet)


def _finite(walk: Walk, t: float, v: Tensor) -> None:
    bad = walk.like.total((~(walk.x.isfinite() & v.isfinite())).double()) > 0
    for value in (walk.logdet, walk.rate):
        bad = bad if value is None else bad | ~value.isfinite().all(1)
    if bad.any():
        raise SolverError(
            f"integrate: the velocity, its divergence or the state is not finite near t={t:.4g} for sample(s) "
            f"{some(bad.nonzero().flatten().tolist())}. "
            "Usually the data or the network's weights hold NaN, or fixed steps are too long: look at the "
            "training loss, or use an adaptive method."
        )


def _checked(
    x: Tensor,
    t0: float,
    t1: float,
    like: Batch,
    solver: Solver,
    probes: Tensor | None,
    times: Sequence[float] | Tensor | None,
) -> list[float] | None:
    if not x.is_floating_point() or x.shape[:1] != like.x.shape[:1]:
        raise ValueError(
            f"integrate: x must be floating point with the {like.x.shape[0]} rows of like, got {x.dtype} "
            f"{tuple(x.shape)}."
        )
    if probes is not None and probes.shape[1:] != x.shape:
        raise ValueError(f"integrate: probes must be (K, *{tuple(x.shape)}), got {tuple(probes.shape)}.")
    if not (0 <= t0 <= 1 and 0 <= t1 <= 1):
        raise ValueError(f"integrate: t0 and t1 must lie in [0, 1], 0 is the prior and 1 the data; got {t0} and {t1}.")
    eps = torch.finfo(x.dtype).eps
    if solver.steps is None and solver.rtol < 4 * eps:
        raise ValueError(
            f"integrate: rtol={solver.rtol:g} is below what {x.dtype} resolves ({4 * eps:.1g}); "
            "loosen it, or convert flow and data to float64."
        )
    if times is None:
        return None
    wanted = [float(t) for t in times]
    sign = -1 if t1 < t0 else 1
    inside = all(math.isfinite(t) and min(t0, t1) <= t <= max(t0, t1) for t in wanted)
    if not inside or any((b - a) * sign < 0 for a, b in pairwise(wanted)):
        raise ValueError(
            f"integrate: times must run from t0={t0:g} to t1={t1:g} in that order and lie between them, got "
            f"{some([round(t, 6) for t in wanted])}."  # type: ignore[arg-type]
        )
    return wanted
