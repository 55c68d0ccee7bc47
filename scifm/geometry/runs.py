"""Pieces of chains that hold together: which rows of a ragged set follow each other, and all runs of k of them.

Two neighbouring rows are joined where they belong to the same sample, to the same `nodes["chain"]`, and stand one
`nodes["position"]` apart.  A name that is missing says nothing: a set without both is one chain per sample, in the order
of its rows.  A gap of missing residues is a jump of the position, so that no bond, angle or torsion reaches across it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["by_sample", "joined", "runs"]


def joined(points: Batch) -> Tensor:
    """(N − 1,) bool: whether row i + 1 follows row i in a chain. Dense events (n, d) are chains of n rows.

    Example:
        >>> index, position = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([4, 5, 8, 0, 1])
        >>> joined(Batch(torch.zeros(5, 3), index, 2, nodes={"position": position}))
        tensor([ True, False, False,  True])
    """
    points = points.points
    assert isinstance(points.index, Tensor)
    follows = points.index.diff() == 0
    if "chain" in points.nodes:
        follows = follows & (points.nodes["chain"].diff() == 0)
    if "position" in points.nodes:
        follows = follows & (points.nodes["position"].diff() == 1)
    return follows


def runs(points: Batch, length: int) -> Tensor:
    """(length, m) row numbers of all runs of `length` joined rows, in the order of the rows.

    The form is that of `edge_index`: `angles(points.x, runs(points, 3))` are all angles of all chains, and
    `points.index[runs(points, 3)[0]]` tells the sample of each. Rows are those of `batch.points`.

    Raises:
        ValueError: for a length below 1.

    Example:
        >>> runs(Batch(torch.zeros(5, 3), torch.tensor([0, 0, 0, 1, 1]), 2), 2)
        tensor([[0, 1, 3],
                [1, 2, 4]])
    """
    if length < 1:
        raise ValueError(f"runs: expected a length of at least 1, got {length}.")
    rows, follows = len(points.points.x), joined(points)
    device = follows.device
    steps = torch.arange(length, device=device)[:, None]
    if rows < length:
        return steps.expand(length, 0).clone()
    if length == 1:
        return torch.arange(rows, device=device)[None]
    start = follows.unfold(0, length - 1, 1).all(-1).nonzero()[:, 0]
    return start + steps


def by_sample(points: Batch, index: Tensor, values: Tensor) -> list[Tensor]:
    """Values of tuples of rows, one list entry per sample: bonds, angles or torsions of each, to be compared.

    Args:
        index: (k, m) row numbers, the tuples of a sample together, as `runs` gives them; edges as batches hold them.
        values: (m, ...) one of each tuple.

    Raises:
        ValueError: where the tuples are not in the order of the samples, or not as many as the values.

    Example:
        >>> batch = Batch(torch.tensor([[0.0], [1.0], [3.0], [0.0], [9.0]]), torch.tensor([0, 0, 0, 1, 1]), 2)
        >>> two = runs(batch, 2)
        >>> by_sample(batch, two, (batch.x[two[1]] - batch.x[two[0]])[:, 0])
        [tensor([1., 2.]), tensor([9.])]
    """
    points = points.points
    assert isinstance(points.index, Tensor)
    owner = points.index[index[0]]
    if len(owner) != len(values) or bool((owner.diff() < 0).any()):
        raise ValueError(
            f"by_sample: expected one value for each of {len(owner)} tuples in the order of the samples, got "
            f"{len(values)} values; sort the tuples by their first row."
        )
    return list(values.split(torch.bincount(owner, minlength=len(points)).tolist()))
