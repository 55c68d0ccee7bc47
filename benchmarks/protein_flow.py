"""A trained flow of protein chains below every Gaussian, and what its chains look like beside real ones.

    python benchmarks/protein_flow.py                                   # springs, three seeds
    python benchmarks/protein_flow.py --priors springs isotropic --seeds 1 --steps 3000

Each run is one of `scifm train protein_backbone`, kept in runs/protein_flow/, so that an interrupted table goes on.
Measured: bits per dimension of all test chains (two probes), of the flow and of its prior; then chains drawn with the
sizes of the test set against it: distances of neighbours, angles, torsions, handedness, radius of gyration and how it
grows with length, helices of either hand.  The chains are drawn along the flow's own curves, which have a density; and
by the stochastic equation with the same marginals (`scifm.sde`), which has none, but whose noise forgets errors of the
velocity on the way, such as a bond that was about to turn the wrong way round.

A number of the samples is within the data's spread if it is no more than two s from that of the test chains, s the
standard deviation of the number over test sets of other families: families of the test set drawn again, with
replacement.  Chains of one family are alike, so chains drawn one by one would spread too little.  The samples' own
error, which would allow more, is left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import harness

from scifm import Batch, Solver, Stochastic, trace
from scifm.data import load_dataset
from scifm.likelihood import bits_per_dim
from scifm.metrics import compare_structures, helices, neighbour_distances, radius_of_gyration, size_scaling
from scifm.run import Run

ROOT = Path("runs/protein_flow")
TOLERANCE = Solver(rtol=1e-4, atol=1e-4)
NOISY = Stochastic("heun", steps=150, strength=4.0)
DRAWS = 200  # of families


def train(prior: str, times: str, seed: int, steps: int | None, root: Path) -> Path:
    """The folder of a finished run, trained unless it is there already."""
    folder = root / "-".join([prior, times, str(seed), *([] if steps is None else [str(steps)])])
    words = ["protein_backbone", "--prior", prior, "--times", times, "--seed", str(seed), "--test-samples", "16"]
    return harness.train(folder, words + ([] if steps is None else ["--steps", str(steps)]))


def looks(batch: Batch) -> dict[str, float]:
    """A few numbers of a set of chains."""
    links, size = neighbour_distances(batch), radius_of_gyration(batch)
    found, law = helices(batch), size_scaling(batch.counts, size)
    hands = float(found.right.sum() + found.left.sum())
    return {
        "neighbours, Å": float(links.mean()),
        "their spread, Å": float(links.std()),
        "radius of gyration, Å": float(size.mean()),
        "its exponent": law.exponent,
        "runs in a helix, %": 100 * found.content,
        "right-handed, %": 100 * float(found.right.sum()) / max(1.0, hands),
    }


def spread(test: Batch, draws: int = DRAWS) -> dict[str, float]:
    """Standard deviation of the same numbers over families drawn again."""
    sequences = [part.numpy() for part in test.nodes["residue"].split(test.counts.tolist())]
    family = torch.from_numpy(load_dataset("proteins").families(sequences)).long()
    members = [(family == k).nonzero()[:, 0] for k in range(int(family.max()) + 1)]
    generator, values = torch.Generator().manual_seed(0), []
    for _ in range(draws):
        chosen = torch.randint(len(members), (len(members),), generator=generator).tolist()
        values.append(looks(test.select(torch.cat([members[k] for k in chosen]))))
    return {name: statistics.stdev(value[name] for value in values) for name in values[0]}


def measure(folder: Path, chains: int) -> dict[str, Any]:
    """Figures of a finished run, kept in its folder; the spread of the data is kept beside them."""
    figures = harness.kept(folder / f"protein-flow-{chains}.json", lambda: scored(folder, chains))
    beside = harness.kept(
        folder / f"protein-spread-{chains}.json", lambda: spread(some(Run.open(folder).build().data.test, chains))
    )
    noisy = harness.kept(
        folder / f"protein-sde-{chains}-{NOISY.steps}-{NOISY.strength:g}.json", lambda: drawn(folder, chains, NOISY)
    )
    return {**figures, "spread": beside, "noisy": noisy}


def some(test: Batch, chains: int) -> Batch:
    return test.select(torch.linspace(0, len(test) - 1, min(chains, len(test))).round().long())


def scored(folder: Path, chains: int) -> dict[str, Any]:
    """Bits per dimension of test chains, and what as many samples of their sizes look like."""
    recipe, _ = Run.open(folder).restore("ema", "cpu")
    flow, test = recipe.flow.eval(), some(recipe.data.test, chains)
    settings = {"trace": trace.Hutchinson(2), "solver": TOLERANCE, "chunk": 16, "check": 0}
    score = bits_per_dim(flow, test, generator=torch.Generator().manual_seed(0), **settings)
    nats = -flow.prior.log_prob(test.x, test) / flow.prior.dims(test)
    return {
        "flow": score.value,
        "stderr": score.stderr,
        "prior": float(nats.mean()) / 0.6931471805599453,
        "data": looks(test),
        **drawn(folder, chains, TOLERANCE),
    }


def drawn(folder: Path, chains: int, how: Solver | Stochastic) -> dict[str, Any]:
    """What samples of the sizes of the test chains look like."""
    recipe, _ = Run.open(folder).restore("ema", "cpu")
    flow, test = recipe.flow.eval(), some(recipe.data.test, chains)
    found = []
    for k, part in enumerate(torch.arange(len(test)).split(16)):
        found.append(flow.sample(test.select(part), torch.Generator().manual_seed(k), how))
    samples = Batch.join(found)
    table = compare_structures(samples, test, torch.Generator().manual_seed(0))
    return {"samples": looks(samples), "compared": {name: str(row) for name, row in table.items()}}


def shapes(prior: str, cells: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each number: of the data with its spread, of the samples, and how many seeds are within two s."""
    rows = []
    for name, value in cells[0]["data"].items():
        s, row = cells[0]["spread"][name], [f"{prior}: {name}"]
        row.append(f"{value:.2f} ± {s:.2f}")
        for found in ([cell["samples"][name] for cell in cells], [cell["noisy"]["samples"][name] for cell in cells]):
            within = sum(abs(v - value) <= 2 * s for v in found)
            row += [", ".join(f"{v:.2f}" for v in found), f"{within} of {len(found)}"]
        rows.append(row)
    return rows


def measured(priors: list[str], times: str, seeds: int, steps: int | None, chains: int, root: Path) -> str:
    """The section as Markdown."""
    rows, about, beside = [], [], []
    for prior in priors:
        folders = [train(prior, times, seed, steps, root) for seed in range(seeds)]
        cells = [measure(folder, chains) for folder in folders]
        values = [c["flow"] for c in cells]
        over = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        errors = statistics.fmean(c["stderr"] for c in cells)
        took = f"{statistics.fmean(harness.minutes(folder) for folder in folders):.0f}"
        rows.append([prior, f"{cells[0]['prior']:.3f}", f"{statistics.fmean(values):.3f}{over}", f"{errors:.3f}", took])
        print("; ".join(map(str, rows[-1])), file=sys.stderr, flush=True)
        beside += shapes(prior, cells)
        for how, cell in (("flow", cells[0]), ("stochastic", cells[0]["noisy"])):
            about += [f"{prior}, seed 0, {how}, {name}: {text}" for name, text in cell["compared"].items()]
    return (
        f"## Protein chains, {times} training times\n\n{chains} test chains. "
        f"`python benchmarks/protein_flow.py {' '.join(sys.argv[1:])}`\n\n"
        + harness.table(["prior", "prior alone, bits/dim", "flow", "s.e. of chains", "minutes"], rows)
        + "\n\n± is what other families would change (s), drawn again from the test set with replacement.\n\n"
        + harness.table(
            ["what", "test chains ± s", "samples, by seed", "within 2 s", "stochastic, by seed", "within 2 s"], beside
        )
        + f"\n\nStochastic: {NOISY}, of the same marginals, without a density."
        + "\n\n"
        + "\n".join(f"- {line}" for line in about)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--priors", nargs="+", default=["springs"], choices=("springs", "powerlaw", "harmonic", "isotropic")
    )
    parser.add_argument("--times", choices=("late", "uniform"), default="late")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the recipe's if not given")
    parser.add_argument("--chains", type=int, default=165, help="of the test set")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--write", action="store_true", help="replace the section of RESULTS.md")
    found = parser.parse_args()
    torch.set_num_threads(1)
    text = measured(found.priors, found.times, found.seeds, found.steps, found.chains, found.root)
    print(text)
    if found.write:
        harness.write(f"protein-flow-{found.times}", text)


if __name__ == "__main__":
    main()
