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
    """Draw the figures of a run and write its report.md, with tables of samples beside data; the files written.

    A figure or a table that cannot be made, such as one of samples that a recipe exports in a form of its own, is left
    out with a line on stderr: a report never fails a trained run.
    """
    from scifm import report as reports
    from scifm import tables, verbs

    data, samples, labels, members = recipe.data, None, None, None
    if run.samples is not None:
        try:
            samples = reports.read_batch(run.samples, data.test)
        except Exception as error:
            reports.left_out(f"figures of {run.samples.name}", error)
    if samples is not None and reports.is_field(data.test):
        try:
            labels = reports.read_labels(run.samples, data)
        except Exception as error:
            reports.left_out("coordinates of the fields", error)
            labels = reports.Labels.plain(data.test.event, data.unit)
    if samples is None or labels is None:
        shown = verbs.evenly(data.test, 2000 if samples is None else max(64, len(samples)))
        if samples is not None and tables.are_points(shown) and len(data.test.groups()) > 1:
            shown = tables.beside(data.test, len(samples))  # of their sizes and conditions, or these would be compared
    else:
        shown = reports.beside(samples, data.test, labels)
        members = reports.members_of(samples, data.test, labels)
    made = reports.figures(run, shown, samples, data.unit, data.energy, labels, members)
    return [*made, reports.page(run, made, reports.tables(data, samples, labels))]
