"""Samples as extended XYZ, a frame each: log_prob=... in its comment line, where ASE puts it into `atoms.info`.

A row's element comes from `nodes["z"]`, atomic numbers; of proteins from `nodes["atom"]`, else it is a CA; points
that are neither are X.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.structures.rows import ELEMENTS, Rows, check_points, log_densities, rows_of, words

__all__ = ["write_xyz"]

_COLUMNS = {"atom": "site", "residue": "residue", "chain": "chain", "position": "number"}


def write_xyz(path: Path, batch: Batch, log_prob: Tensor | None, about: Mapping[str, Any]) -> None:
    """Extended XYZ, a frame per sample, in the data's own unit, with all digits that the dtype has.

    Beside species and position each row has what the batch says of it, as integers: site (0 .. 3 for N, CA, C, O),
    residue (0 .. 20), chain and number (of the residue, from 0).  Arguments as for `write_pdb`.

    Raises:
        ValueError: for points that are not in space, or not finite.
    """
    check_points(batch, "write_xyz")
    logs = log_densities(batch, log_prob)
    digits = 9 if batch.x.dtype == torch.float32 else 17
    protein = bool({"atom", "residue"} & set(batch.points.nodes))
    told = [k for k in _COLUMNS if k in batch.points.nodes]
    properties = "species:S:1:pos:R:3" + "".join(f":{_COLUMNS[k]}:I:1" for k in told)
    info = [f"{_tag(k)}={_quoted(v)}" for k, v in about.items()]
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for number, sample in enumerate(rows_of(batch)):
            log = [] if logs is None else [f"log_prob={logs[number]!r}"]
            comment = [f"Properties={properties}", f"sample={number}", *log, *info, 'pbc="F F F"']
            file.write(f"{len(sample.xyz)}\n{' '.join(comment)}\n")
            symbols = _symbols(sample, protein)
            columns = [getattr(sample, k) for k in told]
            for i, (symbol, (x, y, z)) in enumerate(zip(symbols, sample.xyz.tolist(), strict=True)):
                more = "".join(f" {c[i]}" for c in columns)
                file.write(f"{symbol} {x:.{digits}g} {y:.{digits}g} {z:.{digits}g}{more}\n")


def _symbols(sample: Rows, protein: bool) -> list[str]:
    """Elements; X for points that are none."""
    if sample.z is None:
        return [ELEMENTS[a] for a in sample.atom] if protein else ["X"] * len(sample.xyz)
    import gemmi

    return [gemmi.Element(int(z)).name for z in sample.z]


def _quoted(value: Any) -> str:
    text = words(value).replace('"', "'")
    return text if text and text.replace(".", "").replace("-", "").isalnum() else f'"{text}"'


def _tag(key: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in str(key))
