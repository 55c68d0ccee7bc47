"""Molecules with their bonds as an SD file (V2000): what RDKit, Open Babel, PyMOL and biotite read with bond orders.

An aromatic bond is written as 4, the format's aromatic; class 4, other, as a single bond.  Formal charges are not known
and not written.  Coordinates have four decimals, as the format wants; extended XYZ keeps all digits.

Reference: Dalby et al. 1992 (the file formats of MDL).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scifm.batch import Batch
from scifm.data.bonds import perceive
from scifm.data.elements import symbols
from scifm.data.molecules import check_molecules
from scifm.data.structures.rows import log_densities

__all__ = ["write_sdf"]

_TYPES = (1, 2, 3, 4, 1)  # of the classes single, double, triple, aromatic, other
MOST = 999  # atoms or bonds, three columns each


def write_sdf(path: Path, batch: Batch, log_prob: Tensor | None = None, about: Mapping[str, Any] | None = None) -> None:
    """Write molecules with bonds; those of `scifm.data.bonds.perceive` where they came with none.

    Args:
        batch: ragged, x (N, 3) in Å, nodes["z"], edge_index and edges["bond"] if known.
        log_prob: (B,) nats, as the data item `log_prob`.
        about: plain values, each a data item.

    Raises:
        ValueError, TypeError: see `scifm.data.molecules`; for more than 999 atoms or bonds, or coordinates beyond the
            ten columns of the format.
    """
    check_molecules(batch, "write_sdf", apart=False)
    logs = log_densities(batch, log_prob)
    if batch.edge_index is None:
        batch = perceive(batch)
    reach = float(batch.x.abs().max())
    if reach >= 9999:
        raise ValueError(f"write_sdf: coordinates reach {reach:g} Å, more than the format's columns hold; centre them.")
    texts = [_molecule(batch.select([b]), b) for b in range(len(batch))]
    with open(path, "w", encoding="utf-8") as file:
        for b, text in enumerate(texts):
            items = {} if logs is None else {"log_prob": repr(logs[b])}
            items |= {k: str(v) for k, v in (about or {}).items() if isinstance(v, str | int | float)}
            file.write(text)
            file.writelines(f"> <{k}>\n{v.replace(chr(10), ' ')}\n\n" for k, v in items.items())
            file.write("$$$$\n")


def _molecule(one: Batch, number: int) -> str:
    assert one.edge_index is not None
    ends = one.edge_index.T.tolist()
    kinds = one.edges["bond"].tolist() if "bond" in one.edges else [0] * len(ends)
    bonds = [(i + 1, j + 1, _TYPES[k]) for (i, j), k in zip(ends, kinds, strict=True) if i < j]
    atoms = list(zip(one.x.tolist(), symbols(one.nodes["z"]), strict=True))
    if max(len(atoms), len(bonds)) > MOST:
        raise ValueError(
            f"write_sdf: molecule {number} has {len(atoms)} atoms and {len(bonds)} bonds, the format's three columns "
            f"hold {MOST}; write extended XYZ."
        )
    lines = [f"sample {number}", "  scifm", "", f"{len(atoms):3d}{len(bonds):3d}  0  0  0  0  0  0  0  0999 V2000"]
    blank = "  0" * 11
    lines += [f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0{blank}" for (x, y, z), symbol in atoms]
    lines += [f"{i:3d}{j:3d}{kind:3d}  0  0  0  0" for i, j, kind in bonds]
    return "\n".join([*lines, "M  END\n"])
