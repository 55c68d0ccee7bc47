"""Sinkhorn's iterations in the log domain: potentials f, g of an entropic plan P_ij = exp((f_i + g_j − C_ij)/ε).

Each round sets f so that rows sum to one, then g so that columns do (Cuturi 2013).  Written in scalings a = e^(f/ε) it is two
products with one matrix, but these underflow for small ε.  So potentials are kept as logarithms, the kernel is made from
them, K = exp((f + g − C)/ε), whose entries are at most of order one, and only the *change* of the potentials within a level
is a scaling (absorption: Schmitzer 2019).  `over` > 1 over-relaxes (Thibault et al. 2021), which saves rounds.

Where marginals may give way at a price ρ KL, the update is damped by `soft` = ρ/(ρ + ε) (Chizat et al. 2018); 1 is the
balanced case.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["level", "plan_of"]


def level(
    cost: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    rounds: int,
    *,
    over: float = 1.0,
    soft: float = 1.0,
    kernel: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The potentials after some rounds at one ε. The last half round, of g, is not over-relaxed.

    Args:
        cost: (n, m).
        f, g: potentials (n,) and (m,) to start from.
        kernel: memory like cost to work in.
    """
    kernel = plan_of(cost, f, g, epsilon, kernel)
    least = torch.finfo(cost.dtype).tiny * 1e8
    u, v = torch.zeros_like(f), torch.zeros_like(g)  # changes of f/ε and g/ε
    for i in range(rounds):
        new = (kernel @ v.exp()).clamp_(min=least).log_().mul_(-soft).sub_(f, alpha=(1 - soft) / epsilon)
        u = new if i == 0 else u + over * (new - u)
        new = (kernel.T @ u.exp()).clamp_(min=least).log_().mul_(-soft).sub_(g, alpha=(1 - soft) / epsilon)
        v = new if i in (0, rounds - 1) else v + over * (new - v)
    return f + epsilon * u, g + epsilon * v


def plan_of(cost: Tensor, f: Tensor, g: Tensor, epsilon: float, out: Tensor | None = None) -> Tensor:
    """exp((f + g − cost)/ε), kept clear of subnormal numbers, which are slow, and of overflow."""
    reach = 50.0 if cost.dtype == torch.float32 else 300.0
    kernel = torch.sub(f[:, None], cost, out=out)
    return kernel.add_(g).mul_(1 / epsilon).clamp_(-reach, reach).exp_()
