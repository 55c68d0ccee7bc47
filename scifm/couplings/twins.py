"""Which points of a sample may exchange their draws: those that nothing tells apart.

Points whose `nodes` are equal may.  Where there are bonds, an exchange must leave the bond graph as it is, or draws
would be paired with a molecule that they are not.  It does so for *twins*: points with equal nodes that are bonded to
the very same neighbours by equal bonds, as the hydrogens of a methyl group are.  Exchanging twins is an automorphism of
the graph whatever else is exchanged.  There are automorphisms beside these, such as turning a benzene ring, which are
not used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["twins"]


def twins(points: Batch, ignore: Sequence[str] = ()) -> Tensor | None:
    """(N,) long: rows of a sample with equal numbers may be exchanged; None where all of them may.

    Made once for a layout.

    Args:
        points: ragged, such as `batch.points`.
        ignore: names of nodes that do not tell points apart.

    Example:
        >>> methane = torch.tensor([[0, 0, 0, 1, 2, 3], [1, 2, 3, 0, 0, 0]])
        >>> z = torch.tensor([6, 1, 1, 1])
        >>> twins(Batch(torch.zeros(4, 3), torch.zeros(4).long(), 1, nodes={"z": z}, edge_index=methane)).tolist()
        [1, 0, 0, 0]
    """
    names = sorted(set(points.nodes) - set(ignore))
    if not names and points.edge_index is None:
        return None
    return points.keep(("twins", *names), lambda: _twins(points, names))


def _twins(points: Batch, names: Sequence[str]) -> Tensor:
    n = len(points.x)
    kind = _numbers([points.nodes[name] for name in names], n)
    if points.edge_index is not None:
        ends = points.edge_index.cpu().numpy()
        bond = _numbers([value for _, value in sorted(points.edges.items())], ends.shape[1])
        # Every edge as either of its ends sees it: the other end, which way it runs, its values.
        seen = np.concatenate([np.stack([ends[d], ends[1 - d], np.full_like(bond, d), bond], 1) for d in (0, 1)])
        seen = seen[np.lexsort(seen.T[::-1])]
        degree = np.bincount(seen[:, 0], minlength=n)
        first = np.cumsum(degree) - degree
        label = np.zeros(n, np.int64)
        for k in np.unique(degree):
            rows = np.flatnonzero(degree == k)
            neighbours = seen[first[rows][:, None] + np.arange(k), 1:].reshape(len(rows), -1)
            label[rows] = _numbers([torch.from_numpy(neighbours)], len(rows))
        kind = _numbers([torch.from_numpy(np.stack([kind, degree, label], 1))], n)
    return torch.from_numpy(kind).to(points.x.device)


def _numbers(values: Sequence[Tensor], n: int) -> np.ndarray:
    """(n,) int64: equal where all values are, byte by byte."""
    parts = [v.detach().cpu().contiguous().reshape(n, -1).numpy() for v in values if v.numel()]
    if not parts:
        return np.zeros(n, np.int64)
    whole = np.ascontiguousarray(np.concatenate([p.view(np.uint8).reshape(n, -1) for p in parts], 1))
    return np.unique(whole.view(f"V{whole.shape[1]}")[:, 0], return_inverse=True)[1].astype(np.int64)
