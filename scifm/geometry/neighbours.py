"""Neighbours of points without compiled extensions: the k nearest, and all within a radius.

Two forms.  Padded: (..., n, K) numbers of the neighbours of each point beside a mask, for networks that gather.  Edges:
(2, E) row numbers of a batch, [neighbour, centre] as in PyG's `source_to_target`, for networks that scatter; no point
is its own neighbour, and edges are sorted by centre, then by neighbour.

Up to a few hundred points all pairs are the fastest there is; they are taken a slab of centres at a time, so memory
stays bounded.  Larger sets on a CPU go through scipy's k-d tree (float64), which knows right-angled boxes; skewed boxes
and other devices stay with slabs.  Ties are broken by the lower number.  Rounding may decide otherwise for a distance
that *is* the radius, or for equal distances that differ in their last digit.

In a periodic box each neighbour counts once, as its nearest image.  A radius up to half the shortest lattice vector has
no second image in reach; a larger one is refused, since edges would be lost.

Graphs are made of numbers, and no gradient passes through the choice: recompute distances from x along them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.blocks import blocks
from scifm.geometry.box import Box
from scifm.geometry.distances import pair_mask, squared_distances

__all__ = ["nearest", "nearest_graph", "radius_graph", "within"]

DENSE = 256  # points of a set from which a tree is faster than all pairs, on a CPU
PAIRS = 4_000_000  # distances held at once


# -- padded ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def nearest(x: Tensor, k: int, mask: Tensor | None = None, box: Box | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest other points of each, nearest first.

    Args:
        x: (..., n, d).
        k: at least 1. Where a set has fewer others, the rest is masked.
        mask: (..., n) whether there is a point.

    Returns:
        numbers (..., n, k), a point's own number where there is no neighbour, so that a gather is safe; and whether
        there is one (..., n, k).

    Example:
        >>> nearest(torch.tensor([[0.0], [1.0], [3.0]]), 1)[0].tolist()
        [[1], [0], [1]]
    """
    _positive("nearest", k=k)
    square = _squares(x, mask, box)
    order = square.sort(dim=-1, stable=True).indices[..., :k]
    found = square.gather(-1, order).isfinite()
    return _padded(order, found, k)


@torch.no_grad()
def within(
    x: Tensor, radius: float, mask: Tensor | None = None, box: Box | None = None, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """All other points within a radius of each, nearest first.

    Args:
        most: neighbours kept, the nearest ones; as many as any point has if None, which reads a number from the device.

    Returns:
        numbers and mask (..., n, K), as `nearest`.

    Raises:
        ValueError: for a radius beyond `box.inradius`.
    """
    _positive("within", radius=radius, **({} if most is None else {"most": most}))
    _reach(radius, box)
    square = _squares(x, mask, box)
    square = square.masked_fill(square > radius**2, torch.inf)
    near = square.isfinite()
    width = most if most is not None else int(near.sum(-1).max()) if near.numel() else 0
    order = square.sort(dim=-1, stable=True).indices[..., :width]
    return _padded(order, near.gather(-1, order), width)


def _squares(x: Tensor, mask: Tensor | None, box: Box | None) -> Tensor:
    there = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device) if mask is None else mask
    return squared_distances(x, mask=pair_mask(there), box=box, fill=torch.inf)


def _padded(order: Tensor, found: Tensor, width: int) -> tuple[Tensor, Tensor]:
    own = torch.arange(order.shape[-2], device=order.device)[:, None]
    lacking = width - order.shape[-1]
    number = torch.where(found, order, own)
    if lacking <= 0:
        return number, found
    number = torch.cat([number, own.expand(*order.shape[:-1], lacking)], -1)
    return number, torch.cat([found, found.new_zeros(*order.shape[:-1], lacking)], -1)


# -- edges ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def nearest_graph(batch: Batch, k: int, box: Box | None = None) -> Tensor:
    """Edges from the k nearest points of its own sample to each point: (2, E), [neighbour, centre].

    Args:
        batch: sets of points, ragged or dense; edges name rows of `batch.points`.
        k: at least 1; a sample of n points gives n min(k, n − 1) edges. Not symmetric.
        box: one for all samples, or one per sample.

    Example:
        >>> nearest_graph(Batch(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 0]), 1), 1)
        tensor([[1, 0, 1],
                [0, 1, 2]])
    """
    _positive("nearest_graph", k=k)

    def closest(square: Tensor) -> Tensor:
        last = square.topk(min(k, square.shape[-1]), largest=False).values[..., -1:]  # faster than sorting
        nearer, level = square < last, square == last
        chosen = nearer | (level & (level.cumsum(-1) <= k - nearer.sum(-1, keepdim=True)))
        return chosen & square.isfinite()

    return _edges(batch, box, closest, lambda x, size: _tree_nearest(x, k, size))


@torch.no_grad()
def radius_graph(batch: Batch, radius: float, box: Box | None = None) -> Tensor:
    """Edges between all points of a sample that are within a radius of each other: (2, E), both directions.

    Args:
        batch, box: as `nearest_graph`.
        radius: in the unit of x; at the radius counts as within.

    Raises:
        ValueError: for a radius beyond `box.inradius`.

    Example:
        >>> radius_graph(Batch(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 0]), 1), 1.5)
        tensor([[1, 0],
                [0, 1]])
    """
    _positive("radius_graph", radius=radius)
    _reach(radius, box)
    return _edges(batch, box, lambda square: square <= radius**2, lambda x, size: _tree_within(x, radius, size))


def _edges(
    batch: Batch,
    box: Box | None,
    chosen: Callable[[Tensor], Tensor],
    tree: Callable[[np.ndarray, np.ndarray | None], np.ndarray],
) -> Tensor:
    points, found = batch.points, []
    for block in blocks(points):
        x, here = block.pad(points.x), None if box is None else box.take(block.samples)
        if x.shape[-2] > DENSE and x.device.type == "cpu" and (here is None or here.orthogonal):
            for i, count in enumerate(block.mask.sum(1).tolist()):
                size = None if here is None else here.lengths.reshape(-1, x.shape[-1])[i % here.lengths[..., 0].numel()]
                pair = tree(x[i, :count].double().numpy(), None if size is None else size.double().numpy())
                found.append(block.row[i][torch.from_numpy(pair)])
            continue
        for sample, centre, other in _slabs(x, block.mask, here, chosen):
            found.append(torch.stack([block.row[sample, other], block.row[sample, centre]]))
    edges = torch.cat(found, 1) if found else torch.zeros(2, 0, dtype=torch.long, device=points.x.device)
    return edges[:, torch.argsort(edges[1] * len(points.x) + edges[0])]


def _slabs(
    x: Tensor, mask: Tensor, box: Box | None, chosen: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Sample, centre and neighbour of the pairs that are chosen, for a slab of centres at a time."""
    b, n = mask.shape
    step = max(1, PAIRS // max(1, b * n))
    for first in range(0, n, step):
        some = slice(first, min(first + step, n))
        both = mask[:, some, None] & mask[:, None, :]
        both[:, torch.arange(both.shape[1]), torch.arange(first, some.stop)] = False
        square = squared_distances(x[:, some], x, mask=both, box=box, fill=torch.inf)
        sample, centre, other = chosen(square).nonzero().unbind(1)
        yield sample, centre + first, other


# -- trees: (2, E) [neighbour, centre] of one set, unsorted ------------------------------------------------------


def _tree(x: np.ndarray, size: np.ndarray | None):
    from scipy.spatial import KDTree

    if size is None:
        return KDTree(x), x
    x = np.mod(x, size)
    x = np.where(x >= size, 0.0, x)  # the remainder of −1e-17 rounds to the size
    return KDTree(x, boxsize=size), x


def _tree_within(x: np.ndarray, radius: float, size: np.ndarray | None) -> np.ndarray:
    pair = _tree(x, size)[0].query_pairs(radius, output_type="ndarray")
    return np.concatenate([pair, pair[:, ::-1]]).T.astype(np.int64)


def _tree_nearest(x: np.ndarray, k: int, size: np.ndarray | None) -> np.ndarray:
    """All within the distance of the k-th, then the k first of these by distance and number: ties as elsewhere."""
    tree, x = _tree(x, size)
    reach = tree.query(x, [min(k + 1, len(x))])[0][:, 0]  # type: ignore[arg-type]  # a list asks for the k-th alone
    near = tree.query_ball_point(x, reach * (1 + 1e-9) + 1e-300)
    centre = np.repeat(np.arange(len(x)), [len(others) for others in near])
    other = np.concatenate([np.asarray(others, np.int64) for others in near])
    centre, other = centre[centre != other], other[centre != other]
    r = x[other] - x[centre]
    if size is not None:
        r -= size * np.rint(r / size)
    order = np.lexsort((other, np.square(r).sum(1), centre))
    centre, other = centre[order], other[order]
    rank = np.arange(len(centre)) - np.searchsorted(centre, centre)
    return np.stack([other, centre])[:, rank < k]


def _positive(who: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{who}: {name} must be positive, got {value}.")


def _reach(radius: float, box: Box | None) -> None:
    if box is not None and bool((box.inradius < radius).any()):
        raise ValueError(
            f"neighbours: the radius {radius:g} is beyond half the shortest lattice vector, "
            f"{float(box.inradius.min()):g}, so a point would meet a neighbour's second image; repeat the cell, or "
            "choose a smaller radius."
        )
