"""The covariance matrix of a Gaussian prior on some points of a grid: the marginal law of the others integrated out.

With x = m + M z, M the linear part of `colour`, the covariance is M Mᵀ = Σ_i (M e_i)(M e_i)ᵀ over all unit vectors e_i,
whatever root M is; some priors have no symmetric one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior

__all__ = ["covariance_inside"]

CHUNK = 1024  # unit vectors coloured at a time


def covariance_inside(field: Prior, mask: Tensor) -> Tensor:
    """Covariance of the points of a mask (*event), (D, D) float64, under a Gaussian that whitens."""
    zero = Batch(torch.zeros(1, *mask.shape, dtype=torch.float64, device=mask.device))
    mean = field.colour(zero.x, zero)
    size, inside = mask.numel(), int(mask.sum())
    total = zero.x.new_zeros(inside, inside)
    for first in range(0, size, CHUNK):
        which = torch.arange(first, min(first + CHUNK, size), device=mask.device)
        unit = zero.x.new_zeros(len(which), size)
        unit[which - first, which] = 1
        like = Batch(unit.reshape(-1, *mask.shape))
        columns = (field.colour(like.x, like) - mean)[:, mask]
        total += columns.T @ columns
    return total
