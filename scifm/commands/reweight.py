"""`scifm reweight RUN`: samples of a trained run, weighted to the law of the energy that its data follow."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scifm.commands.resumable import carry_out, chunked, settings_of
from scifm.commands.words import WrongUse, flow_flags, machine, positive, run_parser, solver_of, trace_flags, trace_of
from scifm.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from scifm.energies import Energy
    from scifm.samples import Drawn
    from scifm.weights import Weights

__all__ = ["command"]

FEW = 10  # effective samples, below which error bars mean little


def command(words: Sequence[str]) -> int:
    """`scifm reweight RUN`."""
    parser = run_parser("reweight", "Weigh samples of a run to exp(−U/T)/Z, for data sets that know their energy U.")
    parser.add_argument("-n", "--number", type=positive, default=1000, metavar="INT", help="samples (default 1000)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=".npz (default in the run's folder)")
    trace_flags(parser)
    parser.add_argument(
        "--allow-stochastic", action="store_true",
        help="with --probes: weights of a noisy log-density, half of its variance, where known, taken out",
    )  # fmt: skip
    flow_flags(parser)
    found = parser.understand(words)
    if found.allow_stochastic and not found.probes:
        raise WrongUse("--allow-stochastic is about random probes; give --probes too, or leave it out.")
    run = Run.open(found.run)
    seed = run.record["seed"] if found.seed is None else found.seed
    device, _ = machine(found.device, found.threads)
    solver = solver_of(found)
    from scifm import verbs
    from scifm.metrics.reweighting import check_space
    from scifm.trace import Exact
    from scifm.weights import refuse_noise

    if found.probes and not found.allow_stochastic:
        refuse_noise("reweight", f"--probes {found.probes}", "Leave --probes out; or give --allow-stochastic")
    recipe, step = run.restore(found.weights, device)
    data, energy, trace = recipe.data, recipe.data.energy, trace_of(found) or Exact()
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
    decide |= {"trace": repr(trace)}
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
            lambda _: _say(_write(chunks, energy, output, about), output),
        )  # fmt: skip
        if status == 0:
            parts.remove()
    return status


def _say(weights: Weights, output: Path) -> None:
    print(f"{weights}\n{output}")
    if weights.ess < FEW:
        print(
            f"warning: these samples are worth {weights.ess:.1f}: neither log Z nor its error bar, which cannot know "
            "what was not sampled, can be trusted. Draw more, or train longer.",
            file=sys.stderr,
        )


def _write(source: Callable[[], Iterable[Drawn]], energy: Energy, output: Path, about: dict[str, Any]) -> Weights:
    """Samples, energies, log-densities and log-weights as one .npz, in passes over the chunks; the weights."""
    from scifm.disk import atomic
    from scifm.samples import write_npz
    from scifm.weights import weigh

    value, log_prob, noise = _of_each(source, energy)
    known = noise is not None and not bool(noise.isnan().any())
    weights = weigh(value, log_prob, noise=noise, allow_stochastic=True, correct=known)
    with atomic(output) as temporary:
        write_npz(source, temporary, about, {"energy": value.numpy(), "log_weight": weights.log.numpy()})
    return weights


def _of_each(source: Callable[[], Iterable[Drawn]], energy: Energy) -> tuple[Tensor, Tensor, Tensor | None]:
    """Energy, log-density and variance of its error of each sample, (n,); None without probes, NaN for a single one."""
    import torch

    energies, densities, noises = [], [], []
    for drawn in source():
        assert drawn.log_prob is not None
        energies.append(energy.of(drawn.batch))
        densities.append(drawn.log_prob)
        if drawn.probes:
            unknown = torch.full_like(drawn.log_prob, torch.nan)
            noises.append(unknown if drawn.stderr is None else drawn.stderr**2)
    return torch.cat(energies), torch.cat(densities), torch.cat(noises) if noises else None
