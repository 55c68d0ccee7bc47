"""A full covariance between the points of one numbered set: the strongest Gaussian that is invariant under rotations.

    x = K^½ ε,     log p(x) = −½ Σ_a x_aᵀ K⁺ x_a − (d/2) log det' 2πK,      K (n, n),  K 1 = 0,

with x_a the a-th coordinate of all points, K⁺ the inverse and det' the determinant on the n − 1 directions that are
left when the centre is fixed.  No invariant Gaussian has a mean, nor couples coordinates, so K is all there is: n(n −
1)/2 numbers for conformations of one molecule.  The most likely K is the mean of x xᵀ/d, which does not depend on how
the conformations are turned.  Few samples make it singular or overconfident, so it is shrunk towards a simpler law,

    K = (1 − a) K̂ + a K_target,

with a chosen on a held-out block of the data.  Reference: Ledoit and Wolf 2004.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.blocks import blocks
from scifm.priors.base import Prior
from scifm.priors.modes import ModeBlock, Modes
from scifm.priors.points import SpectralPoints
from scifm.priors.variances import Harmonic

__all__ = ["FullPoints"]


class FullPoints(SpectralPoints):
    """Centred sets of `points` numbered points with any covariance between them; ragged rows (d,) or dense (n, d).

    Args:
        points: n, at least 2.
        covariance: K (n, n) per coordinate, of which the centred part P K P counts; None means "to be fitted".
        target: rotation-invariant prior whose covariance `fit` shrinks to, such as `SpectralChain()`, and which it
            fits on the way; white noise when None.  It sees batches of the data's layout, with their bonds.
        shrink: weights a to choose from by held-out likelihood.

    Example:
        >>> x = FullPoints(3, torch.eye(3)).sample(Batch(torch.zeros(100, 3, 3)), torch.Generator().manual_seed(0))
        >>> FullPoints(3).fit(Batch(x)).dims(Batch(x))[0]
        tensor(6.)
    """

    def __init__(
        self,
        points: int,
        covariance: Tensor | None = None,
        target: Prior | None = None,
        shrink: Sequence[float] = (0.002, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0),
    ):
        super().__init__(Harmonic())  # 1/λ is the variance along an eigenvector
        if points < 2:
            raise ValueError(f"FullPoints: points must be at least 2, got {points}.")
        if any(not 0 < a <= 1 for a in shrink) or not shrink:
            raise ValueError(f"FullPoints: shrink must hold numbers in (0, 1], got {list(shrink)}.")
        self.points, self.target, self.shrink = int(points), target, tuple(shrink)
        self.vectors: Tensor
        self.inverse: Tensor  # 1 / variance of each eigenvector; the centre comes first
        self.register_buffer("vectors", torch.full((points, points), torch.nan, dtype=torch.float64))
        self.register_buffer("inverse", torch.full((points,), torch.nan, dtype=torch.float64))
        self.chosen: float | None = None
        if covariance is not None:
            if covariance.shape != (points, points) or not torch.allclose(covariance, covariance.mT):
                raise ValueError(
                    f"FullPoints: covariance must be a symmetric ({points}, {points}), got {tuple(covariance.shape)}."
                )
            self._set(covariance.double())

    def modes(self, points: Batch) -> Modes:
        if self.inverse[0].isnan():
            raise ValueError("FullPoints: no covariance yet; call .fit(batch) or give covariance=.")
        parts = []
        for block in blocks(points):
            n = block.mask.shape[1]
            if len(block.samples) and (n != self.points or not block.full):
                raise ValueError(f"FullPoints: made for sets of {self.points} points, got sets of {_sizes(points)}.")
            free = (torch.arange(n, device=block.mask.device) > 0).expand_as(block.mask)
            vectors = self.vectors.to(points.x)[:n, :n]  # n is 0 or 1 where there are no samples
            parts.append(ModeBlock(block, vectors, self.inverse.to(vectors.device)[:n].expand(free.shape), free))
        return Modes(blocks(points), tuple(parts))

    def fit(self, batch: Batch) -> FullPoints:
        """The covariance of `batch`, shrunk; how much is decided on its last fifth, held out as a block."""
        batch = batch.to(torch.float64)
        number = torch.arange(len(batch), device=batch.x.device)
        if len(batch) < 5 or not bool((batch.points.counts == self.points).all()):
            raise ValueError(
                f"FullPoints.fit: expected at least 5 sets of {self.points} points, got {len(batch)} of "
                f"{_sizes(batch.points)}."
            )
        cut = len(batch) - max(1, len(batch) // 5)
        head, tail = batch.select(number[:cut]), batch.select(number[cut:])
        scores, parts = {}, self._parts(head)
        for a in self.shrink:
            self._set((1 - a) * parts[0] + a * parts[1])
            scores[a] = float(self.log_prob(tail.x, tail).sum())
        a = self.chosen = max(scores, key=lambda a: scores[a])
        parts = self._parts(batch)
        self._set((1 - a) * parts[0] + a * parts[1])
        return self

    def _parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Empirical covariance (n, n) per coordinate, and what it is shrunk to."""
        x = self._inside(batch.x, batch).reshape(len(batch), self.points, -1)
        if not x.isfinite().all() or not x.square().sum() > 0:
            raise ValueError("FullPoints.fit: expected finite sets of points that differ.")
        own = torch.einsum("bid,bjd->ij", x, x) / (x.shape[0] * x.shape[2])
        if self.target is None:
            return own, own.diagonal().sum() / (self.points - 1) * torch.eye(self.points).to(own)
        self.target.fit(batch)
        # Coloured unit vectors of the points are the rows of a root of the target's covariance.
        wide = batch.select(torch.zeros(self.points, dtype=torch.long, device=x.device))
        unit = torch.zeros(self.points, self.points, x.shape[2]).to(x)
        unit[:, :, 0] = torch.eye(self.points).to(x)
        root = self.target.colour(unit.reshape(wide.x.shape), wide).reshape(unit.shape)[:, :, 0]
        return own, root.mT @ root

    def _set(self, covariance: Tensor) -> None:
        centring = torch.eye(self.points).to(covariance) - 1 / self.points
        inner = centring @ covariance @ centring
        # The centre is moved to the one negative eigenvalue, so that it comes first and mixes with nothing.
        variance, vectors = torch.linalg.eigh(inner - inner.diagonal().mean() / self.points)
        if not (variance[1:] > variance[-1] * 1e-12).all():
            raise ValueError(
                "FullPoints: the covariance is singular on centred sets; more samples or more shrinkage cure this."
            )
        variance[0] = 1.0
        self.vectors, self.inverse = vectors.contiguous().to(self.theta), (1 / variance).to(self.theta)


def _sizes(points: Batch) -> str:
    found = points.counts.unique().tolist()
    return ", ".join(map(str, found[:4])) + (", ..." if len(found) > 4 else "") + " points"
