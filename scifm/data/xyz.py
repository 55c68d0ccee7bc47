"""Molecules as extended XYZ, the text that ASE, OVITO, VMD and most other programs read; one frame per molecule.

    3
    Properties=species:S:1:pos:R:3 pbc="F F F" log_prob=-12.5 seed=0
    O        0.00000000       0.00000000       0.11930000
    ...

Coordinates are Å, log_prob is in nats per Å to the power of the molecule's dimensions.  Nine significant digits bring
float32 back exactly, seventeen float64.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.elements import symbols
from scifm.data.molecules import check_molecules
from scifm.data.structures.rows import log_densities

__all__ = ["write_xyz"]


def write_xyz(path: Path, batch: Batch, log_prob: Tensor | None = None, about: Mapping[str, Any] | None = None) -> None:
    """Write molecules; numbers in their context, such as an energy, go to the comment under their names.

    Args:
        batch: ragged, x (N, 3) in Å, nodes["z"]. context["cell"] (B, 3, 3) and context["pbc"] (B, 3) are written.
        log_prob: (B,) nats.
        about: plain values that go into every comment.

    Raises:
        ValueError, TypeError: see `scifm.data.molecules`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> helium = Batch(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), 1, nodes={"z": torch.tensor([2])})
        >>> with TemporaryDirectory() as folder:
        ...     write_xyz(Path(folder, "helium.xyz"), helium, torch.tensor([-1.5]))
        ...     print(Path(folder, "helium.xyz").read_text().splitlines()[1])
        Properties=species:S:1:pos:R:3 pbc="F F F" log_prob=-1.5
    """
    check_molecules(batch, "write_xyz", apart=False)
    logs = log_densities(batch, log_prob)
    digits = 17 if batch.x.dtype == torch.float64 else 9
    sizes = batch.counts.tolist()
    x, z = (v.detach().cpu().split(sizes) for v in (batch.x, batch.nodes["z"]))
    plain = {k: v.detach().cpu() for k, v in batch.context.items()}
    cell, pbc = plain.pop("cell", None), plain.pop("pbc", None)
    with open(path, "w", encoding="utf-8") as file:
        for b, n in enumerate(sizes):
            words = {"Properties": "species:S:1:pos:R:3"}
            if cell is not None:
                words["Lattice"] = " ".join(f"{v:.{digits}g}" for v in cell[b].double().flatten().tolist())
            flags = [cell is not None] * 3 if pbc is None else pbc[b].tolist()
            words["pbc"] = " ".join("FT"[bool(f)] for f in flags)
            words |= {} if logs is None else {"log_prob": repr(logs[b])}
            words |= {k: str(v[b].item()) for k, v in plain.items() if v[b].numel() == 1}
            words |= {k: str(v) for k, v in (about or {}).items() if isinstance(v, str | int | float)}
            file.write(f"{n}\n{' '.join(f'{k}={_quoted(v)}' for k, v in words.items())}\n")
            for symbol, place in zip(symbols(z[b]), x[b].tolist(), strict=True):
                file.write(f"{symbol:<2} {' '.join(f'{v:{digits + 8}.{digits}g}' for v in place)}\n")


def _quoted(word: str) -> str:
    """A value that holds spaces or signs of the format, in quotes; the format is of one line."""
    word = re.sub(r"\s*\n\s*", " ", word).replace('"', "'")
    return word if re.fullmatch(r"[\w.:+\-/]+", word) else f'"{word}"'
