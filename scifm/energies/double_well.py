"""The double well of pairs, DW4 when it acts on four points in the plane.

    U(x) = Σ_{i<j} [ a (d_ij − d₀) + b (d_ij − d₀)² + c (d_ij − d₀)⁴ ],   a = 0, b = −4, c = 0.9, d₀ = 4

Each pair counts once.  With T = 1 the two wells of a pair lie at d₀ ± 1.49, ΔU = 4.4 below the barrier between them.
On the 6 dimensions of four centred points log Z = 29.66 (annealed importance sampling).
References: Köhler, Klein and Noé 2020; Klein, Krämer and Noé 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scifm.bits import Estimate
from scifm.energies.checks import check_positive
from scifm.energies.pairs import PairEnergy

__all__ = ["DoubleWell"]

LOG_Z = {(4, 2): Estimate(29.66, 0.01)}  # of the default energy, by points and dimensions, see datasets/dw4
CLOSEST = 1e-24  # squared distance below which a pair pulls along no direction


@dataclass(frozen=True)
class DoubleWell(PairEnergy):
    """DW4's energy, for any number of points in any dimension.

    Args:
        a, b, c: coefficients of the first, second and fourth power, energy per length to that power.
        d0: distance of the barrier.
        temperature: T in the unit of the energy.

    Example:
        >>> DoubleWell()(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))  # one pair, on the barrier
        tensor(0.)
    """

    a: float = 0.0
    b: float = -4.0
    c: float = 0.9
    d0: float = 4.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("DoubleWell", c=self.c, temperature=self.temperature)

    def known_log_z(self, points: int, width: int) -> Estimate | None:
        return LOG_Z.get((points, width)) if self == DoubleWell() else None

    def pair(self, s: Tensor) -> Tensor:
        r = s.clamp(min=CLOSEST).sqrt() - self.d0
        return r * (self.a + r * (self.b + self.c * r.square()))

    def slope(self, s: Tensor) -> Tensor:
        d = s.clamp(min=CLOSEST).sqrt()
        r = d - self.d0
        return (self.a + r * (2 * self.b + 4 * self.c * r.square())) / (2 * d)
