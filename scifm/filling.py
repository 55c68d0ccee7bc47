"""Gaps filled: complete fields given the values of a field that are there, from a flow that was trained on whole ones.

Each field y has its own pattern of values that are there, y = x[where] + ε, ε ~ N(0, ρ²).  Its members are draws of
p(x | y) by `scifm.posterior`, which says what is exact and what is not.  Few values (stations) and nearly all of them
(clouds over a satellite's image) are the same task.

ρ is how far an observed value may be off.  Values that were rounded to steps δ are off by δ/√12.  Of others we take 1 %
of the spread of the anomalies, which is little, and not nothing: without noise there is no density of y, and the
equations are ever stiffer.

Costs, for m observed of D values: a pull-back through the prior for each of the m, then m² D + m³ once per field for
all of its members, m D + m² per member and evaluation, and 16 m D bytes.  Up to some thousands of observations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.parts import Keep, made
from scifm.posterior import affine, check_conditioning, posterior
from scifm.solve import Solver
from scifm.trace import Trace
from scifm.verbs import seed_of

if TYPE_CHECKING:
    from scifm.flow import Flow

__all__ = ["LARGEST", "fill", "usual_noise"]

LARGEST = 8192  # observations of a field: two matrices of 8192² numbers
SHARE = 0.01


@torch.no_grad()
def usual_noise(flow: Flow, like: Batch, train: Batch, deltas: Sequence[float | None]) -> Tensor:
    """How far each value of the samples of `like` may be off, in the user's units, (B, C, *grid).

    Args:
        like: in the user's units; only its conditions are looked at.
        train: training data, for the spread of what is left when the transform has taken out what it knows.
        deltas: width of the lattice of each channel; None for a continuous one.
    """
    model = flow.transform(train)
    inside = flow.prior.project(torch.ones_like(model.x[:1]), model.select([0]))
    spread = float((model.x.square() * inside).mean() / inside.mean()) ** 0.5
    zero = like.replace(torch.zeros_like(like.x))
    unit = flow.transform.inverse(zero.replace(zero.x + spread)).x - flow.transform.inverse(zero).x
    found = SHARE * unit.abs()
    for c, delta in enumerate(deltas):
        if delta is not None:
            found[:, c] = delta / math.sqrt(12)
    return found


def fill(
    flow: Flow,
    batch: Batch,
    observed: Tensor,
    noise: Tensor,
    members: int,
    *,
    seed: int = 0,
    solver: Solver = Solver(),
    trace: Trace | None = None,
    chunk: int = 64,
    keep: Keep = made,
    progress: Callable[[int], Any] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Members of each field, at most `chunk` at a time: "x" (n, C, *grid), "nfe" (n,), with a trace "log_weight" (n,).

    Member k of field f is drawn from a seed of its own, made from (seed, f, k), whatever the chunk.  A random trace has
    its probes per chunk, so that the weights alone depend on it.

    Args:
        batch: B fields in the user's units; what is not observed is not looked at.
        observed: bool (B, C, *grid).
        noise: standard deviation of what is observed, in the user's units, (B, C, *grid), positive there.
        members: how many of each field.
        seed, solver, trace, chunk, keep, progress: as for `scifm.verbs.chunks`.

    Raises:
        ValueError: for shapes that differ, noise that is not positive, more observations than `LARGEST`, and a flow
            that `posterior` does not take or whose transform is not affine, at the call.
    """
    if not (observed.shape == noise.shape == batch.x.shape) or observed.dtype != torch.bool:
        raise ValueError(
            f"fill: expected observed (bool) and noise of the shape of the fields, {tuple(batch.x.shape)}, got "
            f"{observed.dtype} {tuple(observed.shape)} and {tuple(noise.shape)}."
        )
    check_conditioning(flow, batch)
    zero = torch.zeros_like(batch.x[:1])
    if not affine(lambda x: flow.transform.inverse(batch.select([0]).replace(x)).x, zero):
        raise ValueError(
            "fill: the transform of this flow is not affine in the values (a BoxCox or a logarithm, as --amounts makes "
            "them), and the law of what is missing is known for affine ones only; train one without."
        )
    most = int(observed.flatten(1).sum(1).max())
    if most > LARGEST:
        raise ValueError(
            f"fill: {most} values of a field are observed, and more than {LARGEST} make systems of equations too "
            "large; leave some out (every second point, say), or choose a region."
        )
    if not (noise[observed] > 0).all():
        raise ValueError("fill: noise must be positive where something is observed; rounding alone gives δ/√12.")

    def work() -> Iterator[dict[str, Tensor]]:
        for f in range(len(batch)):
            for first in range(0, members, chunk):
                which = range(first, min(first + chunk, members))
                numbers = range(f * members + which.start, f * members + which.stop)
                field = batch.select([f] * len(which))
                yield keep(
                    numbers, partial(_members, flow, field, observed[f], noise[f], f, which, seed, solver, trace)
                )
                if progress is not None:
                    progress(len(which))

    return work()


def _members(
    flow: Flow,
    field: Batch,
    where: Tensor,
    noise: Tensor,
    number: int,
    which: range,
    seed: int,
    solver: Solver,
    trace: Trace | None,
) -> dict[str, Tensor]:
    generators = [torch.Generator().manual_seed(seed_of(seed_of(seed, number), k)) for k in which]
    like = field.replace(torch.zeros_like(field.x))
    x0 = torch.cat([flow.prior.sample(like.select([0]), g) for g in generators])
    if not where.any():  # nothing is known of it: draws of the flow itself, all of one weight
        samples, solution = flow.sample(like, solver=solver, x0=x0, statistics=True)
        weight = torch.zeros(len(which), dtype=torch.float64)
    else:
        found = posterior(
            flow, like, lambda x: x[:, where], field.x[0][where], noise[where],
            generator=generators[0], solver=solver, trace=trace, x0=x0,
        )  # fmt: skip
        samples, solution, weight = found.samples, found.solution, found.log_weight
    kept = {"x": samples.x.cpu(), "nfe": solution.nfe.cpu()}
    return kept if trace is None or weight is None else kept | {"log_weight": weight.cpu()}
