"""The covariance matrix of a Gaussian prior on some points of a grid: the marginal law of the others integrated out."""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior

__all__ = ["covariance_inside"]


def covariance_inside(field: Prior, mask: Tensor) -> Tensor:
    """Covariance of the points of a mask, (D, D) float64, under a Gaussian that whitens."""
    # Colouring unit vectors gives the rows of a square root of the covariance.
    where = mask.flatten().nonzero()[:, 0]
    unit = torch.zeros(len(where), mask.numel(), dtype=torch.float64, device=mask.device)
    unit[torch.arange(len(where)), where] = 1
    like = Batch(unit.reshape(-1, *mask.shape))
    zero = Batch(torch.zeros_like(like.x[:1]))
    root = (field.colour(like.x, like) - field.colour(zero.x, zero)).flatten(1)
    return root @ root.T
