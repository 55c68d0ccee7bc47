"""report.md: the score, the figures, the tables, the settings and what the run was made of."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scifm.bits import known
from scifm.disk import atomic
from scifm.run import Run

if TYPE_CHECKING:
    from scifm.tables import Table

__all__ = ["page"]


def page(run: Run, made: Sequence[Path], beside: Sequence[Table] = ()) -> Path:
    """Write report.md: the score, its settings, the figures, the tables and what the run was made of."""
    record, score = run.record, run.score
    numbers = record.get("numbers") or {}
    lines = [f"# {numbers.get('name') or record.get('recipe')}", "", f"{record.get('summary', '')}".strip(), ""]
    if score is not None:
        first, *others = score["line"].split(" | ")
        lines += [f"**{first}**", "", *_score_table(score), ""]
        if score.get("unit") and score.get("delta") is None:  # the bits of a bin have no unit
            lines += [f"Densities are per {score['unit']} of each number: in another unit all bits shift alike.", ""]
        lines += [f"{told}.\n" for told in others[len(score.get("baselines", {})) :]]
    for path in made:
        lines += [f"![{path.stem}]({path.relative_to(run.folder).as_posix()})", ""]
    if beside:
        lines += ["## Samples beside data", "", *(f"{table}\n" for table in beside)]
    lines += ["## Settings", "", "| what | value |", "|---|---|"]
    flags = record.get("keywords") or record.get("flags") or {}
    lines += [f"| `{k}` | {_cell(v)} |" for k, v in {**flags, **numbers}.items()]
    lines += [f"| {k} | {_cell(record.get(k))} |" for k in ("seed", "device", "threads", "parameters", "started")]
    lines += ["", "## Versions", "", ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items()), ""]
    if git := record.get("git"):
        lines += [f"scifm at commit {git['commit']}{' with changes' if git['dirty'] else ''}.", ""]
    place = shlex.quote(run.folder.as_posix())
    lines += [
        "## Again",
        "",
        "```sh",
        f"scifm sample {place} --number 64 --seed 1 --output more",
        f"scifm score {place} --output again.json",  # the run's own score.json is not overwritten
    ]
    lines += ["```", ""]
    with atomic(run.folder / "report.md") as path:
        path.write_text("\n".join(lines), encoding="utf-8")
    return run.folder / "report.md"


def _score_table(score: Mapping[str, Any]) -> list[str]:
    table = ["| model | bits/dim | standard error |", "|---|--:|--:|"]
    named = {"flow": score, **score.get("baselines", {})}
    return table + [f"| {name} | {v['value']:.3f} | {known(v['stderr'])} |" for name, v in named.items()]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")
