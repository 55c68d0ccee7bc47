"""`scifm info [RUN]`: versions, devices and places; or all about a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scifm.commands.list import last_step, title
from scifm.commands.words import Parser, devices
from scifm.data import catalogue, fetch
from scifm.provenance import git_state, versions
from scifm.recipe import bundled
from scifm.run import Run

__all__ = ["command"]


def command(words: Sequence[str]) -> int:
    """`scifm info [RUN]`."""
    parser = Parser("info", "Versions, devices and places; or all about a run.")
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN")
    found = parser.understand(words)
    if found.run is not None:
        _print(_about(Run.open(found.run)))
        return 0
    here = Path(__file__).resolve().parents[1]
    rows: dict[str, Any] = {**versions(), "commit": git_state(here.parent, exact=True) or "not a checkout"}
    rows |= {"package": here, "recipes": ", ".join(bundled()), "data sets": catalogue.folder(), "cache": fetch.cache()}
    rows |= {"SCIFM_DATA": os.environ.get("SCIFM_DATA", "not set"), "runs": Path("runs").resolve()}
    rows |= {"tracking": os.environ.get("MLFLOW_TRACKING_URI") or "sqlite, runs/mlflow.db"}
    rows |= {"devices": ", ".join(devices())}
    import torch

    _print(rows | {"threads": torch.get_num_threads()})
    return 0


def _about(run: Run) -> dict[str, Any]:
    record = run.record
    rows: dict[str, Any] = {"name": title(run)}
    rows |= {
        k: record.get(k) for k in ("recipe", "source", "flags", "seed", "device", "threads", "parameters", "started")
    }
    step = last_step(run)
    rows |= {
        "status": run.status,
        "step": 0 if step is None else f"{step} of {(record.get('numbers') or {}).get('steps', '?')}",
    }
    rows |= {"samples": run.samples, "score": run.score.get("line") if isinstance(run.score, dict) else None}
    rows |= {
        "commit": record.get("git"),
        "versions": ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items()) or None,
    }
    if run.status in ("stopped", "interrupted", "failed", "trained"):
        rows["go on with"] = f"scifm train --resume {run.folder}"
    return rows


def _print(rows: dict[str, Any]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name.ljust(width)}  {'-' if value is None else value}")
