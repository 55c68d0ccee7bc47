"""Sinkhorn's iterations in the log domain: potentials f, g of an entropic plan P_ij = exp((f_i + g_j − C_ij)/ε).

Each round sets f so that rows sum to one, then g so that columns do (Cuturi 2013).  Written in scalings a = e^(f/ε) it
is two products with one matrix, but these underflow for small ε.  So potentials are kept as logarithms, the kernel is
made from them, K = exp((f + g − C)/ε), whose entries are at most of order one, and only the *change* of the potentials
within a level is a scaling (absorption: Schmitzer 2019).  `over` > 1 over-relaxes (Thibault et al. 2021): fewer rounds.

Where marginals may give way at a price ρ KL, the update is damped by `soft` = ρ/(ρ + ε) (Chizat et al. 2018); 1 is the
balanced case.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["level", "plan_of", "solve", "spread"]


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
    across, least = kernel.T, torch.finfo(cost.dtype).tiny * 1e8
    u, v = torch.zeros_like(f), torch.zeros_like(g)  # changes of f/ε and g/ε
    for i in range(rounds):
        new = _update(kernel, v, f, epsilon, soft, least)
        u = new if i == 0 else torch.lerp(u, new, over)
        new = _update(across, u, g, epsilon, soft, least)
        v = new if i in (0, rounds - 1) else torch.lerp(v, new, over)
    return f + epsilon * u, g + epsilon * v


def _update(kernel: Tensor, other: Tensor, own: Tensor, epsilon: float, soft: float, least: float) -> Tensor:
    new = torch.mv(kernel, other.exp()).clamp_(min=least).log_().neg_()
    return new if soft == 1 else new.mul_(soft).sub_(own, alpha=(1 - soft) / epsilon)


def plan_of(cost: Tensor, f: Tensor, g: Tensor, epsilon: float, out: Tensor | None = None) -> Tensor:
    """exp((f + g − cost)/ε), kept clear of subnormal numbers, which are slow, and of overflow."""
    reach = 50.0 if cost.dtype == torch.float32 else 300.0
    kernel = torch.sub(f[:, None], cost, out=out)
    return kernel.add_(g).mul_(1 / epsilon).clamp_(-reach, reach).exp_()


def solve(cost: Tensor, epsilon: float, rounds: int, tolerance: float, rho: float = math.inf) -> tuple[Tensor, float]:
    """The plan that minimises ⟨P, C⟩ + ε KL(P | 1/n) + ρ KL(P1 | 1) + ρ KL(Pᵀ1 | 1), and how far it is from doing so.

    ε falls from the size of the cost to its value, so that small ones converge too.

    Args:
        cost: (n, n), float64 for small ε.
        rounds: the most that are taken, a little more than asked for at most.
        tolerance: stop where the error is less.
        rho: price of marginals that are not one; infinite where they are imposed.

    Returns:
        plan (n, n), and the mean over rows of |sum − what it must be|: one, or exp(−f/ρ) where marginals are relaxed.
    """
    base = cost + epsilon * math.log(len(cost))
    soft = 1.0 if math.isinf(rho) else rho / (rho + epsilon)
    f, g = soft * base.amin(1), torch.zeros_like(base[0])
    kernel = torch.empty_like(base)
    now, done = max(epsilon, spread(cost)), 0
    while now > epsilon:
        give = 1.0 if math.isinf(rho) else rho / (rho + now)
        f, g = level(base, f, g, now, 10, soft=give, kernel=kernel)
        now, done = max(epsilon, now / 4), done + 10
    error = math.inf
    while error > tolerance and done < rounds:
        if not math.isinf(rho):  # f + t, g - t is the same plan; the best t at once, for rounds approach it slowly
            t = rho / 2 * float((-f / rho).logsumexp(0) - (-g / rho).logsumexp(0))
            f, g = f + t, g - t
        f, g = level(base, f, g, epsilon, 20, over=1.5, soft=soft, kernel=kernel)
        done += 20
        rows = plan_of(base, f, g, epsilon, kernel).sum(1)
        error = float((rows - (-f / rho).exp()).abs().mean())
        error = error if math.isfinite(error) else math.inf
    return kernel, error


def spread(cost: Tensor) -> float:
    """Mean absolute value of the doubly centred cost: its size but for terms of a row or of a column alone."""
    inner = cost - cost.mean(0)
    return float((inner - inner.mean(1, keepdim=True)).abs().mean())
