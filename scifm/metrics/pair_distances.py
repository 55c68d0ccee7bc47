"""Pair-distance functions: how often two points of a sample are r apart.

    p(r) dr = share of the pairs i < j with r ≤ |x_i − x_j| < r + dr            density of pair distances
    g(r) = pairs in the shell [r, r + dr) / (½ n (n − 1) · v(r) / V)           radial distribution function

v(r) is the volume of the shell and V that of the periodic box, so g = 1 for points that are independent and uniform in
it, and g → 1 at large r in a liquid.  A cluster without a box has no V and no g; its p(r) is what the literature on
Lennard-Jones clusters shows.  Both are means over samples of each sample's own function; standard errors are those of
the mean over samples, since the pairs of one sample depend on each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.blocks import blocks
from scifm.geometry import Box, distances

__all__ = ["PairDensity", "pair_density", "pair_distances", "radial_distribution"]

PAIRS = 400_000  # distances held at once; that they stay in a CPU's cache is worth some


@dataclass(frozen=True, eq=False)
class PairDensity:
    """A function of the distance.

    Attributes:
        r: (k,) middles of the bins.
        value: (k,) p(r) in 1/unit, or g(r).
        stderr: (k,) standard error of the mean over samples; NaN with fewer than two.
    """

    r: Tensor
    value: Tensor
    stderr: Tensor


def pair_distances(batch: Batch, box: Box | None = None) -> Tensor:
    """Distances of all pairs of points of the same sample, each pair once, (m,), samples of one size together.

    Example:
        >>> pair_distances(Batch(torch.tensor([[[0.0], [1.0], [3.0]]])))
        tensor([1., 3., 2.])
    """
    found = []
    points = batch.points
    for block in blocks(points):
        upper = block.pairs.triu(1)
        here = None if box is None else box.take(block.samples)
        found.append(distances(block.pad(points.x), box=here)[upper])
    return torch.cat(found)


def pair_density(batch: Batch, edges: Tensor, box: Box | None = None) -> PairDensity:
    """p(r) on bins: the mean over samples of at least two points of the share of pairs per unit of r.

    Integrates to the share of pairs that lie within the bins.

    Args:
        edges: (k + 1,) of the bins, increasing, in the unit of x.

    Raises:
        ValueError: for edges that do not increase.
    """
    share = _shares(batch, edges, box)
    return _mean(edges, share / edges.to(share).diff())


def radial_distribution(batch: Batch, edges: Tensor, box: Box) -> PairDensity:
    """g(r) in a periodic box.

    Args:
        edges: (k + 1,) of the bins, from 0 or above up to at most `box.inradius`.

    Raises:
        ValueError: for edges beyond the box, where shells leave it.
    """
    if float(edges[-1]) > float(box.inradius.min()) * (1 + 1e-6):
        raise ValueError(
            f"radial_distribution: bins end at {float(edges[-1]):g}, beyond half the shortest lattice vector, "
            f"{float(box.inradius.min()):g}: shells would leave the box."
        )
    share = _shares(batch, edges, box)
    d = batch.points.x.shape[-1]
    ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1) * edges.to(share) ** d
    volume = box.volume.to(share)
    kept = volume if volume.ndim == 0 else volume[batch.points.counts > 1][:, None]
    return _mean(edges, share * kept / ball.diff())


def _shares(batch: Batch, edges: Tensor, box: Box | None) -> Tensor:
    """(samples of two points or more, k) share of the pairs in each bin."""
    if edges.ndim != 1 or len(edges) < 2 or not bool((edges.diff() > 0).all()):
        raise ValueError(f"pair_density: expected increasing edges (k + 1,), got {tuple(edges.shape)}.")
    points, k = batch.points, len(edges) - 1
    edges = edges.to(points.x)
    count = torch.zeros(len(points), k + 2, dtype=torch.float64, device=points.x.device)
    for block in blocks(points):
        x, n = block.pad(points.x.detach()), block.mask.shape[1]
        few, rows = max(1, PAIRS // max(1, n * n)), max(1, PAIRS // max(1, n))
        for first in range(0, len(x), few):
            some = slice(first, first + few)
            here = None if box is None else box.take(block.samples[some])
            for top in range(0, n, rows):
                found = _counts(x[some], block.mask[some], slice(top, top + rows), edges, here)
                count[block.samples[some]] += found
    n = points.counts
    pairs = (n * (n - 1) / 2)[n > 1].to(count)
    return count[n > 1][:, 1:-1] / pairs[:, None]


def _counts(x: Tensor, mask: Tensor, rows: slice, edges: Tensor, box: Box | None) -> Tensor:
    """(b, k + 2) pairs of some rows with later ones in each bin, and below and above all bins."""
    width = len(edges) + 1
    number = torch.bucketize(distances(x[:, rows], x, box=box), edges, right=True)
    place = number + width * torch.arange(len(x), device=x.device)[:, None, None]
    order = torch.arange(x.shape[1], device=x.device)
    later = mask[:, rows, None] & mask[:, None, :] & (order > order[rows, None])
    found = torch.bincount(place[later], minlength=width * len(x))
    return found.reshape(len(x), width).double()


def _mean(edges: Tensor, values: Tensor) -> PairDensity:
    edges = edges.to(values)
    error = values.std(0) / math.sqrt(max(len(values), 1)) if len(values) > 1 else torch.full_like(edges[1:], torch.nan)
    return PairDensity((edges[1:] + edges[:-1]) / 2, values.mean(0), error)
