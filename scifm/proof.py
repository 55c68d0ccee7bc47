"""What a trained flow does, in a few numbers: kept at the end of a training, compared where its data are gone.

One sample in two steps of Heun's method, in the user's units: mean, spread and some values of each channel, and the
log-density per dimension where there is one.  A number of the data that a recipe keeps outside of the weights is not
restored, and changes them.  Each channel is compared at its own scale, for one may be 10⁵ times another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from scifm.recipe import Recipe

__all__ = ["agrees", "proof"]

VALUES = 8  # of each channel
CLOSE = 1e-3  # of the spread of a channel, and nats per dimension: rounding on another machine is far below


def proof(recipe: Recipe) -> list[list[float]]:
    """For each channel [mean, spread, values ...] of what varies in it, and [log-density per dimension].

    The flow is then on the CPU.
    """
    from scifm import verbs
    from scifm.solve import Solver
    from scifm.trace import Hutchinson

    density = recipe.flow.prior.has_density
    trace = Hutchinson(1) if density else None
    (drawn,) = verbs.chunks(recipe, 1, solver=Solver("heun", steps=2), trace=trace)
    mask = None if recipe.data.spec is None else recipe.data.spec.mask
    found = []
    for c, x in enumerate(drawn.batch.x[0].double()):
        inside = x.flatten() if mask is None else x[torch.from_numpy(mask[c])]
        some = inside[torch.linspace(0, len(inside) - 1, VALUES).round().long()] if len(inside) else inside
        found.append([float(inside.mean()), float(inside.std(correction=0)), *some.tolist()] if len(inside) else [])
    if drawn.log_prob is not None:
        found.append([float(drawn.log_prob) / float(recipe.flow.prior.dims(drawn.batch))])
    return found


def agrees(recipe: Recipe, kept: Sequence[Sequence[float]]) -> bool:
    """Whether a flow does what it did, up to rounding on another machine."""
    found = proof(recipe)
    if not all(isinstance(numbers, Sequence) for numbers in kept) or [*map(len, found)] != [*map(len, kept)]:
        return False
    for now, before in zip(found, kept, strict=True):
        scale = before[1] if len(before) > 1 else 1.0
        if not all(abs(a - b) <= CLOSE * scale for a, b in zip(now, before, strict=True)):  # NaN is not close
            return False
    return True
