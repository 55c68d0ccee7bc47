"""The published two-dimensional tables beside ours: where samples end (W₂) and how straight they go (path energy).

    python benchmarks/toy_table.py                        # both tables, five seeds
    python benchmarks/toy_table.py --tables tong --methods OT-CFM --pairs "N→moons" --seeds 2

Published: Tong et al. 2023 (SF²M), Table 2, mean ± standard deviation over five seeds; Cheng and Schwing 2025 (C²OT),
ten seeds.  Their protocols are those of their public repositories; what we do otherwise is printed under each table.
Which laws the table of 2023 was made with is not written in it: those in the repository then, `toys.PUBLISHED` under
"tong:...", give path energies like the published ones, and the later helpers of torchcfm do not (eight clouds to moons,
independent pairs, one seed: 2.8 and 1.3, published 2.7).
Every run is kept in runs/toy_table/, so that an interrupted table goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import harness

from scifm import Batch, Flow, Solver, couplings, networks, paths, priors
from scifm.data import toys
from scifm.metrics import normalised_path_energy, path_energy, wasserstein

ROOT = Path("runs/toy_table")
SOLVER = Solver(rtol=1e-4, atol=1e-4)


@dataclass(frozen=True)
class Pair:
    """Source (None: standard normal) and target law; the flow sees both divided by `scale`."""

    source: str | None
    target: str
    scale: float = 1.0

    def draws(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        normal = torch.randn(n, 2, generator=generator)
        source = normal if self.source is None else toys.draw(self.source, n, generator) / self.scale
        return source, toys.draw(self.target, n, generator) / self.scale


@dataclass(frozen=True)
class Settings:
    """One budget for all methods."""

    steps: int = 8000
    batch_size: int = 128
    points: int = 10_000
    train: int = 10_000

    def key(self) -> str:
        return f"{self.steps}-{self.batch_size}-{self.points}"


PAIRS = {
    "N→8gauss": Pair(None, "tong:eight_gaussians"),
    "8gauss→moons": Pair("tong:eight_gaussians_large", "tong:moons_large", scale=7.0),
    "N→moons": Pair(None, "tong:moons"),
    "N→scurve": Pair(None, "tong:scurve"),
}
# (W₂, its spread) and normalised path energy, in the order of PAIRS; peers' Table 2, as far as it was found.
PUBLISHED_W2: dict[str, tuple[tuple[float, float] | None, ...]] = {
    "I-CFM": ((0.373, 0.103), (1.557, 0.407), (0.178, 0.014), (0.242, 0.141)),
    "OT-CFM": ((0.303, 0.043), (0.601, 0.027), (0.130, 0.016), (0.144, 0.028)),
    "FM": ((0.343, 0.058), None, (0.209, 0.055), (0.198, 0.037)),
    "SB-CFM": ((2.314, 2.112), (0.843, 0.079), (0.434, 0.594), (0.341, 0.468)),
}
PUBLISHED_NPE: dict[str, tuple[float | None, ...]] = {
    "I-CFM": (0.202, 2.680, 0.891, 0.856),
    "OT-CFM": (0.031, 0.015, 0.083, 0.027),
    "FM": (0.190, None, 0.762, 0.743),
    "SB-CFM": (None, None, None, None),
}
METHODS = tuple(PUBLISHED_W2)


def method(name: str, pair: Pair) -> dict[str, Any]:
    """Path and coupling, as keywords of Flow."""
    if name == "I-CFM":
        return {"path": paths.Linear(), "coupling": couplings.independent}
    if name == "OT-CFM":
        return {"path": paths.Linear(), "coupling": couplings.OptimalTransport()}
    if name == "FM":
        return {"path": paths.Linear(sigma_min=0.1), "coupling": couplings.independent}
    if name == "SB-CFM":  # bridges of scale one, and pairs of absolute regularisation 2 s²
        scale = 1 / pair.scale
        return {"path": paths.Bridge(scale), "coupling": couplings.Sinkhorn(2 * scale**2, absolute=True)}
    raise ValueError(f"toy_table: there is no method {name!r}; there are {', '.join(METHODS)}.")


def fit(
    flow: Flow, batch: Callable[[Tensor], Batch], settings: Settings, generator: torch.Generator, rate: float = 5e-3
) -> Flow:
    """Adam with a cosine, and averaged weights: the loop of scifm.train without its files."""
    ema = copy.deepcopy(flow.velocity).requires_grad_(False)
    weights, means = list(flow.velocity.parameters()), list(ema.parameters())
    optimiser = torch.optim.Adam(weights, lr=rate, fused=True)
    for step in range(settings.steps):
        loss = flow.loss(batch(torch.randint(settings.train, (settings.batch_size,), generator=generator)), generator)
        optimiser.zero_grad(set_to_none=True)
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        optimiser.step()
        with torch.no_grad():
            decay = min(0.999, (1 + step) / (10 + step))
            for mean, weight in zip(means, weights, strict=True):
                mean.lerp_(weight, 1 - decay)
    flow.velocity = ema
    return flow.eval()


def run(pair: Pair, name: str, seed: int, settings: Settings) -> dict[str, float]:
    """One flow, trained and measured on fresh points."""
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the network's first weights
        velocity = networks.MLP(2, hidden=(64, 64, 64), time_width=16)
    generator = torch.Generator().manual_seed(seed)
    source, data = pair.draws(settings.train, generator)
    prior = priors.Gaussian() if pair.source is None else priors.Empirical(Batch(source))
    flow = fit(Flow(velocity, prior, **method(name, pair)), lambda i: Batch(data[i]), settings, generator)
    trained = time.perf_counter()
    x0, target = pair.draws(settings.points, torch.Generator().manual_seed(1000 + seed))
    like = Batch(target)
    samples, solution = flow.sample(like, solver=SOLVER, x0=x0, statistics=True)
    return {
        "w2": pair.scale * wasserstein(samples.x, target),
        "energy": float(path_energy(flow, like, solver=SOLVER, x0=x0).mean()),
        "nfe": float(solution.nfe.double().mean()),
        "train_seconds": trained - began,
        "seconds": time.perf_counter() - began,
    }


def floor(pair: Pair, seed: int, settings: Settings) -> dict[str, float]:
    """W₂ of two fresh sets of the target: what a perfect flow would score."""
    first, second = (pair.draws(settings.points, torch.Generator().manual_seed(2000 + seed + k))[1] for k in (0, 500))
    return {"w2": pair.scale * wasserstein(first, second)}


def distance(pair: Pair, settings: Settings) -> dict[str, float]:
    """W₂² of source and target, in the flow's units."""
    return {"squared": wasserstein(*pair.draws(settings.points, torch.Generator().manual_seed(3000))) ** 2}


def kept(name: str, settings: Settings, make: Callable[[], dict[str, float]], root: Path = ROOT) -> dict[str, float]:
    """The numbers of a run, made unless they are there already."""
    path = root / f"{name}-{settings.key()}.json".replace("→", "-")
    if not path.exists():
        print(path.stem, file=sys.stderr, flush=True)
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def spread(values: Sequence[float]) -> str:
    error = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.3f} ± {error:.3f}"


def tong(methods: Sequence[str], pairs: Sequence[str], seeds: int, settings: Settings, root: Path = ROOT) -> str:
    """Tables of W₂ and of normalised path energy, published and ours side by side."""
    head = ["method", *(f"{name} {who}" for name in pairs for who in ("published", "ours"))]
    far, straight, within, cells = [], [], 0, 0
    for name in methods:
        w2_row, npe_row = [name], [name]
        for where in pairs:
            pair, column = PAIRS[where], list(PAIRS).index(where)
            w2, npe = PUBLISHED_W2[name][column], PUBLISHED_NPE[name][column]
            w2_row.append("–" if w2 is None else f"{w2[0]:.3f} ± {w2[1]:.3f}")
            npe_row.append("–" if npe is None else f"{npe:.3f}")
            if name == "FM" and pair.source is not None:  # a Gaussian path between data and noise only
                w2_row.append("–")
                npe_row.append("–")
                continue
            runs = [
                kept(f"{where}-{name}-{s}", settings, lambda p=pair, m=name, s=s: run(p, m, s, settings), root)
                for s in range(seeds)
            ]
            least = kept(f"{where}-distance", settings, lambda p=pair: distance(p, settings), root)["squared"]
            values = [r["w2"] for r in runs]
            w2_row.append(spread(values))
            npe_row.append(spread([normalised_path_energy(r["energy"], least) for r in runs]))
            if w2 is not None:
                cells += 1
                within += statistics.mean(values) <= w2[0] + w2[1]
        far.append(w2_row)
        straight.append(npe_row)
    floors = ["two sets of data"]
    for where in pairs:
        pair = PAIRS[where]
        found = [
            kept(f"{where}-floor-{s}", settings, lambda p=pair, s=s: floor(p, s, settings), root) for s in range(seeds)
        ]
        floors += ["", spread([f["w2"] for f in found])]
    return "\n\n".join(
        [
            "### Two-dimensional laws (Tong et al. 2023, Table 2)",
            f"W₂ between {settings.points:,} samples and {settings.points:,} test points, exact; {seeds} seeds.",
            harness.table(head, [*far, floors]),
            f"Ours is below published + its spread in {within} of {cells} cells.",
            f"Normalised path energy |∫E‖v‖² dt − W₂²| / W₂²; {seeds} seeds.",
            harness.table(head, straight),
            DEVIATIONS.format(steps=settings.steps, batch=settings.batch_size, points=settings.points),
        ]
    )


DEVIATIONS = (
    "As published: laws and scales, 10,000 training points, a network of three layers of 64. Ours: {steps:,} steps of "
    "{batch} with a cosine and averaged weights (theirs: 1,000 epochs in batches of 512 at a constant rate, plain "
    "weights); SiLU and sinusoidal time (theirs: SELU, plain time); the assignment itself (theirs draws pairs from the "
    "plan); no noise of σ = 0.1 around the straight lines; bosh5 at 1e-4 (theirs: 100 Euler steps); between data and "
    "data the network sees both laws divided by 7; {points:,} test points drawn anew (theirs are split from one draw, "
    "moons and clouds in equal numbers, so their floor is lower). Their repository says 1,000 test points, but the "
    "published distances are below what 1,000 points of one law are apart, and go with 10,000."
)


def measure(quick: bool = False, root: Path | None = None, **chosen: Any) -> str:
    """Both tables, as Markdown.

    Args:
        quick: few steps and points and one seed, in a folder of their own.
        chosen: tables, methods, pairs, seeds, settings.
    """
    import toy_conditions

    settings = chosen.get("settings") or (Settings(steps=20, points=200, train=500) if quick else Settings())
    root = (ROOT / "quick" if quick else ROOT) if root is None else root
    seeds = chosen.get("seeds") or (1 if quick else 5)
    methods, pairs = chosen.get("methods") or METHODS, chosen.get("pairs") or tuple(PAIRS)
    tables: Mapping[str, Callable[[], str]] = {
        "tong": lambda: tong(methods, pairs, seeds, settings, root),
        "c2ot": lambda: toy_conditions.table(seeds, settings, root),
    }
    return "\n\n".join(tables[name]() for name in (chosen.get("tables") or tables))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=["tong", "c2ot"])
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--pairs", nargs="+", choices=tuple(PAIRS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size)
    parser.add_argument("--points", type=int, default=Settings.points, help="test points, and samples")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few steps; prints and does not write")
    found = parser.parse_args()
    torch.set_num_threads(found.threads)
    if found.quick:
        print(measure(True, tables=found.tables, methods=found.methods, pairs=found.pairs))
        return
    settings = Settings(found.steps, found.batch_size, found.points)
    text = measure(tables=found.tables, methods=found.methods, pairs=found.pairs, seeds=found.seeds, settings=settings)
    print(text)
    if not (found.tables or found.methods or found.pairs):
        harness.write("toy_table", text)


if __name__ == "__main__":
    main()
