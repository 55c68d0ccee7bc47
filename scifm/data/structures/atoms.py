"""The atoms of a file as columns, and the door through which every format comes in.

A format is a function from bytes to `Atoms`; which one, the name says.  All that is asked of a protein (which residues,
which of two alternate positions, where a chain is broken) is asked of the columns, once, whatever the format was.

    .pdb .ent    fixed columns                 `columns.read_pdb`
    .gro         fixed columns, nanometres     `columns.read_gro`
    .cif .mmcif  text, by gemmi                `cif.read_mmcif`
    .bcif        binary columns, by biotite    `cif.read_bcif`

and each of them packed, with `.gz` behind.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

__all__ = ["NUMBERLESS", "SUFFIXES", "TRAJECTORIES", "Atoms", "format_of", "read_atoms", "stem_of"]

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".bcif", ".gro")
TRAJECTORIES = (".xtc", ".dcd", ".trr")
NUMBERLESS = -(2**31)  # a residue number that is none; waters beyond the columns have such
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms of all models of a file, in the file's order, A of them.

    Attributes:
        xyz: (A, 3) float64, Å.
        name, residue, chain, insertion, altloc, element: (A,) text, "" where the file says nothing.
        number: (A,) residue numbers as printed (author's).
        sequence: (A,) residue numbers along the polymer, from 1, where the format knows them (mmCIF); else -1.
        occupancy: (A,) float64, 1 where the file says nothing.
        hetero: (A,) bool, as the file says.
        model: (A,) from 0.
        segment: (A,) how many TER records came before it in a PDB file; 0 in formats that have none.
        where: (A,) line of the file, or row of its table, from 1.
        row: "line" or "row", for messages.
    """

    xyz: np.ndarray
    name: np.ndarray
    residue: np.ndarray
    chain: np.ndarray
    number: np.ndarray
    insertion: np.ndarray
    altloc: np.ndarray
    element: np.ndarray
    sequence: np.ndarray
    occupancy: np.ndarray
    hetero: np.ndarray
    model: np.ndarray
    segment: np.ndarray
    where: np.ndarray
    row: str = "line"

    def __post_init__(self) -> None:
        if not len(self.xyz):
            raise ValueError("holds no atoms.")
        bad = ~np.isfinite(self.xyz).all(1)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"{int(bad.sum())} atoms have a coordinate that is missing, NaN or infinite, the first is "
                f"{self.at(first)}: ({', '.join(f'{v:g}' for v in self.xyz[first])}). Repair the file, or take the "
                "atoms out."
            )

    def __len__(self) -> int:
        return len(self.xyz)

    def at(self, row: int) -> str:
        """An atom in words."""
        place = f"{self.chain[row]} {self.number[row]}{self.insertion[row]}".strip()
        return f"{self.name[row]} of {self.residue[row]} {place} ({self.row} {self.where[row]})"

    def select(self, rows: np.ndarray) -> Atoms:
        """Some of the atoms."""
        taken = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "row"}
        return replace(self, **taken)


def format_of(path: Path) -> str:
    """The suffix that tells the format, without .gz, in small letters; "" for a file that is no structure."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else ""


def stem_of(path: Path) -> str:
    """A file's name without its suffixes."""
    name = path.name
    for suffix in (".gz", format_of(path)):
        if suffix and name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def read_atoms(path: Path) -> Atoms:
    """All atoms of all models of a file.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a name that tells no format, content of another, or damaged; the message begins with the name.
    """
    from scifm.data.structures import cif, columns

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    readers = {".pdb": columns.read_pdb, ".ent": columns.read_pdb, ".gro": columns.read_gro}
    readers |= {".cif": cif.read_mmcif, ".mmcif": cif.read_mmcif, ".bcif": cif.read_bcif}
    try:
        suffix = format_of(path)
        if not suffix:
            raise ValueError(_no_format(path))
        return readers[suffix](_content(path))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _no_format(path: Path) -> str:
    known = f"structures end in {', '.join(SUFFIXES)}, each also with .gz"
    last = next((s for s in reversed([s.lower() for s in path.suffixes]) if s != ".gz"), "")
    if last in TRAJECTORIES:
        return f"is a trajectory, which tells no residues: give a structure of the same atoms as topology ({known})."
    if last == ".xyz":
        return "tells elements but no residues, so no chain can be read from it; read it with ASE, as a molecule."
    return f"its name does not tell its format; {known}. Rename it, or convert it."


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if not raw:
        raise ValueError("is empty (0 bytes); fetch it again.")
    packed = path.suffix.lower() == ".gz"
    if packed != raw.startswith(_GZIP):
        was, cure = ("not", "name it without .gz") if packed else ("", "name it with .gz")
        raise ValueError(f"is {was} compressed by gzip, whatever its name says; {cure}.".replace("  ", " "))
    if not packed:
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"its compression is damaged or cut short ({error}); fetch it again.") from error
