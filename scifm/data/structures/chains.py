"""From residues to chains: what is bonded to what, where a chain is broken, and what cannot be a chain at all.

A bond between residues i and i + 1 is seen in space: |C_i − N_{i+1}| < 2.0 Å, or |CA_i − CA_{i+1}| < 4.3 Å where one of
the two is not there (3.8 Å across a trans peptide, 2.9 Å across a cis one; among 140,600 neighbours of docking
benchmark 5 the longest is 4.24 Å).  Numbers do not tell: in that set 32 bonds skip a number, and 274 breaks skip none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from scifm.data.structures.atoms import Atoms, stem_of
from scifm.data.structures.polymers import Residues, residues_of

__all__ = ["Chain", "Gaps", "Sites", "chains_of", "check_scale"]

Sites = Literal["ca", "backbone"]
Gaps = Literal["split", "mask", "refuse"]

PEPTIDE = 2.0  # Å, longest C-N bond
NEIGHBOUR = 4.3  # Å, longest CA-CA distance across a bond


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain, or an unbroken piece of one: n residues.

    Attributes:
        name: file, chain and, where it was split, number of the piece: "1aki_A", "1abc_B_2".
        xyz: Å, float64; (n, 3) of CA, or (n, 4, 3) of N, CA, C, O.
        residue: (n,) 0 .. 20, as `NAMES` lists them.
        position: (n,) along the chain from 0; it jumps by the number of residues that are missing in a gap, and by one
            at least, so that neighbours are bonded.
        number, insertion: (n,) residue numbers and insertion codes of the file.
        chain: its name in the file.
        model: from 0.
        rows: (n,) or (n, 4) atom of each coordinate in the model, in the file's order.
        file: that it comes from.
    """

    name: str
    xyz: np.ndarray
    residue: np.ndarray
    position: np.ndarray
    number: np.ndarray
    insertion: np.ndarray
    chain: str
    model: int
    rows: np.ndarray
    file: Path = Path()

    def __len__(self) -> int:
        return len(self.residue)


def chains_of(
    atoms: Atoms, file: Path, sites: Sites, gaps: Gaps, model: int = 0
) -> tuple[list[Chain], Counter[str], Counter[str]]:
    """The chains of one model, with counts of what is worth a note, and of what was dropped.

    Raises:
        ValueError: where the model holds no protein, or what cannot be one; see the checks of this module and of
            `polymers`.
    """
    notes: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    found = _named(residues_of(atoms, notes, dropped))
    _check_identity(found)
    found = _complete(found, sites, dropped)
    same = found.chain[1:] == found.chain[:-1]
    check_scale(found.xyz[:, 1], same)
    bonded = same & _bonds(found)
    found, bonded = _without_ligands(found, bonded, dropped)
    same = found.chain[1:] == found.chain[:-1]
    breaks = np.flatnonzero(same & ~bonded)
    steps = _steps(found, bonded)
    if len(breaks):
        if gaps == "refuse":
            i = int(breaks[0])
            raise ValueError(
                f"chain {found.chain[i]} is broken between residues {found.at(i)} and {found.at(i + 1)}, whose CA are "
                f"{_distance(found, i):.1f} Å apart; give gaps='split' or 'mask', or model the missing residues."
            )
        notes["gaps, split there" if gaps == "split" else "gaps, bridged by a jump of the position"] += len(breaks)
        if missing := int((steps[breaks] - 1).sum()):
            notes["residues missing there, by their numbers"] += missing
    # one step of the position is a bond, for networks and metrics: a break whose numbers skip none is two
    steps = np.maximum(steps, np.where(bonded, 1, 2))
    cut = ~bonded if gaps == "split" else ~same
    ends = [0, *(np.flatnonzero(cut) + 1).tolist(), len(found)]
    pieces = [found.select(np.arange(a, b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    jumps = [steps[a : b - 1] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    of = Counter(str(p.chain[0]) for p in pieces)
    seen: Counter[str] = Counter()
    chains = []
    for piece, jump in zip(pieces, jumps, strict=True):
        name = str(piece.chain[0])
        seen[name] += 1
        label = f"{stem_of(file)}_{name}" + (f"_{seen[name]}" if of[name] > 1 else "")
        chains.append(_chain(piece, jump, label, sites, model, file))
    return chains, notes, dropped


def _chain(piece: Residues, jump: np.ndarray, name: str, sites: Sites, model: int, file: Path) -> Chain:
    every = slice(None) if sites == "backbone" else 1
    return Chain(
        name, piece.xyz[:, every], piece.kind, np.concatenate([[0], np.cumsum(jump)]).astype(np.int64),
        piece.number, piece.insertion, str(piece.chain[0]), model, piece.row[:, every], file,
    )  # fmt: skip


def _complete(found: Residues, sites: Sites, dropped: Counter[str]) -> Residues:
    """Without the residues that lack an atom that is asked for."""
    there = found.row >= 0
    whole = there.all(1) if sites == "backbone" else there[:, 1]
    if not whole.any():
        if sites == "backbone" and there[:, 1].any():
            raise ValueError(
                "holds no residue with all of N, CA, C and O, only incomplete ones such as CA alone; read atoms='ca'."
            )
        raise ValueError("holds amino acids, but no CA atom; is it a file of side chains or hydrogens?")
    if count := int((~whole).sum()):
        dropped["residues without CA" if sites == "ca" else "residues with an incomplete backbone"] += count
    return found.select(np.flatnonzero(whole))


def _named(found: Residues) -> Residues:
    """Residues chain by chain; chains without a name are told apart where numbers begin again or a TER stands, and
    called A, B, ...
    """
    nameless = found.chain == ""
    if nameless.any():
        names = found.chain.astype("U8")
        rows = np.flatnonzero(nameless)
        here = found.select(rows)
        new = (np.diff(here.number) < 0) | (np.diff(here.segment) > 0)
        again = new & ~_bonds(here)
        part = np.concatenate([[0], np.cumsum(again)])
        taken = set(names.tolist())
        free = (n for n in _letters() if n not in taken)
        labels = np.array([next(free) for _ in range(int(part[-1]) + 1)])
        names[rows] = labels[part]
        found = Residues(found.row, found.xyz, found.kind, names, *(
            getattr(found, k) for k in ("number", "insertion", "sequence", "hetero", "segment")
        ))  # fmt: skip
    _, first, back = np.unique(found.chain, return_index=True, return_inverse=True)
    return found.select(np.argsort(first[back], kind="stable"))  # chains in the order of their first residues


def _letters():
    import itertools
    import string

    for size in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_uppercase, repeat=size))


def _bonds(found: Residues) -> np.ndarray:
    """(R - 1,) whether each residue is bonded to the next."""
    peptide = np.linalg.norm(found.xyz[1:, 0] - found.xyz[:-1, 2], axis=1)
    neighbour = np.linalg.norm(found.xyz[1:, 1] - found.xyz[:-1, 1], axis=1)
    return np.where(np.isnan(peptide), neighbour < NEIGHBOUR, peptide < PEPTIDE)


def _without_ligands(found: Residues, bonded: np.ndarray, dropped: Counter[str]) -> tuple[Residues, np.ndarray]:
    """Single amino acids among the hetero atoms, bonded to nothing, are no chain."""
    before, after = np.concatenate([[False], bonded]), np.concatenate([bonded, [False]])
    free = found.hetero & ~before & ~after
    if not free.any():
        return found, bonded
    if free.all():
        raise ValueError(f"holds no protein, only {int(free.sum())} single amino acids among its hetero atoms.")
    dropped["free amino acids"] += int(free.sum())
    kept = np.flatnonzero(~free)
    # one that lay between two bonded residues was bonded to neither, so no bond is lost and none is made
    together = np.diff(kept) == 1
    left = np.zeros(len(kept) - 1, bool)
    left[together] = bonded[kept[:-1][together]]
    return found.select(kept), left


def _steps(found: Residues, bonded: np.ndarray) -> np.ndarray:
    """(R - 1,) by how much the position grows: 1 along a bond, else by what the numbers say, at least 1."""
    along, printed = np.diff(found.sequence), np.diff(found.number)
    known = (found.sequence[1:] >= 0) & (found.sequence[:-1] >= 0) & (along > 0)
    told = np.where(known, along, np.where(printed > 0, printed, 2))  # numbers that run back: one missing at least
    return np.where(bonded, 1, told)


def _distance(found: Residues, i: int) -> float:
    return float(np.linalg.norm(found.xyz[i + 1, 1] - found.xyz[i, 1]))


# -- checks ----------------------------------------------------------------------------------------------


def check_scale(ca: np.ndarray, same: np.ndarray) -> None:
    """Refuse coordinates (R, 3) that are no Å, or no coordinates.

    Args:
        same: (R - 1,) whether a residue and the next belong to one chain.

    Raises:
        ValueError: for atoms in one place, and for distances that are those of nanometres or picometres.
    """
    places, counts = np.unique(np.round(ca, 3), axis=0, return_counts=True)
    if counts.max() > 1:
        place = ", ".join(f"{v:g}" for v in places[counts.argmax()])
        most = int(counts.max())
        what = f"all {most}" if most == len(ca) else f"{most} of {len(ca)}"
        raise ValueError(
            f"{what} CA atoms lie at the same place ({place}); these are placeholders, or copies, and no positions."
        )
    if same.sum() < 3:
        return
    typical = float(np.median(np.linalg.norm(np.diff(ca, axis=0), axis=1)[same]))
    if 0.25 < typical < 0.5:
        raise ValueError(
            f"neighbouring CA are {typical:.2f} apart: these are nanometres, where Å are expected (3.8); multiply "
            "by 10."
        )
    if 25 < typical < 50 or 250 < typical < 500:
        by = 10 if typical < 50 else 100
        raise ValueError(
            f"neighbouring CA are {typical:.0f} apart, where 3.8 Å are expected: another unit? Divide by {by}."
        )


def _check_identity(found: Residues) -> None:
    """Refuse chains in which a residue is there twice, or that run from their end to their beginning."""
    found = found.select(np.flatnonzero((found.row >= 0).any(1)))  # hydrogens at the end of a file hurt nobody
    codes = [np.unique(c, return_inverse=True)[1] for c in (found.chain, found.insertion)]
    keys = np.stack([codes[0], found.number, codes[1]], 1)
    _, first, counts = np.unique(keys, axis=0, return_index=True, return_counts=True)
    if counts.max() > 1:
        i = int(first[counts > 1].min())
        raise ValueError(
            f"residue {found.at(i)} is there {counts.max()} times, apart from each other: two chains of one name, "
            "models without MODEL records, or atoms of mixed chain names. Give each chain a name of its own."
        )
    for name in np.unique(found.chain):
        steps = np.diff(found.number[found.chain == name])
        if len(steps) >= 3 and (steps < 0).mean() > 0.5:
            raise ValueError(
                f"the residue numbers of chain {name} run backwards ({(steps < 0).sum()} of {len(steps)} steps): "
                "residues must be listed from the N to the C terminus; sort them by number."
            )
