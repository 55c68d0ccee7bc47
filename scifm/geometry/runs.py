"""Pieces of chains that hold together: which residues of a batch follow each other, and all runs of k of them.

A residue is a row, or, where `nodes["atom"]` tells atoms apart (0 N, 1 Cα, 2 C, 3 O), its Cα row.  Two neighbouring
ones are joined where they belong to the same sample, to the same `nodes["chain"]`, and stand one `nodes["position"]`
apart.  A name that is missing says nothing: a set without all of them is one chain per sample, in the order of its
rows.  A gap of missing residues is a jump of the position, so that no bond, angle or torsion reaches across it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["alpha_carbons", "by_sample", "joined", "runs"]

ALPHA = 1  # nodes["atom"] of a Cα


def alpha_carbons(batch: Batch) -> Batch:
    """The residues of a batch alone: its Cα rows where `nodes["atom"]` tells them, else itself as points.

    Bonds (`edge_index`) are left out with the other atoms.

    Example:
        >>> atom = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
        >>> batch = Batch(torch.arange(8.0)[:, None].expand(8, 3), torch.zeros(8).long(), 1, nodes={"atom": atom})
        >>> alpha_carbons(batch).x[:, 0]
        tensor([1., 5.])
    """
    points = batch.points
    if "atom" not in points.nodes:
        return points
    rows = _residues(points)
    assert isinstance(points.index, Tensor)
    nodes = {k: v[rows] for k, v in points.nodes.items() if k != "atom"}
    return Batch(points.x[rows], points.index[rows], points.size, points.context, nodes)


def joined(batch: Batch) -> Tensor:
    """(R − 1,) bool: whether residue i + 1 follows residue i, for the R residues of all samples, one after the other.

    Example:
        >>> index, position = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([4, 5, 8, 0, 1])
        >>> joined(Batch(torch.zeros(5, 3), index, 2, nodes={"position": position}))
        tensor([ True, False, False,  True])
    """
    points = batch.points
    rows = _residues(points)
    assert isinstance(points.index, Tensor)
    follows = points.index[rows].diff() == 0
    if "chain" in points.nodes:
        follows = follows & (points.nodes["chain"][rows].diff() == 0)
    if "position" in points.nodes:
        follows = follows & (points.nodes["position"][rows].diff() == 1)
    return follows


def runs(batch: Batch, length: int) -> Tensor:
    """(length, m) row numbers of all runs of `length` joined residues, in the order of the rows.

    The form is that of `edge_index`: `angles(points.x, runs(points, 3))` are all angles of all chains, and
    `by_sample` sorts them by sample. Rows are those of `batch.points`.

    Raises:
        ValueError: for a length below 1.

    Example:
        >>> runs(Batch(torch.zeros(5, 3), torch.tensor([0, 0, 0, 1, 1]), 2), 2)
        tensor([[0, 1, 3],
                [1, 2, 4]])
    """
    if length < 1:
        raise ValueError(f"runs: expected a length of at least 1, got {length}.")
    rows, follows = _residues(batch.points), joined(batch)
    steps = torch.arange(length, device=rows.device)[:, None]
    if length == 1:
        return rows[None]
    if len(rows) < length:
        return steps.expand(length, 0).clone()
    start = follows.unfold(0, length - 1, 1).all(-1).nonzero()[:, 0]
    return rows[start + steps]


def by_sample(batch: Batch, index: Tensor, values: Tensor) -> list[Tensor]:
    """Values of tuples of rows, one list entry per sample: bonds, angles or torsions of each, to be compared.

    Args:
        index: (k, m) row numbers, the tuples of a sample together, as `runs` gives them.
        values: (m, ...) one of each tuple.

    Raises:
        ValueError: where the tuples are not in the order of the samples, or not as many as the values.

    Example:
        >>> batch = Batch(torch.tensor([[0.0], [1.0], [3.0], [0.0], [9.0]]), torch.tensor([0, 0, 0, 1, 1]), 2)
        >>> two = runs(batch, 2)
        >>> by_sample(batch, two, (batch.x[two[1]] - batch.x[two[0]])[:, 0])
        [tensor([1., 2.]), tensor([9.])]
    """
    points = batch.points
    assert isinstance(points.index, Tensor)
    owner = points.index[index[0]]
    if len(owner) != len(values) or bool((owner.diff() < 0).any()):
        raise ValueError(
            f"by_sample: expected one value for each of {len(owner)} tuples in the order of the samples, got "
            f"{len(values)} values; sort the tuples by their first row."
        )
    return list(values.split(torch.bincount(owner, minlength=len(points)).tolist()))


def _residues(points: Batch) -> Tensor:
    """(R,) row of each residue."""
    if "atom" in points.nodes:
        return (points.nodes["atom"] == ALPHA).nonzero()[:, 0]
    return torch.arange(len(points.x), device=points.x.device)
