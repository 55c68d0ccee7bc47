"""A trained flow of protein chains below every Gaussian, and what its chains look like beside real ones.

    python benchmarks/protein_flow.py                                   # springs, three seeds
    python benchmarks/protein_flow.py --priors springs isotropic --seeds 1 --steps 3000

Each run is one of `scifm train protein_backbone`, kept in runs/protein_flow/, so that an interrupted table goes on.
Measured: bits per dimension of all test chains (two probes), of the flow and of its prior; then chains drawn with the
sizes of the test set against it: distances of neighbours, angles, torsions, handedness, radius of gyration and how it
grows with length, helices of either hand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import harness

from scifm import Batch, Solver, trace
from scifm.likelihood import bits_per_dim
from scifm.metrics import compare_structures, helices, neighbour_distances, radius_of_gyration, size_scaling
from scifm.run import Run, write_json

ROOT = Path("runs/protein_flow")
TOLERANCE = Solver(rtol=1e-4, atol=1e-4)


def train(prior: str, seed: int, steps: int | None, root: Path) -> Path:
    """The folder of a finished run, trained unless it is there already."""
    folder = root / "-".join([prior, str(seed), *([] if steps is None else [str(steps)])])
    record = folder / "run.json"
    if record.exists() and json.loads(record.read_text())["status"] == "finished":
        return folder
    words = [sys.executable, "-m", "scifm", "train"]
    if record.exists():
        words += ["--resume", str(folder)]
    else:
        words += ["protein_backbone", "--prior", prior, "--seed", str(seed), "--out", str(folder), "--threads", "1"]
        words += ["--test-samples", "16", *([] if steps is None else ["--steps", str(steps)])]
    print(" ".join(words[1:]), file=sys.stderr, flush=True)
    subprocess.run([*words, "--track", "none"], check=True, stdout=sys.stderr)
    return folder


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


def measure(folder: Path, chains: int) -> dict[str, Any]:
    """Figures of a finished run, kept in its folder."""
    kept = folder / f"protein-flow-{chains}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    recipe, _ = Run.open(folder).restore("ema", "cpu")
    flow, test = recipe.flow.eval(), recipe.data.test
    test = test.select(torch.linspace(0, len(test) - 1, min(chains, len(test))).round().long())
    settings = {"trace": trace.Hutchinson(2), "solver": TOLERANCE, "chunk": 16, "check": 0}
    score = bits_per_dim(flow, test, generator=torch.Generator().manual_seed(0), **settings)
    nats = -flow.prior.log_prob(test.x, test) / flow.prior.dims(test)
    drawn = []
    for k, part in enumerate(torch.arange(len(test)).split(16)):
        drawn.append(flow.sample(test.select(part), torch.Generator().manual_seed(k), TOLERANCE))
    samples = Batch.join(drawn)
    table = compare_structures(samples, test, torch.Generator().manual_seed(0))
    result = {
        "flow": score.value,
        "stderr": score.stderr,
        "prior": float(nats.mean()) / 0.6931471805599453,
        "samples": looks(samples),
        "data": looks(test),
        "compared": {name: str(row) for name, row in table.items()},
    }
    write_json(kept, result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--priors", nargs="+", default=["springs"], choices=("springs", "powerlaw", "harmonic", "isotropic")
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the recipe's if not given")
    parser.add_argument("--chains", type=int, default=165, help="of the test set")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--write", action="store_true", help="replace the section of RESULTS.md")
    found = parser.parse_args()
    torch.set_num_threads(1)
    rows, shapes, about = [], [], []
    for prior in found.priors:
        cells = [measure(train(prior, s, found.steps, found.root), found.chains) for s in range(found.seeds)]
        values = [c["flow"] for c in cells]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        errors = statistics.fmean(c["stderr"] for c in cells)
        rows.append([prior, f"{cells[0]['prior']:.3f}", f"{statistics.fmean(values):.3f}{spread}", f"{errors:.3f}"])
        print("; ".join(map(str, rows[-1])), flush=True)
        for name in cells[0]["data"]:
            drawn = [c["samples"][name] for c in cells]
            shapes.append([f"{prior}: {name}", f"{cells[0]['data'][name]:.2f}", ", ".join(f"{v:.2f}" for v in drawn)])
        about += [f"{prior}, seed 0, {name}: {text}" for name, text in cells[0]["compared"].items()]
    text = (
        f"## Protein chains\n\n{found.chains} test chains. "
        f"`python benchmarks/protein_flow.py {' '.join(sys.argv[1:])}`\n\n"
        + harness.table(["prior", "prior alone, bits/dim", "flow", "s.e. of chains"], rows)
        + "\n\n"
        + harness.table(["what", "test chains", "samples, by seed"], shapes)
        + "\n\n"
        + "\n".join(f"- {line}" for line in about)
    )
    print(text)
    if found.write:
        harness.write("protein-flow", text)


if __name__ == "__main__":
    main()
