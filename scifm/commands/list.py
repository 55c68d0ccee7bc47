"""`scifm list [recipes|datasets|runs]`; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from scifm.commands.words import Parser
from scifm.data.catalogue import available, folder
from scifm.recipe import bundled, load_recipe, nearest
from scifm.run import Run

__all__ = ["command"]


def command(words: Sequence[str]) -> int:
    """`scifm list [recipes|datasets|runs]`; imports nothing heavy."""
    kinds: dict[str, Callable[[Path], list[tuple[str, ...]]]] = {
        "recipes": _recipes, "datasets": _datasets, "runs": _runs,
    }  # fmt: skip
    parser = Parser("list", "Show recipes, data sets and runs.")
    parser.add_argument("what", nargs="?", metavar="WHAT", help=f"one of {', '.join(kinds)} (default all)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="default runs")
    found = parser.understand(words)
    if found.what is not None and found.what not in kinds:
        parser.error(f"nothing called {found.what!r} to list.{nearest(found.what, kinds)}")
    for kind in [found.what] if found.what else kinds:
        if found.what is None:
            print(f"{kind}:")
        rows = kinds[kind](found.runs)
        widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))] if rows else []
        for row in rows:
            print("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
        if not rows:
            print("  none")
    return 0


def _recipes(_: Path) -> list[tuple[str, ...]]:
    rows = []
    for name, path in bundled().items():
        try:
            doc = load_recipe(path).doc
        except ValueError as error:  # one broken file must not hide the others
            doc = str(error)
        rows.append((name, doc.splitlines()[0] if doc else ""))
    return rows


def _datasets(_: Path) -> list[tuple[str, ...]]:
    rows = []
    for name in available():
        readme = folder() / name / "README.md"
        title = readme.read_text(encoding="utf-8").lstrip().splitlines()[0] if readme.exists() else ""
        rows.append((name, title.lstrip("# ")))
    return rows


def _runs(parent: Path) -> list[tuple[str, ...]]:
    rows = []
    for run in Run.all(parent):
        score, rows_so_far = run.score, run.metrics
        step = f"step {rows_so_far[-1]['step']:.0f}" if rows_so_far else "no step"
        bits = f"{score['value']:.3f} ± {score['stderr']:.3f} bits/dim" if score else ""
        started = str(run.record.get("started"))[:16].replace("T", " ")
        rows.append((str(run.folder), started, run.status, step, bits))
    return rows
