"""Partial transport: the share of pairs that is cheapest to transport is, the others are paired at random.

Of n samples and n draws, k = share · n pairs are chosen that minimise Σ ‖x1 − x0‖² over all ways to choose k pairs
(Chapel, Alaya and Gasso 2020); samples and draws that remain, outliers mostly, are paired with each other in random
order.  It is a permutation: each sample and each draw is used exactly once, so neither data nor prior is biased.

It is solved as one exact assignment of 2n − k rows and columns: n − k samples may go to a dummy draw and as many draws
to a dummy sample, at no cost, but no dummy to a dummy.  More pairs never cost less, so exactly k true ones are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.couplings.assignment import assign
from scifm.couplings.pairing import pair, squared
from scifm.priors.base import Prior

__all__ = ["Partial"]


@dataclass(frozen=True)
class Partial:
    """Mini-batch optimal transport of a share of the mass; the rest keeps random draws.

    Args:
        share: of the pairs of a group that are transported, 0 (independent) to 1 (`OptimalTransport`).
        ignore: names of context that the velocity does not look at; pairs never cross the rest.
        prior: measure the cost in this prior's metric; plain if None.
    """

    share: float = 0.9
    ignore: tuple[str, ...] = ()
    prior: Prior | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"Partial: share must be in [0, 1], got {self.share}; 0.9 leaves a tenth to chance.")

    def __call__(self, x0: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """x0 (rows, *event) re-paired with `batch.x`.

        Raises:
            ValueError: where x0 is not shaped and typed like the data, or either is empty or not finite.
        """

        def choose(data: Tensor, draws: Tensor, samples: Tensor) -> Tensor:
            order = cheapest(squared(data, draws), round(self.share * len(data)))
            left = order < 0
            free = torch.ones(len(order), dtype=torch.bool, device=order.device)
            free[order[~left]] = False
            device = order.device if generator is None else generator.device
            mixed = torch.randperm(int(left.sum()), generator=generator, device=device).to(order.device)
            order[left] = free.nonzero()[:, 0][mixed]
            return order

        return pair("Partial", x0, batch, choose, self.ignore, self.prior)


def cheapest(cost: Tensor, pairs: int) -> Tensor:
    """(n,) the column of each row among the `pairs` cheapest disjoint pairs of a cost (n, n) >= 0; −1 for others."""
    n, dummies = len(cost), len(cost) - pairs
    extended = cost.new_zeros(n + dummies, n + dummies)
    extended[:n, :n] = cost
    extended[n:, n:] = 1 + 2 * cost.amax()
    order = assign(extended)[:n]
    return torch.where(order < n, order, -1)
