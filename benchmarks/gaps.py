"""Fields with gaps filled, and unusual days found, by flows that were trained on whole fields of NCEP temperature.

    python benchmarks/gaps.py                                    # three seeds
    python benchmarks/gaps.py --seeds 1 --steps 500 --days 2 --members 4

The runs are those of `benchmarks/fields_flow.py`, trained unless they are there.  Days are test days, evenly spaced.

Filling: values of a day are removed at random, the rest is known to within its rounding, and `scifm.filling` draws
members of the whole day.  Beside them stand the climatology and the exact posterior of a Gaussian with the full
covariance of the training anomalies (shrunk to a variance per mode), by dense algebra.  RMSE, bands and spread are of
the removed values in kelvin.  The 90 % band of M members is Student's, √(1 + 1/M) t(M−1) times their deviation wide.

Unusual: log-densities of the days as they are, and after something was done to their anomalies, beside other test days
that are scored in the same way (`scifm.unusual`); the smallest p-value is 1 / (1 + their number).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import fields_flow
import harness

from scifm import Batch, Solver, priors
from scifm.filling import fill
from scifm.metrics import spread_skill
from scifm.priors import spectra
from scifm.recipe import Recipe
from scifm.run import Run
from scifm.unusual import densities, p_values

REMOVED = (0.9, 0.5)
CLOSE = Solver(rtol=1e-6, atol=1e-6)  # what is known to 0.003 K must be met
HELD_OUT = 4  # other days for each day
CHANGES = {
    "none": "as they are",
    "doubled": "anomalies doubled",
    "noisy": "noise of 0.5 K on every value",
    "warm": "5 K warmer everywhere",
    "smooth": "smoothed over one grid step",
}


def frame(recipe: Recipe, days: Batch) -> tuple[Tensor, Tensor]:
    """Climatology and unit of the anomalies in kelvin, both (B, 1, lat, lon): the flow's transform is affine."""
    zero = days.replace(torch.zeros_like(days.x))
    centre = recipe.flow.transform.inverse(zero).x
    return centre, recipe.flow.transform.inverse(zero.replace(zero.x + 1)).x - centre


def gaussian(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of the training anomalies in the flow's units."""
    assert isinstance(recipe.data.train, Batch)
    anomalies = recipe.flow.transform(recipe.data.train)
    modes = priors.SpectralGaussian(anomalies.event, periodic=(False, False), spectrum=spectra.PerMode())
    prior = priors.FullGaussian(anomalies.event, target=modes).fit(anomalies)
    like = anomalies.select([0])
    mean = prior.colour(torch.zeros_like(like.x), like)
    unit = torch.eye(mean.numel()).to(mean).reshape(-1, *mean.shape[1:])
    root = torch.cat([prior.colour(row[None], like) - mean for row in unit]).flatten(1).double()
    return mean.flatten().double(), root.mT @ root


def conditioned(law: tuple[Tensor, Tensor], anomaly: Tensor, known: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (D,) of a Gaussian given what is `known` (D,) of an anomaly (D,) but for noise (D,)."""
    mean, covariance = law
    inner = covariance[known][:, known] + noise[known].square().diag()
    gain = torch.linalg.solve(inner, covariance[known]).mT
    left = covariance.diagonal() - (gain * covariance[:, known]).sum(1)
    return mean + gain @ (anomaly - mean)[known], left.clamp(min=0).sqrt()


def filled(recipe: Recipe, days: Batch, removed: float, members: int) -> dict[str, float]:
    """Errors of the removed values by climatology, by the Gaussian and by members, and how wide their bands are."""
    from scipy.stats import t

    assert recipe.data.delta is not None
    known = torch.rand(days.x.shape, generator=torch.Generator().manual_seed(0)) >= removed
    noise = torch.full_like(days.x, recipe.data.delta / math.sqrt(12))
    parts = fill(recipe.flow, days, known, noise, members, solver=CLOSE, chunk=members)
    made = torch.stack([part["x"] for part in parts], 1).double()  # (M, B, 1, lat, lon)

    centre, unit = frame(recipe, days)
    law, y, gone = gaussian(recipe), days.x.double(), ~known
    found = [
        conditioned(law, *(v.flatten().double() if v.is_floating_point() else v.flatten() for v in one))
        for one in zip((days.x - centre) / unit, known, noise / unit, strict=True)
    ]
    best, deviation = (torch.stack(part).reshape(y.shape) * unit for part in zip(*found, strict=True))
    mean, spread = made.mean(0), made.std(0)
    band = float(t.ppf(0.95, members - 1)) * math.sqrt(1 + 1 / members)

    def rms(error: Tensor) -> float:
        return float(error[gone].double().square().mean().sqrt())

    def share(inside: Tensor) -> float:
        return 100 * float(inside[gone].double().mean())

    return {
        "climatology": rms(centre - y),
        "gaussian": rms(centre + best - y),
        "members": rms(mean - y),
        "spread_skill": spread_skill(made[:, gone], y[gone]).ratio,
        "inside": share((y - mean).abs() <= band * spread),
        "gaussian_inside": share((y - centre - best).abs() <= 1.645 * deviation),
        "missed": float(((made - y) / noise)[:, known].square().mean().sqrt()),
    }


def changed(recipe: Recipe, days: Batch, change: str) -> Batch:
    """The days after something was done to their anomalies, rounded as they were."""
    from scipy.ndimage import gaussian_filter

    assert recipe.data.delta is not None
    centre = frame(recipe, days)[0].double()
    anomaly = days.x.double() - centre
    noise = torch.randn(anomaly.shape, generator=torch.Generator().manual_seed(0), dtype=anomaly.dtype)
    anomaly = {
        "none": lambda: anomaly,
        "doubled": lambda: 2 * anomaly,
        "noisy": lambda: anomaly + 0.5 * noise,
        "warm": lambda: anomaly + 5,
        "smooth": lambda: torch.from_numpy(gaussian_filter(anomaly.numpy(), (0, 0, 1, 1))),
    }[change]()
    x = days.x if change == "none" else ((centre + anomaly) / recipe.data.delta).round() * recipe.data.delta
    return days.replace(x.to(days.x))


def scored(recipe: Recipe, days: Batch, others: Batch) -> dict[str, dict[str, float]]:
    """log p and p-values of the days after each change."""

    def log_prob(batch: Batch) -> tuple[Tensor, Tensor]:
        found = densities(recipe.flow, batch, delta=recipe.data.delta, solver=fields_flow.TOLERANCE)
        return found.log_prob, found.prior

    usual, _ = log_prob(others)
    figures = {}
    for change in CHANGES:
        flow, prior = log_prob(changed(recipe, days, change))
        p = p_values(flow, usual)
        figures[change] = {"log_prob": float(flow.mean()), "prior": float(prior.mean()), "median": float(p.median())}
        figures[change] |= {"least": float(p.min()), "most": float(p.max()), "above": float((flow > usual.max()).sum())}
    return figures


def measure(folder: Path, days: int, members: int) -> dict[str, Any]:
    """All figures of a finished run, kept in its folder."""

    def make() -> dict[str, Any]:
        recipe, _ = Run.open(folder).restore("ema", "cpu")
        recipe.flow.eval()
        drawn = fields_flow.some(recipe.data.test, days * (1 + HELD_OUT))
        place = torch.arange(len(drawn))
        mine = drawn.select(place[place % (1 + HELD_OUT) == 0])
        with torch.no_grad():
            found: dict[str, Any] = {str(share): filled(recipe, mine, share, members) for share in REMOVED}
            return found | {"unusual": scored(recipe, mine, drawn.select(place[place % (1 + HELD_OUT) != 0]))}

    return harness.kept(folder / f"gaps-{days}-{members}.json", make)


def measured(seeds: int, steps: int | None, days: int, members: int, root: Path) -> str:
    """The section as Markdown."""
    runs = [measure(fields_flow.train("ncep_air", seed, steps, root), days, members) for seed in range(seeds)]

    def cell(values: list[float], digits: int) -> str:
        spread = f" ± {statistics.stdev(values):.{digits}f}" if seeds > 1 else ""
        return f"{statistics.fmean(values):.{digits}f}{spread}"

    head = ["removed", "climatology, RMSE", "Gaussian, exact mean, RMSE", "mean of members, RMSE", "spread–skill"]
    head += ["inside their 90 % band", "Gaussian's band", "known values missed by"]
    keys = {"climatology": 2, "gaussian": 3, "members": 3, "spread_skill": 2, "inside": 0, "gaussian_inside": 0}
    gaps = [
        [f"{100 * share:.0f} %", *(cell([run[str(share)][key] for run in runs], n) for key, n in keys.items())]
        + [cell([run[str(share)]["missed"] for run in runs], 2)]
        for share in REMOVED
    ]
    rows = []
    for change, words in CHANGES.items():
        found = [run["unusual"][change] for run in runs]
        p = "{:.2f} ({:.2f} .. {:.2f})".format(
            *(statistics.fmean(f[k] for f in found) for k in ("median", "least", "most"))
        )
        more = "{:.0f} of {}".format(statistics.fmean(f["above"] for f in found), days)
        rows.append([words, cell([f["log_prob"] for f in found], 0), p, more, cell([f["prior"] for f in found], 0)])
    other = ["days", "`log_prob`, nats", "`p_value`, median (range)", "above all others", "`log_prob_prior`"]
    return (
        f"## Gaps filled, unusual days found\n\n{days} test days of NCEP temperature, {members} members, {seeds} "
        f"seed(s); ± is the spread over seeds. RMSE in kelvin, bands in %, known values in units of their rounding. "
        f"`python benchmarks/gaps.py {' '.join(sys.argv[1:])}`\n\n{harness.table(head, gaps)}\n\n"
        f"Beside {days * HELD_OUT} other test days:\n\n{harness.table(other, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of the optimiser (default: the recipe's)")
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--root", type=Path, default=fields_flow.ROOT)
    found = parser.parse_args()
    torch.set_num_threads(1)
    text = measured(found.seeds, found.steps, found.days, found.members, found.root)
    print(text)
    if found.root == fields_flow.ROOT and found.steps is None:
        harness.write("gaps", text)


if __name__ == "__main__":
    main()
