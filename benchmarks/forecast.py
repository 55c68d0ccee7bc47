"""Forecasts of air temperature a day ahead: a flow's ensemble beside those of climatology and of persistence.

    python benchmarks/forecast.py                                # three seeds
    python benchmarks/forecast.py --seeds 1 --steps 500 --cases 20

Each run is one of `scifm train forecast`, kept in runs/forecast/, so that an interrupted table goes on.  Cases are maps
of the test blocks, evenly spaced; all ensembles have the same number of members, and are scored in kelvin with the
areas of the cells:

    climatology    training maps of the same hour and within 15 days of the day of the year, as anomalies, drawn
    persistence    what is left of yesterday's anomaly, mode by mode, plus such errors of the training pairs, drawn
    its Gaussian   the prior of the flow: the same centre, plus a Gaussian field with the covariance of all errors
    flow           draws with the same conditions

Errors of single cases are no independent sample, for weather lasts: ± is the standard error over test blocks.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import harness

from scifm import Batch, Solver
from scifm.metrics import area_mean, area_weights, cell_areas, crps, energy_score, rank_histogram, spread_skill
from scifm.recipe import Recipe
from scifm.run import Run

ROOT = Path("runs/forecast")
TOLERANCE = Solver(rtol=1e-3, atol=1e-3)
SEASON, YEAR, BLOCK = 15, 365.2425, 40  # days
AREAS = area_weights(cell_areas(torch.arange(75.0, 14.0, -2.5), torch.arange(200.0, 331.0, 2.5)))
Ensemble = Callable[[Batch, int, torch.Generator], Tensor]  # cases, members -> (M, B, 1, 25, 53) in kelvin


def train(seed: int, steps: int | None, root: Path) -> Path:
    """The folder of a finished run, trained unless it is there already."""
    folder = root / "-".join([str(seed), *([] if steps is None else [str(steps)])])
    words = ["forecast", "--seed", str(seed)]
    return harness.train(folder, words + ([] if steps is None else ["--steps", str(steps)]))


def analogues(times: Tensor, known: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """For each time, numbers of known times of the same hour and season, (count, B), drawn with replacement."""
    columns = []
    for time in times.tolist():
        away = (known - time + YEAR / 2) % YEAR - YEAR / 2
        hour = (known - time + 0.5) % 1 - 0.5
        alike = ((away.abs() <= SEASON) & (hour.abs() < 0.01)).nonzero()[:, 0]
        columns.append(alike[torch.randint(len(alike), (count,), generator=generator)])
    return torch.stack(columns, 1)


def ensembles(recipe: Recipe) -> dict[str, Ensemble]:
    """Climatology, persistence, its Gaussian, and the flow."""
    flow, pairs = recipe.flow, recipe.data.train
    assert isinstance(pairs, Batch)
    known = flow.transform(pairs)
    errors = known.x - pairs.context["expected"]

    def drawn(fields: Tensor, centred: bool) -> Ensemble:
        def draw(cases: Batch, count: int, generator: torch.Generator) -> Tensor:
            rows = analogues(cases.context["time"], pairs.context["time"], count, generator)
            centre = cases.context["expected"] if centred else 0
            return torch.stack([flow.transform.inverse(cases.replace(fields[row] + centre)).x for row in rows])

        return draw

    def repeated(sample: Callable[[Batch, torch.Generator], Tensor]) -> Ensemble:
        def draw(cases: Batch, count: int, generator: torch.Generator) -> Tensor:
            found = []
            for case in range(len(cases)):
                found.append(sample(cases.select([case] * count), generator))
            return torch.stack(found, 1)

        return draw

    return {
        "climatology": drawn(known.x, False),
        "persistence": drawn(errors, True),
        "its Gaussian": repeated(lambda b, g: flow.transform.inverse(b.replace(flow.prior.sample(b, g))).x),
        "flow": repeated(lambda b, g: flow.sample(b, g, TOLERANCE).x),
    }


def scores(members: Tensor, cases: Batch, generator: torch.Generator) -> dict[str, Any]:
    """Of members (M, B, 1, 25, 53): fair CRPS with its error over blocks, and calibration."""
    y = cases.x
    each = area_mean(crps(members, y, fair=True), AREAS)[:, 0]
    block = (cases.context["time"] - cases.context["time"].min()).div(BLOCK).floor().long()
    means = torch.stack([each[block == b].mean() for b in block.unique()])
    centre = members.mean(0)
    ranked = rank_histogram(members, y, AREAS, generator)
    return {
        "crps": float(each.mean()),
        "stderr": float(means.std()) / math.sqrt(len(means)),
        "energy": float(energy_score(members, y, AREAS, fair=True).mean()),
        "rmse": float(area_mean((centre - y).square(), AREAS).mean().sqrt()),
        "ratio": spread_skill(members, y, AREAS).ratio,
        "outside": float(ranked.shares[0] + ranked.shares[-1]) * (len(members) + 1) / 2,
    }


def measure(folder: Path, cases: int, members: int) -> dict[str, Any]:
    """Scores of all ensembles by a finished run, kept in its folder."""

    def make() -> dict[str, Any]:
        recipe, _ = Run.open(folder).restore("ema", "cpu")
        recipe.flow.eval()
        test = recipe.data.test
        some = test.select(torch.linspace(0, len(test) - 1, min(cases, len(test))).round().long())
        found: dict[str, Any] = {}
        with torch.no_grad():
            for name, draw in ensembles(recipe).items():
                generator = torch.Generator().manual_seed(0)
                found[name] = scores(draw(some, members, generator), some, generator)
        return found

    return harness.kept(folder / f"forecast-{cases}-{members}.json", make)


def measured(seeds: int, steps: int | None, cases: int, members: int, root: Path) -> str:
    """The section as Markdown."""
    folders = [train(seed, steps, root) for seed in range(seeds)]
    runs = [measure(folder, cases, members) for folder in folders]

    def cell(name: str, key: str) -> str:
        values = [run[name][key] for run in runs]
        spread = f" ± {statistics.stdev(values):.3f}" if name == "flow" and seeds > 1 else ""
        return f"{statistics.fmean(values):.3f}{spread}"

    keys = ["crps", "stderr", "energy", "rmse", "ratio", "outside"]
    rows = [[name, *(cell(name, key) for key in keys)] for name in runs[0]]
    head = ["ensemble", "CRPS, K", "s.e. over blocks", "energy score, K", "RMSE, K", "spread–skill", "outside"]
    took = ", ".join(f"{harness.minutes(folder):.0f}" for folder in folders)
    return (
        f"## Forecasts a day ahead\n\n{members} members, {cases} cases of the test blocks, {seeds} seed(s); ± is the "
        f"spread over seeds. `python benchmarks/forecast.py {' '.join(sys.argv[1:])}`\n\n"
        + harness.table(head, rows)
        + "\n\nFair CRPS and energy score. Outside: how often what came lies outside the ensemble, over what a "
        f"calibrated one has. Minutes of training: {took}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of the optimiser (default: the recipe's)")
    parser.add_argument("--cases", type=int, default=108)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--root", type=Path, default=ROOT)
    found = parser.parse_args()
    torch.set_num_threads(1)
    text = measured(found.seeds, found.steps, found.cases, found.members, found.root)
    print(text)
    if found.root == ROOT and found.steps is None:
        harness.write("forecast", text)


if __name__ == "__main__":
    main()
