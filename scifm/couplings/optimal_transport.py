"""Exact optimal transport within a mini-batch: the pairing that minimises Σ ‖x1_i − x0_π(i)‖².

For a permutation the squared cost has the same optimum as −⟨x1, x0⟩, since the norms are sums over rows and over
columns.  The assignment uses each draw exactly once; sampling pairs from the plan instead, as is often done, leaves
more than a third of the draws out.  It is exact, so nothing is random, and it never pairs across samples that differ in
size or in anything that does not flow (labels, conditions, species, edges), for that would bias p(x0 | condition).

References: Pooladian et al. 2023; Tong et al. 2024 (OT-CFM); Cheng and Schwing 2025 (conditions).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.couplings.assignment import assign
from scifm.couplings.pairing import pair, products
from scifm.priors.base import Prior

__all__ = ["OptimalTransport"]


@dataclass(frozen=True)
class OptimalTransport:
    """Mini-batch optimal transport with squared Euclidean cost, by exact square assignment.

    Time grows with about the cube of the batch. From white noise in many dimensions it gains little, since all
    pairs are equally far; from an informed prior much more.

    Args:
        ignore: names of context that the velocity does not look at, e.g. ("time",) where a calendar serves the
            transform only. All other context is a condition, and pairs never cross it.
        prior: measure the cost in this prior's metric, ‖C^-½ (x1 − x0)‖², e.g. that of the flow; plain if None.

    Example:
        >>> x0 = torch.tensor([[5.0], [0.0]])
        >>> OptimalTransport()(x0, Batch(torch.tensor([[1.0], [4.0]])))
        tensor([[0.],
                [5.]])
    """

    ignore: tuple[str, ...] = ()
    prior: Prior | None = None

    def __call__(self, x0: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """x0 (rows, *event) re-paired with `batch.x`.

        Raises:
            ValueError: where x0 is not shaped and typed like the data, or either is empty or not finite.
        """
        return pair("OptimalTransport", x0, batch, nearest, self.ignore, self.prior)


def nearest(data: Tensor, draws: Tensor, samples: Tensor) -> Tensor:
    return assign(products(data, draws))
