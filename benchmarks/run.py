"""Measure scifm beside its peers and write what comes out to benchmarks/RESULTS.md.

    pip install -e ".[bench]"
    python benchmarks/run.py                  # everything
    python benchmarks/run.py couplings traces # some

Each benchmark is a file beside this one with a function `measure(quick) -> str`, Markdown; `--quick` takes few repeats,
to see that all of them run.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
BENCHMARKS = (
    "couplings",
    "solvers",
    "traces",
    "training",
    "calibration",
    "reweighting",
    "alignment",
    "points",
    "grid_networks",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], default=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="few repeats; prints and does not write")
    parser.add_argument("--threads", type=int, default=1)
    found = parser.parse_args()

    import harness
    import torch

    torch.set_num_threads(found.threads)
    for name in found.names:
        print(f"== {name}", file=sys.stderr, flush=True)
        text = import_module(name).measure(found.quick)
        print(text, flush=True)
        if not found.quick:
            harness.write(name, text)


if __name__ == "__main__":
    main()
