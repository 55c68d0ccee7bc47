"""Lennard-Jones clusters with springs to their centre: LJ13 and LJ55.

    U(x) = m Σ_{i<j} ε [ (r_m/d_ij)¹² − 2 (r_m/d_ij)⁶ ] + (k/2) Σ_i |x_i − x̄|²,     ε = r_m = k = T = 1

m is how often a pair counts, and the literature has both.  The published samples of Klein, Krämer and Noé (2023),
which DEM (Akhound-Sadegh et al. 2024) ships, are of m = 2: a sum over *ordered* pairs.  bgflow's class and EACF's
energy have m = 1.  Nothing but the virial tells them apart: with the wrong one it is 27 instead of 36 on those files
(`scifm.testing.check_virial`), and all energies, weights and free energies are wrong by half of the pair part.  So
there is no default.

For m = 2, 13 points and D = 36, log Z = 59.89 ± 0.03 (annealed importance sampling).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.bits import Estimate
from scifm.energies.checks import check_positive
from scifm.energies.pairs import PairEnergy

__all__ = ["LennardJones"]

LOG_Z = {(13, 3): Estimate(59.89, 0.03)}  # of the published energy, by points and dimensions, see datasets/lj13
CLOSEST = 1e-4  # (d/r_m)² below which the energy is linear: 1e24 ε, infinite for all purposes, and finite in float32


@dataclass(frozen=True)
class LennardJones(PairEnergy):
    """Lennard-Jones energy of a cluster.

    Nearer than r_m/100 a pair's energy goes on linearly in the squared distance, with the value and the slope that it
    has there, so that it is finite, and its gradient its derivative, where points coincide.

    Args:
        each_pair: how often a pair counts: 2 for the published LJ13 and LJ55, 1 for the textbook and bgflow.
        epsilon: depth of a pair's well.
        r_min: distance at which it is deepest.
        spring: k of the springs to the centre.
        temperature: T in the unit of the energy.

    Example:
        >>> LennardJones(each_pair=2, spring=0.0)(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
        tensor(-2.)
    """

    each_pair: int
    epsilon: float = 1.0
    r_min: float = 1.0
    spring: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.each_pair not in (1, 2):
            raise ValueError(
                f"LennardJones: each_pair must be 2 (published LJ13, LJ55: ordered pairs) or 1, got {self.each_pair}."
            )
        check_positive("LennardJones", epsilon=self.epsilon, r_min=self.r_min, temperature=self.temperature)

    def known_log_z(self, points: int, width: int) -> Estimate | None:
        return LOG_Z.get((points, width)) if self == LennardJones(each_pair=2) else None

    def pair(self, s: Tensor) -> Tensor:
        p = self._inverse(s).pow(3)
        inside = s - CLOSEST * self.r_min**2
        # `where` and not a clamp: at the very place where both meet a clamp's derivative would count twice.
        return self.each_pair * self.epsilon * p * (p - 2) + self.slope(s) * torch.where(inside < 0, inside, 0)

    def slope(self, s: Tensor) -> Tensor:
        inverse = self._inverse(s)
        p = inverse.pow(3)
        return (-6 * self.each_pair * self.epsilon / self.r_min**2) * inverse * p * (p - 1)

    def _inverse(self, s: Tensor) -> Tensor:
        return 1 / (s / self.r_min**2).clamp(min=CLOSEST)
