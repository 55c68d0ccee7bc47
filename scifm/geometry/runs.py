"""Pieces of chains that hold together: which rows of a ragged set follow each other, and all runs of k of them.

Two neighbouring rows are joined where they belong to the same sample, to the same `nodes["chain"]`, and stand one
`nodes["position"]` apart.  A name that is missing says nothing: a set without both is one chain per sample, in the order
of its rows.  A gap of missing residues is a jump of the position, so that no bond, angle or torsion reaches across it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["joined", "runs"]


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
