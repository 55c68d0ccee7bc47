"""`scifm score RUN`: held-out likelihood in bits per dimension, with its error and Gaussian baselines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scifm.commands.resumable import carry_out, chunked, settings_of
from scifm.commands.words import (
    WrongUse,
    flow_flags,
    machine,
    positive,
    run_parser,
    solver_of,
    tolerance,
    trace_flags,
    trace_of,
)
from scifm.run import Run

if TYPE_CHECKING:
    from scifm.bits import BitsPerDim

__all__ = ["command"]


def command(words: Sequence[str]) -> int:
    """`scifm score RUN`."""
    parser = run_parser("score", "Likelihood of held-out data in bits per dimension, beside Gaussian baselines.")
    parser.add_argument("--split", choices=("test", "valid", "train"), help="default test")
    parser.add_argument(
        "-n", "--samples", type=positive, metavar="INT", help="how many held-out ones (default: the recipe's)"
    )
    parser.add_argument("--draws", type=positive, metavar="INT", help="dequantisation draws (default: the recipe's)")
    parser.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="score each sample of this file, on the grid of the run's data",
    )
    trace_flags(parser)
    parser.add_argument(
        "--precision",
        type=tolerance,
        metavar="FLOAT",
        help="add probes down to this standard error, bits/dim",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="JSON file, with --file .nc or .zarr (default in the run's folder)",
    )  # fmt: skip
    flow_flags(parser)
    found = parser.understand(words)
    if found.exact and found.precision:
        raise WrongUse("--precision is about random probes, which --exact has none of; leave one of them out.")
    if found.file is not None:
        from scifm.commands.score_file import score_file

        return score_file(found, words)
    found.split = found.split or "test"
    run = Run.open(found.run)
    device, _ = machine(found.device, found.threads)
    solver = solver_of(found)
    from scifm import verbs
    from scifm.whole import whole

    recipe, step = run.restore(found.weights, device)
    finished = run.record["status"] == "finished"  # score.json is that of the whole training
    output = found.output or run.folder / ("score.json" if finished else f"score-step-{step}.json")
    output = output.expanduser()
    verbs.refuse_existing(output, found.overwrite)  # complain before the work, not after it
    seed, trace = run.record["seed"] if found.seed is None else found.seed, trace_of(found)
    draws = recipe.draws if found.draws is None else found.draws
    scored = verbs.held_out(recipe, found.split, found.samples)
    about = {"split": found.split, "seed": seed, "step": step, "weights": found.weights, "unit": recipe.data.unit}
    decide = {"split": found.split, "samples": len(scored), "draws": draws, "trace": repr(trace), "seed": seed}
    decide |= {"step": step, "solver": repr(solver), "device": device, "delta": recipe.data.delta}
    decide |= {"precision": found.precision}

    def finish(result: BitsPerDim) -> None:
        more = whole(recipe.flow.prior, recipe.data, scored.to(device), result)
        line = verbs.write_score(output, result, found.overwrite, whole=more, **about)
        print(line.replace(" | ", "\n  "))

    with chunked(output, settings_of(run, recipe, scored, found, decide), len(scored), found.overwrite) as parts:
        score = partial(
            verbs.score, recipe, split=found.split, samples=found.samples, draws=draws, trace=trace, solver=solver,
            seed=seed, chunk=found.chunk, device=device, keep=parts, precision=found.precision,
        )  # fmt: skip
        status = carry_out("score", words, parts, len(scored), lambda progress: score(progress=progress), finish)
        if status == 0:
            parts.remove()
    return status
