"""Brownian bridges between prior and data: x_t = t x1 + (1 − t) x0 + s √(t (1 − t)) ε.

With pairs from entropic transport of regularisation 2 s², `couplings.Sinkhorn(2 * s**2, absolute=True)`, these bridges
have the marginals of the Schrödinger bridge of a Brownian motion of scale s (Tong et al. 2024), and the velocity learnt
is that of its probability flow.

Given the pair, the velocity is x1 − x0 + γ̇ ε with γ̇ = s (1 − 2t) / (2 √(t (1 − t))): its variance is infinite at both
ends, and so is the mean of that over [0, 1], though E[u_t | x_t] is finite.  So the loss is weighted by 4 t (1 − t),
which makes it finite and changes nothing of what minimises it at each time.  γ̇ is held at its value `CLIP` away from
either end.

A velocity of this path does not tell where the noise is (x0, x1 and ε are three unknowns): there are no conversions.

References: De Bortoli et al. 2021; Tong et al. 2024 (simulation-free score and flow matching); Shi et al. 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from scifm.paths.base import Path

__all__ = ["Bridge"]

CLIP = 1e-4


@dataclass(frozen=True)
class Bridge(Path):
    """Brownian bridges of scale s between the pairs.

    Args:
        scale: s, in the coordinates of the flow's metric; positive.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"Bridge: scale must be positive and finite, got {self.scale}; 0 is paths.Linear().")

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        one = t.new_ones(t.shape)
        return t, 1 - t, one, -one

    def noise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        variance = t * (1 - t)
        slope = (1 - 2 * t) / (2 * variance.clamp(min=CLIP * (1 - CLIP)).sqrt())
        return self.scale * variance.clamp(min=0).sqrt(), self.scale * slope

    def weight(self, t: Tensor) -> Tensor:
        return 4 * t * (1 - t)
