"""Data that are samples of a known energy: read from the published files, or made here by sampling.

Rows of a file are flat, (B, n·d).  They come out as dense events (n, d), centred, since an energy that does not change
under translations has a density on centred sets only, and published rows need not be (those of DW4 are off by up to
16).  Units are reduced: lengths in that of the potential, energies in kT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data import fetch
from scifm.data.source import Data
from scifm.energies import Energy

__all__ = ["File", "System", "load"]

SOURCES = ("auto", "published", "made")


@dataclass(frozen=True)
class File:
    """One split's file.

    Args:
        name: of a .npy file of shape (rows, n·d).
        rows: how many it holds.
        sha256: of the file; None where it is not known.
        url: where it can be had; None where nobody offers it.
    """

    name: str
    rows: int
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class System:
    """A system of n points in d dimensions and the files of its samples.

    Args:
        name: of the data set.
        energy: that the samples follow.
        points, width: n and d.
        files: by split, "train", "valid" and "test"; the first one found is taken.
        held: rows at the end of training that serve for validation where that has no file.
    """

    name: str
    energy: Energy
    points: int
    width: int
    files: Mapping[str, tuple[File, ...]] = field(default_factory=dict)
    held: int = 0


def load(system: System, source: str = "auto", dtype: torch.dtype = torch.float32) -> Data:
    """The system's three splits, x (B, n, d), centred.

    Args:
        source: "published" reads files, downloading those that are offered; "auto" reads them where they are on this
            machine.
        dtype: of the values.

    Raises:
        FileNotFoundError: where files are missing.
        ValueError: for a source that is unknown, or a file that holds something else.
    """
    if source not in SOURCES:
        raise ValueError(f"{system.name}: source must be one of {', '.join(SOURCES)}, got {source!r}.")
    paths = {split: _find(system, files, source == "published") for split, files in system.files.items()}
    x = {split: read(path, system, file) for split, (path, file) in paths.items()}
    if "valid" not in x:
        x["train"], x["valid"] = x["train"][: -system.held], x["train"][-system.held :]
    parts = {split: Batch(value.to(dtype)) for split, value in x.items()}
    sizes = ", ".join(f"{len(parts[split])} {split}" for split in ("train", "valid", "test"))
    return Data(
        system.name,
        parts["train"],
        parts["valid"],
        parts["test"],
        files=tuple(path for path, _ in paths.values()),
        summary=f"{system.name}: {system.points} points in {system.width}-D, centred, reduced units; {sizes}, from "
        + ", ".join(path.name for path, _ in paths.values()),
    )


def read(path: Path, system: System, file: File) -> Tensor:
    """Centred sets (rows, n, d) float64 of a .npy file; ValueError where it is not the expected one."""
    who, shape = f"{system.name}: {path.name}", (file.rows, system.points * system.width)
    if file.sha256 is not None and fetch.sha256_of(path) != file.sha256:
        raise ValueError(f"{who} holds other values than the published ones (checksum); fetch it again.")
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{who} cannot be read as a .npy file ({error}); fetch it again.") from error
    if values.shape != shape or values.dtype.kind != "f":
        raise ValueError(f"{who}: expected floats of shape {shape}, got {values.dtype} {values.shape}.")
    x = torch.from_numpy(values).double().reshape(-1, system.points, system.width)
    return x - x.mean(1, keepdim=True)


def _find(system: System, files: tuple[File, ...], download: bool) -> tuple[Path, File]:
    """The first of a split's files that is on this machine; else, where asked for, the first that is offered."""
    errors = []
    for fetching in (False, True) if download else (False,):
        for file in files:
            if fetching and file.url is None:
                continue
            try:
                url = file.url if fetching else None
                return fetch.find(system.name, file.name, url=url, sha256=file.sha256), file
            except FileNotFoundError as error:
                errors.append(str(error))
    raise FileNotFoundError(" ".join(errors[:1] if not download else errors[-1:]))
