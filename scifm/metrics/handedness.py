"""Handedness: what a mirror changes and no rotation does.

    χ_i = b_1 · (b_2 × b_3) / |b_1||b_2||b_3|,   b_k = x_(i+k) − x_(i+k−1)

is odd under reflection, so its mean over a set of chains without a preferred hand is zero.  It lies in [−1, 1],
positive for right-handed turns.  A velocity that is equivariant under reflections, with a prior that is symmetric under
them, generates each mirror image as often as the other: the fraction of right-handed helices is then ½; that of natural
proteins, by the bounds below, is 0.98 (the rest are turns of other kinds).

Four consecutive Cα belong to a helix where the torsion is near ±50° and both angles near 91°: an α-helix of 1.5 Å rise
and 100° per residue with radius 2.3 Å has torsion 50°, angle 91°, and 5.0 Å from the first to the fourth (Pauling,
Corey and Branson 1951).  3₁₀ helices (torsion near 70° to 75°) are inside the bounds used here; β-strands (near −170°)
are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.geometry import angles, bond_lengths, runs, torsions, volumes

__all__ = ["Helices", "handedness", "helices"]

ANGLE = (76.0, 106.0)  # degrees, of three consecutive Cα in a helix
TORSION = (25.0, 80.0)  # degrees, without sign, of four


def handedness(batch: Batch) -> Tensor:
    """Mean of χ over the runs of four points of each sample, (B,); NaN where there is none.

    Args:
        batch: chains in three dimensions; see `scifm.geometry.runs` for which rows follow each other.

    Example:
        >>> turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
        >>> handedness(Batch(torch.stack([turn, -turn])))
        tensor([ 1., -1.])
    """
    points, four = batch.points, runs(batch, 4)
    sides = torch.stack([bond_lengths(points.x, four[k : k + 2]) for k in range(3)]).prod(0)
    chi = volumes(points.x, four) / torch.where(sides > 0, sides, 1.0)
    return _sums(points, four[0], chi) / _sums(points, four[0], torch.ones_like(chi))


@dataclass(frozen=True, eq=False)
class Helices:
    """Runs of four points in helices of each hand, by sample.

    Attributes:
        right, left: (B,) how many.
        runs: (B,) runs of four in all.
    """

    right: Tensor
    left: Tensor
    runs: Tensor

    @property
    def content(self) -> float:
        """Share of the runs that are in a helix, of all samples together; NaN without any."""
        return float((self.right + self.left).sum() / self.runs.sum())

    @property
    def right_fraction(self) -> float:
        """Share of the helical runs that are right-handed, of all samples together; NaN without any helix."""
        return float(self.right.sum() / (self.right + self.left).sum())

    @property
    def stderr(self) -> float:
        """Standard error of `right_fraction`, of samples that are independent of each other (runs of one are not)."""
        helical = self.right + self.left
        rest = self.right - self.right_fraction * helical
        n = len(helical)
        if n < 2:
            return math.nan
        return float(rest.square().sum().sqrt() / helical.sum() * math.sqrt(n / (n - 1)))


def helices(batch: Batch) -> Helices:
    """Count the helical runs of four consecutive Cα, right-handed and left-handed.

    Args:
        batch: Cα traces, one row per residue; the unit of x does not matter.

    Example:
        >>> t = torch.arange(10.0)
        >>> alpha = torch.stack([2.3 * torch.cos(1.745 * t), 2.3 * torch.sin(1.745 * t), 1.5 * t], -1)
        >>> helices(Batch(alpha[None])).right_fraction
        1.0
    """
    points, four = batch.points, runs(batch, 4)
    turn = torch.rad2deg(torsions(points.x, four))
    bent = torch.ones_like(turn, dtype=torch.bool)
    for three in (four[:3], four[1:]):
        angle = torch.rad2deg(angles(points.x, three))
        bent = bent & (angle > ANGLE[0]) & (angle < ANGLE[1])
    bent = bent & (turn.abs() > TORSION[0]) & (turn.abs() < TORSION[1])
    right, left, every = (
        _sums(points, four[0], v.double()) for v in (bent & (turn > 0), bent & (turn < 0), torch.ones_like(bent))
    )
    return Helices(right, left, every)


def _sums(points: Batch, rows: Tensor, values: Tensor) -> Tensor:
    """(B,) sums of values that belong to the samples of some rows."""
    owner = points.spread(torch.arange(len(points), device=rows.device)).reshape(-1)[rows]
    return values.new_zeros(len(points)).index_add(0, owner, values)
