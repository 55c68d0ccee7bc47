"""What the command line does with a run: draw samples, score, report.  Each works from the run's folder alone.

Sample k is drawn from a seed of its own, made from (seed, k), and integrated with its own steps.  So the k-th sample
is the same whether 10 or 10,000 are drawn, alone or in chunks (to rounding: batched matrix products add in another
order).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scifm import __version__
from scifm.batch import Batch
from scifm.run import atomic, check_output, write_json
from scifm.solve import Solver

if TYPE_CHECKING:
    from scifm.data import Data
    from scifm.likelihood import BitsPerDim
    from scifm.recipe import Recipe
    from scifm.trace import Trace

__all__ = ["draw", "evenly", "output", "refuse_existing", "score", "seed_of", "write_samples", "write_score"]


def seed_of(seed: int, number: int) -> int:
    """Seed of the number-th sample: a hash, so that neighbouring seeds share no streams."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:7], "big")


def evenly(batch: Batch, count: int) -> Batch:
    """`count` samples evenly spaced over a split, or all of them."""
    if count >= len(batch):
        return batch
    return batch.select(torch.linspace(0, len(batch) - 1, count).round().long())


def draw(
    recipe: Recipe,
    number: int,
    *,
    seed: int = 0,
    solver: Solver = Solver(),
    chunk: int = 64,
    device: str = "cpu",
    progress: Callable[[int], Any] | None = None,
) -> Batch:
    """Draw samples in the user's units, on the CPU.

    Conditions and, for ragged data, sizes are those of the test split, in its order and over again.

    Args:
        number: how many, at least 1.
        seed: together with its number it decides a sample.
        chunk: samples that travel together; bounds the memory, does not change a sample.
        progress: called with the number of samples done after each chunk.
    """
    if number < 1 or chunk < 1:
        raise ValueError(f"sample: the number of samples and the chunk must be at least 1, got {number}, {chunk}.")
    recipe.flow.to(device).eval()
    test, done = recipe.data.test, []
    for first in range(0, number, chunk):
        wanted = range(first, min(first + chunk, number))
        like = test.select([k % len(test) for k in wanted]).to(device)
        draws = []
        for i, k in enumerate(wanted):
            generator = torch.Generator().manual_seed(seed_of(seed, k))
            draws.append(recipe.flow.prior.sample(like.select([i]), generator))
        done.append(recipe.flow.sample(like, solver=solver, x0=torch.cat(draws)).to("cpu"))
        if progress is not None:
            progress(len(wanted))
    return Batch.join(done)


def output(path: Path, data: Data, overwrite: bool = False) -> Path:
    """Where samples go: the path, with the right suffix if it has none.

    Raises:
        FileExistsError: where the file exists and is not to be overwritten.
        ValueError: for a suffix that these data cannot be written to, or a place that cannot be.
    """
    wanted = [".nc", ".npz"] if data.export is not None else [".npz"]
    if not path.suffix:
        path = path.with_suffix(wanted[0])
    if path.suffix not in wanted:
        raise ValueError(f"samples of {data.name} are written to {' or '.join(wanted)} files, got {path.name!r}.")
    refuse_existing(path, overwrite)
    return path


def write_samples(batch: Batch, data: Data, path: Path, about: Mapping[str, Any], overwrite: bool = False) -> Path:
    """Write samples as netCDF where the data set exports them to xarray, else as .npz without pickles.

    Args:
        path: see `output`, which also says what is raised; .npz is possible for all data.
        about: seed, run and the like; goes into the file.
    """
    path = output(path, data, overwrite)
    if path.suffix == ".nc" and data.export is not None:
        dataset = data.export(batch)
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S%z')}: scifm {__version__} sample"
        dataset.attrs["history"] = f"{line}\n{dataset.attrs.get('history', '')}".strip()
        dataset.attrs |= {f"scifm_{k}": v for k, v in about.items() if isinstance(v, str | int | float)}
        with atomic(path) as temporary:
            dataset.to_netcdf(temporary, engine="h5netcdf")
        return path
    arrays = {"x": batch.x.numpy(), "count": batch.counts.numpy()}
    for kind, group in (("context", batch.context), ("nodes", batch.nodes), ("edges", batch.edges)):
        arrays |= {f"{kind}.{k}": v.numpy() for k, v in group.items()}
    if batch.edge_index is not None:
        arrays["edge_index"] = batch.edge_index.numpy()
    arrays["about"] = np.array([f"{k}={v}" for k, v in about.items()])
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    return path


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise where a file cannot be written, or exists and was not given up: before the work.

    Raises:
        FileExistsError, ValueError: the message names the path.
    """
    check_output(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give --overwrite to replace it, or another --output.")


def score(
    recipe: Recipe,
    *,
    split: str = "test",
    samples: int | None = None,
    draws: int | None = None,
    trace: Trace | None = None,
    solver: Solver = Solver(),
    seed: int = 0,
    chunk: int = 64,
    device: str = "cpu",
    progress: Callable[[int], Any] | None = None,
) -> BitsPerDim:
    """Bits per dimension of a split, beside its Gaussian baselines on the same samples.

    Args:
        split: "test", "valid" or "train".
        samples: how many, evenly spaced over the split; the recipe's `test_samples` if None.
        draws: dequantisation samples; the recipe's if None.
        trace, solver, chunk, progress: as for `scifm.likelihood.bits_per_dim`.
        seed: of dequantisation and probes.
    """
    from scifm.baselines import baselines
    from scifm.likelihood import bits_per_dim

    data, flow = recipe.data, recipe.flow.to(device).eval()
    splits = {"test": data.test, "valid": data.valid, "train": data.train}
    if split not in splits:
        raise ValueError(f"score: split must be one of {', '.join(splits)}, got {split!r}.")
    count = recipe.test_samples if samples is None else samples
    if count < 1:
        raise ValueError(f"score: expected at least one sample, got {count}.")
    test, draws = evenly(splits[split], count).to(device), recipe.draws if draws is None else draws
    beside = baselines(
        flow, data.train.to(device), test, delta=data.delta, draws=draws,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return bits_per_dim(
        flow, test, delta=data.delta, draws=draws, trace=trace, solver=solver, chunk=chunk,
        generator=torch.Generator().manual_seed(seed), baselines=beside, progress=progress,
    )  # fmt: skip


def write_score(path: Path, result: BitsPerDim, overwrite: bool = False, **about: Any) -> Path:
    """Write a result with all its settings as JSON."""
    refuse_existing(path, overwrite)
    write_json(path, {**about, "scifm": __version__, "line": str(result), **result.to_dict()})
    return path
