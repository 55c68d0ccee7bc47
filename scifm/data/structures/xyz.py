"""Samples as extended XYZ, the text that ASE, OVITO, VMD and most other programs read; one frame per sample.

    3
    Properties=species:S:1:pos:R:3 sample=0 pbc="F F F" log_prob=-12.5 seed=0
    O 0 0 0.119300001
    ...

Molecules, proteins and plain points alike: a row's element comes from `nodes["z"]`, atomic numbers; of proteins from
`nodes["atom"]`, else it is a CA; points that are neither are X.  Coordinates are in the data's own unit, log_prob in
nats per that unit to the power of the sample's dimensions.  Nine significant digits bring float32 back exactly,
seventeen float64.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.elements import SYMBOLS, check_numbers
from scifm.data.structures.residues import ELEMENTS
from scifm.data.structures.rows import Rows, check_rows, log_densities, rows_of, words

__all__ = ["write_xyz"]

_COLUMNS = {"atom": "site", "residue": "residue", "chain": "chain", "position": "number"}


def write_xyz(path: Path, batch: Batch, log_prob: Tensor | None = None, about: Mapping[str, Any] | None = None) -> None:
    """Write a frame per sample, with all digits that the dtype has.

    Beside species and position each row has what the batch says of it, as integers: site (0 .. 3 for N, CA, C, O),
    residue (0 .. 20), chain and number (of the residue, from 0).  Numbers in the context, such as an energy, go to the
    comment under their names, where ASE puts them into `atoms.info`.

    Args:
        batch: sets of points in space. context["cell"] (B, 3, 3) and context["pbc"] (B, 3) are written.
        log_prob: (B,) nats.
        about: plain values that go into every comment.

    Raises:
        ValueError, TypeError: for points that are not in space, or not finite; for nodes["z"] that are no elements.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> helium = Batch(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), 1, nodes={"z": torch.tensor([2])})
        >>> with TemporaryDirectory() as folder:
        ...     write_xyz(Path(folder, "helium.xyz"), helium, torch.tensor([-1.5]))
        ...     print(Path(folder, "helium.xyz").read_text().splitlines()[1])
        Properties=species:S:1:pos:R:3 sample=0 pbc="F F F" log_prob=-1.5
    """
    check_rows(batch, "write_xyz")
    nodes = batch.points.nodes
    if "z" in nodes:
        check_numbers(nodes["z"], "write_xyz")
    logs = log_densities(batch, log_prob)
    digits = 9 if batch.x.dtype == torch.float32 else 17
    protein = bool({"atom", "residue"} & set(nodes))
    told = [k for k in _COLUMNS if k in nodes]
    properties = "species:S:1:pos:R:3" + "".join(f":{_COLUMNS[k]}:I:1" for k in told)
    plain = {_tag(k): v for k, v in (about or {}).items() if isinstance(v, str | int | float)}
    own = _told_of_samples(batch, digits)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for b, sample in enumerate(rows_of(batch)):
            log = {} if logs is None else {"log_prob": logs[b]}
            comment = {"Properties": properties, "sample": b, **own[b], **log, **plain}
            file.write(f"{len(sample.xyz)}\n{' '.join(f'{k}={_quoted(v)}' for k, v in comment.items())}\n")
            columns = [getattr(sample, k) for k in told]
            for i, (symbol, place) in enumerate(zip(_symbols(sample, protein), sample.xyz.tolist(), strict=True)):
                more = [str(c[i]) for c in columns]
                file.write(" ".join([symbol, *(f"{v:.{digits}g}" for v in place), *more]) + "\n")


def _told_of_samples(batch: Batch, digits: int) -> list[dict[str, Any]]:
    """Of each sample its cell, along which of its vectors it repeats, and the numbers in its context."""
    context = {k: v.detach().cpu() for k, v in batch.context.items()}
    cell, pbc = context.pop("cell", None), context.pop("pbc", None)
    numbers = {_tag(k): v for k, v in context.items() if v[:1].numel() == 1}
    found = []
    for b in range(len(batch)):
        own: dict[str, Any] = {}
        if cell is not None:
            own["Lattice"] = " ".join(f"{v:.{digits}g}" for v in cell[b].double().flatten().tolist())
        flags = [cell is not None] * 3 if pbc is None else pbc[b].tolist()
        own["pbc"] = " ".join("FT"[bool(f)] for f in flags)
        found.append(own | {k: v[b].item() for k, v in numbers.items()})
    return found


def _symbols(sample: Rows, protein: bool) -> list[str]:
    """Elements; X for points that are none."""
    if sample.z is not None:
        return [SYMBOLS[z] for z in sample.z.tolist()]
    return [ELEMENTS[a] for a in sample.atom] if protein else ["X"] * len(sample.xyz)


def _quoted(value: Any) -> str:
    """In quotes if there is a sign of the format inside; the format is of one line."""
    text = words(value).replace('"', "'")
    return text if re.fullmatch(r"[\w.:+\-/]+", text) else f'"{text}"'


def _tag(key: str) -> str:
    return re.sub(r"\W", "_", str(key))
