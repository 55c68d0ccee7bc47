"""`scifm sample RUN`: draw samples from a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scifm.commands.words import bar, flow_flags, machine, positive, run_parser, solver_of
from scifm.run import Run

__all__ = ["command"]


def command(words: Sequence[str]) -> int:
    """`scifm sample RUN`."""
    parser = run_parser("sample", "Draw samples from a trained run, with the conditions of its test split.")
    parser.add_argument("-n", "--number", type=positive, default=64, metavar="INT", help="how many (default 64)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=".nc or .npz (default in the run's folder)")
    flow_flags(parser)
    found = parser.understand(words)
    run = Run.open(found.run)
    seed = run.record["seed"] if found.seed is None else found.seed
    device, _ = machine(found.device, found.threads)
    solver = solver_of(found)
    from scifm import verbs

    recipe, step = run.restore(found.weights, device)
    when = "" if run.record["status"] == "finished" else f"step-{step}-"
    output = found.output or run.folder / f"samples-{when}{found.number}-seed-{seed}"
    output = verbs.output(output.expanduser(), recipe.data, found.overwrite)  # complain before the work, not after it
    with bar("sample", found.number) as shown:
        batch = verbs.draw(
            recipe,
            found.number,
            seed=seed,
            solver=solver,
            chunk=found.chunk,
            device=device,
            progress=shown.update,
        )
    about = {"run": run.folder.name, "seed": seed, "step": step, "weights": found.weights, "solver": str(solver)}
    print(verbs.write_samples(batch, recipe.data, output, about, found.overwrite))
    return 0
