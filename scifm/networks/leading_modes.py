"""The large motions of one molecule, for ensembles of few conformations.

A fold that turns as a whole is far from Gaussian in three modes of its covariance and almost Gaussian in all others: in
each pose the same three vectors c_k, turned.  Whatever is equivariant under rotations, as a function of vectors
c_1 … c_m, is a combination of them with coefficients that depend on their inner products and triple products (Weyl
1939; Villar et al. 2021, arXiv:2106.06610):

    v_k = Σ_j W_kj c_j + Σ_ij A_kij c_i × c_j,     W, A from (t, ⟨c_i, c_j⟩, ⟨c_1, c_2 × c_3⟩)

The c_k are the coefficients of the m modes of the largest variance of a `FullPoints` prior, i and j below 4 in the
second sum, and W and A come from a small network.  All other modes are left to the prior: no velocity, no
overfitting, where a network on all points of a hundred conformations learns their noise.  It works on whitened
coordinates: for flows that learn in the metric of their prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.networks.checks import check_sizes, check_times
from scifm.networks.time import SinusoidalTime
from scifm.priors.full_points import FullPoints
from scifm.priors.modes import ModeBlock

__all__ = ["LeadingModes"]

FRAME = 3  # vectors that span space


class LeadingModes(nn.Module):
    """Velocity of the leading modes of numbered points in space, equivariant under rotations.

    Args:
        prior: of the flow, whose metric it must learn in, Objective(metric="prior").
        modes: m, at least 3 and fewer than the points; the others do not move.
        width: of the network behind the coefficients.
        chiral: tell left from right, as proteins do; else mirror images get mirrored velocities.

    Shapes: t (B,), x (N, 3) ragged or (B, n, 3) dense -> like x.

    Raises:
        TypeError: for a prior of another kind.
        ValueError: for sizes that are out of range, or points that are not in space.

    Example:
        >>> from scifm import priors
        >>> prior, x = priors.FullPoints(5, torch.eye(5)), torch.randn(2, 5, 3)
        >>> LeadingModes(prior, modes=3)(torch.rand(2), x - x.mean(1, keepdim=True), Batch(x)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(self, prior: FullPoints, modes: int = 6, width: int = 64, chiral: bool = True):
        super().__init__()
        if not isinstance(prior, FullPoints):
            raise TypeError(f"LeadingModes: expected a FullPoints prior, whose modes are known, got {prior!r}.")
        self.count, width = check_sizes("LeadingModes", "modes and width", (modes, width))
        if not FRAME <= self.count < prior.points:
            raise ValueError(
                f"LeadingModes: modes must be at least {FRAME}, a frame in space, and fewer than the prior's "
                f"{prior.points} points, got {modes}."
            )
        self.prior, self.chiral = prior, bool(chiral)
        self.symmetries = frozenset({"translation", "rotation"}) | (frozenset() if chiral else {"reflection"})
        self.embed = SinusoidalTime(32)
        known = self.count * (self.count + 1) // 2 + self.chiral
        self.enter = nn.Linear(known + 32, width)
        self.inner = nn.Linear(width, width)
        self.head = nn.Linear(width, self.count * (self.count + (FRAME if chiral else 0)))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points = batch.replace(x).points
        if points.event != (3,):
            raise ValueError(f"LeadingModes: made for points of 3 coordinates, got points of shape {points.event}.")
        check_times("LeadingModes", t, len(batch))
        modes, waves = self.prior.modes(points), self.embed(t.to(x))
        moved = [self._block(part, points.x, part.block.take(waves)) for part in modes]
        return modes.blocks.rows(moved).reshape(x.shape)

    def _block(self, part: ModeBlock, rows: Tensor, waves: Tensor) -> Tensor:
        c = part.analyse(rows)
        n = c.shape[1]
        if n <= self.count:  # no samples
            return c
        v = self._velocity(c[:, -self.count :].flip(1), waves)  # variances of FullPoints increase
        return part.synthesise(nn.functional.pad(v.flip(1), (0, 0, n - self.count, 0)))

    def _velocity(self, c: Tensor, waves: Tensor) -> Tensor:
        """Coefficients (b, m, 3) and features of time -> velocities (b, m, 3)."""
        gram = (c @ c.mT).asinh()  # plain, the velocity would be cubic in c and reach infinity in finite time
        i, j = torch.triu_indices(self.count, self.count, device=c.device)
        vectors, known = c, [gram[:, i, j], waves]
        if self.chiral:
            axial = torch.linalg.cross(c[:, :FRAME], c[:, [1, 2, 0]], dim=2)
            known.append((axial[:, 0] * c[:, 2]).sum(1, keepdim=True).asinh())
            axial = axial / (1 + c[:, :FRAME].square().sum(2, keepdim=True)).sqrt()
            vectors = torch.cat([c, axial], 1)
        h = nn.functional.silu(self.enter(torch.cat(known, 1)))
        weight = self.head(nn.functional.silu(self.inner(h)))
        return weight.unflatten(1, (self.count, -1)) @ vectors
