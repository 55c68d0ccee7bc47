"""Smooth features of a distance, for networks that see points only through their distances.

    f_k(d) = cos(π k u),    u = d / (d + a),    k = 0 … K − 1

The map d -> u takes all distances to [0, 1), with half of it spent below the scale a, where forces change fastest.
d is √(|x|² + (εa)²), smooth where two points meet.  A squared distance alone, as in the first E(n) networks, is stiff
at a distance and flat nearby.

A cutoff c ends what two points know of each other with two continuous derivatives:

    s(d) = 1 − 10 r³ + 15 r⁴ − 6 r⁵,    r = min(d / c, 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Radial", "radial_of"]


class Radial(nn.Module):
    """Squared distances (...) -> features (..., count) and distances (..., 1).

    Args:
        count: K features.
        scale: a, a distance in model units that matters, such as that of neighbours.
        cutoff: c, beyond which `envelope` is zero; None for no end.
    """

    def __init__(self, count: int = 16, scale: float = 1.0, cutoff: float | None = None):
        super().__init__()
        if count < 1 or not 0 < scale < math.inf:
            raise ValueError(f"Radial: count must be at least 1 and scale positive, got {count} and {scale}.")
        if cutoff is not None and not 0 < cutoff < math.inf:
            raise ValueError(f"Radial: cutoff must be a positive distance, or None for all pairs, got {cutoff}.")
        self.scale, self.cutoff = float(scale), cutoff
        self.k: Tensor
        self.register_buffer("k", math.pi * torch.arange(count, dtype=torch.float64), persistent=False)

    def forward(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        d = (squared + (1e-3 * self.scale) ** 2).sqrt()[..., None]
        return (d / (d + self.scale) * self.k.to(d)).cos(), d

    def envelope(self, d: Tensor) -> Tensor:
        """s(d), shaped like d; ones without a cutoff."""
        if self.cutoff is None:
            return torch.ones_like(d)
        r = (d / self.cutoff).clamp(max=1)
        return 1 - r**3 * (10 - r * (15 - 6 * r))


def radial_of(scale: float | Radial) -> Radial:
    """The features that an argument `scale` means: a distance, or a `Radial` with more to say."""
    return scale if isinstance(scale, Radial) else Radial(16, scale)
