"""How far a flow carries its points, straight and along the curve.

    straight   E‖x1 − x0‖,     curve   E ∫₀¹ ‖dx/dt‖ dt  ≥  straight

Both grow with the scale of the prior, and so does the number of evaluations: a flow from a narrower prior is not a
better one. So a length comes with that scale, the root mean square of x0 per degree of freedom, and is compared at
equal scale only.  The path length of Klein, Krämer and Noé (2023) is the one along the curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.bits import Estimate
from scifm.flow import Flow
from scifm.likelihood import estimate
from scifm.solve import Solver
from scifm.trace import Velocity

__all__ = ["PathLength", "path_length"]


@dataclass(frozen=True)
class PathLength:
    """Lengths in model units.

    Attributes:
        straight: E‖x1 − x0‖ and its standard error.
        curve: E ∫‖dx/dt‖ dt and its standard error.
        scale: of the prior, root mean square of x0 per degree of freedom.
        nfe: mean number of velocity evaluations of a sample.
    """

    straight: Estimate
    curve: Estimate
    scale: float
    nfe: float

    def __str__(self) -> str:
        return (
            f"path length {self.curve} along the curve, {self.straight} straight, from a prior of scale "
            f"{self.scale:.3g}, nfe {self.nfe:.0f}"
        )


@torch.no_grad()
def path_length(
    flow: Flow, like: Batch, generator: torch.Generator | None = None, solver: Solver = Solver()
) -> PathLength:
    """Mean lengths of the curves from one draw of the prior per sample of `like`.

    Example:
        >>> from scifm import networks, priors
        >>> flow = Flow(networks.MLP(2), priors.Gaussian())  # untrained: at rest
        >>> path_length(flow, Batch(torch.zeros(3, 2))).curve
        Estimate(value=0.0, stderr=0.0)
    """
    x0 = flow.prior.sample(like, generator)
    solution = flow.transport(flow._begin(like, generator, x0), 0.0, 1.0, like, solver, _Speed(flow))
    assert solution.logdet is not None
    x1 = flow._leave(solution.x / flow._end, like)
    scale = like.total(x0.double().square()).sum() / flow.prior.dims(like).double().sum().clamp(min=1)
    return PathLength(
        estimate(like.total((x1 - x0).double().square()).sqrt()),
        estimate(solution.logdet[:, 0]),
        math.sqrt(float(scale)),
        float(solution.nfe.double().mean()),
    )


@dataclass(frozen=True)
class _Speed:
    """Stands where a trace stands: ‖dx/dt‖ in model units, (B, 1)."""

    flow: Flow

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> None:
        return None

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        v = velocity(t, x, batch)
        # The metric's map is affine: of a difference it keeps the linear part.
        plain = self.flow._leave(v, batch) - self.flow._leave(torch.zeros_like(v), batch)
        return v, batch.total(plain.square()).sqrt()[:, None]
