"""`scifm score RUN`: held-out likelihood in bits per dimension, with its error and Gaussian baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scifm.commands.words import WrongUse, bar, flow_flags, machine, positive, run_parser, solver_of
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
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="JSON file (default score.json of the run)")
    flow_flags(parser)
    found = parser.understand(words)
    run = Run.open(found.run)
    output = found.output or run.folder / "score.json"
    if output.exists() and not found.overwrite:
        raise WrongUse(f"{output} exists; give --overwrite to replace it, or another --output.")
    device, _ = machine(found.device, found.threads)
    solver = solver_of(found)
    from scifm import verbs
    from scifm.trace import Exact, Hutchinson

    recipe = run.rebuild(found.weights, device)
    seed = run.record["seed"] if found.seed is None else found.seed
    with bar("score", found.samples or recipe.test_samples) as shown:
        result = verbs.score(
            recipe, split=found.split, samples=found.samples, draws=found.draws,
            trace=Exact() if found.exact else Hutchinson(found.probes) if found.probes else None,
            solver=solver, seed=seed, chunk=found.chunk, device=device, progress=shown.update,
        )  # fmt: skip
    verbs.write_score(output, result, found.overwrite, split=found.split, seed=seed, weights=found.weights)
    print(str(result).replace(" | ", "\n  "))
    return 0
