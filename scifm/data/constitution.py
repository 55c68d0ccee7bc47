"""Which molecules are the same, as far as elements and bonds tell.

A molecule's key starts from the elements and takes in the neighbours again and again (Weisfeiler and Leman 1968):

    l⁰_i = h(z_i),     l^{k+1}_i = h(l^k_i + Σ_{j ~ i} h(l^k_j, bond_ij)),     key = h(Σ_i l^K_i)

with a mixing function h on 64 bits.  Sums do not see an order, so neither does the key: numbering the atoms otherwise
leaves it as it is; and coordinates, mirror images and cis or trans have no part in it.  Equal molecules have equal
keys.  Different ones nearly always differ.  Refinement is blind to some pairs (decalin and bicyclopentyl: from each
atom the neighbours look alike); a chance collision of 64 bits is out of reach.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["constitution", "fragments"]

ROUNDS = 12


def constitution(batch: Batch, rounds: int = ROUNDS) -> Tensor:
    """A key of elements and bonds per molecule, (B,) long; the same on every machine and whatever the batch mates.

    Args:
        batch: ragged, with nodes["z"], edge_index in both directions, and edges["bond"] if bonds have classes.
        rounds: how far an atom looks.

    Example:
        >>> def chain(*z):
        ...     edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        ...     zeros = torch.zeros(3, dtype=torch.long)
        ...     return Batch(torch.zeros(3, 3), zeros, 1, nodes={"z": torch.tensor(z)}, edge_index=edges)
        >>> bool(constitution(chain(6, 6, 8)) == constitution(chain(8, 6, 6)))
        True
        >>> bool(constitution(chain(6, 6, 8)) == constitution(chain(6, 8, 6)))
        False
    """
    z, index = batch.nodes.get("z"), batch.points.index
    if z is None or batch.edge_index is None:
        raise ValueError('constitution: expected a ragged batch with nodes["z"] and edge_index; see bonds.perceive.')
    assert index is not None  # points are ragged
    first, second = batch.edge_index
    kind = batch.edges.get("bond", torch.zeros_like(first)).long()
    label, bond = _mix(z.long()), _mix(1000 + kind)
    for _ in range(rounds):
        label = _mix(label + torch.zeros_like(label).index_add(0, first, _mix(label[second] ^ bond)))
    return _mix(label.new_zeros(len(batch)).index_add(0, index, label))


def fragments(batch: Batch) -> Tensor:
    """How many pieces each molecule's bonds leave it in, (B,) long; 0 for one without atoms.

    Example:
        >>> edges = torch.tensor([[0, 1], [1, 0]])
        >>> fragments(Batch(torch.zeros(3, 3), torch.zeros(3, dtype=torch.long), 1, edge_index=edges))
        tensor([2])
    """
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    index = batch.points.index
    if batch.edge_index is None:
        raise ValueError("fragments: expected a ragged batch with edge_index; see bonds.perceive.")
    assert index is not None  # points are ragged
    first, second = batch.edge_index.cpu().numpy()
    rows = len(batch.x)
    graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), (rows, rows))
    count, piece = connected_components(graph, directed=False)
    one = torch.zeros(count, dtype=torch.long, device=batch.x.device)
    one[torch.from_numpy(piece).long().to(one.device)] = index  # all atoms of a piece belong to one molecule
    return torch.bincount(one, minlength=len(batch))


def _mix(x: Tensor) -> Tensor:
    """A bijection of 64-bit numbers that looks random: the finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    x = x + -7046029254386353131  # 0x9E3779B97F4A7C15, in two's complement
    x = (x ^ _shifted(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ _shifted(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Right by that many bits, zeros coming in; torch's own shift repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
