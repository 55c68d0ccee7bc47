"""From a transport plan to pairs, without biasing either marginal.

A coupling gives every data sample one draw.  Given a plan P (n, n) whose rows and columns sum to one, sample i gets
draw j with probability P_ij, independently of the others.  Each sample is used once, so x1 keeps its law exactly.  Each
draw is used once *on average*, so x0 keeps the law p0 of the prior, exactly, as an average over batches; within a batch
some draws are left out and others repeated: 1/e ≈ 37 % are left out by a flat plan, none by a permutation.

A plan whose sums fall short of one (iterations that stopped, mass that was not worth its transport) is completed: rows
and columns that exceed one are scaled down, and what is missing is paired independently (Altschuler, Weed and Rigollet
2017, algorithm 2).  So what a relaxed plan does not transport is paired at random, and is not lost from p0.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["complete", "draw"]


def complete(plan: Tensor) -> tuple[Tensor, float]:
    """The plan with all its row and column sums brought to one, and the share of mass that was paired at random.

    Args:
        plan: (n, n), not negative.
    """
    plan = plan / plan.sum(1, keepdim=True).clamp(min=1)
    plan = plan / plan.sum(0).clamp(min=1)
    rows, columns = (1 - plan.sum(1)).clamp(min=0), (1 - plan.sum(0)).clamp(min=0)
    missing = float(columns.sum())
    if missing > 0:
        plan = plan + rows[:, None] * columns / missing
    return plan, missing / len(plan)


def draw(plan: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """(n,) a column for each row, with probabilities in proportion to the row's entries."""
    device = plan.device if generator is None else generator.device
    u = torch.rand(len(plan), 1, generator=generator, dtype=torch.float64, device=device).to(plan.device)
    reached = plan.double().cumsum(1)
    return torch.searchsorted(reached, u * reached[:, -1:], right=True)[:, 0].clamp(max=plan.shape[1] - 1)
