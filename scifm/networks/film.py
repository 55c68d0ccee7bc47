"""Group norm and what modulates it: h -> h (1 + γ) + β, with γ and β from time and conditions.

Feature-wise linear modulation, FiLM: Perez et al. 2018, arXiv:1709.07871.  Group norm (Wu and He 2018,
arXiv:1803.08494) sees one sample at a time, where batch norm would tie the samples of a batch together.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["film", "group_norm"]


def film(h: Tensor, scale_shift: Tensor) -> Tensor:
    """Features (B, C, *grid) modulated by numbers of the sample, (B, 2C): γ, then β."""
    scale, shift = scale_shift.unflatten(1, (-1, *[1] * (h.ndim - 2))).chunk(2, 1)
    return h * (1 + scale) + shift


def group_norm(width: int) -> nn.GroupNorm:
    """Up to 8 groups of at least 4 channels, so that a group still varies on a 1 x 1 grid."""
    return nn.GroupNorm(math.gcd(width, max(1, min(8, width // 4))), width)
