"""`scifm fill RUN FILE`: complete fields from fields with gaps, or from sparse observations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scifm.commands.resumable import carry_out, chunked, settings_of
from scifm.commands.score_file import about_of, fields_of, output_of
from scifm.commands.words import flow_flags, machine, positive, run_parser, solver_of, tolerance, trace_flags, trace_of
from scifm.run import Run

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["command"]

TOLERANCE = 1e-6  # at 1e-5 values of NCEP temperature rounded to 0.01 K are missed by 8 times their noise, here by 1.3


def command(words: Sequence[str]) -> int:
    """`scifm fill RUN FILE`."""
    parser = run_parser("fill", "Complete fields from those of a file with gaps (NaN), with a flow of whole fields.")
    parser.add_argument("file", type=Path, metavar="FILE", help="fields with gaps, on the grid of the run's data")
    parser.add_argument("-n", "--number", type=positive, default=16, metavar="INT", help="members each (default 16)")
    parser.add_argument(
        "--noise", type=tolerance, metavar="STD",
        help="standard deviation of what was observed, in the run's units (default: step / √12 of packed files, else "
        "1 %% of the spread of the anomalies)",
    )  # fmt: skip
    parser.add_argument("--log-weight", action="store_true", help="with log p(x) p(y | x) / q(x | y) of each member")
    trace_flags(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=".nc or .zarr (default in the run's folder)")
    flow_flags(parser)
    found = parser.understand(words)
    if not found.log_weight and (found.exact or found.probes):
        parser.error("--exact and --probes are for the weights; give --log-weight too.")
    run = Run.open(found.run)
    device, _ = machine(found.device, found.threads)
    seed = run.record["seed"] if found.seed is None else found.seed
    if not found.steps:  # what is observed with little noise must be met closely
        found.rtol, found.atol = found.rtol or TOLERANCE, found.atol or TOLERANCE
    solver = solver_of(found)
    import torch

    from scifm import filling
    from scifm import trace as traces
    from scifm.data.stored import some

    output = output_of(found, run, f"filled-{found.file.stem}")
    recipe, step = run.restore(found.weights, device)
    flow, fields = recipe.flow, fields_of(recipe.data, found.file)
    observed, batch = fields.observed.to(device), fields.batch.to(device)
    typical = recipe.data.first.x[:1].to(device).expand_as(batch.x)
    flow.transform(batch.replace(typical))  # an hour of day that it never saw is said before the work
    if bool((observed == fields.inside.to(device)).all()):
        raise ValueError(f"fill: nothing is missing in {fields.name}; gaps are NaN.")
    if not observed.any():
        raise ValueError(f"fill: nothing is observed in {fields.name}; `scifm sample` draws from nothing.")
    if found.noise is None:
        noise = filling.usual_noise(flow, batch, some(recipe.data.train).to(device), fields.deltas)
    else:
        noise = torch.full_like(batch.x, found.noise)
    trace = trace_of(found) or traces.default(batch) if found.log_weight else None
    decide = {"number": found.number, "noise": found.noise, "seed": seed, "step": step, "solver": repr(solver)}
    decide |= {"trace": repr(trace), "device": device}
    total = found.number * len(batch)
    members = filling.fill(flow, batch, observed, noise, found.number, seed=seed, solver=solver, trace=trace)
    del members  # refuses what it cannot do before the work
    with chunked(output, settings_of(run, recipe, batch, found, decide), total, found.overwrite) as parts:

        def work(progress: Callable[[int], Any]) -> dict[str, Tensor]:
            chunks = list(
                filling.fill(
                    flow, batch, observed, noise, found.number, seed=seed, solver=solver, trace=trace,
                    chunk=found.chunk, keep=parts, progress=progress,
                )
            )  # fmt: skip
            joined = {name: torch.cat([c[name] for c in chunks]) for name in chunks[0]}
            # members first, as a file has them
            return {k: v.unflatten(0, (len(batch), found.number)).transpose(0, 1) for k, v in joined.items()}

        def finish(result: dict[str, Tensor]) -> None:
            from scifm.labelled import history
            from scifm.streamed import save

            made = fields.maps(result["x"])
            if "log_weight" in result:
                told = {"units": "1", "long_name": "log p(x) + log p(y | x) - log q(x | y), in nats"}
                made = fields.beside({"log_weight": (result["log_weight"], told | {"trace": repr(trace)})}, made)
            scale, unit = noise[observed].mean(), recipe.data.unit
            about = about_of(run, found, seed, step, solver) | {"noise": float(scale)}
            before = str(made.attrs.get("history", ""))
            save(made.assign_attrs(history("fill", about, before, float(result["nfe"].double().mean()))), output)
            off = (result["x"] - fields.batch.x) / noise.cpu()
            off = off[:, fields.observed].double().square().mean().sqrt()
            seen, inside = observed.flatten(1).sum(1), int(fields.inside.sum())
            print(
                f"{len(batch)} fields x {found.number} members; {int(seen.min())} .. {int(seen.max())} of {inside} "
                f"values observed, noise {float(scale):.3g} {unit}; members miss them by {float(off):.2f} of it (rms)"
            )
            print(output)

        status = carry_out("fill", words, parts, total, work, finish)
        if status == 0:
            parts.remove()
    return status
