"""Differences and distances of all pairs of points, from differences rather than from products.

    r_ij = x_i − x_j,     d²_ij = Σ_k (x_ik − x_jk)²

The product form |x_i|² + |x_j|² − 2 x_i·x_j (`torch.cdist` above 25 points) loses all digits where points are near each
other and far from the origin, and its root has no gradient on the diagonal.  Squares have one everywhere.  A distance
has a kink where two points coincide; the gradient there is taken to be zero, which is a subgradient and never NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.geometry.box import Box

__all__ = ["differences", "distances", "norm", "pair_mask", "squared_distances"]


def norm(v: Tensor) -> Tensor:
    """Length of vectors (..., d) -> (...), with gradient zero where it is zero."""
    square = v.square().sum(-1)
    return _root(square)


def differences(x: Tensor, y: Tensor | None = None, box: Box | None = None) -> Tensor:
    """x_i − y_j of all pairs: (..., n, d) and (..., m, d) -> (..., n, m, d).

    Args:
        y: x itself if None.
        box: of a periodic set: the shortest of all images; its batch are the leading axes of x.
    """
    y = x if y is None else y
    _check(x, y)
    r = x[..., :, None, :] - y[..., None, :, :]
    return r if box is None else box.minimum_image(r)


def squared_distances(
    x: Tensor, y: Tensor | None = None, mask: Tensor | None = None, box: Box | None = None, fill: float = 0.0
) -> Tensor:
    """|x_i − y_j|² of all pairs: (..., n, d) and (..., m, d) -> (..., n, m).

    Args:
        y: x itself if None.
        mask: (..., n, m) the pairs that count, as `pair_mask` gives them; the others get `fill`.
        box: of a periodic set.

    Example:
        >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([[ 0., 25.],
                [25.,  0.]])
    """
    other = x if y is None else y
    if box is not None:
        square = differences(x, other, box).square().sum(-1)
    else:
        _check(x, other)
        square, *more = (  # one coordinate at a time: no (n, m, d) in memory
            (a[..., :, None] - b[..., None, :]).square() for a, b in zip(x.unbind(-1), other.unbind(-1), strict=True)
        )
        for term in more:
            square = square + term
    return square if mask is None else square.masked_fill(~mask, fill)


def distances(
    x: Tensor, y: Tensor | None = None, mask: Tensor | None = None, box: Box | None = None, fill: float = 0.0
) -> Tensor:
    """|x_i − y_j| of all pairs, as `squared_distances`; the gradient where it is zero is zero."""
    square = squared_distances(x, y, box=box)
    root = _root(square)
    return root if mask is None else root.masked_fill(~mask, fill)


def pair_mask(points: Tensor, others: Tensor | None = None, loops: bool = False) -> Tensor:
    """(..., n) and (..., m), whether there is a point -> (..., n, m), whether there are two.

    Args:
        others: the same set if None.
        loops: whether a point of the same set is a pair with itself.
    """
    both = points[..., :, None] & (points if others is None else others)[..., None, :]
    if loops or others is not None:
        return both
    return both & ~torch.eye(points.shape[-1], dtype=torch.bool, device=points.device)


def _root(square: Tensor) -> Tensor:
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1] or not x.shape[-1]:
        raise ValueError(
            f"distances: expected points (..., n, d) and (..., m, d), got {tuple(x.shape)} and {tuple(y.shape)}."
        )
