"""What the command line does with a run: draw samples, score, report.  Each works from the run's folder alone.

Sample k is drawn from a seed of its own, made from (seed, k), which gives its draw of the prior, then its probes or the
noise of its stochastic equation; and it is integrated with its own steps.  So the k-th sample is the same whether 10 or
10,000 are drawn, alone or in chunks (to rounding: batched matrix products add in another order).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scifm import __version__
from scifm.batch import Batch
from scifm.data.stored import Stored, some
from scifm.disk import write_json
from scifm.parts import Keep, made
from scifm.samples import Drawn, output, refuse_existing, refuse_folder, refuse_partial, write_chunks, write_samples
from scifm.sde import Stochastic
from scifm.solve import Solver

if TYPE_CHECKING:
    from scifm.flow import Flow
    from scifm.likelihood import BitsPerDim
    from scifm.recipe import Recipe
    from scifm.trace import Trace
    from scifm.whole import Whole

__all__ = [
    "chunks",
    "draw",
    "evenly",
    "held_out",
    "output",
    "refuse_existing",
    "refuse_folder",
    "refuse_partial",
    "score",
    "seed_of",
    "write_chunks",
    "write_samples",
    "write_score",
]


def seed_of(seed: int, number: int) -> int:
    """Seed of the number-th sample: a hash, so that neighbouring seeds share no streams."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:7], "big")


def evenly(batch: Batch | Stored, count: int) -> Batch:
    """`count` samples evenly spaced over a split, or all of them."""
    if isinstance(batch, Stored):
        return batch.some(count)
    if count >= len(batch):
        return batch
    return batch.select(torch.linspace(0, len(batch) - 1, count).round().long())


# -- sampling --------------------------------------------------------------------------------------------


def draw(
    recipe: Recipe,
    number: int,
    *,
    seed: int = 0,
    solver: Solver | Stochastic = Solver(),
    chunk: int = 64,
    device: str = "cpu",
    progress: Callable[[int], Any] | None = None,
) -> Batch:
    """Draw samples in the user's units, on the CPU, all in memory.  `chunks` has the arguments, and log-densities."""
    found = chunks(recipe, number, seed=seed, solver=solver, chunk=chunk, device=device, progress=progress)
    return Batch.join([d.batch for d in found])


def chunks(
    recipe: Recipe,
    number: int,
    *,
    seed: int = 0,
    solver: Solver | Stochastic = Solver(),
    trace: Trace | None = None,
    chunk: int = 64,
    device: str = "cpu",
    given: Batch | None = None,
    keep: Keep = made,
    progress: Callable[[int], Any] | None = None,
) -> Iterator[Drawn]:
    """Draw samples in the user's units, on the CPU, chunk by chunk; none is held once the next is asked for.

    Args:
        number: how many, at least 1.
        seed: together with its number it decides a sample.
        solver: how to integrate; a `Stochastic` has no log-density.
        trace: divergence estimator: samples come with their log-density.  None for samples alone.
        chunk: samples that travel together; bounds the memory, does not change a sample.
        given: whose conditions and, for ragged data, sizes the samples have, in order and over again; the test split's
            if None.
        keep: a `scifm.parts.Parts`, with which a job goes on that was cut off.
        progress: called with the number of samples done after each chunk.

    Raises:
        ValueError: for settings out of range, at the call.
    """
    if number < 1 or chunk < 1:
        raise ValueError(f"sample: the number of samples and the chunk must be at least 1, got {number}, {chunk}.")
    if trace is not None and isinstance(solver, Stochastic):
        raise ValueError(
            "sample: a stochastic equation has no log-density; leave one of them out, or score the samples' flow."
        )
    if trace is not None and isinstance(solver, Solver) and solver.steps == 1:
        raise ValueError("sample: a single step gives no usable log-density; take more steps, or an adaptive method.")
    flow, given = recipe.flow.to(device).eval(), recipe.data.test if given is None else given
    if len(given) == 0:
        raise ValueError("sample: there are no samples whose conditions could be taken, expected at least one.")
    wanted = (range(first, min(first + chunk, number)) for first in range(0, number, chunk))
    return _chunks(flow, given, wanted, partial(_make, flow, seed, solver, trace, device), keep, progress)


def _chunks(
    flow: Flow,
    given: Batch,
    wanted: Iterator[range],
    make: Callable[[range, Batch], dict[str, Tensor]],
    keep: Keep,
    progress: Callable[[int], Any] | None,
) -> Iterator[Drawn]:
    for samples in wanted:
        like = given.select([k % len(given) for k in samples])
        drawn = _drawn(like, keep(samples, partial(make, samples, like)))
        if progress is not None:
            progress(len(samples))
        yield drawn
        del drawn  # a generator that waits would hold it while the next is made


def _drawn(like: Batch, found: dict[str, Tensor]) -> Drawn:
    batch, probes = like.replace(found["x"]), int(found["probes"])
    return Drawn(batch, found.get("log_prob"), found.get("stderr"), probes, found.get("nfe"), found.get("dims"))


def _make(
    flow: Flow, seed: int, solver: Solver | Stochastic, trace: Trace | None, device: str, samples: range, like: Batch
) -> dict[str, Tensor]:
    """The numbers of one chunk, by name, on the CPU; conditions and sizes are those of `like`."""
    like = like.to(device)
    alone = [like.select([i]) for i in range(len(like))]
    generators = [torch.Generator().manual_seed(seed_of(seed, k)) for k in samples]

    def noise() -> Tensor:
        return torch.cat([flow.prior.sample(one, g) for one, g in zip(alone, generators, strict=True)])

    x0 = noise()
    if isinstance(solver, Stochastic):
        return _found(flow.sample(like, solver=solver, x0=x0, noise=noise))
    if trace is None:
        batch, solution = flow.sample(like, solver=solver, x0=x0, statistics=True)
        return _found(batch) | {"nfe": solution.nfe.cpu()}
    drawn = [trace.draw(one, g) for one, g in zip(alone, generators, strict=True)]
    parts = [p for p in drawn if p is not None]
    probes = torch.cat(parts, 1) if parts else None
    batch, log_prob, solution = flow.sample_and_log_prob(like, solver=solver, trace=trace, x0=x0, probes=probes)
    assert solution.logdet is not None
    columns = solution.logdet.shape[1]
    found = _found(batch, 0 if probes is None else len(probes))
    found |= {"log_prob": log_prob.cpu(), "nfe": solution.nfe.cpu(), "dims": flow.prior.dims(like).cpu()}
    return found if columns == 1 else found | {"stderr": solution.logdet.std(1).cpu() / math.sqrt(columns)}


def _found(batch: Batch, probes: int = 0) -> dict[str, Tensor]:
    return {"x": batch.x.cpu(), "probes": torch.tensor(probes)}


# -- scoring ---------------------------------------------------------------------------------------------


def held_out(recipe: Recipe, split: str = "test", samples: int | None = None) -> Batch:
    """The samples that `score` scores.

    Args:
        split: "test", "valid" or "train".
        samples: how many, evenly spaced over the split; the recipe's `test_samples` if None.
    """
    splits = {"test": recipe.data.test, "valid": recipe.data.valid, "train": recipe.data.train}
    if split not in splits:
        raise ValueError(f"score: split must be one of {', '.join(splits)}, got {split!r}.")
    count = recipe.test_samples if samples is None else samples
    if count < 1:
        raise ValueError(f"score: expected at least one sample, got {count}.")
    return evenly(splits[split], count)


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
    precision: float | None = None,
    keep: Keep = made,
    progress: Callable[[int], Any] | None = None,
) -> BitsPerDim:
    """Bits per dimension of a split, beside its Gaussian baselines on the same samples.

    Args:
        split, samples: as for `held_out`.
        draws: dequantisation samples; the recipe's if None.
        trace, solver, chunk, precision, progress: as for `scifm.likelihood.bits_per_dim`.
        seed: of dequantisation and probes.
        keep: a `scifm.parts.Parts`, with which a score goes on that was cut off.
    """
    from scifm.baselines import baselines
    from scifm.likelihood import bits_per_dim

    data, flow = recipe.data, recipe.flow.to(device).eval()
    test, draws = held_out(recipe, split, samples).to(device), recipe.draws if draws is None else draws
    beside = baselines(
        flow, some(data.train).to(device), test, delta=data.delta, draws=draws,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return bits_per_dim(
        flow, test, delta=data.delta, draws=draws, trace=trace, solver=solver, chunk=chunk,
        generator=torch.Generator().manual_seed(seed), baselines=beside, progress=progress, keep=keep,
        precision=precision,
    )  # fmt: skip


def write_score(
    path: Path, result: BitsPerDim, overwrite: bool = False, *, whole: Whole | None = None, **about: Any
) -> str:
    """Write a result with all its settings as JSON, and what it says of whole samples; all of it in one line."""
    refuse_existing(path, overwrite)
    lines, more = ([], {}) if whole is None else (whole.lines(), whole.to_dict())
    line = " | ".join([str(result), *lines])
    write_json(path, {**about, "scifm": __version__, "line": line, **result.to_dict(), **more})
    return line
