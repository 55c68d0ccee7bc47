"""`scifm list [recipes|datasets|runs]`; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from scifm.commands.words import Parser
from scifm.data.catalogue import available, folder
from scifm.recipe import bundled, load_recipe, nearest
from scifm.run import Run

__all__ = ["command", "last_step", "title"]


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
        score, step = run.score or {}, last_step(run)
        bits = f"{score['value']:.3f} ± {score['stderr']:.3f} bits/dim" if _whole(score) else ""
        started = str(run.record.get("started", "-"))[:16].replace("T", " ")
        done = "no step" if step is None else f"step {step}"
        rows.append((str(run.folder), title(run), started, run.status, done, bits))
    return rows


def _whole(score: object) -> bool:
    return isinstance(score, dict) and all(isinstance(score.get(k), int | float) for k in ("value", "stderr"))


def title(run: Run) -> str:
    """The name that the recipe gives itself, else that of its file."""
    numbers = run.record.get("numbers") or {}
    return str(numbers.get("name") or run.record.get("recipe", "-"))


def last_step(run: Run) -> int | None:
    """The last step in the course of the training; None before the first."""
    steps = [row["step"] for row in run.metrics if isinstance(row, dict) and isinstance(row.get("step"), int | float)]
    return int(steps[-1]) if steps else None
