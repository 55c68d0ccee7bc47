"""Chains of points, such as Cα traces of proteins: neighbour distances, size, clashes.

    Rg² = Σ_i m_i |x_i − c|² / Σ_i m_i,   c = Σ m_i x_i / Σ m_i,          Rg ≈ R_0 n^ν

Of a straight chain with spacing a, Rg² = a² (n² − 1)/12, so ν → 1; of an ideal chain ν = ½ (Flory 1953); of a ball of
constant density ν = ⅓, and globular proteins lie between ⅓ and 0.4 if they are single domains.  Two Cα that follow each
other are 3.80 Å apart where the peptide bond is trans, and about 2.95 Å where it is cis; others are hardly ever nearer
than 3.6 Å.  Which rows follow each other is told by `scifm.geometry.runs`: no number here reaches across a gap.

All take a `Batch`: ragged sets, or dense events (n, d); arrays are `Batch(x)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.blocks import Block, blocks
from scifm.geometry import Box, bond_lengths, runs, squared_distances

__all__ = ["PowerLaw", "clashes", "neighbour_distances", "radius_of_gyration", "size_scaling"]


def neighbour_distances(batch: Batch) -> Tensor:
    """Distances of points that follow each other in a chain, (m,), in the order of the rows.

    Example:
        >>> neighbour_distances(Batch(torch.tensor([[[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]])))
        tensor([5., 1.])
    """
    return bond_lengths(batch.points.x, runs(batch, 2))


def radius_of_gyration(batch: Batch, mass: Tensor | None = None) -> Tensor:
    """Rg of each sample, (B,) in the unit of x; 0 for a single point, NaN for an empty sample.

    Args:
        mass: (N,) of each row of `batch.points`; all equal if None.

    Example:
        >>> radius_of_gyration(Batch(torch.tensor([[[-1.0, 0.0], [1.0, 0.0]]])))
        tensor([1.])
    """
    points = batch.points
    m = torch.ones_like(points.x[:, 0]) if mass is None else mass.to(points.x)
    total = points.total(m)
    square = torch.zeros_like(total)
    for x in points.x.unbind(-1):
        centre = points.total(m * x) / total
        square = square + points.total(m * (x - points.spread(centre).reshape(-1)).square())
    return (square / total).sqrt()


@dataclass(frozen=True)
class PowerLaw:
    """y ≈ prefactor · n^exponent, with standard errors."""

    prefactor: float
    exponent: float
    prefactor_stderr: float
    exponent_stderr: float

    def __str__(self) -> str:
        return f"{self.prefactor:.3g}(±{self.prefactor_stderr:.1g}) n^{self.exponent:.3f}(±{self.exponent_stderr:.1g})"


def size_scaling(counts: Tensor, size: Tensor) -> PowerLaw:
    """Fit of log size against log n by least squares; how a size such as Rg grows with length.

    Standard errors are of the fit with independent samples and residuals of one variance; samples that are families of
    one another make them too small.

    Args:
        counts: (B,) points of each sample.
        size: (B,) such as `radius_of_gyration`. Samples whose size is not positive are left out.

    Raises:
        ValueError: with fewer than three samples left, or all of one length.
    """
    keep = (size > 0) & (counts > 0)
    n, y = counts[keep].double().log(), size[keep].double().log()
    if len(n) < 3 or not bool(n.std() > 0):
        raise ValueError(f"size_scaling: expected at least three samples of different lengths, got {len(n)}.")
    middle = n - n.mean()
    spread = middle.square().sum()
    slope = (middle * y).sum() / spread
    rest = y - y.mean() - slope * middle
    variance = rest.square().sum() / (len(n) - 2)
    level = y.mean() - slope * n.mean()
    level_error = (variance * (1 / len(n) + n.mean().square() / spread)).sqrt()
    r0 = level.exp()
    return PowerLaw(float(r0), float(slope), float(r0 * level_error), float((variance / spread).sqrt()))


def clashes(batch: Batch, cutoff: float, apart: int = 2, box: Box | None = None) -> Tensor:
    """Pairs of points nearer than a cutoff in each sample, (B,) int64.

    Args:
        cutoff: in the unit of x. 3.4 Å for Cα; 0.63 of the sum of van der Waals radii is usual for atoms.
        apart: pairs fewer than `apart` positions apart in one chain do not count; 2 leaves out neighbours, 1 nothing.
        box: of periodic sets.

    Raises:
        ValueError: for a cutoff that is not positive or apart < 1.

    Example:
        >>> clashes(Batch(torch.tensor([[[0.0], [1.0], [2.0], [0.5]]])), cutoff=0.8)
        tensor([2])
    """
    if not 0 < cutoff < float("inf") or apart < 1:
        raise ValueError(f"clashes: expected a positive cutoff and apart >= 1, got {cutoff} and {apart}.")
    points = batch.points
    rows = torch.arange(len(points.x), device=points.x.device)
    position, chain = points.nodes.get("position", rows), points.nodes.get("chain", torch.zeros_like(rows))
    found = torch.zeros(len(points), dtype=torch.long, device=points.x.device)
    for block in blocks(points):
        x, place, strand = (block.pad(v) for v in (points.x, position, chain))
        near = _near(block, x, cutoff, None if box is None else box.take(block.samples))
        close = (place[:, :, None] - place[:, None]).abs() < apart
        near = near & ~(close & (strand[:, :, None] == strand[:, None]))
        found[block.samples] = near.sum((1, 2)) // 2
    return found


def _near(block: Block, x: Tensor, cutoff: float, box: Box | None) -> Tensor:
    return block.pairs & (squared_distances(x.detach(), box=box) < cutoff**2)
