"""Exact square assignment: the permutation π that minimises Σ_i C_iπ(i), at the speed that a training step can afford.

Jonker and Volgenant's shortest augmenting paths (1987; the kernel is lapx's `lapjvr`) are fast where most rows find a
column of their own at once: small n, or costs of many dimensions.  In few dimensions neighbours compete, paths get
long, and the network simplex of POT wins from some 500 points on.  The remedy changes the matrix and not the solver.
Adding f_i + g_j to C changes every permutation's cost by the same constant; with f, g the potentials (duals) of an
optimal plan all its pairs cost 0 and all others at least 0, and nothing is left to search.  So a few rounds of Sinkhorn
with a falling ε (`scifm.couplings.entropic`) find approximate potentials, and Jonker-Volgenant is given C − f − g.  The
answer is exact for whatever potentials, good or bad: they decide the time and nothing else.

The rounds pay where there are many rows per effective dimension of the cost (measured for n = 128 to 2048 in 2 to 256
dimensions: `benchmarks/couplings.py`); elsewhere the solver starts cold.  Both give up Python's lock while they run.

References: Jonker and Volgenant 1987; Cuturi 2013; Kosowsky and Yuille 1994 (falling ε).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scifm.couplings.entropic import level

__all__ = ["assign", "assign_many", "finite"]

COLD = 160  # rows below which a cold start takes less than a millisecond or two
CROWDED = 60.0  # rows per effective dimension from which the rounds pay
FALLING = (0.1, 0.02, 0.004, 0.001)  # ε, in units of how far the best cost of a row lies below its mean


@torch.no_grad()
def assign(cost: Tensor) -> Tensor:
    """The best column of each row, each column once.

    Exact up to the rounding of `cost`: in float32 the total is within about 1e-6 of the optimum, relative to the
    largest costs; float64 is solved in float64. Nothing is random. The work is done on the CPU.

    Args:
        cost: (n, n), any floating type and device, finite. Not changed.

    Returns:
        (n,) long, on the device of `cost`: row i is assigned column result[i].

    Raises:
        ValueError: where cost is not square and floating, or not finite.

    Example:
        >>> assign(torch.tensor([[1.0, 0.0], [0.0, 9.0]]))
        tensor([1, 0])
    """
    from lap import lapjvr

    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or not cost.is_floating_point():
        raise ValueError(f"assign: expected a square floating-point matrix, got {cost.dtype} {tuple(cost.shape)}.")
    if not finite(cost):
        raise ValueError("assign: the costs are not finite (NaN, infinity, or too large for their type).")
    work = cost.detach().to("cpu", torch.float64 if cost.dtype == torch.float64 else torch.float32)
    if len(work) >= COLD and len(work) > CROWDED * effective_dimension(work):
        work = warm(work)
    _, columns = lapjvr(np.ascontiguousarray(work.numpy()), return_cost=False)
    return torch.as_tensor(columns, dtype=torch.long, device=cost.device)


@torch.no_grad()
def assign_many(costs: Tensor) -> Tensor:
    """The best columns for many small costs at once, without the rounds, which pay for large ones only.

    Args:
        costs: (..., n, n), float32 or float64, finite. Not changed.

    Returns:
        (..., n) long: row i of a matrix is assigned column result[..., i]. As many threads as torch uses.

    Example:
        >>> assign_many(torch.tensor([[[1.0, 0.0], [0.0, 9.0]], [[0.0, 1.0], [1.0, 0.0]]]))
        tensor([[1, 0],
                [0, 1]])
    """
    from lap import lapjvr_batch

    if costs.ndim < 2 or costs.shape[-1] != costs.shape[-2] or not costs.is_floating_point():
        raise ValueError(f"assign_many: expected floats (..., n, n), got {costs.dtype} {tuple(costs.shape)}.")
    if costs.numel() == 0 or costs.shape[-1] == 1:
        return torch.zeros(costs.shape[:-1], dtype=torch.long, device=costs.device)
    if not finite(costs):
        raise ValueError("assign_many: the costs are not finite (NaN, infinity, or too large for their type).")
    work = costs.detach().cpu().reshape(-1, *costs.shape[-2:]).numpy()
    threads = max(1, torch.get_num_threads())
    _, columns = lapjvr_batch(np.ascontiguousarray(work), return_cost=False, n_threads=threads)
    return torch.from_numpy(np.array(columns)).reshape(costs.shape[:-1]).to(costs.device)


def warm(cost: Tensor) -> Tensor:
    """cost − f − g with approximate potentials: the same optimum, and mostly found already."""
    single = cost.float()
    f = single.amin(1)
    scale = float((single.mean(1) - f).median())
    kernel = torch.empty_like(single)
    g = torch.sub(single, f[:, None], out=kernel).amin(0)
    if scale > 0:
        for epsilon in FALLING:
            f, g = level(single, f, g, epsilon * scale, 8, over=1.5, kernel=kernel)
    if not finite(g):
        return cost  # costs at the end of the range of float32
    reduced = cost - g.to(cost)
    return reduced.sub_(reduced.amin(1, keepdim=True))


def effective_dimension(cost: Tensor) -> float:
    """Participation ratio of the doubly centred cost, from a block of up to 64 rows and columns of a CPU matrix.

    It is about D for −⟨x, y⟩ with D ≪ block equally wide dimensions.
    """
    step = max(1, len(cost) // 64, min(8, len(cost) // 32))
    part = cost.numpy()[::step, ::step].astype(np.float64)  # NumPy begins a dozen small steps sooner than torch
    part = part - part.mean(0)
    part = part - part.mean(1, keepdims=True)
    part /= max(np.abs(part).max(), 1e-300)
    gram = part @ part.T
    return float(np.trace(gram) ** 2 / max(np.square(gram).sum(), 1e-300))


def finite(x: Tensor) -> bool:
    """Whether all values are finite; one sum says so unless it overflows."""
    return bool(x.sum().isfinite()) or bool(x.isfinite().all())
