"""`scifm reweight RUN`: samples of a trained run, weighted to the law of the energy that its data follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scifm.commands.resumable import carry_out, chunked, settings_of
from scifm.commands.words import flow_flags, machine, positive, run_parser, solver_of
from scifm.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from scifm.energies import Energy
    from scifm.samples import Drawn
    from scifm.weights import Weights

__all__ = ["command"]


def command(words: Sequence[str]) -> int:
    """`scifm reweight RUN`."""
    parser = run_parser("reweight", "Weigh samples of a run to exp(−U/T)/Z, for data sets that know their energy U.")
    parser.add_argument("-n", "--number", type=positive, default=1000, metavar="INT", help="samples (default 1000)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=".npz (default in the run's folder)")
    flow_flags(parser)
    found = parser.understand(words)
    run = Run.open(found.run)
    seed = run.record["seed"] if found.seed is None else found.seed
    device, _ = machine(found.device, found.threads)
    solver = solver_of(found)
    from scifm import verbs
    from scifm.metrics.reweighting import check_space
    from scifm.trace import Exact

    recipe, step = run.restore(found.weights, device)
    data, energy, trace = recipe.data, recipe.data.energy, Exact()  # a random trace would bias the weights
    if energy is None:
        raise ValueError(
            f"reweight: {data.name} knows no energy, so there is no law to weigh its samples to; give Data(energy=...)."
        )
    if bool((data.test.dims != data.test.dims[0]).any()):
        raise ValueError(f"reweight: samples of {data.name} differ in size, and each size has a log Z of its own.")
    check_space(recipe.flow, energy, data.test.select([0]).to(device))
    output = (found.output or run.folder / f"weights-{found.number}-seed-{seed}.npz").expanduser()
    if output.suffix != ".npz":
        raise ValueError(f"reweight: weights are written to .npz files, got {output.name!r}.")
    verbs.refuse_existing(output, found.overwrite)  # complain before the work, not after it
    decide = {"number": found.number, "seed": seed, "step": step, "solver": repr(solver), "energy": repr(energy)}
    about = {"run": run.folder.name, "seed": seed, "step": step, "weights": found.weights, "solver": str(solver)}
    settings = settings_of(run, recipe, data.test, found, {**decide, "device": device})
    with chunked(output, settings, found.number, found.overwrite) as parts:
        chunks = partial(
            verbs.chunks, recipe, found.number, seed=seed, solver=solver, trace=trace, chunk=found.chunk,
            device=device, keep=parts,
        )  # fmt: skip

        status = carry_out(
            "reweight", words, parts, found.number,
            lambda progress: deque(chunks(progress=progress), maxlen=0),  # each goes to the disk, none is kept here
            lambda _: print(f"{_write(chunks, energy, output, about)}\n{output}"),
        )  # fmt: skip
        if status == 0:
            parts.remove()
    return status


def _write(source: Callable[[], Iterable[Drawn]], energy: Energy, output: Path, about: dict[str, Any]) -> Weights:
    """Samples, energies, log-densities and log-weights as one .npz, in passes over the chunks; the weights."""
    from scifm.disk import atomic
    from scifm.samples import write_npz
    from scifm.weights import weigh

    value, log_prob = _of_each(source, energy)
    weights = weigh(value, log_prob, noise=None)
    with atomic(output) as temporary:
        write_npz(source, temporary, about, {"energy": value.numpy(), "log_weight": weights.log.numpy()})
    return weights


def _of_each(source: Callable[[], Iterable[Drawn]], energy: Energy) -> tuple[Tensor, Tensor]:
    """Energy and log-density of each sample, (n,)."""
    import torch

    energies, densities = [], []
    for drawn in source():
        assert drawn.log_prob is not None
        energies.append(energy.of(drawn.batch))
        densities.append(drawn.log_prob)
    return torch.cat(energies), torch.cat(densities)
