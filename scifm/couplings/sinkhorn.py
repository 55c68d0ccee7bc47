"""Entropic optimal transport: pairs drawn from the plan that minimises ⟨P, C⟩ + ε KL(P | independent).

Between two couplings: ε → 0 is the exact assignment, ε → ∞ the independent coupling.  It is the static form of a
Schrödinger bridge with noise of variance ε/2 per unit time for C = ‖x1 − x0‖² (Cuturi 2013; Tong et al. 2024, SF²M).

An absolute ε means another thing in each dimension and unit, and plain Sinkhorn with a small one underflows: one peer
then pairs uniformly with no more than a warning.  Here ε is relative to the cost, iterations run on logarithms,
convergence is measured, and what has not converged is an error.

Pairs are drawn row by row (`scifm.couplings.plan`): every sample gets one draw, the law of x0 stays that of the prior
on average over batches, and within a batch draws may repeat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.couplings.entropic import solve, spread
from scifm.couplings.pairing import pair, products
from scifm.couplings.plan import complete, draw
from scifm.priors.base import Prior

__all__ = ["Sinkhorn"]


@dataclass(frozen=True)
class Sinkhorn:
    """Mini-batch entropic transport with squared Euclidean cost.

    Args:
        epsilon: regularisation, relative to the size of the cost: the mean absolute value of the doubly centred
            matrix of squared distances, so that neither units nor distant clouds change the plan.
        absolute: take epsilon as it is, in units of squared distance. 2 s² goes with `paths.Bridge(s)` (in the metric
            of the flow: give `prior` where that is the prior's own).
        ignore: names of context that the velocity does not look at; pairs never cross the rest.
        prior: measure the cost in this prior's metric; plain if None.
        rounds: the most that are taken per group.
        tolerance: mean error of the marginals at which to stop; what is left of it is paired at random.

    Example:
        >>> x0, x1 = torch.tensor([[5.0], [0.0]]), Batch(torch.tensor([[1.0], [4.0]]))
        >>> Sinkhorn(0.01)(x0, x1, torch.Generator().manual_seed(0))
        tensor([[0.],
                [5.]])
    """

    epsilon: float = 0.05
    absolute: bool = False
    ignore: tuple[str, ...] = ()
    prior: Prior | None = None
    rounds: int = 2000
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ValueError(
                f"Sinkhorn: epsilon must be positive and finite, got {self.epsilon}; the limits are "
                "couplings.OptimalTransport() at 0 and couplings.independent at infinity."
            )
        if self.rounds < 1 or not 0 < self.tolerance < 1:
            raise ValueError(
                f"Sinkhorn: expected rounds >= 1 and 0 < tolerance < 1, got {self.rounds}, {self.tolerance}."
            )

    def __call__(self, x0: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """x0 (rows, *event) re-paired with `batch.x`; draws may repeat.

        Raises:
            ValueError: where x0 is not shaped and typed like the data, or either is empty or not finite.
            RuntimeError: where the iterations do not converge.
        """

        def choose(data: Tensor, draws: Tensor, samples: Tensor) -> Tensor:
            return draw(self.plan(products(data.double(), draws.double())), generator)

        return pair("Sinkhorn", x0, batch, choose, self.ignore, self.prior)

    def plan(self, cost: Tensor) -> Tensor:
        """The plan (n, n) of a cost (n, n): rows and columns sum to one.

        A cost without any interaction (all draws equal, say) has the flat plan, for then no pairing is better.
        """
        scale = spread(cost)
        if scale == 0:
            return torch.full_like(cost, 1 / len(cost))
        epsilon = self.epsilon * (1 if self.absolute else scale)
        plan, error = solve(cost, epsilon, self.rounds, self.tolerance)
        if error > self.tolerance:
            raise RuntimeError(
                f"Sinkhorn: the marginals are still off by {error:.2g} on average after {self.rounds} rounds at "
                f"epsilon={self.epsilon}; raise epsilon, raise rounds, or use OptimalTransport, which is exact."
            )
        return complete(plan)[0]
