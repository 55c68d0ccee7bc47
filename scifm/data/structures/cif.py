"""mmCIF as text (gemmi reads the syntax) and as BinaryCIF (biotite unpacks the columns): the table `_atom_site`.

A chain is what its authors call it, as in a PDB file of the same entry; the number along the polymer, which only mmCIF
has, tells how many residues are missing in a gap.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scifm.data.structures.atoms import NUMBERLESS, Atoms

__all__ = ["read_bcif", "read_mmcif"]

_NEEDED = ("Cartn_x", "Cartn_y", "Cartn_z", "label_atom_id", "label_comp_id")
_ABSENT = ("", ".", "?")
Column = Callable[[str], np.ndarray]
"""Name of a column -> its entries (A,)."""


def read_mmcif(content: bytes) -> Atoms:
    """Atoms of an mmCIF file.

    Raises:
        ValueError: for text that is no CIF, or is cut short; a file without atoms or with several structures; a column
            that is missing; a field that is no number.
    """
    import gemmi

    try:
        document = gemmi.cif.read_string(content.decode("utf-8", "replace"))
    except ValueError as error:
        if content.startswith((b"HEADER", b"ATOM  ", b"MODEL ", b"REMARK", b"CRYST1", b"HETATM")):
            raise ValueError("looks like a PDB file; name it .pdb.") from None
        reason = str(error).removeprefix("string:")
        raise ValueError(f"is no mmCIF, or damaged or cut short (line {reason}); fetch it again.") from None
    blocks = [b for b in document if b.find_mmcif_category("_atom_site.").width()]
    table = _only({b.name: b for b in blocks}, len(document)).get_mmcif_category("_atom_site.", raw=False)

    def column(name: str) -> np.ndarray:
        return np.array([v or "" for v in table[name]])  # gemmi gives None for `?` and False for `.`

    return _atoms(set(table), column, lambda name: _floats(column(name), name))


def read_bcif(content: bytes) -> Atoms:
    """Atoms of a BinaryCIF file; raises as `read_mmcif`."""
    from biotite.structure.io.pdbx import BinaryCIFFile

    try:
        file = BinaryCIFFile.read(io.BytesIO(content))
        found = {name: block for name, block in file.items() if "atom_site" in block}
    except Exception as error:  # msgpack and biotite raise whatever they like for damaged bytes
        raise ValueError(f"is no BinaryCIF, or damaged or cut short ({_first(error)}); fetch it again.") from error
    table = _only(found, len(file))["atom_site"]

    def column(name: str, kind: type = str) -> np.ndarray:
        try:
            return table[name].as_array(kind, masked_value=math.nan if kind is float else None)
        except Exception as error:
            raise ValueError(f"its column {name} is damaged ({_first(error)}); fetch it again.") from error

    return _atoms(set(table), column, lambda name: column(name, float))


def _only(blocks: Mapping[str, Any], there: int) -> Any:
    if not blocks:
        raise ValueError(f"has no atoms: none of its {there} data blocks holds a table _atom_site.")
    if len(blocks) > 1:
        raise ValueError(f"holds {len(blocks)} structures ({', '.join(blocks)[:60]}); put each into a file of its own.")
    return next(iter(blocks.values()))


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:120]}"


def _atoms(names: set[str], column: Column, numbers: Column) -> Atoms:
    missing = [n for n in _NEEDED if n not in names]
    if missing:
        raise ValueError(f"its atoms have no {', '.join(missing)}; it is cut short, or describes a chemical compound.")
    xyz = np.stack([numbers(f"Cartn_{a}") for a in "xyz"], 1)
    size = len(xyz)

    def text(*wanted: str) -> np.ndarray:
        """The first of these columns that is there, filled from the next where it says nothing."""
        found = np.full(size, "", dtype="U1")
        for name in wanted:
            if name in names:
                value = column(name)
                found = np.where(found == "", np.where(np.isin(value, _ABSENT), "", value), found)
        return found

    return Atoms(
        xyz=xyz, name=text("label_atom_id"), residue=text("label_comp_id"), chain=text("auth_asym_id", "label_asym_id"),
        number=_integers(text("auth_seq_id", "label_seq_id"), NUMBERLESS), insertion=text("pdbx_PDB_ins_code"),
        altloc=text("label_alt_id"), element=text("type_symbol"), sequence=_integers(text("label_seq_id"), -1),
        occupancy=_numbers(text("occupancy")), hetero=text("group_PDB") == "HETATM",
        model=_in_order(text("pdbx_PDB_model_num")), where=np.arange(1, size + 1), row="atom",
    )  # fmt: skip


def _floats(field: np.ndarray, what: str) -> np.ndarray:
    try:
        return field.astype(np.float64)
    except ValueError:
        pass
    for row, text in enumerate(field, start=1):
        try:
            float(text)
        except ValueError:
            kind = "is missing" if text in _ABSENT else f"is {str(text)!r}, which is no number"
            raise ValueError(f"{what} of atom {row} {kind}.") from None
    raise AssertionError("unreachable")


def _numbers(field: np.ndarray) -> np.ndarray:
    """Occupancies: what cannot be read counts as 1."""
    found, back = np.unique(field, return_inverse=True)
    return np.array([_or(float, v, 1.0) for v in found])[back]


def _integers(field: np.ndarray, default: int) -> np.ndarray:
    found, back = np.unique(field, return_inverse=True)
    return np.array([_or(int, v, default) for v in found], dtype=np.int64)[back]


def _or(kind: Callable, text: str, default: float) -> float:
    try:
        return kind(text)
    except ValueError:
        return default


def _in_order(models: np.ndarray) -> np.ndarray:
    """Models numbered from 0 in the order in which they appear."""
    _, first, back = np.unique(models, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[back]
