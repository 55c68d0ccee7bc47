"""What a trained flow does, in a few numbers: kept at the end of a training, compared where its data are gone.

One sample in two steps of Heun's method, with its log-density where there is one: its mean, its root mean square, and
16 of its values.  A number of the data that a recipe keeps outside of the weights is not restored, and changes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from scifm.recipe import Recipe

__all__ = ["agrees", "proof"]


def proof(recipe: Recipe) -> list[float]:
    """The numbers; the flow is then on the CPU."""
    from scifm import verbs
    from scifm.solve import Solver
    from scifm.trace import Hutchinson

    trace = Hutchinson(1) if recipe.flow.prior.has_density else None
    (drawn,) = verbs.chunks(recipe, 1, solver=Solver("heun", steps=2), trace=trace)
    x = drawn.batch.x.double().flatten()
    some = x[torch.linspace(0, len(x) - 1, 16).round().long()]
    density = [] if drawn.log_prob is None else [float(drawn.log_prob) / len(x)]
    return [float(x.mean()), float(x.square().mean().sqrt()), *some.tolist(), *density]


def agrees(recipe: Recipe, kept: list[float]) -> bool:
    """Whether a flow does what it did, up to rounding on another machine."""
    found, kept_ = torch.tensor(proof(recipe), dtype=torch.float64), torch.tensor(kept, dtype=torch.float64)
    return found.shape == kept_.shape and bool(((found - kept_).abs() <= 1e-3 * kept_.abs().max()).all())
