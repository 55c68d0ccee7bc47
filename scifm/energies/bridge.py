"""From a law that can be drawn to the one that is wanted, along a number β.

    U_β(x) = β U(x)/T + (1 − β) |x|²/2σ²,     β from 0, a Gaussian of width σ, to 1
    U_β(x) = β U(x)/T                         for σ = ∞: the same system at temperature T/β

The Gaussian lives where the energy's law does: on centred sets where translations change nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm.energies.base import Energy
from scifm.energies.checks import check_positive

__all__ = ["Bridge"]


class Bridge(Energy):
    """The energy in between.

    Args:
        energy: at β = 1.
        beta: one number, or one per set, (...), that broadcasts against them.
        std: σ of the Gaussian at β = 0, or infinity.

    Raises:
        ValueError: for a std that is not positive.

    Example:
        >>> from scifm.energies import HarmonicCluster
        >>> Bridge(HarmonicCluster(), 0.5, std=math.inf)(torch.tensor([[-1.0], [1.0]]))
        tensor(0.5000)
    """

    def __init__(self, energy: Energy, beta: Tensor | float, std: float = math.inf):
        if std != math.inf:
            check_positive("Bridge", std=std)
        self.energy, self.beta, self.std = energy, torch.as_tensor(beta), std
        self.symmetries = energy.symmetries

    def potential(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        beta = self.beta.to(x)
        value = beta * self.energy(x, mask)
        return value if self.std == math.inf else value + (1 - beta) * self.base(x)

    def gradient(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        beta = self.beta.to(x)[..., None, None]
        value = beta * self.energy.gradient(x, mask)
        return value if self.std == math.inf else value + (1 - beta) * x.detach() / self.std**2

    def base(self, x: Tensor) -> Tensor:
        """|x|²/2σ², (...), which is zero for padding."""
        return x.square().sum((-2, -1)) / (2 * self.std**2)
