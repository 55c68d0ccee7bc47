"""Unbalanced transport: mass that is far from everything is not transported but paired at random.

Outliers spoil an exact assignment: to reach one of them, draws are taken from where they belong, and a chain of pairs
gives way.  Unbalanced transport relaxes both marginals at a price ρ (Chizat et al. 2018):

    min ⟨P, C⟩ + ε KL(P | independent) + ρ KL(P1 | 1) + ρ KL(Pᵀ1 | 1)

Pairs drawn from such a plan alone would follow other laws than data and prior: rare data would be seen less, and x0
would not be from the p0 that sampling starts from.  So the plan is completed (`scifm.couplings.plan`): the mass it
leaves out, of samples and of draws, is paired independently.  Every sample is used once and the law of x0 stays p0 on
average over batches: no marginal is distorted, and what is relaxed is only which pairs are optimal.  ρ → ∞ is Sinkhorn,
ρ → 0 the independent coupling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.couplings.entropic import solve, spread
from scifm.couplings.pairing import pair, squared
from scifm.couplings.plan import complete, draw
from scifm.priors.base import Prior

__all__ = ["Unbalanced"]


@dataclass(frozen=True)
class Unbalanced:
    """Mini-batch entropic transport with relaxed marginals; what is not transported is paired at random.

    Args:
        price: ρ, what a missing unit of mass costs, relative to the median squared distance between samples and
            draws. A pair that is farther than about 2ρ is rather left to chance.
        epsilon: regularisation, relative to the size of the cost as in `Sinkhorn`.
        ignore: names of context that the velocity does not look at; pairs never cross the rest.
        prior: measure the cost in this prior's metric; plain if None.
        rounds: the most that are taken per group.
        tolerance: mean error of the marginals at which to stop.
    """

    price: float = 2.0
    epsilon: float = 0.05
    ignore: tuple[str, ...] = ()
    prior: Prior | None = None
    rounds: int = 2000
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        for name, value in (("price", self.price), ("epsilon", self.epsilon)):
            if not 0 < value < math.inf:
                raise ValueError(
                    f"Unbalanced: {name} must be positive and finite, got {value}; with an infinite price it is "
                    "couplings.Sinkhorn, with none couplings.independent."
                )
        if self.rounds < 1 or not 0 < self.tolerance < 1:
            raise ValueError(
                f"Unbalanced: expected rounds >= 1 and 0 < tolerance < 1, got {self.rounds}, {self.tolerance}."
            )

    def __call__(self, x0: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """x0 (rows, *event) re-paired with `batch.x`; draws may repeat.

        Raises:
            ValueError: where x0 is not shaped and typed like the data, or either is empty or not finite.
            RuntimeError: where the iterations do not converge.
        """

        def choose(data: Tensor, draws: Tensor, samples: Tensor) -> Tensor:
            return draw(self.plan(squared(data, draws))[0], generator)

        return pair("Unbalanced", x0, batch, choose, self.ignore, self.prior)

    def plan(self, cost: Tensor) -> tuple[Tensor, float]:
        """The completed plan of a cost (n, n) >= 0, rows and columns summing to one, and the share left to chance."""
        scale = spread(cost)
        if scale == 0:
            return torch.full_like(cost, 1 / len(cost)), 1.0
        middle = float(cost.median()) or float(cost.mean())
        plan, error = solve(cost, self.epsilon * scale, self.rounds, self.tolerance, self.price * middle)
        if error > self.tolerance:
            raise RuntimeError(
                f"Unbalanced: the marginals are still off by {error:.2g} on average after {self.rounds} rounds at "
                f"epsilon={self.epsilon}; raise epsilon or rounds, or use Partial, which is exact."
            )
        return complete(plan)
