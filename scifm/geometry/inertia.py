"""The shape of a cloud of points: how wide it is along its principal axes, which do not depend on how it is turned.

The second moments M = Σ_i w_i x_i x_iᵀ = V diag(s²) Vᵀ have the principal axes as the columns of V, and s are the
singular values of the cloud.  Two clouds of n points cannot be nearer than

    min over R and permutations of Σ_i |R x_i − y_π(i)|²  ≥  Σ_k (s_k(x) − s_k(y))²,

since the overlap of two matrices is at most that of their singular values (von Neumann).  Nor nearer than their sorted
distances from the origin, Σ (r_(i)(x) − r_(i)(y))².

An axis has no direction, so a cloud has not one principal frame but as many as there are signs: 4 proper ones in space
and 2 in the plane, twice as many with reflections.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from scifm.geometry.centre import check_cloud

__all__ = ["principal_axes", "signs", "widths"]


def principal_axes(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Principal axes about the origin, widest first, and how wide the cloud is along each.

    Args:
        x: (..., n, d) points, centred if you mean about the centre.
        weights: (..., n); all equal if None.

    Returns:
        (..., d, d) with the axes as columns, det +1, without gradient; (..., d) the singular values of √w x.

    Example:
        >>> axes, wide = principal_axes(torch.tensor([[0.0, 3.0], [0.0, -4.0]]))
        >>> wide
        tensor([5., 0.])
    """
    values, axes = torch.linalg.eigh(_moments("principal_axes", x, weights))
    axes, values = axes.flip(-1), values.flip(-1)
    if x.shape[-1] == 3:
        last = torch.linalg.cross(axes[..., 0], axes[..., 1])[..., None]
    else:
        last = axes[..., -1:] * torch.linalg.det(axes).sign()[..., None, None]
    axes = torch.cat([axes[..., :-1], last], -1)
    return axes.to(x.dtype), values.clamp(min=0).sqrt().to(x.dtype)


def widths(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """(..., d) singular values of each cloud, largest first: they stay as they are when it is turned or relabelled.

    Example:
        >>> widths(torch.tensor([[0.0, 3.0], [0.0, -4.0]]))
        tensor([5., 0.])
    """
    values = torch.linalg.eigvalsh(_moments("widths", x, weights)).flip(-1)
    return values.clamp(min=0).sqrt().to(x.dtype)


def signs(d: int, reflect: bool = False) -> Tensor:
    """(k, d) the signs ±1 that axes can be given without leaving the rotations; with `reflect` all 2^d of them.

    Example:
        >>> signs(2).tolist()
        [[1.0, 1.0], [-1.0, -1.0]]
    """
    every = torch.tensor(list(itertools.product([1.0, -1.0], repeat=d)))
    proper = every.prod(-1) > 0
    return torch.cat([every[proper], every[~proper]]) if reflect else every[proper]


@torch.no_grad()
def _moments(who: str, x: Tensor, weights: Tensor | None) -> Tensor:
    check_cloud(who, x, weights)
    x = x.detach()
    y = x if weights is None else x * weights.to(x)[..., None]
    return (y.mT @ x).double()
