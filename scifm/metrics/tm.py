"""TM-score of two structures whose residues correspond (Zhang and Skolnick 2004).

    TM = max over rigid motions of (1/L) Σ_i 1 / (1 + (d_i / d_0)²),     d_0 = 1.24 (L − 15)^⅓ − 1.8 Å, at least 0.5 Å

It lies in (0, 1], 1 for the same structure.  Unlike RMSD it does not care how far the far parts are, and d_0 makes it
independent of the length: random pairs of proteins score 0.17, the same fold above 0.5.  d_0 is in Ångström, so x must be.

The maximum over motions is searched as theirs is, from superpositions of fragments, but climbs otherwise.  Each term is a
convex function of d², so it lies above its tangent, and the weighted superposition with w_i = 1 / (1 + (d_i/d_0)²)², minus
its slope, never lowers the score: Kabsch and reweighting in turns, without cutoffs.  Fragments of L, L/2, L/4 … ≥ 4 residues
at steps of half their length are the starts, and the best end counts.  What is found is a lower bound of the maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["tm_scale", "tm_score"]

CLIMB = 30  # rounds; they converge linearly, most in ten


def tm_scale(length: Tensor) -> Tensor:
    """d_0 in Å for structures of `length` residues (...).

    Example:
        >>> tm_scale(torch.tensor([10, 100, 300]))
        tensor([0.5000, 3.6521, 6.3660], dtype=torch.float64)
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
        raise ValueError(f"tm_score: expected structures (..., n, 3) of equal n, got {tuple(x.shape)}, {tuple(y.shape)}.")
    x, y = torch.broadcast_tensors(x.double(), y.double())
    there = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device) if mask is None else mask.expand(x.shape[:-1])
    count = there.sum(-1)
    length = count if length is None else length.to(count.device)
    scale, best = tm_scale(length), torch.zeros_like(count, dtype=x.dtype)
    if not there.numel():
        return best / length
    for size, first in _fragments(x.shape[-2]):
        best = torch.maximum(best, _climb(x, y, there, scale, size, first))
    return best / length


def _fragments(n: int) -> list[tuple[int, int]]:
    """Size and first residue of the fragments to start from."""
    found, size = [], n
    while True:
        step = max(1, size // 2)
        found += [(size, first) for first in {*range(0, n - size + 1, step), n - size}]
        if size <= 4:
            return sorted(found)
        size = max(4, size // 2)


def _climb(x: Tensor, y: Tensor, there: Tensor, scale: Tensor, size: int, first: int) -> Tensor:
    """The highest Σ_i 1/(1 + (d_i/d_0)²) met from the superposition of one fragment, (...)."""
    # A fragment of the residues that are there, whatever lies between them.
    rank = there.cumsum(-1) - 1
    start = torch.div(first * there.sum(-1, keepdim=True), there.shape[-1], rounding_mode="floor")
    weights = (there & (rank >= start) & (rank < start + size)).to(x)
    best = torch.zeros_like(scale)
    for _ in range(CLIMB):
        square = _apart(x, y, weights)
        close = there / (1 + square / scale[..., None].square())
        best = torch.maximum(best, close.sum(-1))
        weights = close.square()
    return best


def _apart(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Squared distances after the superposition with these weights, (..., n)."""
    from scifm.geometry import align

    return (align(x, y, weights) - y).square().sum(-1)
