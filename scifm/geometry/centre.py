"""Centres of weighted clouds of points.

    c = Σ_i w_i x_i / Σ_i w_i

A weight of 0 leaves a point out: this is how padded clouds of several sizes are treated.  A cloud without any weight
has its centre at the origin.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["centre", "centred", "check_cloud"]


def centre(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean of each cloud.

    Args:
        x: (..., n, d) points.
        weights: (..., n), not negative; all equal if None.

    Returns:
        (..., 1, d), to be subtracted from x.

    Raises:
        ValueError: where x has fewer than two axes, or the weights do not fit it.

    Example:
        >>> centre(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
        tensor([[1., 2.]])
    """
    check_cloud("centre", x, weights)
    if weights is None:
        return x.sum(-2, keepdim=True) / max(1, x.shape[-2])
    weights = weights.to(x)[..., None]
    total = weights.sum(-2, keepdim=True)
    return (weights * x).sum(-2, keepdim=True) / torch.where(total > 0, total, 1.0)


def centred(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """x (..., n, d) minus its `centre`; points of weight 0 are moved along and keep their weight 0.

    Example:
        >>> centred(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
        tensor([[-1., -2.],
                [ 1.,  2.]])
    """
    return x - centre(x, weights)


def check_cloud(who: str, x: Tensor, weights: Tensor | None = None) -> None:
    """Refuse what is no cloud of points (..., n, d) with weights (..., n)."""
    if x.ndim < 2 or not x.is_floating_point():
        raise ValueError(f"{who}: expected points (..., n, d) of a floating type, got {x.dtype} {tuple(x.shape)}.")
    if weights is not None and (weights.ndim < 1 or weights.shape[-1] != x.shape[-2]):
        raise ValueError(
            f"{who}: expected a weight per point, (..., {x.shape[-2]}), got {tuple(weights.shape)}; for a mask "
            "(..., n) give mask.to(x)."
        )
