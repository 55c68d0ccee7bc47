"""`scifm score RUN --file FILE`: the log-likelihood of each sample of a file, and how unusual it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scifm.commands.resumable import carry_out, chunked, settings_of
from scifm.commands.words import WrongUse, machine, solver_of, trace_of
from scifm.run import Run

if TYPE_CHECKING:
    from scifm.data import Data
    from scifm.data.grids import Fields
    from scifm.unusual import Densities

__all__ = ["about_of", "fields_of", "output_of", "score_file"]


def score_file(found: argparse.Namespace, words: Sequence[str]) -> int:
    """Score a file; `found` has the words of `scifm score`."""
    for name, given in (("split", found.split), ("precision", found.precision)):
        if given is not None:
            raise WrongUse(f"--{name} is about the run's own data; leave it or --file out.")
    run = Run.open(found.run)
    device, _ = machine(found.device, found.threads)
    solver, seed = solver_of(found), run.record["seed"] if found.seed is None else found.seed
    from scifm import trace as traces
    from scifm import verbs
    from scifm.unusual import densities, p_values

    output = output_of(found, run, f"scores-{found.file.stem}")
    recipe, step = run.restore(found.weights, device)
    fields = fields_of(recipe.data, found.file)
    batch, held = fields.complete().to(device), verbs.held_out(recipe, "test", found.samples).to(device)
    recipe.flow.transform(batch)  # what it cannot take, an hour of day that it never saw, is said before the work
    if fields.delta != recipe.data.delta:
        steps = [f"in steps of {d:g}" if d else "in no steps" for d in (fields.delta, recipe.data.delta)]
        print(
            f"warning: values of {fields.name} lie {steps[0]}, those of the run {steps[1]}; rounding alone changes "
            "densities, and p-values with them.",
            file=sys.stderr,
        )
    trace = trace_of(found) or traces.default(batch)
    draws = recipe.draws if found.draws is None else found.draws
    decide = {"seed": seed, "step": step, "solver": repr(solver), "trace": repr(trace), "draws": draws}
    decide |= {"delta": fields.delta, "device": device, "beside": len(held)}
    how: dict[str, Any] = {"draws": draws, "trace": trace, "solver": solver, "seed": seed, "chunk": found.chunk}
    total = len(held) + len(batch)
    with chunked(output, settings_of(run, recipe, batch, found, decide), total, found.overwrite) as parts:

        def work(progress: Callable[[int], Any]) -> tuple[Densities, Densities]:
            how.update(keep=parts, progress=progress)
            # with noise of its own: scores that share it would not be exchangeable
            other: dict[str, Any] = {**how, "seed": verbs.seed_of(seed, 1)}
            beside = densities(recipe.flow, held, delta=recipe.data.delta, **other)
            return beside, densities(recipe.flow, batch, delta=fields.delta, first=len(held), **how)

        def finish(result: tuple[Densities, Densities]) -> None:
            from scifm.labelled import history
            from scifm.streamed import save

            beside, own = result
            p = p_values(own.log_prob, beside.log_prob)
            made = fields.beside(_variables(own, p, recipe.data, fields, len(held)))
            about = about_of(run, found, seed, step, solver) | {"trace": own.trace}
            save(made.assign_attrs(history("score", about, str(made.attrs.get("history", "")), own.nfe)), output)
            lowest = own.log_prob.argsort()[:3].tolist()
            print(f"{len(batch)} samples of {fields.name}; the least likely:")
            for i in lowest:
                print(f"  {_when(made, i)}: log p {float(own.log_prob[i]):.1f} nats, p-value {float(p[i]):.3g}")
            print(output)

        status = carry_out("score", words, parts, total, work, finish)
        if status == 0:
            parts.remove()
    return status


def _variables(own: Densities, p: Any, data: Data, fields: Fields, n: int) -> Mapping[str, tuple[Any, dict[str, Any]]]:
    per = f"Per ({data.unit})^D." if data.unit else "In the units of the data of the run."
    width = fields.delta
    lattice = "" if width is None else f" Mean over the bin of width {width:g} that values were rounded in."
    nats = {"units": "1", "comment": per + lattice}
    return {
        "log_prob": (own.log_prob, {"long_name": "natural logarithm of the density of the sample, in nats", **nats}),
        "log_prob_prior": (own.prior, {"long_name": "the same of the fitted Gaussian prior alone, in nats", **nats}),
        "bits_per_dim": (own.bits_per_dim, {"long_name": "negative log-likelihood, bits per dimension", "units": "1"}),
        "p_value": (p, {
            "long_name": "(1 + held-out fields of the run whose log_prob is not higher) / (1 + held-out fields)",
            "units": "1", "held_out": n,
            "comment": "Small is unusual. The held-out fields are those of the run's test split, scored alike.",
        }),
    }  # fmt: skip


def _when(made: Any, i: int) -> str:
    """Where sample i stands: its coordinates along the sample dims."""
    import numpy as np

    dims = made["log_prob"].dims
    at = dict(zip(dims, np.unravel_index(i, [made.sizes[d] for d in dims]), strict=True))
    told = [str(made[d].values[k])[:19] if d in made.coords else f"{d} {k}" for d, k in at.items()]
    return ", ".join(told)


# -- shared with `scifm fill` ------------------------------------------------------------------------------


def fields_of(data: Data, file: Path) -> Fields:
    """A file, read as the run's own data were.

    Raises:
        ValueError: where the data cannot read another file, or its samples carry less than the run's.
    """
    if data.read is None:
        raise ValueError(
            f"{data.name}: this run's data do not say how another file is read (Data has no read=); gridded data of "
            "`scifm train grid` and `ncep_air` do."
        )
    fields = data.read(file)
    if lacking := sorted(set(data.test.context) - set(fields.batch.context)):
        raise ValueError(f"{fields.name}: its samples lack {', '.join(lacking)}, which the run's samples have.")
    return fields


def output_of(found: argparse.Namespace, run: Run, name: str) -> Path:
    """Where a dataset goes, .nc or .zarr, refused before the work where it cannot."""
    from scifm import verbs

    output = (found.output or run.folder / f"{name}.nc").expanduser()
    if not output.suffix:
        verbs.refuse_folder(output, f"{name}.nc")
        output = output.with_suffix(".nc")
    if output.suffix not in (".nc", ".zarr"):
        raise WrongUse(f"fields with their labels go to .nc or .zarr files, got {output.name!r}.")
    verbs.refuse_existing(output, found.overwrite)
    return output


def about_of(run: Run, found: argparse.Namespace, seed: int, step: int, solver: Any) -> dict[str, Any]:
    """What a dataset says of how it was made."""
    about = {"run": run.folder.name, "seed": seed, "step": step, "weights": found.weights, "solver": str(solver)}
    return about if solver.steps else about | {"tolerances": f"rtol {solver.rtol:g} atol {solver.atol:g}"}
