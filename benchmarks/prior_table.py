"""What an informed prior buys: the same recipe, budget and seeds with one prior and another, as a Markdown table.

    python benchmarks/prior_table.py quickstart spectral white
    python benchmarks/prior_table.py ncep_air spectral white --steps 2000

Each cell is a run of `scifm train` (kept in runs/prior_table/, so that an interrupted table goes on where it stopped).
The spread is the standard deviation over seeds; the standard error of one run, over test samples, stands beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path("runs/prior_table")


def run(recipe: str, prior: str, seed: int, steps: int | None) -> dict:
    """The score of one run, trained unless it is there already."""
    folder = ROOT / f"{recipe}-{prior}-{seed}{'' if steps is None else f'-{steps}'}"
    if not (folder / "score.json").exists():
        words = [sys.executable, "-m", "scifm", "train"]
        if (folder / "run.json").exists():
            words += ["--resume", str(folder)]
        else:
            words += [recipe, "--prior", prior, "--seed", str(seed), "--out", str(folder), "--threads", "1"]
            words += [] if steps is None else ["--steps", str(steps)]
        print(" ".join(words[1:]), file=sys.stderr)
        subprocess.run([*words, "--track", "none"], check=True, stdout=sys.stderr)
    return json.loads((folder / "score.json").read_text(encoding="utf-8"))


def row(prior: str, scores: list[dict]) -> str:
    values = [s["value"] for s in scores]
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    own = statistics.mean(s["baselines"]["prior"]["value"] for s in scores)
    best = next((name, b["value"]) for name, b in scores[0]["baselines"].items() if name.startswith("best"))
    error = statistics.mean(s["stderr"] for s in scores)
    nfe = statistics.mean(s["nfe"] for s in scores)
    cells = [f"{own:.3f}", f"**{statistics.mean(values):.3f}**", f"{spread:.3f}", f"{error:.3f}"]
    kind = best[0].removeprefix("best Gaussian ")
    return f"| {prior} | {' | '.join(cells)} | {best[1]:.3f} {kind} | {nfe:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("priors", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    found = parser.parse_args()
    print("| prior | alone | flow | spread over seeds | standard error of one | best Gaussian | nfe |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for prior in found.priors:
        print(row(prior, [run(found.recipe, prior, seed, found.steps) for seed in found.seeds]), flush=True)


if __name__ == "__main__":
    main()
