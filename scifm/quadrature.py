"""The log-determinant as a quadrature along a curve that is already known.

The change of the log-density, ∫ div v(t, x_t) dt, does not act back on the curve x_t.  So the curve is solved first,
without divergences and as cheaply as a sample, and the integral is taken along its dense output afterwards.  A
divergence costs as much as 2 to D evaluations of the velocity, and a Runge–Kutta method takes one at each of its
stages, many close together and some with weight zero.  Nodes made for integrals need a fraction of them: the rule of
Clenshaw and Curtis with n + 1 nodes

    t_k = (1 − cos(kπ/n)) / 2,    w_k = (c_k / 2n) [1 − Σ_{j=1}^{n/2} b_j cos(2jkπ/n) / (4j² − 1)]

is exact to degree n and, for smooth integrands, converges geometrically.  Its nodes are nested, so n is doubled for
each sample by itself until two rules in a row agree and n is at least the number of steps that the curve took: coarse
rules agree by chance.  The tolerance is the solver's: atol per dimension plus rtol of the whole, for each step that the
sample's curve took, since that is what a log-determinant summed step by step may be off by.  A sample that 129 nodes do
not settle, with a kink in its velocity, is summed step by step.

Fixed steps stay what they are: their log-determinant is summed in the steps that were asked for.
References: Clenshaw and Curtis 1960; Trefethen 2008.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.solve import Field, Solution, Solver, SolverError, integrate
from scifm.trace import Trace, Velocity

__all__ = ["clenshaw_curtis", "transport"]

LEVELS = (8, 16, 32, 64, 128)
TOGETHER = 32  # the levels up to here share one solve; for the finer ones the curve is solved again, not kept


def transport(
    velocity: Velocity,
    trace: Trace,
    x: Tensor,
    t0: float,
    t1: float,
    like: Batch,
    solver: Solver = Solver(),
    probes: Tensor | None = None,
) -> Solution:
    """Carry x from t0 to t1 with its log-determinant: as `integrate` does, in fewer divergences.

    Args:
        velocity: `(t (B,), x, batch) -> v like x`; sample b's part may depend on sample b only.
        trace, probes: estimator of the divergence, and what it drew for `like`, (P, rows, *event) or None.

    Returns:
        Solution, whose `nfe` counts the evaluations of the velocity, with or without a divergence.

    Raises:
        SolverError: where the curve or a divergence on it is not finite.
    """

    def plain(t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None) -> tuple[Tensor, None]:
        return velocity(t, x, batch), None

    def both(t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None) -> tuple[Tensor, Tensor]:
        return trace(velocity, t, x, batch, probes)

    if solver.steps is not None or t0 == t1 or len(like) == 0:
        return integrate(both, x, t0, t1, like, solver, probes)
    curve, keys = _finer(solver, x.dtype), _keys(TOGETHER)
    solution = integrate(plain, x, t0, t1, like, curve, times=[_time(k, t0, t1) for k in keys])
    assert solution.path is not None
    left = _Left(like.replace(x), probes, dict(zip(keys, solution.path, strict=True)))
    calls, pieces = solution.nfe.clone(), []
    previous: Tensor | None = None
    for level in LEVELS:
        new = [k for k in _keys(level) if k not in left.known]
        if new[0] not in left.states:
            times = [_time(k, t0, t1) for k in new]
            again = integrate(plain, left.like.x, t0, t1, left.like, curve, times=times)
            assert again.path is not None
            left.states, calls[left.who] = dict(zip(new, again.path, strict=True)), calls[left.who] + again.nfe
        for k in new:
            left.know(k, _time(k, t0, t1), both)
        calls[left.who] += len(new)
        values = torch.stack([left.known[k] for k in _keys(level)])
        now = (t1 - t0) * torch.einsum("k,k...->...", values.new_tensor(clenshaw_curtis(level)), values)
        if previous is not None:
            done = _settled(now, previous, left.like.dims, solution.accepted[left.who], solver)
            done &= solution.accepted[left.who].clamp(max=LEVELS[-1]) <= level  # fewer nodes may agree by chance
            pieces.append((left.who[done], now[done]))
            if done.all():
                break
            now = now[~done]
            left.keep((~done).nonzero().flatten())
        previous = now
    else:
        rest = integrate(both, left.like.x, t0, t1, left.like, solver, left.probes)
        assert rest.logdet is not None
        pieces.append((left.who, rest.logdet))
        calls[left.who] += rest.nfe
    who, logdet = (torch.cat(part) for part in zip(*pieces, strict=True))
    return replace(solution, logdet=logdet[who.argsort()], nfe=calls, path=None, solver=solver)


class _Left:
    """The samples whose integral is not settled: their states and divergences at nodes, which have numbers."""

    def __init__(self, like: Batch, probes: Tensor | None, states: dict[int, Tensor]):
        self.like, self.probes, self.states = like, probes, states
        self.who = torch.arange(len(like), device=like.x.device)
        self.known: dict[int, Tensor] = {}

    def know(self, node: int, time: float, both: Field) -> None:
        x = self.states.pop(node)
        t = torch.full((len(self.like),), time, dtype=x.dtype, device=x.device)
        divergence = both(t, x, self.like.replace(x), self.probes)[1]
        assert divergence is not None
        bad = ~divergence.isfinite().all(1)
        if bad.any():
            raise SolverError(
                f"the divergence of the velocity is not finite at t={time:.4g} for sample(s) "
                f"{self.who[bad].tolist()[:5]}, though the velocity is: usually a square root or a norm at zero."
            )
        self.known[node] = divergence.double()

    def keep(self, index: Tensor) -> None:
        """Only these samples (n,) go on."""
        rows = self.like.replace(torch.arange(len(self.like.x), device=index.device)).select(index).x
        self.like, self.who = self.like.select(index), self.who[index]
        self.probes = None if self.probes is None else self.probes[:, rows]
        self.states = {k: x[rows] for k, x in self.states.items()}
        self.known = {k: d[index] for k, d in self.known.items()}


def _finer(solver: Solver, dtype: torch.dtype) -> Solver:
    """A tenth of the tolerance for the curve, as far as the dtype allows: without divergences that costs next to
    nothing, and the error of the curve is then not what limits the log-density."""
    rtol = min(solver.rtol, max(solver.rtol / 10, 16 * torch.finfo(dtype).eps))
    return replace(solver, rtol=rtol, atol=solver.atol / 10, max_steps=2 * solver.max_steps)


def _settled(now: Tensor, before: Tensor, dims: Tensor, steps: Tensor, solver: Solver) -> Tensor:
    """Whether two rules agree to the tolerance, (B,)."""
    gap, size = (now - before).detach().mean(1).abs(), now.detach().mean(1).abs()
    return gap <= steps * (solver.atol * dims.clamp(min=1) + solver.rtol * size)


def _keys(level: int) -> range:
    """Numbers of the nodes of a rule: those of the finest rule, so that nested nodes are the same."""
    return range(0, LEVELS[-1] + 1, LEVELS[-1] // level)


def _time(node: int, t0: float, t1: float) -> float:
    if node == LEVELS[-1]:
        return t1
    return t0 + (t1 - t0) * (1 - math.cos(math.pi * node / LEVELS[-1])) / 2


@lru_cache(maxsize=16)
def clenshaw_curtis(n: int) -> tuple[float, ...]:
    """Weights of the n + 1 nodes (1 − cos(kπ/n))/2 on [0, 1], n even."""

    def weight(k: int) -> float:
        waves = sum(
            (1 if 2 * j == n else 2) / (4 * j * j - 1) * math.cos(2 * j * k * math.pi / n) for j in range(1, n // 2 + 1)
        )
        return (1 if k in (0, n) else 2) / (2 * n) * (1 - waves)

    return tuple(weight(k) for k in range(n + 1))
