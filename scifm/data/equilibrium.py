"""Data that are samples of a known energy: read from the published files, or made here by sampling.

Rows of a file are flat, (B, n·d).  They come out as dense events (n, d), centred, since an energy that does not change
under translations has a density on centred sets only, and published rows need not be (those of DW4 are off by up to
16).  Units are reduced: lengths in that of the potential, energies in kT.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data import fetch
from scifm.data.source import Data
from scifm.energies import Energy, MonteCarlo, lattice, sample

__all__ = ["File", "Made", "System", "load", "make", "read"]

SOURCES, SPLITS = ("auto", "published", "made"), ("train", "valid", "test")
VERSION = 1  # of the sampler: with another one the same seed gives other samples


@dataclass(frozen=True)
class File:
    """One split's file.

    Args:
        name: of a .npy file of shape (rows, n·d).
        rows: how many it holds; None where that is not known.
        sha256: of the file; None where it is not known.
        url: where it can be had; None where nobody offers it.
    """

    name: str
    rows: int | None
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Made:
    """How a set is made from nothing, on which `scifm.energies.sample` spends minutes once.

    Args:
        spacing: of the lattice where chains start.
        chains: of which training, validation and test consist. No chain serves two of them.
        settings: of the chains.
    """

    spacing: float
    chains: tuple[int, int, int]
    settings: MonteCarlo


@dataclass(frozen=True)
class System:
    """A system of n points in d dimensions, and where its samples come from.

    Args:
        name: of the data set.
        energy: that the samples follow.
        points, width: n and d.
        files: by split, "train", "valid" and "test"; the first one found is taken.
        made: how they are made where there are no files.
        held: rows at the end of training that serve for validation where that has no file.
        instead: files that "auto" takes, all of them, where the first ones are not on this machine.
    """

    name: str
    energy: Energy
    points: int
    width: int
    files: Mapping[str, tuple[File, ...]]
    made: Made
    held: int = 0
    instead: Mapping[str, tuple[File, ...]] = field(default_factory=dict)


def load(system: System, source: str = "auto", seed: int = 0, dtype: torch.dtype = torch.float32) -> Data:
    """The system's three splits, x (B, n, d), centred.

    Args:
        source: "published" reads files and downloads those that are offered; "made" samples the energy, or reads what
            was made before; "auto" reads published files where all of them are on this machine, and else makes them.
            A run's own copies go before both.
        seed: of what is made.
        dtype: of the values.

    Raises:
        FileNotFoundError: where published files are missing.
        ValueError: for a source that is unknown, or a file that holds something else.

    Warns:
        UserWarning: where what was made cannot be kept in the user's cache.
    """
    if source not in SOURCES:
        raise ValueError(f"{system.name}: source must be one of {', '.join(SOURCES)}, got {source!r}.")
    x, paths = {}, []
    made = [_file_made(system, seed, split).name for split in SPLITS]
    if source == "published" or (source == "auto" and not _copied(system, made)):
        x, paths = _published(system, source == "published")
    if not x:
        x, paths = _made(system, seed)
    parts = {split: Batch(value.to(dtype)) for split, value in x.items()}
    sizes = ", ".join(f"{len(parts[split])} {split}" for split in SPLITS)
    origin = ", ".join(path.name for path in paths) or f"sampled here with seed {seed}"
    return Data(
        system.name,
        parts["train"],
        parts["valid"],
        parts["test"],
        files=tuple(paths),
        energy=system.energy,
        summary=f"{system.name}: {system.points} points in {system.width}-D, centred, reduced units; {sizes}; {origin}",
    )


def read(path: Path, system: System, file: File) -> Tensor:
    """Centred sets (rows, n, d) float64 of a .npy file; ValueError where it is not the expected one."""
    who, width = f"{system.name}: {path.name}", system.points * system.width
    if file.sha256 is not None and fetch.sha256_of(path) != file.sha256:
        raise ValueError(f"{who} holds other values than the published ones (checksum); fetch it again.")
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{who} cannot be read as a .npy file ({error}); fetch it again.") from error
    shape = (len(values) if file.rows is None and values.ndim else file.rows, width)
    if values.shape != shape or not len(values) or values.dtype.kind != "f":
        raise ValueError(f"{who}: expected floats of shape {shape}, got {values.dtype} {values.shape}.")
    x = torch.from_numpy(values).double().reshape(-1, system.points, system.width)
    return x - x.mean(1, keepdim=True)


def _published(system: System, needed: bool) -> tuple[dict[str, Tensor], list[Path]]:
    """By split, from files; nothing where one is missing that is not needed."""
    sets = [system.files] if needed or not system.instead else [system.files, system.instead]
    # A run goes on with the files that it has copies of, whatever else there is by now.
    sets.sort(key=lambda files: not _copied(system, [f.name for named in files.values() for f in named]))
    found = {}
    for files in sets:
        try:
            found = {split: _find(system, named, needed) for split, named in files.items()}
            break
        except FileNotFoundError:
            root = os.environ.get("SCIFM_DATA")
            if needed or (root and not Path(root).is_dir()):  # a misspelt folder would cost minutes of sampling
                raise
    if not found:
        return {}, []
    x = {split: read(path, system, file) for split, (path, file) in found.items()}
    if "valid" not in x:
        x["train"], x["valid"] = x["train"][: -system.held], x["train"][-system.held :]
    return x, [path for path, _ in found.values()]


def _find(system: System, files: tuple[File, ...], download: bool) -> tuple[Path, File]:
    """The first of a split's files that is on this machine; else, where asked for, the first that is offered."""
    errors = []
    files = tuple(sorted(files, key=lambda f: not _copied(system, [f.name])))
    for fetching in (False, True) if download else (False,):
        for file in files:
            if fetching and file.url is None:
                continue
            try:
                url = file.url if fetching else None
                return fetch.find(system.name, file.name, url=url, sha256=file.sha256), file
            except FileNotFoundError as error:
                errors.append(str(error))
    raise FileNotFoundError(errors[-1])


def _made(system: System, seed: int) -> tuple[dict[str, Tensor], list[Path]]:
    """By split, save after save of its chains; from the files of an earlier call, or sampled."""
    files = {split: _file_made(system, seed, split) for split in SPLITS}
    try:
        paths = [fetch.find(system.name, file.name) for file in files.values()]
    except FileNotFoundError:
        paths = []
    if not paths:
        x = make(system, seed)
        flat = {files[split].name: value.flatten(1).float().numpy() for split, value in x.items()}
        paths = fetch.keep(system.name, flat)
        if not paths:
            return x, []
    return {s: read(path, system, f) for (s, f), path in zip(files.items(), paths, strict=True)}, paths


def make(system: System, seed: int = 0) -> dict[str, Tensor]:
    """Splits (B, n, d) float64 sampled from the energy, save after save of the chains of each."""
    made, generator = system.made, torch.Generator().manual_seed(seed)
    start = lattice(system.points, system.width, made.spacing, sum(made.chains), generator, torch.float32)
    found = sample(system.energy, start, made.settings, generator)
    return {
        split: chains.flatten(0, 1).double()
        for split, chains in zip(SPLITS, found.x.split(list(made.chains), 1), strict=True)
    }


def _copied(system: System, names: Sequence[str]) -> bool:
    """Whether a run keeps a copy of one of these files: it goes on with them, whatever else there is by now."""
    return any((folder / system.name / name).is_file() for folder in fetch.search_path.get() for name in names)


def _file_made(system: System, seed: int, split: str) -> File:
    rows = system.made.chains[SPLITS.index(split)] * system.made.settings.saves
    return File(f"made-v{VERSION}-seed{seed}-{split}.npy", rows)
