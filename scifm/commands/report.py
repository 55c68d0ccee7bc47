"""`scifm report RUN`: figures and report.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scifm.commands.words import WrongUse, machine, run_parser
from scifm.run import Run

if TYPE_CHECKING:
    from scifm.recipe import Recipe

__all__ = ["command", "draw_report"]


def command(words: Sequence[str]) -> int:
    """`scifm report RUN`."""
    found = run_parser(
        "report", "Draw the figures of a run and write its report.md, with tables of samples beside data."
    ).understand(words)
    run = Run.open(found.run)
    if (run.folder / "report.md").exists() and not found.overwrite:
        raise WrongUse(f"{run.folder / 'report.md'} exists; give --overwrite to draw and write it again.")
    machine(found.device, found.threads)
    for path in draw_report(run, run.build()):
        print(path)
    return 0


def draw_report(run: Run, recipe: Recipe) -> list[Path]:
    """Draw the figures of a run and write its report.md, with tables of sets of points; the files written.

    A figure or a table that cannot be made, such as one of samples that a recipe exports in a form of its own, is left
    out with a line on stderr: a report never fails a trained run.
    """
    from scifm import report as reports
    from scifm import verbs

    samples = None
    if run.samples is not None:
        try:
            samples = reports.read_batch(run.samples, recipe.data.test)
        except Exception as error:
            reports.left_out(f"figures of {run.samples.name}", error)
    count = 2000 if samples is None else max(64, len(samples))
    data = recipe.data
    made = reports.figures(run, verbs.evenly(data.test, count), samples, data.unit, data.energy)
    return [*made, reports.page(run, made, reports.tables(data, samples))]
