"""Structure files that tests write themselves: lines of PDB, a helix, the same as mmCIF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np


def helix(n: int = 8, start: int = 1, chain: str = "A", shift: float = 0.0) -> list[str]:
    """PDB lines of an ideal α helix (rise 1.5 Å, 100° per residue) from n alanines: N, CA, C, O each."""
    radius, angle, height = np.array([1.55, 2.28, 1.68, 2.0]), np.array([0.0, 28.0, 55.0, 61.0]), [0.0, 0.9, 2.05, 3.2]
    lines = []
    for i in range(n):
        turn = np.deg2rad(100 * i + angle)
        xyz = np.stack([radius * np.cos(turn), radius * np.sin(turn), 1.5 * i + np.array(height)], 1) + shift
        for k, name in enumerate(("N", "CA", "C", "O")):
            lines.append(atom(name, "ALA", start + i, xyz[k], chain=chain, element=name[0], serial=len(lines) + 1))
    return lines


def atom(
    name: str, residue: str, number: int, xyz=(0.0, 0.0, 0.0), *, chain="A", serial=1, element="", altloc=" ",
    occupancy=1.0, insertion=" ", record="ATOM",
) -> str:  # fmt: skip
    x, y, z = xyz
    return (
        f"{record:<6s}{serial:5d}  {name:<3s}{altloc}{residue:>3s} {chain}{number:4d}{insertion}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}  0.00          {element:>2s}"
    )


def put(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def cif(path: Path, lines: list[str], number: Callable[[int], int] = lambda n: n) -> Path:
    tags = "group_PDB id type_symbol label_atom_id label_comp_id label_asym_id label_seq_id auth_seq_id auth_asym_id"
    tags += " Cartn_x Cartn_y Cartn_z"
    rows = []
    for i, line in enumerate(lines):
        n = int(line[22:26])
        xyz = " ".join(line[30:54].split())
        name, residue, chain = line[12:16].strip(), line[17:20], line[21]
        rows.append(f"ATOM {i + 1} {name[0]} {name} {residue} X {n} {number(n)} {chain} {xyz}")
    head = "".join(f"_atom_site.{t}\n" for t in tags.split())
    path.write_text(f"data_x\nloop_\n{head}" + "\n".join(rows) + "\n")
    return path
