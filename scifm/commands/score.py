"""`scifm score RUN`: held-out likelihood in bits per dimension, with its error and Gaussian baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scifm.commands.words import bar, flow_flags, machine, positive, run_parser, solver_of
from scifm.run import Run

__all__ = ["command"]


def command(words: Sequence[str]) -> int:
    """`scifm score RUN`."""
    parser = run_parser("score", "Likelihood of held-out data in bits per dimension, beside Gaussian baselines.")
    parser.add_argument("--split", choices=("test", "valid", "train"), default="test", help="default test")
    parser.add_argument("-n", "--samples", type=positive, metavar="INT", help="how many (default: the recipe's)")
    parser.add_argument("--draws", type=positive, metavar="INT", help="dequantisation draws (default: the recipe's)")
    trace = parser.add_mutually_exclusive_group()
    trace.add_argument("--probes", type=positive, metavar="INT", help="Hutchinson probes")
    trace.add_argument("--exact", action="store_true", help="exact trace")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="JSON file (default in the run's folder)")
    flow_flags(parser)
    found = parser.understand(words)
    run = Run.open(found.run)
    device, _ = machine(found.device, found.threads)
    solver = solver_of(found)
    from scifm import verbs
    from scifm.trace import Exact, Hutchinson

    recipe, step = run.restore(found.weights, device)
    whole = run.record["status"] == "finished"  # score.json is that of the whole training
    output = found.output or run.folder / ("score.json" if whole else f"score-step-{step}.json")
    output = output.expanduser()
    verbs.refuse_existing(output, found.overwrite)  # complain before the work, not after it
    seed = run.record["seed"] if found.seed is None else found.seed
    with bar("score", found.samples or recipe.test_samples) as shown:
        result = verbs.score(
            recipe, split=found.split, samples=found.samples, draws=found.draws,
            trace=Exact() if found.exact else Hutchinson(found.probes) if found.probes else None,
            solver=solver, seed=seed, chunk=found.chunk, device=device, progress=shown.update,
        )  # fmt: skip
    about = {"split": found.split, "seed": seed, "step": step, "weights": found.weights}
    verbs.write_score(output, result, found.overwrite, **about)
    print(str(result).replace(" | ", "\n  "))
    return 0
