"""Exact optimal transport within a mini-batch: the pairing that minimises Σ ‖x1_i − x0_π(i)‖².

For a permutation the squared cost has the same optimum as −⟨x1, x0⟩, since the norms are sums over rows and over
columns.  The assignment uses each draw exactly once; sampling pairs from the plan instead, as is often done, leaves
more than a third of the draws out.  It is exact, so nothing is random, and it never pairs across samples that differ in
size or in anything that does not flow (labels, conditions, species, edges), for that would bias p(x0 | condition).

References: Pooladian et al. 2023; Tong et al. 2024 (OT-CFM); Cheng and Schwing 2025 (conditions).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["OptimalTransport"]


@dataclass(frozen=True)
class OptimalTransport:
    """Mini-batch optimal transport with squared Euclidean cost, by exact square assignment.

    Time grows with about the cube of the batch. From white noise in many dimensions it gains little, since all
    pairs are equally far; from an informed prior much more.

    Args:
        ignore: names of context that the velocity does not look at, e.g. ("time",) where a calendar serves the
            transform only. All other context is a condition, and pairs never cross it.

    Example:
        >>> x0 = torch.tensor([[5.0], [0.0]])
        >>> OptimalTransport()(x0, Batch(torch.tensor([[1.0], [4.0]])))
        tensor([[0.],
                [5.]])
    """

    ignore: tuple[str, ...] = ()

    def __call__(self, x0: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """x0 (rows, *event) re-paired with `batch.x`.

        Raises:
            ValueError: where x0 is not shaped like the data, or either is not finite.
        """
        from scipy.optimize import linear_sum_assignment

        if x0.shape != batch.x.shape:
            raise ValueError(
                f"OptimalTransport: x0 {tuple(x0.shape)} must be shaped like the data {tuple(batch.x.shape)}."
            )
        groups = batch.groups(self.ignore)
        if len(batch) > 1 and all(len(g) == 1 for g in groups):
            warnings.warn(
                "OptimalTransport: no two samples of the batch share their size and conditions "
                f"({', '.join(batch.context) or 'rows and edges'}), so there is nothing to pair; name context that the "
                "velocity does not look at in ignore=, or use couplings.independent or coarser conditions.",
                stacklevel=2,
            )
        paired = x0
        for samples in groups:
            if len(samples) == 1:
                continue
            a, b = batch.stack(batch.x, samples), batch.stack(x0, samples)
            # Centring changes no assignment and keeps float32 products from cancelling.
            cost = -((a - a.mean(0)) @ (b - b.mean(0)).T)
            if not cost.isfinite().all():
                raise ValueError("OptimalTransport: data or prior draws are not finite (NaN or infinity in the batch).")
            _, order = linear_sum_assignment(cost.detach().cpu().numpy())
            paired = batch.place(paired, samples, b[torch.as_tensor(order, device=b.device)])
        return paired
