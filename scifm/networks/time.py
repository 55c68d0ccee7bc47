"""Sinusoidal features of time.

A network that is given t as one number among many learns slowly how the velocity changes along the path.  We give
it waves instead, [sin ω_k t, cos ω_k t] with frequencies spaced geometrically (Vaswani et al. 2017, arXiv:1706.03762
section 3.5).  The highest frequency is kept low, 64 rad per unit time rather than the usual 1000, because every
wiggle of the velocity in t costs an adaptive solver steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SinusoidalTime"]


class SinusoidalTime(nn.Module):
    """Times (n,) -> features (n, width): sines, then cosines.

    Args:
        width: number of features, even and at least 4.
        fastest: highest angular frequency, rad per unit time; the lowest is 1.
    """

    def __init__(self, width: int = 64, fastest: float = 64.0):
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"SinusoidalTime: width must be even and at least 4, got {width}.")
        if not 1.0 < fastest < math.inf:
            raise ValueError(f"SinusoidalTime: fastest must be a finite frequency above 1, got {fastest}.")
        self.width = width
        self.frequencies: Tensor
        frequencies = torch.logspace(0.0, math.log10(fastest), width // 2, dtype=torch.float64)
        # float32 would do for training, but the buffer follows `.double()` from what it holds, so it starts exact
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        phase = t[:, None] * self.frequencies.to(t)
        return torch.cat([phase.sin(), phase.cos()], 1)
