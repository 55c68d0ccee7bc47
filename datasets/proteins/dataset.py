"""Protein chains, Cα or backbone, split so that relatives stay together; see README.md beside this file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from scifm.data import fetch, structures
from scifm.data.source import Data

FILE = "bm5_segments.npz"
VALUES_SHA256 = "a8ab2621d263143369c092466563ba87cd381622bb03d6f50b1f1b7031476cd6"  # of coordinates and residues
TEST, VALID = 0.2, 0.08  # of the chains
WORD = 5  # residues
RELATED = 0.2  # of the words of the shorter one; 0.72 of the residues if they were changed one by one, 0.72⁵ = 0.2


def proteins(
    folder: Path | None = None,
    *,
    atoms: Literal["ca", "backbone"] = "ca",
    min_length: int = 48,
    max_length: int = 256,
    split: Literal["family", "chain"] = "family",
    seed: int = 0,
) -> Data:
    """Protein chains in Å, ragged x (N, 3) float32, each centred, with nodes residue, chain, position (and atom).

    Args:
        folder: of PDB, mmCIF, BinaryCIF or GRO files, plain or gzipped; or one file. By default the unbroken segments
        of docking benchmark 5, from $SCIFM_DATA/proteins_bm5.
        atoms: "ca", one row per residue, or "backbone", four: N, CA, C, O.
        min_length, max_length: residues of a chain. Chains are split where residues are missing.
        split: "family" keeps sequences that are related in one split; "chain" takes each chain by itself, so that near
            copies of training chains are in the test.
        seed: of the split.

    Raises:
        FileNotFoundError: where there are no files; the message tells how to get some.
        ValueError: where fewer than three families are left, or none of the files can be read.
    """
    if split not in ("family", "chain"):
        raise ValueError(f"proteins: split must be 'family' or 'chain', got {split!r}.")
    if folder is None:
        chains, files, told = published(atoms, min_length, max_length)
    else:
        chains, report = structures.read(folder, atoms=atoms, min_length=min_length, max_length=max_length)
        files, told = tuple(sorted({c.file for c in chains})), str(report)
    kept = distinct(chains)
    sequences = [c.residue for c in kept]
    family = families(sequences) if split == "family" else np.arange(len(kept))
    parts = {k: [kept[i] for i in rows] for k, rows in deal(family, sequences, seed).items()}
    counts = "{} training, {} validation and {} test".format(*(len(parts[k]) for k in ("train", "valid", "test")))
    apart = (
        f"{family.max() + 1} families of related sequences, each in one split"
        if split == "family"
        else "related or not"
    )
    same = (
        f"; {len(chains) - len(kept)} of a sequence that was there already left out" if len(kept) < len(chains) else ""
    )
    summary = (
        f"proteins: {counts} chains, {sum(map(len, kept))} residues, {'CA' if atoms == 'ca' else 'N, CA, C, O'}, "
        f"{apart}{same}\n{told}"
    )
    return Data(
        "proteins", *(structures.to_batch(parts[k]) for k in ("train", "valid", "test")), unit="Å", files=files,
        writers=structures.WRITERS, summary=summary,
    )  # fmt: skip


def published(atoms: str, min_length: int, max_length: int) -> tuple[list[structures.Chain], tuple[Path, ...], str]:
    """The segments of docking benchmark 5 in a range of lengths, with their file and a line about them."""
    if atoms not in ("ca", "backbone") or not 1 <= min_length <= max_length:
        raise ValueError(
            "proteins: expected atoms='ca' or 'backbone' and 1 <= min_length <= max_length, got "
            f"{atoms!r}, {min_length} and {max_length}."
        )
    try:
        path = fetch.find("proteins_bm5", FILE)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} Or give a folder of PDB, mmCIF or BinaryCIF files of your own, such as structures-matched/ of "
            "github.com/haddocking/BM5-clean, or files from www.rcsb.org."
        ) from error
    with np.load(path, allow_pickle=False) as file:
        backbone, residue, offset, source = (file[k] for k in ("backbone", "aatype", "offset", "source"))
    found = hashlib.sha256(backbone.astype("<f4").tobytes() + residue.astype("<i1").tobytes()).hexdigest()
    if found != VALUES_SHA256:
        raise ValueError(f"proteins: {path} holds other values than the published ones (sha256 {found[:12]}).")
    chains = []
    for name, a, b in zip(source, offset[:-1], offset[1:], strict=True):
        if not min_length <= b - a <= max_length:
            continue
        n, xyz = np.arange(b - a), backbone[a:b].astype(np.float64)
        chains.append(
            structures.Chain(
                str(name).replace(":", "_"), xyz if atoms == "backbone" else xyz[:, 1], residue[a:b].astype(np.int64),
                n, n + 1, np.full(b - a, ""), "A", 0, n if atoms == "ca" else np.arange(4 * (b - a)).reshape(-1, 4),
                path, )
        )  # fmt: skip
    if not chains:
        raise ValueError(f"proteins: no segment of {path.name} has {min_length} to {max_length} residues (40 to 512).")
    told = f"{len(chains)} of {len(source)} segments of docking benchmark 5, {min_length} to {max_length} residues"
    return chains, (path,), told


# -- the split -------------------------------------------------------------------------------------------


def distinct(chains: Sequence[structures.Chain]) -> list[structures.Chain]:
    """The first chain of each sequence."""
    return list({c.residue.tobytes(): c for c in reversed(chains)}.values())[::-1]


def families(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """(S,) number of the family of each sequence, from 0.

    Two sequences are related if they share more than a fifth of the words of five residues of the shorter one; a family
    is what is related through any number of others.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    words = [_words(s) for s in sequences]
    count = np.array([len(w) for w in words])
    column = np.unique(np.concatenate(words), return_inverse=True)[1]
    row = np.repeat(np.arange(len(words)), count)
    table = sparse.csr_matrix((np.ones(len(row), np.int32), (row, column)))
    shared = (table @ table.T).tocoo()
    related = shared.data > RELATED * np.minimum(count[shared.row], count[shared.col])
    graph = sparse.csr_matrix((related[related], (shared.row[related], shared.col[related])), shape=shared.shape)
    return connected_components(graph, directed=False)[1]


def _words(sequence: np.ndarray) -> np.ndarray:
    """The different words of a sequence as numbers; of one that is too short, the whole."""
    length = min(WORD, len(sequence))
    windows = np.lib.stride_tricks.sliding_window_view(sequence, length)
    return np.unique(windows @ 21 ** np.arange(length))


def deal(family: np.ndarray, sequences: Sequence[np.ndarray], seed: int) -> dict[str, list[int]]:
    """Numbers of the chains of train, valid and test: whole families, in an order that the seed decides.

    A family that would overfill test and validation goes to training; the largest always does.
    """
    members: dict[int, list[int]] = {}
    for i, f in enumerate(family.tolist()):
        members.setdefault(f, []).append(i)
    if len(members) < 3:
        raise ValueError(
            f"proteins: {len(sequences)} different sequences in {len(members)} families cannot be split in three; add "
            "structures of other proteins, or take each chain by itself: split='chain', or `--split chain`."
        )

    def order(f: int) -> str:  # by what the family is, not by where its files lie
        return min(hashlib.sha256(f"{seed}/".encode() + sequences[i].tobytes()).hexdigest() for i in members[f])

    rows: dict[str, list[int]] = {"test": [], "valid": [], "train": []}
    wanted = {"test": max(1, round(TEST * len(sequences))), "valid": max(1, round(VALID * len(sequences)))}
    left = sorted(members, key=order)
    largest = max(left, key=lambda f: len(members[f]))
    left.remove(largest)
    for name, most in wanted.items():
        for f in list(left):
            enough = name == "valid" or len(left) > 1  # one is for validation
            if enough and len(rows[name]) + len(members[f]) <= most:
                rows[name] += members[f]
                left.remove(f)
        if not rows[name]:  # all families are large: the smallest
            smallest = min(left, key=lambda f: len(members[f]))
            rows[name] += members[smallest]
            left.remove(smallest)
    rows["train"] = [i for f in [largest, *left] for i in members[f]]
    return {k: sorted(v) for k, v in rows.items()}
