"""Files and folders of structures in, chains and a report out; chains to a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data.structures.atoms import SUFFIXES, Atoms, format_of, read_atoms
from scifm.data.structures.chains import Chain, Gaps, Sites, chains_of
from scifm.data.structures.report import Report

__all__ = ["read", "structure_files", "to_batch"]

Models = Literal["first", "all"]


def read(
    source: Path | str | Sequence[Path | str],
    *,
    atoms: Sites = "ca",
    gaps: Gaps = "split",
    models: Models = "first",
    min_length: int = 1,
    max_length: int | None = None,
) -> tuple[list[Chain], Report]:
    """The protein chains of PDB, mmCIF, BinaryCIF and GRO files, plain or gzipped.

    Args:
        source: a file; a folder, with all below it; or several files.
        atoms: "ca", or "backbone" for N, CA, C and O of each residue that has them all.
        gaps: where residues are missing or a bond is too long: "split" into unbroken pieces; "mask", one chain whose
            `position` jumps over what is missing; or "refuse" the file.
        models: "first" of each file, or "all", each with chains of its own.
        min_length, max_length: residues of a chain; others are dropped and counted.

    Returns:
        the chains, and the `Report` of what was kept and why the rest was not.

    Raises:
        FileNotFoundError: where there is no such file or folder.
        ValueError: for a single file that cannot be used; for several, where none can.  The message tells why.

    Example:
        chains, report = read("structures", min_length=40)
        print(report)
    """
    _check_settings(atoms, gaps, models, min_length, max_length)
    several = not isinstance(source, str | Path) or Path(source).is_dir()
    files, ignored = structure_files(source)
    chains: list[Chain] = []
    reports = [Report(dropped=ignored)]
    for file in files:
        try:
            found, report = _read_file(file, atoms, gaps, models)
        except (ValueError, OSError) as error:
            if not several:
                raise
            reports.append(Report(refused={str(file): str(error)}))
            continue
        longest = max_length or max(map(len, found))
        kept = [c for c in found if min_length <= len(c) <= longest]
        short, long = (sum(f) for f in ((len(c) < min_length for c in found), (len(c) > longest for c in found)))
        lengths = {f"chains shorter than {min_length}": short, f"chains longer than {max_length}": long}
        chains += kept
        counts = Report(
            int(bool(kept)), len(kept), sum(map(len, kept)), dropped={k: n for k, n in lengths.items() if n}
        )
        reports += [report, counts]
    whole = Report.join(reports)
    if not chains:
        raise ValueError(f"{_name(source)}: nothing is left of {len(files)} files. {whole}")
    return chains, whole


def _check_settings(atoms: str, gaps: str, models: str, shortest: int, longest: int | None) -> None:
    for name, value, known in (
        ("atoms", atoms, ("ca", "backbone")),
        ("gaps", gaps, ("split", "mask", "refuse")),
        ("models", models, ("first", "all")),
    ):
        if value not in known:
            raise ValueError(f"structures.read: {name} must be one of {', '.join(known)}, got {value!r}.")
    if shortest < 1 or (longest is not None and longest < shortest):
        raise ValueError(
            f"structures.read: expected 1 <= min_length <= max_length, got min_length={shortest}, max_length={longest}."
        )


def structure_files(source: Path | str | Sequence[Path | str]) -> tuple[list[Path], dict[str, int]]:
    """The files that are structures by their names, sorted, and counts of those that are not.

    Raises:
        FileNotFoundError: for a path that is not there.
        ValueError: for a folder that is empty, or without structures.
    """
    if not isinstance(source, str | Path):
        files = [Path(f).expanduser() for f in source]
        if not files:
            raise ValueError("structures.read: expected at least one file, got an empty list.")
        missing = [f for f in files if not f.is_file()]
        if missing:
            raise FileNotFoundError(f"There is no file {missing[0]}; {len(missing)} of {len(files)} are missing.")
        return files, {}
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}.")
    if not path.is_dir():
        return [path], {}
    every = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    if not every:
        raise ValueError(
            f"{path} is an empty folder; expected files that end in {', '.join(SUFFIXES)}, or those with .gz."
        )
    files = [p for p in every if format_of(p)]
    if not files:
        seen = ", ".join(sorted({p.suffix or p.name for p in every})[:5])
        raise ValueError(
            f"{path} holds {len(every)} files, none of them a structure ({seen}); expected {', '.join(SUFFIXES)}, or "
            "those with .gz."
        )
    others = len(every) - len(files)
    return files, {"files that are no structures by their names": others} if others else {}


def _name(source: Path | str | Sequence[Path | str]) -> str:
    return str(source) if isinstance(source, str | Path) else "structures.read"


def _read_file(path: Path, sites: Sites, gaps: Gaps, models: Models) -> tuple[list[Chain], Report]:
    """Chains of a file and what there is to say about it, but for the numbers kept, which lengths decide."""
    table = read_atoms(path)
    count = int(table.model.max()) + 1
    notes: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    if count > 1 and models == "first":
        dropped["models beyond the first"] += count - 1
    chains: list[Chain] = []
    for model in range(count if models == "all" else 1):
        try:
            found, noted, left = chains_of(_model(table, model, count), path, sites, gaps, model)
        except ValueError as error:
            which = f"model {model + 1}: " if count > 1 else ""
            raise ValueError(f"{path.name}: {which}{error}") from error
        chains += found
        notes += noted
        dropped += left
    return chains, Report(notes=dict(notes), dropped=dict(dropped))


def _model(table: Atoms, model: int, count: int) -> Atoms:
    return table if count == 1 else table.select(np.flatnonzero(table.model == model))


def to_batch(
    samples: Sequence[Chain | Sequence[Chain]], *, centre: bool = True, dtype: torch.dtype = torch.float32
) -> Batch:
    """Chains as a ragged batch: x (N, 3) in Å, one row per atom.

    Args:
        samples: a chain each, or several that belong together, as a complex.
        centre: move the mean of each sample's rows to the origin; where a molecule lies in its crystal says nothing.

    Returns:
        a batch with, for each row, nodes["residue"] 0 .. 20, nodes["chain"] number of the chain within the sample,
        nodes["position"] along the chain and, of a backbone, nodes["atom"] 0 .. 3 for N, CA, C, O; all int64.

    Raises:
        ValueError: for no samples, or for CA and backbones together.

    Example:
        >>> n = np.arange(2)
        >>> one = Chain("1abc_A", np.zeros((2, 3)), n, n, n, np.array(["", ""]), "A", 0, n)
        >>> to_batch([one, [one, one]]).counts.tolist()
        [2, 4]
    """
    groups = [[s] if isinstance(s, Chain) else list(s) for s in samples]
    if not groups or not all(groups):
        raise ValueError("structures.to_batch: expected at least one chain in each sample, got none.")
    kinds = {c.xyz.shape[1:] for g in groups for c in g}
    if len(kinds) > 1:
        raise ValueError(
            "structures.to_batch: some chains hold CA and some the backbone; read all with the same atoms=."
        )
    per = 1 if kinds == {(3,)} else 4
    rows, nodes = [], {"residue": [], "chain": [], "position": []}
    for group in groups:
        xyz = np.concatenate([c.xyz.reshape(-1, 3) for c in group])
        rows.append(xyz - xyz.mean(0) if centre else xyz)
        nodes["residue"] += [np.repeat(c.residue, per) for c in group]
        nodes["chain"] += [np.full(per * len(c), k) for k, c in enumerate(group)]
        nodes["position"] += [np.repeat(c.position, per) for c in group]
    counts = torch.tensor([len(r) for r in rows])
    x = torch.from_numpy(np.concatenate(rows)).to(dtype)
    told = {k: torch.from_numpy(np.concatenate(v).astype(np.int64)) for k, v in nodes.items()}
    if per == 4:
        told["atom"] = torch.arange(4).repeat(len(x) // 4)
    return Batch(x, torch.repeat_interleave(torch.arange(len(groups)), counts), len(groups), nodes=told)
