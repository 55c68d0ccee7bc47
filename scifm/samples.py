"""Drawn samples as files of the kind that the user brought, or as .npz without pickles, which all data can be.

    .nc .zarr  where the data set exports to xarray (`scifm.labelled`)
    .pdb ...   where it has a writer for that suffix (`Data.writers`)
    .npz       always

Samples come in chunks, which `scifm sample` keeps until the file is there.  A .nc or .zarr grows while they are made
(`scifm.streamed`).  An .npz is written chunk by chunk at the end, in one pass over them for each array of more than one
axis.  So neither is bounded by the memory; a writer takes all samples at once.  Every file is written beside its
place and moved there.
"""

from __future__ import annotations

import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scifm import __version__, labelled, streamed
from scifm.batch import Batch
from scifm.disk import atomic, check_output
from scifm.solve import Solver

if TYPE_CHECKING:
    from scifm.data import Data
    from scifm.sde import Stochastic

__all__ = [
    "Drawn",
    "contents",
    "output",
    "refuse_existing",
    "refuse_folder",
    "refuse_partial",
    "solver_words",
    "suffixes",
    "write_chunks",
    "write_npz",
    "write_samples",
]


@dataclass(frozen=True)
class Drawn:
    """Samples that were drawn together.

    Attributes:
        batch: n samples in the user's units.
        log_prob: their log-density in nats, in the user's units, (n,) float64; None if not asked for.
        stderr: its standard error from the spread of the probes, (n,) float64; None without at least two.
        probes: how many; 0 for a trace that draws none.
        nfe: evaluations of the velocity, (n,); None where nobody counted.
        dims: degrees of freedom of each sample, (n,); None where they are not known.
    """

    batch: Batch
    log_prob: Tensor | None = None
    stderr: Tensor | None = None
    probes: int = 0
    nfe: Tensor | None = None
    dims: Tensor | None = None


def contents(batch: Batch) -> dict[str, Tensor]:
    """All that a batch holds, by name; `count` (B,) tells the rows of each sample."""
    found = {"x": batch.x, "count": batch.counts}
    for kind, group in (("context", batch.context), ("nodes", batch.nodes), ("edges", batch.edges)):
        found |= {f"{kind}.{k}": v for k, v in group.items()}
    return found if batch.edge_index is None else {**found, "edge_index": batch.edge_index}


def output(path: Path, data: Data, overwrite: bool = False) -> Path:
    """Where samples go: the path, with the right suffix if it has none.

    Raises:
        FileExistsError: where the file exists and is not to be overwritten.
        ValueError: for a suffix that these data cannot be written to, or a place that cannot be.
    """
    wanted = suffixes(data)
    if not path.suffix:
        refuse_folder(path, f"samples.{'nc' if '.nc' in wanted else 'npz'}")
        path = path.with_suffix(".nc" if ".nc" in wanted else ".npz")
    if path.suffix not in wanted:
        listed = f"{', '.join(wanted[:-1])} or {wanted[-1]}" if len(wanted) > 1 else wanted[0]
        raise ValueError(f"samples of {data.name} are written to {listed} files, got {path.name!r}.")
    refuse_existing(path, overwrite)
    return path


def suffixes(data: Data) -> list[str]:
    """What samples of these data can be written to."""
    return [*([".nc", ".zarr"] if data.export is not None else []), *data.writers, ".npz"]


def refuse_folder(path: Path, example: str) -> None:
    """Raise where a path without a suffix is a folder, beside which a file of a like name would be written.

    Args:
        example: of a file's name, for the message.

    Raises:
        ValueError: the message says what to give.
    """
    if path.is_dir():  # Path("") is the folder one is in
        raise ValueError(f"{str(path)!r} is a folder; give --output a file's name, such as {path / example}.")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise where a file cannot be written, or exists and was not given up: before the work.

    Raises:
        FileExistsError, ValueError: the message names the path.
    """
    if not (path.suffix == ".zarr" and labelled.is_store(path)):  # a store is a folder, and may be replaced as a file
        check_output(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give --overwrite to replace it, or another --output.")


def refuse_partial(path: Path, done: int, overwrite: bool) -> None:
    """Raise where the file in which samples are to grow is there without a job that goes on with it.

    Args:
        path: of the output.
        done: samples of the job that are kept.

    Raises:
        FileExistsError: the message names both.
    """
    partial = streamed.partial_of(path)
    if partial.exists() and not done and not overwrite:
        raise FileExistsError(
            f"{partial}, where the samples of {path.name} would grow, exists, and there are no chunks to go on from. "
            "Move it away, or give --overwrite to replace it, or another --output."
        )


def solver_words(solver: Solver | Stochastic) -> dict[str, str]:
    """What a file says of the solver: its method, and the tolerances of adaptive steps."""
    told = {"solver": str(solver)}
    if isinstance(solver, Solver) and solver.steps is None:
        told["tolerances"] = f"rtol {solver.rtol:g} atol {solver.atol:g}"
    return told


def write_samples(batch: Batch, data: Data, path: Path, about: Mapping[str, Any], overwrite: bool = False) -> Path:
    """Write samples that are in memory.

    Args:
        path: see `output`, which also says what is raised; .npz is possible for all data.
        about: seed, run and the like; goes into the file.
    """
    return write_chunks(lambda: [Drawn(batch)], data, path, about, overwrite)


def write_chunks(
    source: Callable[[], Iterable[Drawn]],
    data: Data,
    path: Path,
    about: Mapping[str, Any],
    overwrite: bool = False,
    first: Iterable[Drawn] | None = None,
) -> Path:
    """Write samples chunk by chunk.

    Args:
        source: gives the chunks in order, the same at each call; it is called several times.
        path, about: as for `write_samples`.
        first: the same chunks while they are made and kept: .nc and .zarr grow with them, beside the path, and what is
            there stays when they break off.
    """
    path = output(path, data, overwrite)
    if path.suffix in (".nc", ".zarr") and data.export is not None:
        streamed.stream(source, data, path, about, first)
        return path
    if first is not None:
        deque(first, maxlen=0)
    with streamed.explained(path, path, first is not None), atomic(path) as temporary:
        if path.suffix in data.writers:
            _write(source, data, temporary, about)
        else:
            write_npz(source, temporary, about)
    return path


def _write(source: Callable[[], Iterable[Drawn]], data: Data, path: Path, about: Mapping[str, Any]) -> None:
    """All samples to the writer of the path's suffix, with where they come from."""
    drawn = list(source())
    logs = [d.log_prob for d in drawn if d.log_prob is not None]
    about = {"scifm": __version__, **about}
    if logs:
        about["density"] = f"log_prob in nats. {labelled.units_of(data)}"
    data.writers[path.suffix](path, Batch.join([d.batch for d in drawn]), torch.cat(logs) if logs else None, about)


# -- .npz ------------------------------------------------------------------------------------------------


def _arrays(source: Callable[[], Iterable[Drawn]]) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of each chunk; edges name the rows of the whole."""
    rows = 0
    for drawn in source():
        found = contents(drawn.batch)
        if "edge_index" in found:
            found["edge_index"] = found["edge_index"] + rows
        for name, value in (("log_prob", drawn.log_prob), ("log_prob_stderr", drawn.stderr)):
            found |= {} if value is None else {name: value}
        rows += len(drawn.batch.x)
        yield {k: v.numpy() for k, v in found.items()}


def write_npz(
    source: Callable[[], Iterable[Drawn]],
    path: Path,
    about: Mapping[str, Any],
    beside: Mapping[str, np.ndarray] | None = None,
) -> None:
    """What `np.savez_compressed` would write of the chunks joined, without joining them.

    Args:
        source, about: as for `write_chunks`.
        path: written in place; see `scifm.disk.atomic`.
        beside: more arrays, by name, such as a number per sample.
    """
    short: dict[str, tuple[np.dtype, bytearray]] = {}  # numbers per sample or row: they fit, in one piece each
    long: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    for arrays in _arrays(source):
        for name, array in arrays.items():
            if array.ndim == 1:
                short.setdefault(name, (array.dtype, bytearray()))[1].extend(array.tobytes())
            else:
                axis, before = _axis(name), long.get(name, (array.dtype, (0,) * array.ndim))[1]
                shape = (*array.shape[:axis], before[axis] + array.shape[axis], *array.shape[axis + 1 :])
                long[name] = (array.dtype, shape)
    whole = {name: np.frombuffer(numbers, dtype) for name, (dtype, numbers) in short.items()}
    whole |= beside or {}
    whole["about"] = np.array([f"{k}={v}" for k, v in about.items()])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (dtype, shape) in long.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                column = _axis(name) == 1  # columns follow each other in Fortran's order
                form = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": column, "shape": shape}
                np.lib.format.write_array_header_1_0(file, form)
                for arrays in _arrays(source):
                    file.write((arrays[name].T if column else arrays[name]).tobytes())
        for name, array in whole.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _axis(name: str) -> int:
    """Along which axis the chunks of an array follow each other."""
    return 1 if name == "edge_index" else 0
