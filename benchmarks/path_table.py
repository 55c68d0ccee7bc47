"""Path against path: the same network, data, budget and seeds, with one path or coupling and another.

    python benchmarks/path_table.py moons                    # the plane: five seeds
    python benchmarks/path_table.py terrain ncep_air         # fields: three seeds
    python benchmarks/path_table.py moons --steps 500 --seeds 2

Each cell is a run of `scifm train`, kept in runs/path_table/, so that an interrupted table goes on where it stopped. It
is then measured: likelihood, quality of samples, evaluations per sample at fixed tolerance, and energy of the curves.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import harness

from scifm import Batch, Flow, Recipe, Solver
from scifm.disk import write_json
from scifm.metrics import normalised_path_energy, path_energy, radial_spectrum, spectrum_error, wasserstein
from scifm.run import Run

ROOT = Path("runs/path_table")
ARMS = {
    "linear": {"path": "linear", "coupling": "independent"},
    "linear, OT pairs": {"path": "linear", "coupling": "ot"},
    "variance preserving": {"path": "vp", "coupling": "independent"},
    "trigonometric": {"path": "trigonometric", "coupling": "independent"},
}
RECIPES = {"moons": "plane", "terrain": "quickstart", "ncep_air": "ncep_air"}
SEEDS = {"moons": 5, "terrain": 3, "ncep_air": 3}
POINTS, FIELDS, SCORED, CHUNK = 4000, 48, 48, 32


def train(name: str, arm: str, seed: int, steps: int | None, root: Path) -> Path:
    """The folder of a finished run, trained unless it is there already."""
    flags = [word for key, value in ARMS[arm].items() for word in (f"--{key}", value)]
    label = "-".join([name, *ARMS[arm].values(), str(seed), *([] if steps is None else [str(steps)])])
    folder = root / label
    if not (folder / "score.json").exists():
        words = [sys.executable, "-m", "scifm", "train"]
        if (folder / "run.json").exists():
            words += ["--resume", str(folder)]
        else:
            words += [RECIPES[name], *flags, "--seed", str(seed), "--out", str(folder), "--threads", "1"]
            words += [] if steps is None else ["--steps", str(steps)]
            words += [] if name == "moons" else ["--test-samples", str(SCORED)]
        print(" ".join(words[1:]), file=sys.stderr, flush=True)
        subprocess.run([*words, "--track", "none"], check=True, stdout=sys.stderr)
    return folder


def measure_run(folder: Path, seed: int, points: int = POINTS, fields: int = FIELDS) -> dict[str, float]:
    """The numbers of a trained run, kept beside it."""
    kept = folder / "path_table.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    recipe = Run.open(folder).rebuild()
    score = json.loads((folder / "score.json").read_text(encoding="utf-8"))
    plane = recipe.data.test.event == (2,)
    like = fresh(recipe, points, seed) if plane else recipe.data.test.select(range(min(fields, len(recipe.data.test))))
    found = {"nll": score["value"], "stderr": score["stderr"], "nfe_score": score["nfe"]}
    x0 = recipe.flow.prior.sample(like, torch.Generator().manual_seed(seed))
    drawn = sample(recipe.flow, like, x0, Solver())
    found["nfe"] = drawn[1]
    found["nfe_loose"] = sample(recipe.flow, like, x0, Solver(rtol=1e-3, atol=1e-3))[1]
    found["energy"] = energy(recipe.flow, like, x0)
    if plane:
        model = recipe.flow.transform(like)
        found["squared"] = wasserstein(x0, model.x) ** 2
        found["w2"] = wasserstein(drawn[0].x, like.x)
        found["floor"] = wasserstein(fresh(recipe, points, seed + 500).x, like.x)
    else:
        found |= fields_beside(drawn[0], recipe.data.test)
    write_json(kept, found)
    return found


def fresh(recipe: Recipe, n: int, seed: int) -> Batch:
    """Points of a toy that no split holds."""
    from scifm.data import toys

    return Batch(toys.draw(recipe.data.name, n, torch.Generator().manual_seed(10_000 + seed)))


def sample(flow: Flow, like: Batch, x0: torch.Tensor, solver: Solver) -> tuple[Batch, float]:
    """Samples from x0, and the mean number of evaluations of each."""
    done, nfe = [], 0.0
    size = len(like) if like.event == (2,) else CHUNK
    for first in range(0, len(like), size):
        wanted = range(first, min(first + size, len(like)))
        part, solution = flow.sample(like.select(wanted), solver=solver, x0=x0[first : first + size], statistics=True)
        done.append(part)
        nfe += float(solution.nfe.sum())
    return Batch.join(done), nfe / len(like)


def energy(flow: Flow, like: Batch, x0: torch.Tensor) -> float:
    """Mean energy of the curves from x0, per value of a sample."""
    loose, total = Solver(rtol=1e-4, atol=1e-4), 0.0
    for first in range(0, len(like), size := len(like) if like.event == (2,) else CHUNK):
        part = like.select(range(first, min(first + size, len(like))))
        total += float((path_energy(flow, part, solver=loose, x0=x0[first : first + size]) / part.dims).sum())
    return total / len(like)


def fields_beside(samples: Batch, data: Batch) -> dict[str, float]:
    """How the spectrum and the variance of sampled fields differ from those of the test data."""
    off = spectrum_error(radial_spectrum(samples.x), radial_spectrum(data.x))
    return {
        "spectrum_mean": off.mean,
        "spectrum_max": off.max,
        "variance": float(samples.x.double().var() / data.x.double().var()),
    }


def table(name: str, found: dict[str, list[dict[str, float]]], steps: int | None) -> str:
    def cell(arm: str, *keys: str, digits: int = 3) -> str:
        columns = [[run[key] for run in found[arm]] for key in keys]
        spread = [f" ± {deviation(c):.{digits}f}" if len(c) > 1 else "" for c in columns]
        return " / ".join(f"{statistics.mean(c):.{digits}f}{s}" for c, s in zip(columns, spread, strict=True))

    rows: list[list[Any]] = []
    for arm, runs in found.items():
        row: list[Any] = [arm, cell(arm, "nll"), f"{statistics.mean(r['stderr'] for r in runs):.3f}"]
        if name == "moons":
            for run in runs:  # both in model units, and the energy per value: twice it is that of a point
                run["npe"] = normalised_path_energy(2 * run["energy"], run["squared"])
            row += [cell(arm, "w2"), cell(arm, "floor"), cell(arm, "npe")]
        else:
            row += [cell(arm, "spectrum_mean"), cell(arm, "spectrum_max"), cell(arm, "variance"), cell(arm, "energy")]
        rows.append([*row, *(cell(arm, key, digits=0) for key in ("nfe", "nfe_loose", "nfe_score"))])
    quality = (
        ["W₂", "W₂ of data and data", "normalised path energy"]
        if name == "moons"
        else ["spectrum, mean abs log₁₀", "spectrum, largest", "variance, ratio", "path energy per value"]
    )
    head = ["path", "NLL [bits/dim]", "stderr of one", *quality, "nfe 1e-5", "nfe 1e-3", "nfe of the score"]
    seeds = len(next(iter(found.values())))
    budget = "the recipe's steps" if steps is None else f"{steps} steps"
    counted = "one seed" if seeds == 1 else f"{seeds} seeds; ± is the standard deviation over them"
    about = f"{budget} of training, {counted}.".capitalize()
    return f"### Paths on {name}\n\n{about}\n\n{harness.table(head, rows)}"


def deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def measure(
    names: Sequence[str],
    arms: Sequence[str] | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    root: Path = ROOT,
    points: int = POINTS,
) -> str:
    """One table per data set, as Markdown."""
    arms = tuple(ARMS) if arms is None else arms
    texts = []
    for name in names:
        found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
        for seed in range(SEEDS[name] if seeds is None else seeds):  # all arms of a seed, then the next seed
            for arm in arms:
                found[arm].append(measure_run(train(name, arm, seed, steps, root), seed, points))
        texts.append(table(name, found, steps))
    return "\n\n".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="+", choices=tuple(RECIPES))
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS))
    parser.add_argument("--seeds", type=int, help="how many (default five in the plane, three for fields)")
    parser.add_argument("--steps", type=int, help="of training (default that of the recipe)")
    parser.add_argument("--quick", action="store_true", help="two steps, one seed; prints and does not write")
    found = parser.parse_args()
    torch.set_num_threads(1)
    if found.quick:
        print(measure(found.names, found.arms, 1, 2, ROOT / "quick", 200))
        return
    for name in found.names:
        text = measure([name], found.arms, found.seeds, found.steps)
        print(text, flush=True)
        if found.arms is None and found.seeds is None:
            harness.write(f"path_table {name}", text)


if __name__ == "__main__":
    main()
