"""The velocity that would be right for Gaussian data, beside the network: it learns what is not Gaussian.

Where x0 ~ N(0, C) and x1 ~ N(0, s² C) are independent, x_t = α x1 + σ x0 and u_t = α̇ x1 + σ̇ x0 are jointly Gaussian and

    E[u_t | x_t] = c(t) x_t,     c = (α α̇ s² + σ σ̇) / (α² s² + σ²),

whatever C is.  A prior that was fitted to the data has s = 1, in its own metric or in the plain one: then
∫ c dt = ½ log(α² + σ²) is zero from end to end, and the flow of an untrained network (which is zero) is its prior.  A
network that has to find this factor by itself is busy with it for long, for it is by far the largest part.

Where a coupling makes x0 and x1 alike the right factor is smaller, and the network corrects it.
References: Karras et al. 2022 (c_skip of their preconditioning, for white noise).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.paths import Linear, Path
from scifm.symmetries import symmetries_of

__all__ = ["GaussianSkip"]


class GaussianSkip(nn.Module):
    """c(t) x plus another velocity; it has the symmetries of the other, but for translations.

    Args:
        velocity: network, zero when untrained.
        path: of the flow.
        scale: s, spread of the data in units of the prior's.

    Example:
        >>> from scifm.networks import MLP
        >>> x = torch.ones(1, 2)
        >>> GaussianSkip(MLP(2))(torch.zeros(1), x, Batch(x)).tolist()  # at t = 0 it is the mean of x1, less x0
        [[-1.0, -1.0]]
    """

    def __init__(self, velocity: nn.Module, path: Path = Linear(), scale: float = 1.0):
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"GaussianSkip: scale must be positive and finite, got {scale}.")
        self.velocity, self.path, self.scale = velocity, path, float(scale)
        self.symmetries = symmetries_of(velocity) - {"translation"}

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        alpha, sigma, alpha_dot, sigma_dot = self.path.coefficients(t.to(x))
        s = self.scale**2
        c = (alpha * alpha_dot * s + sigma * sigma_dot) / (alpha.square() * s + sigma.square())
        return torch.addcmul(self.velocity(t, x, batch), batch.spread(c), x)
