"""What a molecule must be before anything is computed from it, and how atoms are left out of one.

    x (N, 3) in Å, finite, no two atoms in one place;  nodes["z"] atomic numbers;  at least one atom per molecule;
    if there are bonds, each in both directions, once each, from an atom to another of the same molecule

All doors for molecules end with `check_molecules`, so a fault is found where it enters, with the molecule's number.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.bonds import close_pairs
from scifm.data.elements import check_numbers

__all__ = ["check_bonds", "check_molecules", "keep_atoms"]

COINCIDENT = 0.2  # Å; the shortest bond there is, in H2, has 0.74
BONDS = ("single", "double", "triple", "aromatic", "other")


def check_molecules(batch: Batch, who: str = "molecules", apart: bool = True) -> Batch:
    """The batch, if it holds molecules.

    Args:
        batch: what came through a door.
        who: begins the message.
        apart: refuse two atoms in one place. What a flow has drawn may hold such molecules, and is written and scored.

    Raises:
        ValueError, TypeError: the first fault found, with the molecule it is in and what usually cures it.

    Example:
        >>> zeros = torch.zeros(2, dtype=torch.long)
        >>> check_molecules(Batch(torch.zeros(2, 3), zeros, 1, nodes={"z": torch.tensor([1, 1])}))
        Traceback (most recent call last):
        ...
        ValueError: molecules: molecule 0 has two atoms in one place (rows 0 and 1, 0 Å apart); ...
    """
    if batch.dense:
        raise ValueError(f"{who}: expected a ragged batch, a row per atom; this one is dense. See arrays.from_arrays.")
    if batch.event != (3,):
        raise ValueError(f"{who}: expected atoms in space, rows (3,) in Å; got rows {batch.event}.")
    if not batch.x.is_floating_point():
        raise TypeError(f"{who}: expected coordinates as floats, got {batch.x.dtype}; convert them, .float().")
    if len(batch) == 0:
        raise ValueError(f"{who}: expected at least one molecule, got none.")
    index = batch.points.index
    assert index is not None
    empty = (batch.counts == 0).nonzero()
    if len(empty):
        raise ValueError(f"{who}: molecule {int(empty[0])} has no atoms; leave it out.")
    lost = (~batch.x.isfinite().all(1)).nonzero()
    if len(lost):
        row = int(lost[0])
        raise ValueError(
            f"{who}: molecule {int(index[row])} has an atom without a place (row {row}: {batch.x[row].tolist()}); "
            "leave such molecules out, coordinates cannot be guessed."
        )
    if "z" not in batch.nodes:
        raise ValueError(f'{who}: expected nodes["z"], the atomic numbers; there are {sorted(batch.nodes) or "none"}.')
    check_numbers(batch.nodes["z"], who)
    i, j, distance = close_pairs(batch, torch.full_like(batch.x[:, 0], COINCIDENT / 2 if apart else -1.0))
    if len(i):
        raise ValueError(
            f"{who}: molecule {int(index[i[0]])} has two atoms in one place (rows {int(i[0])} and {int(j[0])}, "
            f"{float(distance[0]):.2g} Å apart); drop the duplicate or the second alternate location. If all "
            "distances are small, the unit is not Å."
        )
    return check_bonds(batch, who)


def check_bonds(batch: Batch, who: str = "molecules") -> Batch:
    """The batch, if its bonds, where there are any, are those of an undirected graph without loops.

    Raises:
        ValueError: for a bond of an atom with itself, in one direction only, twice, or of no class there is.
    """
    if batch.edge_index is None:
        return batch
    first, second = batch.edge_index
    own = (first == second).nonzero()
    if len(own):
        raise ValueError(f"{who}: atom {int(first[own[0]])} is bonded to itself; remove self-loops.")
    kind = batch.edges.get("bond")
    if kind is not None:
        if kind.is_floating_point() or kind.ndim != 1:
            raise TypeError(
                f'{who}: edges["bond"] must be a class per bond, int64 (E,), got {kind.dtype} {tuple(kind.shape)}; '
                "of one-hot classes take .argmax(-1)."
            )
        wrong = ((kind < 0) | (kind >= len(BONDS))).nonzero()
        if len(wrong):
            raise ValueError(
                f"{who}: bond {int(wrong[0])} is of class {int(kind[wrong[0]])}; the classes are "
                f"{', '.join(f'{k} {name}' for k, name in enumerate(BONDS))}."
            )
    rows = len(batch.x)
    there, order = (first * rows + second).sort()
    twice = (there.diff() == 0).nonzero()
    if len(twice):
        k = order[twice[0]]
        raise ValueError(f"{who}: the bond from {int(first[k])} to {int(second[k])} is listed twice; drop one.")
    back, reverse = (second * rows + first).sort()
    if not torch.equal(there, back):
        k = int((~torch.isin(second * rows + first, there)).nonzero()[0])
        raise ValueError(
            f"{who}: the bond from {int(first[k])} to {int(second[k])} has no way back; "
            "edge_index holds both directions of each bond."
        )
    if kind is not None and not torch.equal(kind[order], kind[reverse]):
        k = order[(kind[order] != kind[reverse]).nonzero()[0]]
        raise ValueError(
            f"{who}: the bond between {int(first[k])} and {int(second[k])} has one class there and another back."
        )
    return batch


def keep_atoms(batch: Batch, keep: Tensor) -> Batch:
    """The same samples with some of their rows only, and the edges among these.

    Args:
        keep: (N,) bool.

    Example:
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> water = Batch(torch.zeros(3, 3), torch.zeros(3, dtype=torch.long), 1, edge_index=edges)
        >>> keep_atoms(water, torch.tensor([False, True, True])).edge_index
        tensor([[0, 1],
                [1, 0]])
    """
    index = batch.points.index
    if batch.dense or index is None or keep.shape != index.shape or keep.dtype != torch.bool:
        raise ValueError(f"keep_atoms: expected a ragged batch and one bool per row, got {tuple(keep.shape)}.")
    nodes = {k: v[keep] for k, v in batch.nodes.items()}
    if batch.edge_index is None:
        return replace(batch, x=batch.x[keep], index=index[keep], nodes=nodes)
    number = keep.cumsum(0) - 1
    stay = keep[batch.edge_index].all(0)
    edges = {k: v[stay] for k, v in batch.edges.items()}
    return replace(
        batch,
        x=batch.x[keep],
        index=index[keep],
        nodes=nodes,
        edge_index=number[batch.edge_index[:, stay]],
        edges=edges,
    )
