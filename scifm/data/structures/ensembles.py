"""Conformations of one molecule: the models of a structure file, or the frames of a trajectory with its topology.

XTC and TRR hold nanometres and DCD Å; biotite gives Å for all of them, and the distances of neighbouring CA are checked
all the same, since nobody else would notice.  A trajectory tells no names: its k-th atom is the k-th of the topology,
so both must count the same atoms, hydrogens and waters included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.structures.atoms import TRAJECTORIES, Atoms, read_atoms
from scifm.data.structures.chains import NEIGHBOUR, Chain, Sites, chains_of, check_scale
from scifm.data.structures.reading import to_batch
from scifm.data.structures.report import Report
from scifm.data.structures.trajectories import frames_of
from scifm.geometry import align, centred

__all__ = ["Ensemble", "read_ensemble"]

_TORN = 5.5  # Å between neighbouring CA; 4.3 is a long bond already


@dataclass(frozen=True, eq=False)
class Ensemble:
    """M conformations of one molecule.

    Attributes:
        chains: of the molecule, with the coordinates of the first conformation.
        xyz: Å, float64, all chains one after the other: (M, n, 3) of CA, or (M, n, 4, 3) of N, CA, C, O.
        ordered: whether they follow each other in time.
        files: what was read.
        report: what was kept and what was not.
    """

    chains: tuple[Chain, ...]
    xyz: np.ndarray
    ordered: bool
    files: tuple[Path, ...]
    report: Report

    def __len__(self) -> int:
        return len(self.xyz)

    def superposed(self, onto: np.ndarray | None = None) -> Ensemble:
        """Every conformation turned, never mirrored, onto one, (n, 3) or (n, 4, 3), or onto the first; all centred."""
        onto = self.xyz[0] if onto is None else onto
        x, y = (torch.from_numpy(np.asarray(v, np.float64)) for v in (self.xyz, onto))
        flat = align(x.reshape(len(self), -1, 3), centred(y.reshape(-1, 3)))
        return replace(self, xyz=flat.numpy().reshape(self.xyz.shape))

    def turned(self, generator: np.random.Generator) -> Ensemble:
        """Every conformation in a random pose of its own, uniform over rotations; all centred."""
        q = generator.normal(size=(len(self), 4))
        w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
        turn = np.stack(
            [
                1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
            ], 1,
        ).reshape(-1, 3, 3)  # fmt: skip
        flat = self.xyz.reshape(len(self), -1, 3)
        return replace(self, xyz=((flat - flat.mean(1, keepdims=True)) @ turn).reshape(self.xyz.shape))

    def batch(
        self,
        samples: Sequence[int] | np.ndarray | Tensor | None = None,
        *,
        centre: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> Batch:
        """Conformations, all or those chosen by number or by a bool each, as a ragged batch like that of `to_batch`."""
        chosen = np.arange(len(self))
        chosen = chosen if samples is None else chosen[np.asarray(samples, None if len(samples) else np.int64)]
        one = to_batch([self.chains], dtype=dtype)
        count = len(one.x)
        xyz = self.xyz[chosen].reshape(len(chosen), count, 3)
        xyz = xyz - xyz.mean(1, keepdims=True) if centre else xyz
        index = torch.arange(len(chosen)).repeat_interleave(count)
        nodes = {k: v.repeat(len(chosen)) for k, v in one.nodes.items()}
        return Batch(torch.from_numpy(xyz.reshape(-1, 3)).to(dtype), index, len(chosen), nodes=nodes)


def read_ensemble(
    source: Path | str | Sequence[Path | str],
    topology: Path | str | None = None,
    *,
    atoms: Sites = "ca",
    stride: int = 1,
) -> Ensemble:
    """Conformations from the models of a structure file, or from one or more trajectories (XTC, TRR, DCD).

    Missing residues are bridged by a jump of the position, as with `read(gaps="mask")`.

    Args:
        topology: a structure of the atoms of the trajectory, in its order; for trajectories only.
        atoms: "ca" or "backbone".
        stride: every so many frames or models.

    Raises:
        FileNotFoundError: where a file is missing.
        ValueError: for files that cannot be used, a single model, models that differ in their residues, a topology of
            another number of atoms, or frames in which a periodic box cuts a chain.

    Example:
        ensemble = read_ensemble("run.xtc", topology="start.gro")
        batch = ensemble.superposed().batch()
    """
    paths = [Path(source)] if isinstance(source, str | Path) else [Path(f) for f in source]
    paths = [p.expanduser() for p in paths]
    if not paths or stride < 1:
        raise ValueError(
            f"read_ensemble: expected a file and stride of at least 1, got {len(paths)} files and {stride}."
        )
    for path in [*paths, *([] if topology is None else [Path(topology).expanduser()])]:
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
    if any(p.suffix.lower() in TRAJECTORIES for p in paths):
        return _from_trajectories(paths, topology, atoms, stride)
    if topology is not None:
        raise ValueError(
            f"{paths[0].name}: a topology is for trajectories ({', '.join(TRAJECTORIES)}); leave it out here."
        )
    if len(paths) > 1:
        raise ValueError("read_ensemble: expected one structure file with several models; for many files use `read`.")
    return _from_models(paths[0], atoms, stride)


# -- models ----------------------------------------------------------------------------------------------


def _from_models(path: Path, sites: Sites, stride: int) -> Ensemble:
    table = read_atoms(path)
    count = int(table.model.max()) + 1
    if count < 2:
        raise ValueError(
            f"{path.name}: holds one model; an ensemble needs several, or a trajectory with this as topology."
        )
    chains, report = _molecule(_model(table, 0), path, sites)
    wanted = range(0, count, stride)
    rows = _rows(chains)
    if _alike(table, count):
        xyz = table.xyz.reshape(count, -1, 3)[::stride, rows]
    else:  # other hydrogens, say, but the same residues
        xyz = np.stack([_same(table, model, chains, path, sites) for model in wanted])
    _check_frames(xyz, chains, path.name, "model")
    return Ensemble(tuple(chains), xyz, False, (path,), report)


def _alike(table: Atoms, count: int) -> bool:
    """Whether all models list the same atoms in the same order."""
    size = len(table) // count
    if size * count != len(table) or not (table.model == np.arange(count).repeat(size)).all():
        return False
    columns = (table.chain, table.number, table.insertion, table.residue, table.name, table.altloc)
    return all((c.reshape(count, size) == c[:size]).all() for c in columns)


def _same(table: Atoms, model: int, chains: list[Chain], path: Path, sites: Sites) -> np.ndarray:
    here, _ = _molecule(_model(table, model), path, sites, f"model {model + 1}: ")
    lengths = [sum(map(len, c)) for c in (chains, here)]
    if lengths[0] != lengths[1]:
        raise ValueError(
            f"{path.name}: model {model + 1} has {lengths[1]} residues, the first has {lengths[0]}; models of an "
            "ensemble must be of one molecule. Take the others out, or read(models='all') for chains of their own."
        )
    for name in ("number", "insertion", "residue"):
        before, now = (np.concatenate([getattr(c, name) for c in of]) for of in (chains, here))
        if (before != now).any():
            i = int(np.flatnonzero(before != now)[0])
            raise ValueError(
                f"{path.name}: residue {i + 1} of model {model + 1} has {name} {now[i]}, in the first model "
                f"{before[i]}; models of an ensemble must be of one molecule."
            )
    return np.concatenate([c.xyz for c in here])


def _model(table: Atoms, model: int) -> Atoms:
    return table.select(np.flatnonzero(table.model == model))


def _molecule(atoms: Atoms, path: Path, sites: Sites, which: str = "") -> tuple[list[Chain], Report]:
    try:
        chains, notes, dropped = chains_of(atoms, path, sites, "mask")
    except ValueError as error:
        raise ValueError(f"{path.name}: {which}{error}") from error
    return chains, Report(1, len(chains), sum(map(len, chains)), dict(notes), dict(dropped))


def _rows(chains: list[Chain]) -> np.ndarray:
    return np.concatenate([c.rows for c in chains])


# -- trajectories ----------------------------------------------------------------------------------------


def _from_trajectories(paths: list[Path], topology: Path | str | None, sites: Sites, stride: int) -> Ensemble:
    if topology is None:
        raise ValueError(
            f"{paths[0].name}: a trajectory tells no residues; give topology=, a PDB, mmCIF, BinaryCIF or GRO "
            "file of the same atoms."
        )
    where = Path(topology).expanduser()
    atoms = _model(read_atoms(where), 0)
    chains, report = _molecule(atoms, where, sites)
    rows = _rows(chains)
    taken, back = np.unique(rows, return_inverse=True)
    parts = []
    for path in paths:
        first = frames_of(path, stop=1)
        if first.shape[1] != len(atoms):
            raise ValueError(
                f"{path.name} has {first.shape[1]} atoms and {where.name} {len(atoms)}: the topology must hold the "
                "atoms of the trajectory, all and in its order. Write it from the same selection."
            )
        frames = frames_of(path, step=stride, atom_i=taken)
        xyz = frames[:, back.reshape(-1)].reshape(len(frames), *rows.shape, 3).astype(np.float64)
        _check_frames(xyz, chains, path.name, "frame")
        parts.append(xyz)
    return Ensemble(tuple(chains), np.concatenate(parts), True, (where, *paths), report)


# -- all ---------------------------------------------------------------------------------------------------


def _check_frames(xyz: np.ndarray, chains: list[Chain], name: str, word: str) -> None:
    """Numbers that are finite, of Å, and chains that no periodic box has cut."""
    bad = ~np.isfinite(xyz).reshape(len(xyz), -1).all(1)
    if bad.any():
        raise ValueError(
            f"{name}: {int(bad.sum())} {word}s hold NaN or infinity, the first is {int(bad.argmax()) + 1}."
        )
    ca = xyz if xyz.ndim == 3 else xyz[:, :, 1]
    chain = np.repeat(np.arange(len(chains)), [len(c) for c in chains])
    first = np.concatenate([c.xyz if c.xyz.ndim == 2 else c.xyz[:, 1] for c in chains])
    try:
        check_scale(ca[0], np.diff(chain) == 0)
    except ValueError as error:
        raise ValueError(f"{name}: {word} 1: {error}") from error
    near = np.linalg.norm(np.diff(first, axis=0), axis=1) < NEIGHBOUR
    bonded = np.flatnonzero((np.diff(chain) == 0) & near)
    length = np.linalg.norm(ca[:, bonded + 1] - ca[:, bonded], axis=-1)
    torn = (length > _TORN).any(1)
    if torn.any():
        frame = int(torn.argmax())
        at = int(length[frame].argmax())
        raise ValueError(
            f"{name}: a chain is torn in {int(torn.sum())} of {len(ca)} {word}s; in {word} {frame + 1}, CA "
            f"{bonded[at] + 1} and {bonded[at] + 2} are {length[frame, at]:.1f} Å apart. A periodic box cuts the "
            "molecule: make it whole first (gmx trjconv -pbc whole)."
        )
