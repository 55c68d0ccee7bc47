"""Points on springs to their common centre: the cluster whose every number is known.

    U(x) = (k/2) Σ_i |x_i − x̄|² = (k/2n) Σ_{i<j} |x_i − x_j|²

On centred sets it is a Gaussian of D = (n − 1) d dimensions:

    log Z = (D/2) log(2πT/k),     E[U] = D T/2,     Var[U] = D T²/2,     S = D/2 (1 + log(2πT/k)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.bits import Estimate
from scifm.energies.checks import check_positive
from scifm.energies.pairs import PairEnergy

__all__ = ["HarmonicCluster"]


@dataclass(frozen=True)
class HarmonicCluster(PairEnergy):
    """Springs of strength k to the centre, nothing else.

    Args:
        spring: k, energy per squared length.
        temperature: T in the unit of the energy.

    Example:
        >>> HarmonicCluster(2.0).log_z(Batch(torch.zeros(1, 3, 2)))  # 4 dimensions
        tensor([2.2895])
    """

    spring: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("HarmonicCluster", spring=self.spring, temperature=self.temperature)

    def pair(self, s: Tensor) -> Tensor:
        return torch.zeros_like(s)

    def slope(self, s: Tensor) -> Tensor:
        return torch.zeros_like(s)

    @property
    def std(self) -> float:
        """σ of a coordinate on the subspace: that of `priors.MeanFreeGaussian`, which is this law."""
        return math.sqrt(self.temperature / self.spring)

    def known_log_z(self, points: int, width: int) -> Estimate:
        return Estimate((points - 1) * width * math.log(2 * math.pi * self.std**2) / 2, 0.0)

    def log_z(self, like: Batch) -> Tensor:
        """log Z of each sample on its subspace, (B,)."""
        return self.dims(like) * math.log(2 * math.pi * self.std**2) / 2
