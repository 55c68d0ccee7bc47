"""Formats of fixed columns: PDB (wwPDB format 3.3) and GRO (GROMACS).

A reader of our own, since other readers make something of every field: of `********`, which Fortran prints for a number
that does not fit, gemmi 0.7 makes the coordinate 0, and of `1x.345` a 1.  Here a field is a number or the file is
refused, with the line.  It also keeps the file's order, by which a trajectory counts its atoms.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from scifm.data.structures.atoms import NUMBERLESS, Atoms
from scifm.data.structures.residues import ALIASES, WATERS

__all__ = ["read_gro", "read_pdb"]

_NEEDED = 54  # columns of an atom record, up to z
_WIDTH = 80
_NANOMETRE = 10.0  # in Å


def read_pdb(content: bytes) -> Atoms:
    """Atoms of a PDB file.

    Raises:
        ValueError: for text of another format, a line that is cut short, or a field that is no number.
    """
    lines = _text(content, "PDB")
    rows: list[bytes] = []
    where: list[int] = []
    model: list[int] = []
    segment: list[int] = []
    models = segments = 0
    for number, line in enumerate(lines, start=1):
        if line.startswith((b"ATOM  ", b"HETATM")):
            rows.append(line)
            where.append(number)
            model.append(max(models - 1, 0))
            segment.append(segments)
        elif line.startswith(b"MODEL "):
            models += 1
        elif line.startswith(b"TER"):
            segments += 1
    if not rows:
        raise ValueError(_no_atoms(lines))
    short = next((i for i, line in enumerate(rows) if len(line.rstrip()) < _NEEDED), None)
    if short is not None:
        raise ValueError(
            f"line {where[short]} is an atom of {len(rows[short].rstrip())} columns, too few for three coordinates "
            f"({_NEEDED}); the file was cut short, or its fields are not in PDB's columns."
        )
    cut = _cutter(rows)
    name, residue, chain = _strip(cut(12, 16)), _strip(cut(17, 20)), _strip(cut(21, 22))
    if (cut(20, 21) != b" ").any():
        residue, chain = _twenty_first(cut, residue, chain)
    numbers = np.array(where)
    return Atoms(
        xyz=np.stack([_floats(cut(a, a + 8), numbers, "xyz"[i]) for i, a in enumerate((30, 38, 46))], 1),
        name=name, residue=residue, chain=np.where(chain == "", _strip(cut(72, 76)), chain),
        number=_residue_numbers(cut(22, 26)), insertion=_strip(cut(26, 27)), altloc=_strip(cut(16, 17)),
        element=_elements(cut(76, 78)), sequence=np.full(len(rows), -1), occupancy=_occupancy(cut(54, 60)),
        hetero=cut(0, 6) == b"HETATM", model=np.array(model), segment=np.array(segment), where=numbers,
    )  # fmt: skip


def read_gro(content: bytes) -> Atoms:
    """Atoms of a GRO file, of one or more frames, from nanometres to Å.  The format has no names of chains.

    Raises:
        ValueError: for a count of atoms that is none or is not kept, or a field that is no number.
    """
    lines = _text(content, "GRO")
    rows: list[bytes] = []
    where: list[int] = []
    model: list[int] = []
    start = frame = 0
    while start < len(lines) and (frame == 0 or lines[start].strip()):
        count = lines[start + 1].strip() if start + 1 < len(lines) else b""
        if not count.isdigit():
            raise ValueError(
                f"line {start + 2} should be the number of atoms, and is {_show(count)}; it is no GRO file, or damaged."
            )
        end = start + 2 + int(count)
        if end >= len(lines) or not lines[end].strip():
            raise ValueError(
                f"line {start + 2} promises {int(count)} atoms and a box, the file ends at line {len(lines)}; it was "
                "cut short."
            )
        rows += lines[start + 2 : end]
        where += range(start + 3, end + 1)
        model += [frame] * int(count)
        start, frame = end + 1, frame + 1
    if not rows:
        raise ValueError("holds no atoms.")
    width = _gro_width(rows[0], where[0])
    short = next((i for i, line in enumerate(rows) if len(line.rstrip()) < 20 + 3 * width - 1), None)
    if short is not None:
        raise ValueError(f"line {where[short]} is cut short: expected three coordinates of {width} columns.")
    cut, numbers = _cutter(rows, 20 + 3 * width), np.array(where)
    blank = np.full(len(rows), "")
    xyz = [_floats(cut(20 + i * width, 20 + (i + 1) * width), numbers, "xyz"[i]) for i in range(3)]
    return Atoms(
        xyz=np.round(np.stack(xyz, 1) * _NANOMETRE, 6), name=_strip(cut(10, 15)), residue=_strip(cut(5, 10)),
        chain=blank, number=_residue_numbers(cut(0, 5)), insertion=blank, altloc=blank, element=blank,
        sequence=np.full(len(rows), -1), occupancy=np.ones(len(rows)), hetero=np.zeros(len(rows), bool),
        model=np.array(model), segment=np.zeros(len(rows), np.int64), where=numbers,
    )  # fmt: skip


def _gro_width(line: bytes, number: int) -> int:
    """Columns of a coordinate: as many as between two points (any precision is legal)."""
    points = [m.start() for m in re.finditer(rb"\.", line[20:])]
    if len(points) < 3:
        raise ValueError(f"line {number} has no three coordinates from column 21 on: {_show(line)}.")
    return points[1] - points[0]


# -- text ------------------------------------------------------------------------------------------------


def _text(content: bytes, kind: str) -> list[bytes]:
    if b"\0" in content[: 1 << 16]:
        raise ValueError(f"holds binary data, not {kind} text; is it another format, or damaged?")
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


def _no_atoms(lines: list[bytes]) -> str:
    if any(line.startswith((b"data_", b"loop_")) for line in lines):
        return "holds no atom records, and looks like mmCIF; name it .cif."
    free = next((k for k, line in enumerate(lines, 1) if line.split()[:1] in ([b"ATOM"], [b"HETATM"])), None)
    if free is not None:
        return (
            f"line {free} is an atom, but not in PDB's fixed columns: is it a PQR file, or are its fields parted by "
            "tabs? Convert it."
        )
    if any(line.lstrip().startswith((b"<html", b"<!DOCTYPE", b"<HTML")) for line in lines[:20]):
        return "is a web page, not a structure: the address it came from is wrong."
    return "holds no atoms: no line begins with ATOM or HETATM. Is it a PDB file?"


def _show(text: bytes) -> str:
    return repr(text[:40].decode("latin-1"))


# -- fields ----------------------------------------------------------------------------------------------


def _cutter(rows: list[bytes], width: int = _WIDTH) -> Callable[[int, int], np.ndarray]:
    """cut(a, b): columns a..b-1 of all lines, (A,) bytes padded by blanks."""
    table = np.array([line[:width].ljust(width) for line in rows], dtype=f"S{width}").view("S1").reshape(-1, width)
    return lambda a, b: np.ascontiguousarray(table[:, a:b]).view(f"S{b - a}")[:, 0]


def _strip(field: np.ndarray) -> np.ndarray:
    found, back = _unique(field)  # few differ: strip those
    return np.array([v.decode("latin-1").strip() for v in found])[back]


def _unique(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different entries, and which one each is; numbers sort faster than text."""
    width = 1 << (field.dtype.itemsize - 1).bit_length()
    codes, back = np.unique(field.astype(f"S{width}").view(f"u{width}"), return_inverse=True)
    return codes.view(f"S{width}"), back


def _floats(field: np.ndarray, where: np.ndarray, what: str) -> np.ndarray:
    try:
        if b"_" not in field.tobytes():  # Python takes 1_000 for a thousand
            return field.astype(np.float64)
    except ValueError:
        pass
    for text, line in zip(field, where, strict=True):
        try:
            float(text.replace(b"_", b"?"))
        except ValueError:
            kind = "is missing" if not text.strip() else f"is {_show(text.strip())}, which is no number"
            more = "; the number did not fit into its columns, write mmCIF instead" if b"*" in text else ""
            raise ValueError(f"the {what} coordinate in line {line} {kind}{more}.") from None
    raise AssertionError("unreachable")


def _occupancy(field: np.ndarray) -> np.ndarray:
    """It only chooses between alternate positions: what cannot be read counts as 1."""
    found, back = _unique(field)
    return np.array([_float_or(v, 1.0) for v in found])[back]


def _float_or(text: bytes, default: float) -> float:
    try:
        return float(text)
    except ValueError:
        return default


def _residue_numbers(field: np.ndarray) -> np.ndarray:
    try:
        return field.astype(np.int64)
    except ValueError:
        found, back = _unique(field)
        return np.array([_residue_number(v.decode("latin-1")) for v in found])[back]


def _residue_number(text: str) -> int:
    """A number of four columns; beyond 9999 the hybrid of base 10 and 36 that cctbx, gemmi and PyMOL write."""
    try:
        return int(text)
    except ValueError:
        pass
    if re.fullmatch(r"[A-Z][0-9A-Z]{3}", text):
        return int(text, 36) - 10 * 36**3 + 10**4
    if re.fullmatch(r"[a-z][0-9a-z]{3}", text):
        return int(text, 36) + 16 * 36**3 + 10**4
    return NUMBERLESS  # an error only where a residue is used


def _elements(field: np.ndarray) -> np.ndarray:
    """Element symbols; digits in these columns are the serial numbers of files older than 1996."""
    found, back = _unique(field)
    texts = [v.decode("latin-1").strip() for v in found]
    return np.array([t if t.isalpha() else "" for t in texts])[back]


def _twenty_first(cut: Callable, residue: np.ndarray, chain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column 21 belongs to nobody: some write residues of four letters into it (LYSH, TIP3), some chains of two."""
    four = _strip(cut(17, 21))
    known = np.isin(four, [*ALIASES, *WATERS])
    return np.where(known, four, residue), np.where(known, chain, _strip(cut(20, 22)))
