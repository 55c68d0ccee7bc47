"""DW4, LJ13 and LJ55 against their exact floors: couplings side by side, a run of `scifm train` per cell.

    python benchmarks/particles.py dw4                                         # three couplings, three seeds
    python benchmarks/particles.py lj13 --couplings equivariant --seeds 1      # the long training, one cell
    python benchmarks/particles.py lj13 --steps 8000 --samples 100 --tested 100      # three couplings, three seeds
    python benchmarks/particles.py lj55 --seeds 1 --steps 4000 --set width=32 layers=3 batch-size=8 --probes 4
    python benchmarks/particles.py dw4 --times late --seeds 1                  # more training near the data
    python benchmarks/particles.py dw4 --steps 500 --seeds 1 --samples 500     # a trial

Runs are kept in runs/particles/, so that an interrupted table goes on where it stopped.  Each is then measured: NLL in
nats on the mean-free subspace with every constant.  It is measured on some test samples, evenly spaced, but scatters
from sample to sample as their energies do, and those are known for all: mean(NLL − U) of the some plus mean(U) of all
is the mean NLL of all with a much smaller error (a control variate).  mean(U) + log Z is the floor.  Then the effective
sample size and log Z of samples with exact log-densities; lengths of the straight paths between training pairs, of the
curves and of the straight lines between their ends; evaluations.  Under the table stand published numbers, as recalled.
Of LJ55 neither log Z nor a floor is known, and an exact trace takes 162 derivatives, minutes a sample on one core:
with `--probes`, and fewer `--samples` and `--tested`, NLL is estimated by random probes, which its mean allows and
weights do not, so there are none.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import harness

from scifm import Batch, Flow, trace
from scifm.data import Data, load_dataset
from scifm.metrics import path_length, reweight
from scifm.run import Run
from scifm.trace import Trace

ROOT = Path("runs/particles")
RECIPES = {"dw4": ["dw4"], "lj13": ["lj13"], "lj55": ["lj13", "--system", "lj55"]}
SHAPES = {"dw4": (4, 2), "lj13": (13, 3), "lj55": (55, 3)}
DIMS = {system: (n - 1) * d for system, (n, d) in SHAPES.items()}
COUPLINGS = ("independent", "ot", "equivariant")
CHUNK = 250

# Klein, Krämer and Noé 2023, as we recall their table: NLL without the constant of the prior, ESS in %, path length.
PUBLISHED = {
    "dw4": {
        "trained by likelihood": (1.72, 86.9, 3.11),
        "OT-FM": (1.70, 92.4, 2.94),
        "equivariant OT-FM": (1.68, 88.7, 2.92),
    },
    "lj13": {
        "trained by likelihood": (-15.83, 39.8, 5.08),
        "OT-FM": (-16.09, 54.4, 2.84),
        "equivariant OT-FM": (-16.07, 57.6, 2.84),
    },
    "lj55": {"OT-FM": (-88.45, 3.7, 7.53), "equivariant OT-FM": (-89.27, 4.4, 3.52)},
}


def train(found: argparse.Namespace, coupling: str, seed: int) -> Path:
    """The folder of a finished run, trained unless it is there already."""
    steps = [] if found.steps is None else [str(found.steps)]
    folder = found.root / "-".join([found.system, coupling, found.times, str(seed), *steps, *found.set])
    words = [f"--{part}" for part in [*(f"steps={n}" for n in steps), *found.set]]
    words = [*RECIPES[found.system], "--coupling", coupling, "--times", found.times, "--seed", str(seed), *words]
    return harness.train(folder, [*words, "--test-samples", "16" if found.probes is None else "1"])  # more below


def measure(folder: Path, found: argparse.Namespace) -> dict[str, Any]:
    """Figures of a finished run: densities, weights and what they cost, and lengths.

    The files are read where they are there; the first may hold more than is written today.
    """
    samples, tested = found.samples, found.tested
    lengths = harness.kept(folder / f"lengths-{samples}.json", lambda: travelled(folder, samples))
    if found.probes is not None:
        name = f"scored-{tested}-{found.probes}.json"
        return lengths | harness.kept(folder / name, lambda: scored(folder, tested, trace.Hutchinson(found.probes)))
    name = f"particles-{samples}-{tested}.json"
    return lengths | harness.kept(
        folder / name, lambda: scored(folder, tested, trace.Exact()) | weighed(folder, samples)
    )


def scored(folder: Path, tested: int, how: Trace) -> dict[str, Any]:
    """NLL of test samples, and the length of training pairs."""
    flow, data = opened(folder)
    held = data.test.select(torch.linspace(0, len(data.test) - 1, tested).round().long())
    generator = torch.Generator().manual_seed(3000)
    found = [flow.density(part, how, generator=generator) for part in cut(held)]
    nll = -torch.cat([log_prob for log_prob, _ in found]).double()
    assert data.energy is not None
    gap, energies = nll - data.energy.of(held).double(), data.energy.of(data.test).double()
    return {
        "nll": float(nll.mean()),
        "nll_stderr": float(nll.std()) / math.sqrt(len(nll)),
        "nll_all": float(gap.mean() + energies.mean()),
        "nll_all_stderr": float(gap.std()) / math.sqrt(len(gap)),
        "energy_all": float(energies.mean()),
        "pairs": float(torch.cat([pair_length(flow, part, k) for k, part in enumerate(cut(held))]).mean()),
        "nfe": float(torch.cat([solution.nfe for _, solution in found]).double().mean()),
        "base": float(flow.prior.std),  # type: ignore[arg-type]
        "tested": tested,
    }


def weighed(folder: Path, samples: int) -> dict[str, Any]:
    """Weights of samples, and the evaluations that a sample and its density take."""
    flow, data = opened(folder)
    assert data.energy is not None
    found = reweight(flow, data.energy, like(data, samples), torch.Generator().manual_seed(1000), chunk=CHUNK)
    return {
        "ess": found.weights.efficiency,
        "log_weight_std": math.sqrt(found.weights.variance),
        "log_z": found.weights.log_z().value,
        "nfe": found.nfe,
        "samples": samples,
    }


def travelled(folder: Path, samples: int) -> dict[str, Any]:
    """Mean lengths of the curves and of the straight lines from x0 to x1."""
    flow, data = opened(folder)
    parts = cut(like(data, samples))
    found = [path_length(flow, part, torch.Generator().manual_seed(2000 + k)) for k, part in enumerate(parts)]
    share = [len(part) / samples for part in parts]
    return {
        "curve": sum(w * length.curve.value for w, length in zip(share, found, strict=True)),
        "straight": sum(w * length.straight.value for w, length in zip(share, found, strict=True)),
    }


def opened(folder: Path) -> tuple[Flow, Data]:
    recipe, _ = Run.open(folder).restore("ema", "cpu")
    return recipe.flow.eval(), recipe.data


def like(data: Data, samples: int) -> Batch:
    return data.test.select(torch.arange(samples) % len(data.test))


def cut(batch: Batch) -> list[Batch]:
    """Pieces that fit into memory."""
    return [batch.select(part) for part in torch.arange(len(batch)).split(CHUNK)]


def pair_length(flow: Flow, batch: Batch, seed: int) -> torch.Tensor:
    """|x1 − x0| of training pairs, (B,): the length of the straight paths that were learnt."""
    x0 = flow.pair(batch, torch.Generator().manual_seed(seed))
    return batch.total((batch.x - x0).square()).sqrt()


def curve(folder: Path) -> list[str]:
    """The learning curve: validation NLL in nats at some of the steps."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    nats = DIMS[folder.name.split("-")[0]] * math.log(2)
    found = [(row["step"], nats * row["valid/bits_per_dim"]) for row in rows if "valid/bits_per_dim" in row]
    every = max(1, len(found) // 8)
    return [f"{step}: {nll:.2f}" for step, nll in found[every - 1 :: every]]


def published(system: str) -> str:
    """Published numbers in our convention."""
    constant = DIMS[system] / 2 * math.log(2 * math.pi)
    rows = [
        [name, f"{nll + constant:.2f}", f"{nll:.2f}", ess, length]
        for name, (nll, ess, length) in PUBLISHED[system].items()
    ]
    head = ["published, recalled", "NLL, nats", "as printed, without constant", "ESS, %", "curves, length"]
    return (
        f"Klein, Krämer and Noé (2023), recalled and not checked against the paper. {constant:.2f} nats are added, the "
        "constant of their prior of σ = 1, which their numbers leave out. Their lengths are from σ = 1, ours from the "
        "σ of the table: not to be compared. Their network, steps, samples and solver are others"
        + (", and so is their data set, which we do not have" if system == "lj55" else "")
        + f".\n\n{harness.table(head, rows)}"
    )


def spread(values: list[float], digits: int = 2) -> str:
    """Mean ± standard deviation over seeds."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def row(coupling: str, cells: list[dict[str, Any]], minutes: list[float]) -> list[object]:
    def column(name: str, digits: int = 2, scale: float = 1.0) -> str:
        return spread([scale * cell[name] for cell in cells], digits) if name in cells[0] else "—"

    errors = f"{statistics.fmean(cell['nll_all_stderr'] for cell in cells):.3f}"
    lengths = [column(name) for name in ("pairs", "curve", "straight")]
    found = [coupling, len(cells), column("nll_all", 3), errors, column("ess", 0, 100), column("log_z"), *lengths]
    return [*found, column("nfe", 0), f"{cells[0]['base']:.2f}", f"{statistics.fmean(minutes):.0f}"]


HEAD = ["coupling", "seeds", "NLL, nats", "s.e.", "ESS, %", "log Z", "pairs, length", "curves, length"]
HEAD += ["straight", "evaluations", "σ of the base", "minutes"]


def measured(found: argparse.Namespace) -> str:
    """The section as Markdown."""
    system, rows, curves, cells = found.system, [], [], []
    for coupling in found.couplings:
        folders = [train(found, coupling, seed) for seed in range(found.seeds)]
        cells = [measure(folder, found) for folder in folders]
        curves += [f"{coupling}, seed {seed}: " + "; ".join(curve(folder)) for seed, folder in enumerate(folders)]
        rows.append(row(coupling, cells, [harness.minutes(folder) for folder in folders]))
        print("; ".join(map(str, rows[-1])), file=sys.stderr, flush=True)
    return (
        f"## {system}: couplings, {found.times} training times\n\n{floor(system, cells[0]['energy_all'])}; NLL of "
        f"{found.tested} test samples, carried to all by their energies; {weights(found)}. "
        "± is the spread over seeds, minutes are of training, on a machine that did other things too. "
        f"`python benchmarks/particles.py {' '.join(sys.argv[1:])}`\n\n{harness.table(HEAD, rows)}\n\n"
        f"{published(system)}\n\nValidation NLL by step: " + " · ".join(curves)
    )


def weights(found: argparse.Namespace) -> str:
    if found.probes is None:
        return f"{found.samples} samples for weights"
    return f"traces by {found.probes} random probes, so there are no weights, and the s.e. holds their noise"


def floor(system: str, energy: float) -> str:
    """The least mean NLL of samples of the law with this mean energy."""
    known = load_dataset(system).ENERGY.known_log_z(*SHAPES[system])
    if known is None:
        return "No floor is known"
    return f"Floor {energy + known.value:.2f} nats (mean energy of the test set {energy:.3f}, log Z {known.value:.2f})"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=RECIPES)
    parser.add_argument("--couplings", nargs="+", choices=COUPLINGS, default=list(COUPLINGS))
    parser.add_argument("--times", choices=("uniform", "late"), default="uniform")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the recipe's if not given")
    parser.add_argument("--set", nargs="+", default=[], metavar="FLAG=VALUE", help="other flags of the recipe")
    parser.add_argument("--probes", type=int, help="estimate traces by so many random probes, and weigh nothing")
    parser.add_argument("--samples", type=int, default=2000, help="for weights")
    parser.add_argument("--tested", type=int, default=1000, help="test samples")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--write", action="store_true", help="replace the section of RESULTS.md")
    return parser


def main() -> None:
    found = parser().parse_args()
    torch.set_num_threads(1)
    text = measured(found)
    print(text)
    if found.write:
        length = "" if found.steps is None else f"-{found.steps}"
        harness.write(f"particles-{found.system}-{found.times}{length}", text)


if __name__ == "__main__":
    main()
