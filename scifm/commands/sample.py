"""`scifm sample RUN`: draw samples from a trained run, with their log-density if asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scifm.commands.resumable import carry_out, chunked, settings_of
from scifm.commands.words import (
    Parser,
    flow_flags,
    machine,
    positive,
    run_parser,
    solver_of,
    tolerance,
    trace_flags,
    trace_of,
)  # fmt: skip
from scifm.run import Run

if TYPE_CHECKING:
    from scifm.batch import Batch
    from scifm.data import Data
    from scifm.sde import Stochastic
    from scifm.solve import Solver

__all__ = ["command"]


def command(words: Sequence[str]) -> int:
    """`scifm sample RUN`."""
    parser = run_parser("sample", "Draw samples from a trained run.")
    parser.add_argument("-n", "--number", type=positive, default=64, metavar="INT", help="how many (default 64)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help=".npz, or what the data offer: .nc or .zarr for grids, .pdb, .cif, .xyz for proteins "
        "(default in the run's folder)",
    )  # fmt: skip
    parser.add_argument(
        "--conditions", choices=("test", "train"), default="test",
        help="what does not flow (sizes, species, bonds, labels): of the test samples in their order (default), or of "
        "training samples drawn at random",
    )  # fmt: skip
    parser.add_argument("--log-prob", action="store_true", help="with the log-density of each sample, in nats")
    trace_flags(parser)
    parser.add_argument("--stochastic", type=positive, metavar="STEPS", help="sample the stochastic equation instead")
    parser.add_argument(
        "--strength", type=tolerance, metavar="FLOAT", help="of its noise (default 1): more forgets more errors"
    )
    flow_flags(parser)
    found = parser.understand(words)
    _agree(parser, found)
    run = Run.open(found.run)
    seed = run.record["seed"] if found.seed is None else found.seed
    device, _ = machine(found.device, found.threads)
    solver = _solver_of(found)
    from scifm import trace as traces
    from scifm import verbs
    from scifm.samples import solver_words

    recipe, step = run.restore_to_sample(found.weights, device)
    data, trace = recipe.data, None
    given = _given(data, found.conditions, found.number, seed)
    if found.log_prob:
        trace = trace_of(found) or traces.default(given)
    when = "" if run.record["status"] == "finished" else f"step-{step}-"
    output = found.output or run.folder / f"samples-{when}{found.number}-seed-{seed}"
    output = verbs.output(output.expanduser(), data, found.overwrite)  # complain before the work, not after it
    decide = {"number": found.number, "seed": seed, "step": step, "solver": repr(solver), "log-density": repr(trace)}
    settings = settings_of(run, recipe, given, found, {**decide, "device": device})
    about = {"run": run.folder.name, "seed": seed, "step": step, "weights": found.weights, **solver_words(solver)}
    about["conditions"] = found.conditions
    if trace is not None:
        about["trace"] = type(trace).__name__.lower()
    with chunked(output, settings, found.number, found.overwrite) as parts:
        verbs.refuse_partial(output, parts.done, found.overwrite)
        chunks = partial(
            verbs.chunks, recipe, found.number, seed=seed, solver=solver, trace=trace, chunk=found.chunk,
            device=device, given=given, keep=parts,
        )  # fmt: skip
        status = carry_out(
            "sample", words, parts, found.number,
            lambda progress: verbs.write_chunks(
                chunks, data, output, about, found.overwrite, first=chunks(progress=progress)
            ),
            print,
        )  # fmt: skip
        if status == 0:
            parts.remove()
    return status


def _given(data: Data, conditions: str, number: int, seed: int) -> Batch:
    """The samples whose sizes and conditions are taken."""
    if conditions == "test":
        return data.test
    import torch

    from scifm.data.stored import some
    from scifm.priors import Composition

    return Composition(some(data.train))(number, torch.Generator().manual_seed(seed))


def _agree(parser: Parser, found: argparse.Namespace) -> None:
    """Refuse flags that would do nothing beside each other."""
    if not found.log_prob and (found.exact or found.probes):
        parser.error("--exact and --probes are for the log-density; give --log-prob too.")
    if found.stochastic is None:
        if found.strength is not None:
            parser.error("--strength is of the noise of the stochastic equation; give --stochastic STEPS too.")
        return
    if found.log_prob:
        parser.error("--stochastic has no log-density: leave --log-prob out.")
    if found.steps or found.rtol or found.atol:
        parser.error("--stochastic takes its number of steps itself; leave out --steps, --rtol and --atol.")
    if found.method not in (None, "euler", "heun"):
        parser.error(f"--stochastic goes with --method euler or heun, got {found.method!r}.")


def _solver_of(found: argparse.Namespace) -> Solver | Stochastic:
    if found.stochastic is None:
        return solver_of(found)
    from scifm.sde import Stochastic

    return Stochastic(found.method or "heun", found.stochastic, 1.0 if found.strength is None else found.strength)
