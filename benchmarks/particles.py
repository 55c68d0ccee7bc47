"""DW4 and LJ13 against their exact floors: couplings side by side, a run of `scifm train` per cell.

    python benchmarks/particles.py dw4                                         # three couplings, three seeds
    python benchmarks/particles.py lj13 --couplings equivariant --seeds 1      # one cell of the long table
    python benchmarks/particles.py dw4 --steps 500 --seeds 1 --samples 500     # a trial

Runs are kept in runs/particles/, so that an interrupted table goes on where it stopped.  Each is then measured: NLL in
nats on the mean-free subspace with every constant, on evenly spaced test samples; the effective sample size and log Z
of samples with exact log-densities; the length of the straight paths between pairs, of the curves, and evaluations.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import harness

from scifm import Batch, trace
from scifm.data import load_dataset
from scifm.run import Run, write_json

ROOT = Path("runs/particles")
FLOORS, DIMS = {"dw4": 7.2, "lj13": 16.8}, {"dw4": 6, "lj13": 36}
COUPLINGS = ("independent", "ot", "equivariant")
CHUNK = 250


def train(system: str, coupling: str, seed: int, steps: int | None, root: Path) -> Path:
    """The folder of a finished run, trained unless it is there already."""
    folder = root / "-".join([system, coupling, str(seed), *([] if steps is None else [str(steps)])])
    record = folder / "run.json"
    if record.exists() and json.loads(record.read_text())["status"] == "finished":
        return folder
    words = [sys.executable, "-m", "scifm", "train"]
    if record.exists():
        words += ["--resume", str(folder)]
    else:
        words += [system, "--coupling", coupling, "--seed", str(seed), "--out", str(folder), "--threads", "1"]
        words += [] if steps is None else ["--steps", str(steps)]
    print(" ".join(words[1:]), file=sys.stderr, flush=True)
    subprocess.run([*words, "--track", "none"], check=True, stdout=sys.stderr)
    return folder


def measure(folder: Path, system: str, samples: int, tested: int) -> dict[str, Any]:
    """Figures of a finished run, kept in its folder."""
    kept = folder / f"particles-{samples}-{tested}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    recipe, _ = Run.open(folder).restore("ema", "cpu")
    flow, data, energy = recipe.flow.eval(), recipe.data, load_dataset(system).ENERGY
    held = data.test.select(torch.linspace(0, len(data.test) - 1, tested).round().long())
    nll = torch.cat([-flow.log_prob(part, trace.Exact()) for part in cut(held)])
    logs, lengths, evaluations = [], [], []
    for k, part in enumerate(cut(data.test.select(torch.arange(samples) % len(data.test)))):
        generator = torch.Generator().manual_seed(1000 + k)
        x0 = flow.prior.sample(part, generator)
        drawn, log_prob, solution = flow.sample_and_log_prob(part, trace=trace.Exact(), x0=x0)
        logs.append(-energy.of(drawn).double() - log_prob)
        lengths.append(part.total((drawn.x - x0).square()).sqrt())
        evaluations.append(solution.nfe.double())
    weights = torch.cat(logs)
    straight = [pair_length(flow, part, k) for k, part in enumerate(cut(held))]
    result = {
        "nll": float(nll.mean()),
        "nll_stderr": float(nll.std()) / math.sqrt(len(nll)),
        "ess": float((2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp()) / len(weights),
        "log_weight_std": float(weights.std()),
        "log_z": float(weights.logsumexp(0)) - math.log(len(weights)),
        "length": float(torch.cat(lengths).mean()),
        "pairs": float(torch.cat(straight).mean()),
        "nfe": float(torch.cat(evaluations).mean()),
        "base": float(flow.prior.std),
        "samples": samples,
        "tested": tested,
    }
    write_json(kept, result)
    return result


def cut(batch: Batch) -> list[Batch]:
    """Pieces that fit into memory."""
    return [batch.select(part) for part in torch.arange(len(batch)).split(CHUNK)]


def pair_length(flow: Any, batch: Batch, seed: int) -> torch.Tensor:
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


def spread(values: list[float], digits: int = 2) -> str:
    """Mean ± standard deviation over seeds."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=FLOORS)
    parser.add_argument("--couplings", nargs="+", choices=COUPLINGS, default=list(COUPLINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the recipe's if not given")
    parser.add_argument("--samples", type=int, default=2000, help="for weights")
    parser.add_argument("--tested", type=int, default=1000, help="test samples")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--write", action="store_true", help="replace the section of RESULTS.md")
    found = parser.parse_args()
    torch.set_num_threads(1)
    rows, curves = [], []
    for coupling in found.couplings:
        cells = []
        for seed in range(found.seeds):
            folder = train(found.system, coupling, seed, found.steps, found.root)
            cells.append(measure(folder, found.system, found.samples, found.tested))
            curves.append(f"{coupling}, seed {seed}: " + "; ".join(curve(folder)))
        columns = {k: [c[k] for c in cells] for k in cells[0]}
        rows.append(
            [coupling, len(cells), spread(columns["nll"]), f"{statistics.fmean(columns['nll_stderr']):.2f}"]
            + [spread([100 * v for v in columns["ess"]], 0), spread(columns["log_z"])]
            + [spread(columns[k]) for k in ("pairs", "length")]
            + [spread(columns["nfe"], 0), f"{columns['base'][0]:.2f}"]
        )
        print("; ".join(map(str, rows[-1])), flush=True)
    head = ["coupling", "seeds", "NLL, nats", "s.e. of test points", "ESS, %", "log Z"]
    head += ["pairs, length", "curves, length", "evaluations", "σ of the base"]
    text = (
        f"## {found.system}: couplings\n\nFloor {FLOORS[found.system]} nats; {found.tested} test samples, "
        f"{found.samples} samples for weights. ± is the spread over seeds. `python benchmarks/particles.py "
        f"{' '.join(sys.argv[1:])}`\n\n"
        + harness.table(head, rows)
        + "\n\nValidation NLL by step: "
        + " · ".join(curves)
    )
    print(text)
    if found.write:
        harness.write(f"particles-{found.system}", text)


if __name__ == "__main__":
    main()
