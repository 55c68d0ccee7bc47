"""Small molecules with bonds and coordinates: biotite's dictionary, QM7, QM9, MD17; see README.md beside this file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data import fetch
from scifm.data.arrays import from_arrays
from scifm.data.bonds import both_ways, perceive
from scifm.data.components import dictionary, read_components
from scifm.data.constitution import constitution
from scifm.data.elements import SYMBOLS, numbers
from scifm.data.molecules import keep_atoms
from scifm.data.pyg import from_pyg
from scifm.data.sdf import write_sdf
from scifm.data.sift import Sifted, sift
from scifm.data.source import Data
from scifm.data.splits import SPLITS, by_name
from scifm.data.structures import write_xyz
from scifm.disk import atomic
from scifm.geometry import random_rotation

SOURCES = ("ccd", "qm7", "qm9", "md17")
ELEMENTS = "H C N O F P S Cl Br I"
WRITERS = {".xyz": write_xyz, ".sdf": write_sdf}
FRAMES = 20_000  # of a trajectory, evenly spaced
GAP = 0.01  # of a trajectory, left out between splits


def molecules(
    source: str = "ccd",
    *,
    min_atoms: int = 3,
    max_atoms: int = 64,
    elements: str = ELEMENTS,
    hydrogens: bool = True,
    coordinates: str = "ideal",
    turn: bool = False,
) -> Data:
    """Molecules as ragged batches: x (N, 3) float32 in Å, each about its centre, nodes["z"], edge_index, edges["bond"].

    Args:
        source: "ccd", the Chemical Component Dictionary, offline; "qm7", from its file; "qm9", or "md17:aspirin" and
            its other molecules, downloaded by torch-geometric on first use.
        min_atoms, max_atoms: sizes, both included, counted without hydrogens if these are left out.
        elements: symbols that may occur.
        hydrogens: whether to keep them.
        coordinates: of the dictionary, "ideal" (computed) or "model" (from a structure).
        turn: turn each molecule at random, evenly over all rotations and always by the same ones. The dictionary's
            ideal coordinates lie along their long axes, which a network that is not equivariant would learn.

    Raises:
        ValueError: for an unknown source or element, or where the filters leave nothing.
        FileNotFoundError: where the data are neither on this machine nor to be had.
    """
    name, _, molecule = source.partition(":")
    if name not in SOURCES or (molecule and name != "md17"):
        raise ValueError(
            f"molecules: there is no source {source!r}; there are {', '.join(SOURCES)} and 'md17:aspirin'."
        )
    if coordinates != "ideal" and name != "ccd":
        raise ValueError(f"molecules: {name} has one set of coordinates; leave coordinates={coordinates!r} out.")
    if not 1 <= min_atoms <= max_atoms:
        raise ValueError(f"molecules: expected 1 <= min_atoms <= max_atoms, got {min_atoms} and {max_atoms}.")
    want = Wanted(min_atoms, max_atoms, " ".join(_symbols(elements)), hydrogens)
    if name == "ccd":
        found, files = ccd(want, coordinates)
    elif name == "qm7":
        found, files = qm7(want)
    else:
        found, files = (qm9(want) if name == "qm9" else md17(want, molecule or "aspirin")), ()
    batch = _turned(found.batch) if turn else found.batch
    parts = {split: batch.select((found.split == k).nonzero()[:, 0]) for k, split in enumerate(SPLITS)}
    sizes = ", ".join(f"{len(part)} {split}" for split, part in parts.items())
    summary = f"molecules from {source}: {found.report}. {sizes}; {len(found.batch.x)} atoms of {want.elements}"
    return Data("molecules", **parts, unit="Å", files=files, writers=WRITERS, summary=summary)


@dataclass(frozen=True)
class Wanted:
    """Which molecules, whatever the source."""

    min_atoms: int
    max_atoms: int
    elements: str
    hydrogens: bool

    @property
    def key(self) -> str:
        """Short name for files."""
        kind = "all" if self.hydrogens else "heavy"
        return f"{self.min_atoms}-{self.max_atoms}-{self.elements.replace(' ', '')}-{kind}"


@dataclass(frozen=True, eq=False)
class Collection:
    """Molecules that were kept.

    Attributes:
        batch: in their order in the source.
        names: of each, in the source.
        split: (B,) 0 train, 1 valid, 2 test.
        report: how many were kept and why the others were not.
    """

    batch: Batch
    names: tuple[str, ...]
    split: torch.Tensor
    report: str


# -- sources -------------------------------------------------------------------------------------------------------


def ccd(want: Wanted, coordinates: str = "ideal", path: Path | None = None) -> tuple[Collection, tuple[Path, ...]]:
    """The dictionary's molecules, and the file they are kept in: a run's own copy, or one in the user's cache."""
    name = f"ccd-{coordinates}-{want.key}.npz"
    for folder in fetch.search_path.get():
        if (folder / "molecules" / name).is_file():
            return _load(folder / "molecules" / name)[0], (folder / "molecules" / name,)
    path = dictionary() if path is None else path
    stamp, kept = fetch.sha256_of(path), fetch.cache() / "molecules" / name
    if kept.is_file():
        found, of = _load(kept)
        if of == stamp:
            return found, (kept,)
    found = _from_dictionary(want, coordinates, path)
    try:
        _save(kept, found, stamp)
    except OSError:  # a cache that cannot be written costs time, not the data
        return found, ()
    return found, (kept,)


def _from_dictionary(want: Wanted, coordinates: str, path: Path) -> Collection:
    every = read_components(path, coordinates)
    # One name for all compounds of one skeleton: stereoisomers and protonation states share their split, or a test
    # molecule's elements and bonds would have been seen in training.
    skeleton = constitution(keep_atoms(every.batch, every.batch.nodes["z"] != 1)).numpy()
    _, first, of = np.unique(skeleton, return_index=True, return_inverse=True)
    groups = [every.ids[k] for k in first[of]]
    current = (~every.obsolete).nonzero()[:, 0]
    before = Sifted(current, len(every.ids), {"obsolete": int(every.obsolete.sum())})
    return _collect(
        every.batch.select(current), [every.ids[k] for k in current], [groups[k] for k in current], want, before
    )


def qm7(want: Wanted, path: Path | None = None) -> tuple[Collection, tuple[Path, ...]]:
    """QM7 from its file, with the bonds that distances tell."""
    path = fetch.find("qm7", "qm7.npz") if path is None else path
    with np.load(path, allow_pickle=False) as file:
        lost = {"positions", "atomic_numbers", "n_atoms", "name"} - set(file)
        if lost:
            raise ValueError(f"molecules: {path} has no {', '.join(sorted(lost))}; it is not the QM7 of the README.")
        n, names = file["n_atoms"].astype(np.int64), [str(v).removesuffix(".xyz") for v in file["name"]]
        batch = from_arrays(file["positions"].astype(np.float32), n, z=file["atomic_numbers"].astype(np.int64))
    bonded = perceive(batch)
    groups = [str(k) for k in constitution(keep_atoms(bonded, bonded.nodes["z"] != 1)).tolist()]
    return _collect(bonded, names, groups, want), (path,)


def qm9(want: Wanted, root: Path | None = None) -> Collection:
    """QM9 as torch-geometric reads it, with its bonds."""
    from torch_geometric.datasets import QM9

    graphs = _downloaded(lambda folder: QM9(folder), root or fetch.cache() / "qm9", "QM9")
    batch = pyg_molecules(graphs)
    names = [str(g.get("name", f"graph {k}")) for k, g in enumerate(graphs)]
    groups = [str(k) for k in constitution(keep_atoms(batch, batch.nodes["z"] != 1)).tolist()]
    return _collect(batch, names, groups, want)


def md17(want: Wanted, molecule: str = "aspirin", root: Path | None = None) -> Collection:
    """A trajectory of one molecule as torch-geometric reads it, cut in time: 80, 10 and 10 % with gaps between."""
    from torch_geometric.datasets import MD17

    if molecule not in MD17.file_names or "CCSD" in molecule:
        whole = ", ".join(k for k in MD17.file_names if "CCSD" not in k)
        raise ValueError(f"molecules: MD17 has no trajectory of {molecule!r}; there are {whole}.")
    data = _downloaded(lambda folder: MD17(folder, molecule), root or fetch.cache() / "md17", "MD17")
    batch = pyg_molecules(data[:: max(1, -(-len(data) // FRAMES))])
    # The bonds of the first frame are those of all: they do not break at the temperatures of MD17.
    bonds = perceive(batch.select([0])).edge_index
    assert bonds is not None
    kind = perceive(batch.select([0])).edges["bond"]
    frames, atoms = len(batch), int(batch.counts[0])
    shift = (torch.arange(frames) * atoms).repeat_interleave(bonds.shape[1])
    batch = replace(batch, edge_index=bonds.repeat(1, frames) + shift, edges={"bond": kind.repeat(frames)})
    kept = keep_atoms(batch, batch.nodes["z"] != 1) if not want.hydrogens else batch
    sifted = sift(kept.select([0]), want.elements.split(), want.min_atoms, want.max_atoms)  # refuses what does not fit
    assert len(sifted.kept) == 1
    at = torch.arange(frames) / frames
    split = torch.full((frames,), -1)
    split[at < 0.8 - GAP], split[(at >= 0.8) & (at < 0.9 - GAP)], split[at >= 0.9] = 0, 1, 2
    report = f"kept {int((split >= 0).sum())} of {len(data)} frames of {molecule}, evenly spaced, cut in time with gaps"
    return Collection(_centred(kept), tuple(f"frame {k}" for k in range(frames)), split, report)


def pyg_molecules(graphs: Sequence[Any]) -> Batch:
    """Molecules from PyG graphs with pos and z; bonds, if any, from one-hot edge_attr (single to aromatic)."""
    from torch_geometric.data import Data as Graph

    plain = []
    for k, g in enumerate(graphs):
        if g.get("pos") is None or g.get("z") is None:
            raise ValueError(f"molecules: graph {k} has {sorted(g.keys())}; expected pos and z, PyG's names.")
        fields = {"pos": g.pos.float(), "z": g.z.long()}
        if g.get("edge_index") is not None and g.get("edge_attr") is not None:
            fields |= {"edge_index": g.edge_index, "bond": g.edge_attr.argmax(-1)}
        plain.append(Graph(**fields, num_nodes=len(g.z)))
    batch = from_pyg(plain)
    # PyG tells by length what belongs to edges, and a ring has as many bonds both ways as ... nothing else: be exact.
    bond = batch.edges.get("bond", batch.nodes.get("bond"))
    return replace(batch, nodes={"z": batch.nodes["z"]}, edges={} if bond is None else {"bond": bond})


# -- what they share -----------------------------------------------------------------------------------------------


def _symbols(elements: str) -> list[str]:
    return [SYMBOLS[z] for z in sorted(set(numbers(elements.replace(",", " ").split(), "molecules").tolist()))]


def _collect(
    batch: Batch, names: Sequence[str], groups: Sequence[str], want: Wanted, before: Sifted | None = None
) -> Collection:
    if not want.hydrogens:
        batch = keep_atoms(batch, batch.nodes["z"] != 1)
    found = sift(batch, want.elements.split(), want.min_atoms, want.max_atoms, before=before)
    rows = found.kept.tolist()
    split = torch.zeros(len(rows), dtype=torch.long)
    for k, chosen in enumerate(by_name([groups[b] for b in rows]).values()):
        split[chosen] = k
    return Collection(_centred(batch.select(found.kept)), tuple(names[b] for b in rows), split, str(found))


def _centred(batch: Batch) -> Batch:
    """Each molecule about the mean of its atoms: where the source put it means nothing."""
    index, x = batch.points.index, batch.x.double()
    assert index is not None
    mean = x.new_zeros(len(batch), 3).index_add(0, index, x) / batch.counts.clamp(min=1)[:, None]
    return batch.replace((x - mean[index]).to(batch.x))


def _turned(batch: Batch) -> Batch:
    index = batch.points.index
    assert index is not None
    turns = random_rotation(len(batch), 3, torch.Generator().manual_seed(0), batch.x.dtype)
    return batch.replace((turns[index] @ batch.x[:, :, None])[:, :, 0])


def _downloaded(load: Callable[[str], Any], root: Path, name: str) -> Any:
    try:
        return load(os.fspath(root))
    except OSError as error:
        raise FileNotFoundError(
            f"molecules: {name} is not on this machine, and torch-geometric cannot download it ({error}). Load it once "
            f"where there is a network, and copy its folder to {root}."
        ) from error


def _save(path: Path, found: Collection, stamp: str) -> None:
    batch = found.batch
    assert batch.edge_index is not None
    once = batch.edge_index[0] < batch.edge_index[1]
    arrays = {
        "x": batch.x.numpy(),
        "counts": batch.counts.numpy().astype("i4"),
        "z": batch.nodes["z"].numpy().astype("i1"),
        "bonds": torch.stack([*batch.edge_index[:, once]]).numpy().astype("i4"),
        "bond": batch.edges["bond"][once].numpy().astype("i1"),
        "split": found.split.numpy().astype("i1"),
        "names": np.array(found.names),
        "about": np.array(json.dumps({"report": found.report, "sha256": stamp})),
    }
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _load(path: Path) -> tuple[Collection, str]:
    with np.load(path, allow_pickle=False) as file:
        held = {k: file[k] for k in file}
    about = json.loads(str(held["about"]))
    counts = torch.from_numpy(held["counts"].astype("i8"))
    ends = torch.from_numpy(held["bonds"].astype("i8"))
    edge_index, kind = both_ways(ends[0], ends[1], torch.from_numpy(held["bond"].astype("i8")))
    batch = Batch(
        torch.from_numpy(held["x"]),
        torch.arange(len(counts)).repeat_interleave(counts),
        len(counts),
        nodes={"z": torch.from_numpy(held["z"].astype("i8"))},
        edge_index=edge_index,
        edges={"bond": kind},
    )
    split = torch.from_numpy(held["split"].astype("i8"))
    return Collection(batch, tuple(held["names"].tolist()), split, about["report"]), about["sha256"]
