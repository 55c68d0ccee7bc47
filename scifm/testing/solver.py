"""The contract of a solver: fields with closed forms, both directions, and no look at the neighbours.

    linear       dx/dt = A x            x(t) = e^{At} x_0                  log-determinant t tr A
    nonlinear    dx/dt = −2 r t x³      x(t) = x_0 / √(1 + 2 r t² x_0²)    −(3/2) Σ log(1 + 2 r t² x_0²)

The rate r is the sample's own, so that neighbours can be as stiff as one likes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.solve import Field, Solution, Solver, integrate
from scifm.tableaus import METHODS
from scifm.testing.laws import fresh, say

__all__ = ["check_solver"]


def check_solver(solver: Solver, seed: int = 0) -> None:
    """Whether a solver keeps its tolerance or its order, goes back where it came from, and sees each sample alone.

    The fields are solved in float64, as dense and as ragged batches.

    Raises:
        AssertionError: naming the law that is broken.
    """
    matrix = torch.randn(3, 3, generator=fresh(seed + 1), dtype=torch.float64)
    for dense in (True, False):
        batch = _batch(seed, dense, [0.2, 0.5, 0.1, 0.3])
        for law in (_Linear(matrix), _Cubic()):
            _accurate(solver, batch, law)
        _returns(solver, batch)
        _alone(solver, _batch(seed, dense, [0.2, 300.0, 20.0, 0.3] if solver.steps is None else [0.2, 0.5, 0.1, 0.3]))


def _batch(seed: int, dense: bool, rates: list[float]) -> Batch:
    x = torch.randn(9, 3, generator=fresh(seed), dtype=torch.float64)
    context = {"rate": torch.tensor(rates, dtype=torch.float64)}
    if dense:
        return Batch(x[:4], context=context)
    return Batch(x, torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3]), 4, context)  # the third has no rows


class _Linear:
    name = "linear"

    def __init__(self, matrix: Tensor):
        self.matrix, self.trace = matrix, float(matrix.trace()) / 3  # per number of a sample

    def field(self, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return x @ self.matrix.T, (self.trace * batch.dims)[:, None]

    def exact(self, t: float, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.x @ torch.linalg.matrix_exp(t * self.matrix).T, t * self.trace * batch.dims


class _Cubic:
    name = "nonlinear"

    def field(self, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        rate = batch.spread(2 * t * batch.context["rate"])
        return -rate * x**3, batch.total(-3 * rate * x**2)[:, None]

    def exact(self, t: float, batch: Batch) -> tuple[Tensor, Tensor]:
        growth = 1 + 2 * batch.spread(batch.context["rate"]) * t**2 * batch.x**2
        return batch.x / growth.sqrt(), batch.total(-1.5 * growth.log())


def _gap(solution: Solution, exact: tuple[Tensor, Tensor]) -> float:
    assert solution.logdet is not None
    return max(float((solution.x - exact[0]).abs().max()), float((solution.logdet[:, 0] - exact[1]).abs().max()))


def _accurate(solver: Solver, batch: Batch, law: _Linear | _Cubic) -> None:
    field: Field = law.field
    end, middle = law.exact(1.0, batch), law.exact(0.5, batch)
    gap = _gap(integrate(field, batch.x, 0, 1, batch, solver), end)
    half = integrate(field, batch.x, 0, 0.5, batch, solver)
    rest = _gap(integrate(field, half.x, 0.5, 1, batch, solver), (end[0], end[1] - middle[1]))
    if solver.steps is None:
        limit = 1000 * (solver.rtol + solver.atol)
        say(gap < limit, f"Solver {solver}: off by {gap:.2g} from the closed form of a {law.name} field.")
    else:
        limit = gap + 1e-11
        finer = solver.tighter(batch.x.dtype)[0]
        finest = finer.tighter(batch.x.dtype)[0]
        more, less = (_gap(integrate(field, batch.x, 0, 1, batch, s), end) for s in (finer, finest))
        order = METHODS[solver.method].order
        say(
            less < more * 2.0 ** (0.7 - order) + 1e-10,
            f"Solver {finer}: twice the steps leave {less:.2g} of an error of {more:.2g} in a {law.name} field; a "
            f"method of order {order} leaves about {more / 2.0**order:.2g}.",
        )
    say(rest < limit, f"Solver {solver}: a {law.name} field in two halves is off by {rest:.2g}; does it start at t0?")


def _returns(solver: Solver, batch: Batch) -> None:
    there = integrate(_Cubic().field, batch.x, 0, 1, batch, solver)
    back = integrate(_Cubic().field, there.x, 1, 0, batch, solver)
    assert there.logdet is not None and back.logdet is not None
    gap = max(float((back.x - batch.x).abs().max()), float((back.logdet + there.logdet).abs().max()))
    own = _gap(there, _Cubic().exact(1.0, batch))
    limit = 100 * own + 1e-10 if solver.steps is not None else 1000 * (solver.rtol + solver.atol)
    say(gap < limit, f"Solver {solver}: forward and back again ends {gap:.2g} away from the start.")


def _alone(solver: Solver, batch: Batch) -> None:
    field = _Cubic().field
    together = integrate(field, batch.x, 0, 1, batch, solver)
    for b in range(len(batch)):
        one = batch.select([b])
        alone, mine = integrate(field, one.x, 0, 1, one, solver), batch.replace(together.x).select([b]).x
        say(
            int(alone.nfe[0]) == int(together.nfe[b]) and bool(((alone.x - mine).abs() < 1e-10).all()),
            f"Solver {solver}: sample {b} is not solved as it is alone.",
        )
