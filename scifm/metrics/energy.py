"""The energy of a flow's curves, and how far it is above what transport needs.

    E = ∫₀¹ E‖v(t, x_t)‖² dt  ≥  W₂²(p0, p1)        (Benamou and Brenier 2000)

with equality where every point goes straight to its partner in the optimal plan.  The normalised path energy of Tong et
al. (2024) is |E − W₂²| / W₂²: 0 for dynamic optimal transport, and without a unit.

‖v‖² is integrated along the curve as the divergence is for a likelihood, under the same error control: it takes the
place of the trace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.flow import Flow
from scifm.solve import Solver
from scifm.trace import Velocity

__all__ = ["normalised_path_energy", "path_energy"]


def path_energy(
    flow: Flow,
    like: Batch,
    generator: torch.Generator | None = None,
    solver: Solver = Solver(),
    x0: Tensor | None = None,
) -> Tensor:
    """∫‖dx/dt‖² dt of the curve from each draw of the prior, (B,) float64; its mean is the path energy.

    The squares are summed over the values of a sample, in model units squared, whatever the flow's metric.

    Args:
        like: layout and conditions, one curve per sample.
        generator: draws x0.
        x0: draws of the prior, shaped like `like.x`, in model units; drawn from `generator` if None.

    Example:
        >>> from scifm import networks, priors
        >>> path_energy(Flow(networks.MLP(2), priors.Gaussian()), Batch(torch.zeros(3, 2)))  # untrained: at rest
        tensor([0., 0., 0.], dtype=torch.float64)
    """
    with torch.no_grad():
        solution = flow.transport(flow._begin(like, generator, x0), 0.0, 1.0, like, solver, _Square(flow))
    assert solution.logdet is not None
    return solution.logdet[:, 0]


def normalised_path_energy(energy: float, squared_distance: float) -> float:
    """|E − W₂²| / W₂² for a path energy E and the squared distance W₂² of prior and data, in the same unit.

    Raises:
        ValueError: where the distance is not positive: prior and data are the same then, and the ratio says nothing.
    """
    if not (0 < squared_distance < math.inf and math.isfinite(energy)):
        raise ValueError(
            "normalised_path_energy: expected a finite energy and a positive, finite squared distance, got "
            f"{energy} and {squared_distance}."
        )
    return abs(energy - squared_distance) / squared_distance


@dataclass(frozen=True)
class _Square:
    """Stands where a trace stands: ‖dx/dt‖² in model units, (B, 1)."""

    flow: Flow

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> None:
        return None

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        v = velocity(t, x, batch)
        # The metric's map is affine: of a difference it keeps the linear part.
        plain = self.flow._leave(v, batch) - self.flow._leave(torch.zeros_like(v), batch)
        return v, batch.total(plain.square())[:, None]
