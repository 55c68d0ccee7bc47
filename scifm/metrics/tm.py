"""TM-score of two structures whose residues correspond (Zhang and Skolnick 2004).

    TM = max over rigid motions of (1/L) Σ_i 1 / (1 + (d_i / d_0)²),     d_0 = 1.24 (L − 15)^⅓ − 1.8 Å, at least 0.5 Å

It lies in (0, 1], 1 for the same structure.  Unlike RMSD it does not care how far the far parts are, and d_0 makes it
independent of the length: random pairs of proteins score 0.17, the same fold above 0.5.  d_0 is in Ångström, so x must
be.

The maximum over motions is searched as theirs is, from superpositions of fragments, but climbs otherwise.  Each term is
a convex function of d², so it lies above its tangent, and the weighted superposition with w_i = 1 / (1 + (d_i/d_0)²)²,
minus its slope, never lowers the score: Kabsch and reweighting in turns, without cutoffs.  Fragments of L, L/2, L/4 … ≥
4 residues at steps of half their length are the starts; all climb a little, the best few to the top.  What is found is
a lower bound of the maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.geometry import align

__all__ = ["tm_scale", "tm_score"]

FIRST, KEPT, LAST = 6, 4, 30  # rounds of all starts, starts that go on, and their rounds; they converge linearly


def tm_scale(length: Tensor) -> Tensor:
    """d_0 in Å for structures of `length` residues (...).

    Example:
        >>> tm_scale(torch.tensor([10, 100, 300]))
        tensor([0.5000, 3.6521, 6.3602], dtype=torch.float64)
    """
    return (1.24 * (length.double() - 15).clamp(min=0) ** (1 / 3) - 1.8).clamp(min=0.5)


@torch.no_grad()
def tm_score(x: Tensor, y: Tensor, mask: Tensor | None = None, length: Tensor | None = None) -> Tensor:
    """TM-score of structures with residue i of x corresponding to residue i of y.

    Args:
        x, y: (..., n, 3) in Å, broadcast against each other.
        mask: (..., n) residues that both have; all if None.
        length: (...) L, the length that normalises, if it is not the number of residues that both have.

    Returns:
        (...) float64; NaN without residues.

    Raises:
        ValueError: where shapes do not fit.

    Example:
        >>> x = torch.randn(50, 3).cumsum(0)
        >>> round(float(tm_score(x, x @ torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) + 7)), 6)
        1.0
    """
    if x.ndim < 2 or x.shape[-2:] != y.shape[-2:] or x.shape[-1] != 3:
        raise ValueError(
            f"tm_score: expected structures (..., n, 3) of equal n, got {tuple(x.shape)}, {tuple(y.shape)}."
        )
    x, y = torch.broadcast_tensors(x.double(), y.double())
    there = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device) if mask is None else mask.expand(x.shape[:-1])
    count = there.sum(-1)
    length = count if length is None else length.to(count.device)
    if not there.numel():
        return torch.zeros_like(count, dtype=x.dtype) / length
    scale, weights = tm_scale(length), _fragments(there).to(x)
    sums, weights = _climb(x, y, there, scale, weights, FIRST)
    best = sums.topk(min(KEPT, len(sums)), 0).indices
    weights = weights.take_along_dim(best[..., None], 0)
    best = _climb(x, y, there, scale, weights, LAST)[0].amax(0)
    return torch.where(count > 0, best / length, torch.nan)


def _fragments(there: Tensor) -> Tensor:
    """(F, ..., n) the fragments to start from, none where a shorter structure has no more."""
    rank, count = there.cumsum(-1) - 1, there.sum(-1, keepdim=True)
    size, fresh, found = count, torch.ones_like(count, dtype=torch.bool), []
    least = torch.where(count < 4, 1, 4)
    while bool(fresh.any()):
        step = (size // 2).clamp(min=1)
        for k in range(int(((count - size + step - 1) // step).max()) + 1):
            start = torch.minimum(k * step, count - size)
            more = fresh & ((k == 0) | ((k - 1) * step < count - size))
            found.append(there & more & (rank >= start) & (rank < start + size))
        fresh = fresh & (size > least)
        size = torch.where(fresh, torch.maximum(size // 2, least), size)
    return torch.stack(found)


def _climb(x: Tensor, y: Tensor, there: Tensor, scale: Tensor, weights: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """The highest Σ_i 1/(1 + (d_i/d_0)²) met from each start, (F, ...), and the weights (F, ..., n) to go on with."""
    best = torch.where(weights.sum(-1) > 0, 0.0, -torch.inf).to(x)
    for _ in range(rounds):
        square = (align(x.expand(*weights.shape, 3), y.expand(*weights.shape, 3), weights) - y).square().sum(-1)
        close = there / (1 + square / scale[..., None].square())
        best = torch.where(best >= 0, torch.maximum(best, close.sum(-1)), best)
        weights = close.square()
    return best, weights
