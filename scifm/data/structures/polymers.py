"""From atoms to residues: which rows of a file are the backbone of a protein, and what the rest was.

One position per atom: of alternate ones the label whose backbone atoms have the highest occupancy together, at a tie
the first label; the choice is made once per residue, so that its atoms belong together.  Residues keep the file's
order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

import numpy as np

from scifm.data.elements import NUMBERS
from scifm.data.structures.atoms import NUMBERLESS, Atoms
from scifm.data.structures.residues import ELEMENTS, SITES, UNKNOWN, kind_of

__all__ = ["SITES", "Residues", "residues_of"]

_OXYGENS = ("OT1", "O1")  # of the last residue, in CHARMM and GROMACS
_LONGEST = 1.9  # Å between bonded backbone atoms of an amino acid that no dictionary lists


@dataclass(frozen=True, eq=False)
class Residues:
    """The amino acids of one model, R of them.

    Attributes:
        row: (R, 4) row in the file of N, CA, C and O, -1 where there is none.
        xyz: (R, 4, 3) Å, NaN where there is none.
        kind: (R,) 0 .. 20.
        chain, number, insertion, sequence, hetero, segment: (R,) as in `Atoms`.
    """

    row: np.ndarray
    xyz: np.ndarray
    kind: np.ndarray
    chain: np.ndarray
    number: np.ndarray
    insertion: np.ndarray
    sequence: np.ndarray
    hetero: np.ndarray
    segment: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def select(self, rows: np.ndarray) -> Residues:
        """Some of the residues."""
        return Residues(*(getattr(self, f.name)[rows] for f in fields(self)))

    def at(self, i: int) -> str:
        """A residue in words."""
        return f"{self.chain[i]} {self.number[i]}{self.insertion[i]}".strip()


def residues_of(atoms: Atoms, notes: Counter[str], dropped: Counter[str]) -> Residues:
    """The amino acids of one model; counts go to `notes` and `dropped`.

    Raises:
        ValueError: for a file without any, a duplicate atom, an element that is unknown or another than the atom's name
            says, or a residue number that cannot be read.
    """
    run = _runs(atoms)
    first = np.flatnonzero(np.diff(run, prepend=-1))
    site = _sites(atoms)
    row = _chosen(atoms, run, site, len(first), notes)
    shown = np.where(row[:, 1] >= 0, row[:, 1], first)  # the row that names a residue: its CA of the chosen label
    kinds, numbers = _kinds(atoms, shown, row)
    protein = (kinds == "protein") | (kinds == "D-amino acid")
    _count(atoms, shown, kinds, numbers, notes, dropped)
    if not protein.any():
        raise ValueError(_nothing(dropped))
    _check_atoms(atoms, run, protein)
    at, row = shown[protein], row[protein]
    if unseen := int(((row >= 0) & (atoms.occupancy[row] == 0)).any(1).sum()):
        notes["residues with a position of occupancy 0"] += unseen
    if (atoms.number[at] == NUMBERLESS).any():
        raise ValueError(
            f"the residue number of {atoms.at(int(at[atoms.number[at] == NUMBERLESS][0]))} cannot be read."
        )
    xyz = np.where((row >= 0)[:, :, None], atoms.xyz[row], np.nan)
    return Residues(
        row, xyz, numbers[protein], atoms.chain[at], atoms.number[at], atoms.insertion[at], atoms.sequence[at],
        atoms.hetero[at], atoms.segment[at],
    )  # fmt: skip


def _runs(atoms: Atoms) -> np.ndarray:
    """(A,) number of the residue of each atom: atoms of one residue follow each other."""
    new = np.ones(len(atoms), bool)
    new[1:] = False
    for column in (atoms.chain, atoms.number, atoms.insertion):
        new[1:] |= column[1:] != column[:-1]
    # two names at one number are alternatives where labels say so, else two residues
    new[1:] |= (atoms.residue[1:] != atoms.residue[:-1]) & (atoms.altloc[1:] == "") & (atoms.altloc[:-1] == "")
    return np.cumsum(new) - 1


def _sites(atoms: Atoms) -> np.ndarray:
    """(A,) 0 .. 3 for backbone atoms, -1 for all others."""
    site = np.full(len(atoms), -1)
    for number, name in enumerate(SITES):
        site[atoms.name == name] = number
    site[np.isin(atoms.name, _OXYGENS)] = 3
    return site


def _chosen(atoms: Atoms, run: np.ndarray, site: np.ndarray, count: int, notes: Counter[str]) -> np.ndarray:
    """(runs, 4) the row of each backbone atom, -1 where there is none."""
    rows = np.flatnonzero(site >= 0)
    runs, sites = run[rows], site[rows]
    score = np.zeros(len(rows))
    if (atoms.altloc[rows] != "").any():
        labels = np.stack(
            [runs, *(np.unique(c[rows], return_inverse=True)[1] for c in (atoms.altloc, atoms.residue))], 1
        )
        group = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
        score = np.round(np.bincount(group, atoms.occupancy[rows]), 6)[group]
        notes["residues with alternate positions, of which the likeliest was taken"] += len(
            np.unique(runs[atoms.altloc[rows] != ""])
        )
    other = np.isin(atoms.name[rows], _OXYGENS)
    order = np.lexsort((atoms.altloc[rows], -score, other, sites, runs))
    taken = np.full((count, len(SITES)), -1)
    back = order[::-1]  # so that the first of an order is written last
    taken[runs[back], sites[back]] = rows[back]
    return taken


def _kinds(atoms: Atoms, shown: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each residue is and, for an amino acid, its number."""
    names, back = np.unique(atoms.residue[shown], return_inverse=True)
    found = [kind_of(str(n)) for n in names]
    kinds, numbers = np.array([k for k, _ in found], dtype="U16")[back], np.array([n for _, n in found])[back]
    maybe = (kinds == "unlisted") & (row[:, :3] >= 0).all(1)
    if maybe.any():  # a ligand may have atoms of these names; an amino acid has them bonded
        n, ca, c = (atoms.xyz[row[maybe, s]] for s in range(3))
        bonded = (np.linalg.norm(n - ca, axis=1) < _LONGEST) & (np.linalg.norm(ca - c, axis=1) < _LONGEST)
        these = np.flatnonzero(maybe)[bonded]
        kinds[these], numbers[these] = "protein", UNKNOWN
    return kinds, numbers


def _count(
    atoms: Atoms, shown: np.ndarray, kinds: np.ndarray, numbers: np.ndarray, notes: Counter[str], dropped: Counter[str]
) -> None:
    for kind, words in (
        ("water", "water molecules"),
        ("nucleic", "nucleotides"),
        ("other", "ligands, ions, sugars and caps"),
        ("unlisted", "molecules of unknown names"),
    ):
        if count := int((kinds == kind).sum()):
            dropped[words] += count
    if count := int((kinds == "D-amino acid").sum()):
        notes["D-amino acids, read as unknown"] += count
    from scifm.data.structures.residues import ALIASES, NAMES

    protein = kinds == "protein"
    for name, number in zip(atoms.residue[shown[protein]], numbers[protein], strict=True):
        if name not in NAMES and name not in ALIASES:
            notes[f"{name} read as {NAMES[number] if number < UNKNOWN else 'unknown'}"] += 1


def _nothing(dropped: Counter[str]) -> str:
    nucleotides = dropped["nucleotides"]
    if nucleotides and not any(n > nucleotides for n in dropped.values()):
        return f"holds nucleic acids ({nucleotides} nucleotides) and no protein; only proteins are read."
    held = ", ".join(f"{what} ({n})" for what, n in dropped.items() if n)
    return f"holds no protein, only {held}."


# -- checks ----------------------------------------------------------------------------------------------


def _check_atoms(atoms: Atoms, run: np.ndarray, protein: np.ndarray) -> None:
    """Elements are known and fit the names; no atom is there twice."""
    rows = np.flatnonzero(protein[run] & np.isin(atoms.name, SITES))
    elements, back = np.unique(atoms.element[rows], return_inverse=True)
    unknown = np.array([e != "" and str(e).upper() not in NUMBERS for e in elements])[back]
    if unknown.any():
        row = int(rows[unknown][0])
        raise ValueError(f"unknown element {str(atoms.element[row])!r} of {atoms.at(row)}.")
    for name, element in zip(SITES, ELEMENTS, strict=True):
        wrong = (atoms.name[rows] == name) & ~np.isin(np.char.upper(atoms.element[rows]), ("", element))
        if wrong.any():
            row = int(rows[wrong][0])
            raise ValueError(
                f"{atoms.at(row)} has the element {atoms.element[row]}, not {element}: is it an ion beside the "
                "chain, or are its columns shifted?"
            )
    rows = np.flatnonzero(protein[run])
    names, labels = (_codes(c[rows]) for c in (atoms.name, atoms.altloc))
    order = np.lexsort((labels, names, run[rows]))
    again = [np.diff(c[order]) == 0 for c in (labels, names, run[rows])]
    twice = np.flatnonzero(again[0] & again[1] & again[2])
    twice = [k for k in twice.tolist() if not str(atoms.name[rows[order[k]]]).lstrip("0123456789").startswith("H")]
    if len(twice):
        one, two = (int(rows[order[twice[0] + k]]) for k in (0, 1))
        raise ValueError(
            f"duplicate atom {atoms.at(one)}, again in {atoms.row} {atoms.where[two]}, without labels of alternate "
            "positions; remove one of them, or label them."
        )


def _codes(texts: np.ndarray) -> np.ndarray:
    """A number for each text of up to eight letters, which compares faster."""
    try:
        return texts.astype("S8").view(np.uint64)
    except UnicodeEncodeError:
        return np.char.encode(texts, "ascii", "replace").astype("S8").view(np.uint64)
