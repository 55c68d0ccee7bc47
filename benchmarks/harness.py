"""What all benchmarks share: timing side by side, runs that are kept, and RESULTS.md with a section for each benchmark.

Contestants run in one process, interleaved, so that a busy machine slows all of them alike; medians and ratios are
reported, never bare times of different runs.  Whole trainings take too long for that: `minutes` says what one took on
the machine as it was, for orientation.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from scifm.disk import write_json

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("torch", "torchcfm", "flow_matching", "zuko", "torchdiffeq", "torchode", "POT", "scipy", "numpy", "lapx")


def interleaved(
    cases: Mapping[str, Callable[[], object]],
    repeats: int = 7,
    least: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of one call of each case; a case is called often enough that a measurement takes `least` s.

    On a busy machine `time.process_time` counts what one thread computes, not how long it waits for its turn.
    """
    number = {}
    for name, call in cases.items():  # warm caches and compilers, and see how long a call takes
        call()
        began = clock()
        call()
        number[name] = max(1, round(least / max(clock() - began, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, call in cases.items():
            began = clock()
            for _ in range(number[name]):
                call()
            seconds[name].append((clock() - began) / number[name])
    return {name: statistics.median(values) for name, values in seconds.items()}


def train(folder: Path, words: Sequence[str]) -> Path:
    """The folder of a finished run of `scifm train <words>` on one thread; one that was stopped is gone on with."""
    record = folder / "run.json"
    if record.exists() and json.loads(record.read_text())["status"] == "finished":
        return folder
    begun = ["--resume", str(folder)]
    command = [
        "-m",
        "scifm",
        "train",
        *(begun if record.exists() else [*words, "--out", str(folder), "--threads", "1"]),
    ]
    print(" ".join(command), file=sys.stderr, flush=True)
    subprocess.run([sys.executable, *command, "--track", "none"], check=True, stdout=sys.stderr)
    return folder


def minutes(folder: Path) -> float:
    """Wall time from the start of a run to the last line of its course; pauses of one that was resumed are in it."""
    began = datetime.fromisoformat(json.loads((folder / "run.json").read_text())["started"])
    return ((folder / "metrics.jsonl").stat().st_mtime - began.timestamp()) / 60


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was made before, or is made now and kept as JSON."""
    if not path.exists():
        write_json(path, make())
    return json.loads(path.read_text())


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(map(str, head)) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def machine() -> str:
    """Processor, threads, load and versions, as one paragraph."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    try:
        model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        load = Path("/proc/loadavg").read_text().split()[0]
    except OSError:
        model, load = None, "?"
    name = model.group(1) if model else platform.processor() or platform.machine()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return (
        f"{time.strftime('%Y-%m-%d')}, {name}, {torch.get_num_threads()} thread(s), load {load}, "
        f"Python {platform.python_version()}, commit {commit}; {', '.join(found)}."
    )


def write(name: str, text: str) -> None:
    """Replace the section of a benchmark in RESULTS.md."""
    whole = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results of the benchmarks\n"
    section = f"<!-- {name}:begin -->\n{text.strip()}\n\n*{machine()}*\n<!-- {name}:end -->\n"
    pattern = re.compile(f"<!-- {name}:begin -->.*?<!-- {name}:end -->\n", re.S)
    if pattern.search(whole):
        whole = pattern.sub(lambda _: section, whole)
    else:
        whole = whole.rstrip("\n") + "\n\n" + section
    RESULTS.write_text(whole, encoding="utf-8")
