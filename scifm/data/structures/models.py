"""Samples as PDB and as mmCIF, a model each, with their log-density.

    PDB      REMARK 950 LOG_PROB  <model>  <nats>, before the models
    mmCIF    the table _scifm_sample: model, log_prob

Rows are named as `rows` says; unknown residues are UNK, chains are A, B, ..., and the residue number is
`nodes["position"]` + 1, so that gaps of the data are gaps of the file.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scifm.batch import Batch
from scifm.data.structures.residues import ELEMENTS, SITES
from scifm.data.structures.rows import RESIDUES, Rows, check_rows, log_densities, rows_of, words

__all__ = ["write_cif", "write_pdb"]

_CHAINS = string.ascii_uppercase + string.ascii_lowercase + string.digits


def write_pdb(path: Path, batch: Batch, log_prob: Tensor | None, about: Mapping[str, Any]) -> None:
    """A PDB file with a MODEL per sample; coordinates in Å, to 0.001.

    Args:
        batch: points (N, 3) in Å.
        log_prob: (B,) nats, or None.
        about: plain values, which go into remarks.

    Raises:
        ValueError: for molecules, which have no residues; for what PDB's columns cannot hold: coordinates beyond
            −999.999 .. 9999.999, more than 99,999 atoms in a sample, 9999 residues in a chain, 62 chains or 9999
            samples. Write .cif instead.
    """
    check_rows(batch, "write_pdb")
    _check_protein(batch, "write_pdb")
    _check_pdb(batch)
    logs = log_densities(batch, log_prob)
    with open(path, "w", encoding="ascii", newline="\n") as file:
        for key, value in about.items():
            for line in _wrapped(f"{key}: {value}"):
                file.write(f"REMARK 950 {line}\n")
        if logs is not None:
            file.write("REMARK 950 LOG_PROB: MODEL, NATURAL LOGARITHM OF THE DENSITY\n")
            file.writelines(f"REMARK 950 LOG_PROB {k:5d} {value!r}\n" for k, value in enumerate(logs, start=1))
        for number, sample in enumerate(rows_of(batch), start=1):
            file.write(f"MODEL     {number:4d}\n")
            file.writelines(_pdb_lines(sample))
            file.write("ENDMDL\n")
        file.write("END\n")


def write_cif(path: Path, batch: Batch, log_prob: Tensor | None, about: Mapping[str, Any]) -> None:
    """An mmCIF file with a model per sample; coordinates in Å, to 0.0001.  Arguments as for `write_pdb`.

    Raises:
        ValueError: for points that are not in space, or not finite; for molecules, which have no residues.
    """
    check_rows(batch, "write_cif")
    _check_protein(batch, "write_cif")
    logs = log_densities(batch, log_prob)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("data_scifm\n#\n_entry.id scifm\n#\n")
        for key, value in about.items():
            text = words(value).replace("'", "")
            file.write(f"_scifm_about.{_tag(key)} '{text}'\n")
        if logs is not None:
            file.write("#\nloop_\n_scifm_sample.pdbx_PDB_model_num\n_scifm_sample.log_prob\n")
            file.writelines(f"{k} {value!r}\n" for k, value in enumerate(logs, start=1))
        file.write("#\nloop_\n" + "".join(f"_atom_site.{name}\n" for name in _COLUMNS))
        serial = 1
        for number, sample in enumerate(rows_of(batch), start=1):
            file.writelines(_cif_lines(sample, number, serial))
            serial += len(sample.xyz)
        file.write("#\n")


_COLUMNS = (
    "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
    "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy",
    "B_iso_or_equiv", "pdbx_formal_charge", "auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id",
    "pdbx_PDB_model_num",
)  # fmt: skip


# -- lines -----------------------------------------------------------------------------------------------


def _pdb_lines(sample: Rows) -> Iterator[str]:
    serial = 1
    last = len(sample.xyz) - 1
    rows = zip(sample.xyz.tolist(), sample.atom, sample.residue, sample.chain, sample.position + 1, strict=True)
    for i, ((x, y, z), atom, kind, chain, number) in enumerate(rows):
        name, residue = SITES[atom], RESIDUES[kind]
        yield (
            f"ATOM  {serial:5d}  {name:<3s} {residue} {_CHAINS[chain]}{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
            f"  1.00  0.00          {ELEMENTS[atom]:>2s}\n"
        )
        serial += 1
        if i == last or sample.chain[i + 1] != chain:
            yield f"TER   {serial:5d}      {residue} {_CHAINS[chain]}{number:4d}\n"
            serial += 1


def _cif_lines(sample: Rows, model: int, serial: int) -> Iterator[str]:
    rows = zip(sample.xyz.tolist(), sample.atom, sample.residue, sample.chain, sample.position + 1, strict=True)
    for i, ((x, y, z), atom, kind, chain, number) in enumerate(rows, start=serial):
        name, residue, label = SITES[atom], RESIDUES[kind], _chain_name(int(chain))
        yield (
            f"ATOM {i} {ELEMENTS[atom]} {name} . {residue} {label} {chain + 1} {number} ? {x:.4f} {y:.4f} {z:.4f} "
            f"1.00 0.00 ? {number} {residue} {label} {name} {model}\n"
        )


def _chain_name(number: int) -> str:
    """A .. Z, AA, AB, ..."""
    name = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        name = string.ascii_uppercase[letter] + name
    return name


def _tag(key: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in str(key))


def _wrapped(text: str, width: int = 68) -> list[str]:
    plain = words(text).replace("Å", "Angstrom").encode("ascii", "replace").decode("ascii")
    return [plain[i : i + width] for i in range(0, len(plain), width)]


def _check_protein(batch: Batch, who: str) -> None:
    """Refuse molecules, whose atoms would all be written as CA."""
    nodes = batch.points.nodes
    if "z" in nodes and not {"atom", "residue"} & set(nodes):
        raise ValueError(
            f'{who}: writes residues of proteins, and this batch holds atoms of molecules, nodes["z"]: write .xyz '
            "(`write_xyz`) or, with bonds, .sdf (`scifm.data.sdf.write_sdf`)."
        )


def _check_pdb(batch: Batch) -> None:
    points = batch.points
    if not len(points.x):
        return
    counts, x = points.counts, points.x
    cure = "; PDB's columns cannot hold it: write .cif, which has no such limit."
    if len(batch) > 9999:
        raise ValueError(f"write_pdb: {len(batch)} samples are more than 9999 models{cure}")
    if not (-999.9995 < float(x.min()) and float(x.max()) < 9999.9995):
        raise ValueError(f"write_pdb: coordinates run from {float(x.min()):.1f} to {float(x.max()):.1f} Å{cure}")
    chains = int(points.nodes["chain"].max()) + 1 if "chain" in points.nodes else 1
    if chains > len(_CHAINS):
        raise ValueError(f"write_pdb: {chains} chains in a sample are more than {len(_CHAINS)}{cure}")
    if int(counts.max()) + chains > 99_999:  # each chain ends in a record with a number of its own
        raise ValueError(f"write_pdb: {int(counts.max())} atoms in a sample are more than 99,999{cure}")
    position = points.nodes.get("position")
    highest = int(position.max()) + 1 if position is not None else int(counts.max())
    lowest = int(position.min()) + 1 if position is not None else 1
    if highest > 9999 or lowest < -999:
        raise ValueError(f"write_pdb: residue numbers run from {lowest} to {highest}{cure}")
