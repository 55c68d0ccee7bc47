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
Column = Callable[[str, type, Any], np.ndarray]
"""column(name, kind, absent): entries (A,) of one kind (str, int or float), with `absent` where the file says . or ?"""


def read_mmcif(content: bytes) -> Atoms:
    """Atoms of an mmCIF file.

    Raises:
        ValueError: for text that is no CIF, or is cut short; a file without atoms or with several structures; a column
            that is missing; a field that is no number.
    """
    import gemmi

    try:
        document = gemmi.cif.read_string(content.decode("ascii", "replace").replace("\ufffd", "?"))
    except ValueError as error:
        if content.startswith((b"HEADER", b"ATOM  ", b"MODEL ", b"REMARK", b"CRYST1", b"HETATM")):
            raise ValueError("looks like a PDB file; name it .pdb.") from None
        reason = str(error).removeprefix("string:")
        raise ValueError(f"is no mmCIF, or damaged or cut short (line {reason}); fetch it again.") from None
    try:
        blocks = [b for b in document if b.find_mmcif_category("_atom_site.").width()]
        # raw=False gives None for `?` and False for `.`
        table = _only({b.name: b for b in blocks}, len(document)).get_mmcif_category("_atom_site.", raw=False)
    except RuntimeError as error:  # a name of another table among those of the atoms
        raise ValueError(f"its table of atoms is damaged ({error}); fetch it again.") from None

    def column(name: str, kind: type, absent: Any) -> np.ndarray:
        values = [absent if v is None or v is False else v for v in table[name]]
        try:
            return np.array(values, dtype=None if kind is str else kind)
        except ValueError:
            return np.array([_number(v, kind, name, row) for row, v in enumerate(values, start=1)])

    return _atoms(set(table), column)


def read_bcif(content: bytes) -> Atoms:
    """Atoms of a BinaryCIF file; raises as `read_mmcif`."""
    from biotite.structure.io.pdbx import BinaryCIFFile

    try:
        file = BinaryCIFFile.read(io.BytesIO(content))
        found = {name: block for name, block in file.items() if "atom_site" in block}
    except Exception as error:  # msgpack and biotite raise whatever they like for damaged bytes
        raise ValueError(f"is no BinaryCIF, or damaged or cut short ({_first(error)}); fetch it again.") from error
    table = _only(found, len(file))["atom_site"]

    def column(name: str, kind: type, absent: Any) -> np.ndarray:
        try:
            return table[name].as_array(kind, masked_value=absent)
        except Exception as error:
            raise ValueError(f"its column {name} is damaged ({_first(error)}); fetch it again.") from error

    return _atoms(set(table), column)


def _only(blocks: Mapping[str, Any], there: int) -> Any:
    if not blocks:
        raise ValueError(f"has no atoms: none of its {there} data blocks holds a table _atom_site.")
    if len(blocks) > 1:
        raise ValueError(f"holds {len(blocks)} structures ({', '.join(blocks)[:60]}); put each into a file of its own.")
    return next(iter(blocks.values()))


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:120]}"


def _number(value: Any, kind: type, name: str, row: int) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{name} of atom {row} is {str(value)!r}, which is no number.") from None


def _atoms(names: set[str], column: Column) -> Atoms:
    missing = [n for n in _NEEDED if n not in names]
    if missing:
        raise ValueError(f"its atoms have no {', '.join(missing)}; it is cut short, or describes a chemical compound.")
    xyz = np.stack([column(f"Cartn_{a}", float, math.nan) for a in "xyz"], 1)
    size = len(xyz)

    def first(kind: type, absent: Any, *wanted: str) -> np.ndarray:
        """The first of these columns that is there, filled from the next where it says nothing."""
        found = np.full(size, absent)
        for name in wanted:
            if name in names and (empty := found == absent).any():
                value = column(name, kind, absent)
                found = value if empty.all() else np.where(empty, value, found)
        return found

    number = first(int, NUMBERLESS, "auth_seq_id", "label_seq_id")
    return Atoms(
        xyz=xyz, name=first(str, "", "label_atom_id"), residue=first(str, "", "label_comp_id"),
        chain=first(str, "", "auth_asym_id", "label_asym_id"), number=number,
        insertion=first(str, "", "pdbx_PDB_ins_code"), altloc=first(str, "", "label_alt_id"),
        element=first(str, "", "type_symbol"), sequence=first(int, -1, "label_seq_id"),
        occupancy=first(float, 1.0, "occupancy"), hetero=first(str, "", "group_PDB") == "HETATM",
        model=_in_order(first(int, 0, "pdbx_PDB_model_num")), segment=np.zeros(size, np.int64),
        where=np.arange(1, size + 1), row="atom",
    )  # fmt: skip


def _in_order(models: np.ndarray) -> np.ndarray:
    """Models numbered from 0 in the order in which they appear."""
    _, first, back = np.unique(models, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[back]
