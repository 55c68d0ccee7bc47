"""Ragged sets of points as a few padded blocks, for what looks at pairs of points and wants plain tensors.

A set of n points has n² pairs.  Padding all sets of a batch to the largest wastes most of the work where sizes differ
(2.4 times as many pairs for 5 to 59 points); lists of edges waste none, but gather and scatter cost as much again on a
CPU.  So sets of like size share a block that is padded to the largest of them:

    rows (N, ...)  --pad-->  (b, n, ...) per block, zeros beyond a set's own points  --rows-->  (N, ...)

Sorted by size, the sets are cut where the padded work Σ b n² plus a price per block is least (by dynamic programming).
Sets of one size are one block without padding.  Everything is index arithmetic, so gradients, tangents and vmap pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["Block", "Blocks", "blocks"]

PRICE = 4096.0  # pairs that take as long as the overhead of one more block


@dataclass(frozen=True, eq=False)
class Block:
    """Samples of like size, padded to n points.

    Attributes:
        samples: (b,) numbers of the samples.
        row: (b, n) row of each point; N, one beyond the last, where there is none.
        mask: (b, n) whether there is a point.
        full: whether all of `mask` is true.
    """

    samples: Tensor
    row: Tensor
    mask: Tensor
    full: bool

    def pad(self, rows: Tensor) -> Tensor:
        """(N, ...) one entry per row -> (b, n, ...), zeros where there is no point."""
        if not self.full:
            rows = torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])
        return rows.index_select(0, self.row.reshape(-1)).reshape(*self.row.shape, *rows.shape[1:])

    def take(self, samples: Tensor) -> Tensor:
        """(B, ...) one entry per sample -> (b, ...)."""
        return samples.index_select(0, self.samples)

    @property
    def pairs(self) -> Tensor:
        """(b, n, n) whether there are two different points."""
        n = self.mask.shape[1]
        both = self.mask[:, :, None] & self.mask[:, None, :]
        return both & ~torch.eye(n, dtype=torch.bool, device=both.device)


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a layout; iterate over them."""

    parts: tuple[Block, ...]
    place: Tensor  # (N,) where each row lies among the padded points of all blocks

    def __iter__(self) -> Iterator[Block]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def rows(self, values: Sequence[Tensor]) -> Tensor:
        """One (b, n, ...) per block -> (N, ...): undoes `Block.pad`."""
        if len(values) != len(self.parts):
            raise ValueError(f"Blocks.rows: expected one tensor per block ({len(self.parts)}), got {len(values)}.")
        flat = [v.reshape(-1, *v.shape[2:]) for v in values]
        return (flat[0] if len(flat) == 1 else torch.cat(flat)).index_select(0, self.place)


def blocks(points: Batch) -> Blocks:
    """The samples of a ragged batch in padded blocks; made once for a layout.

    Args:
        points: ragged, such as `batch.points`.

    Raises:
        ValueError: for a dense batch.

    Example:
        >>> sets = Batch(torch.arange(5.0)[:, None], torch.tensor([0, 0, 0, 1, 1]), 2)
        >>> [block.pad(sets.x)[..., 0].tolist() for block in blocks(sets)]
        [[[3.0, 4.0, 0.0], [0.0, 1.0, 2.0]]]
    """
    if points.dense:
        raise ValueError("blocks: expected a ragged batch; give batch.points.")
    return points.keep("blocks", lambda: _blocks(points))


def _blocks(points: Batch) -> Blocks:
    counts = points.counts.cpu().numpy()
    rows, starts = int(counts.sum()), np.cumsum(counts) - counts
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]  # empty samples have no points to place
    place, parts, before = np.zeros(rows, np.int64), [], 0
    for first, last in _cuts(counts[order]):
        samples = order[first:last]
        count, n = counts[samples][:, None], int(counts[order[last - 1]])
        column = np.arange(n)[None]
        mask = column < count
        row = np.where(mask, starts[samples][:, None] + column, rows)
        place[row[mask]] = before + np.flatnonzero(mask)
        before += mask.size
        part = (torch.from_numpy(v).to(points.x.device) for v in (samples, row, mask))
        parts.append(Block(*part, full=bool(mask.all())))
    if not parts:
        nothing = torch.zeros(0, dtype=torch.long, device=points.x.device)
        parts = [Block(nothing, nothing[:, None], nothing[:, None].bool(), True)]
    return Blocks(tuple(parts), torch.from_numpy(place).to(points.x.device))


def _cuts(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Where to cut sorted sizes so that Σ b n² + price · blocks is least, as (first, last) of each block."""
    if not len(sizes):
        return []
    values, first = np.unique(sizes, return_index=True)
    ends = np.append(first[1:], len(sizes))
    best, origin = np.zeros(len(values) + 1), np.zeros(len(values), np.int64)
    for k, (n, end) in enumerate(zip(values.astype(float), ends, strict=True)):
        work = best[: k + 1] + (end - first[: k + 1]) * n * n + PRICE
        origin[k] = int(work.argmin())
        best[k + 1] = work[origin[k]]
    cuts, k = [], len(values) - 1
    while k >= 0:
        cuts.append((int(first[origin[k]]), int(ends[k])))
        k = int(origin[k]) - 1
    return cuts[::-1]
