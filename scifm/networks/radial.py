"""Smooth features of a distance, for networks that see points only through their distances.

    f_k(d) = cos(π k u),    u = d / (d + a),    k = 0 … K − 1

The map d -> u takes all distances to [0, 1), with half of it spent below the scale a, where forces change fastest.
d is √(|x|² + (εa)²), smooth where two points meet.  A squared distance alone, as in the first E(n) networks, is stiff
at a distance and flat nearby.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Radial"]


class Radial(nn.Module):
    """Squared distances (...) -> features (..., count) and distances (..., 1).

    Args:
        count: K features.
        scale: a, a distance in model units that matters, such as that of neighbours.
    """

    def __init__(self, count: int = 16, scale: float = 1.0):
        super().__init__()
        if count < 1 or not 0 < scale < math.inf:
            raise ValueError(f"Radial: count must be at least 1 and scale positive, got {count} and {scale}.")
        self.scale = float(scale)
        self.k: Tensor
        self.register_buffer("k", math.pi * torch.arange(count, dtype=torch.float64), persistent=False)

    def forward(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        d = (squared + (1e-3 * self.scale) ** 2).sqrt()[..., None]
        return (d / (d + self.scale) * self.k.to(d)).cos(), d
