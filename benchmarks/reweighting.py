"""Reweighting with a known normaliser: how often log Z lies within two of its own standard errors, 20 runs each.

    python benchmarks/reweighting.py                                        # harmonic; DW4 by annealing
    python benchmarks/reweighting.py --dw4 runs/particles/dw4-ot-0 --write  # and DW4 through a trained flow

harmonic   13 points in 3-D on springs, from a flow at rest whose prior is a tenth too wide: log Z in closed form
DW4        29.665 ± 0.004 from long annealing (3 seeds of 4000 chains); short annealing, and a flow, exact traces
LJ13       59.89 ± 0.03 from long annealing (3 seeds of 800 chains); short annealing
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import harness

from scifm import Batch, Flow, Solver
from scifm.energies import DoubleWell, Energy, HarmonicCluster, LennardJones, annealed, pilot
from scifm.metrics import Weights, reweight
from scifm.priors import MeanFreeGaussian
from scifm.run import Run

RUNS = 20


@dataclass(frozen=True)
class Case:
    """A way to weights, `(seed) -> Weights`, and the log Z that they should find, with its own uncertainty."""

    name: str
    weights: Callable[[int], Weights]
    truth: float
    unsure: float = 0.0


class Rest(nn.Module):
    """A velocity that is zero."""

    def forward(self, t: torch.Tensor, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        return torch.zeros_like(x)


def harmonic(samples: int) -> Case:
    energy, like = HarmonicCluster(), Batch(torch.zeros(samples, 13, 3, dtype=torch.float64))
    flow = Flow(Rest(), MeanFreeGaussian(1.1))

    def weights(seed: int) -> Weights:
        generator = torch.Generator().manual_seed(seed)
        return reweight(flow, energy, like, generator, Solver("rk4", steps=2), chunk=samples).weights

    return Case(f"harmonic cluster, flow, {samples} samples", weights, float(energy.log_z(like)[0]))


@dataclass(frozen=True)
class Annealing:
    """A system and the budget of its annealing."""

    name: str
    energy: Energy
    points: int
    width: int
    std: float
    leapfrog: int
    finer: int
    chains: int
    truth: float
    unsure: float

    def case(self, quick: bool) -> Case:
        chains, finer = (self.chains // 4, max(1, self.finer // 4)) if quick else (self.chains, self.finer)
        g = torch.Generator().manual_seed(10_000)
        like = Batch(torch.zeros(chains, self.points, self.width))
        few = Batch(torch.zeros(256, self.points, self.width))
        levels = pilot(self.energy, few, std=self.std, leapfrog=self.leapfrog, generator=g).finer(finer)

        def weights(seed: int) -> Weights:
            return annealed(self.energy, like, levels, torch.Generator().manual_seed(seed)).weights

        name = f"{self.name}, annealing, {chains} chains, {len(levels)} levels"
        return Case(name, weights, self.truth, self.unsure)


DW4 = Annealing("DW4", DoubleWell(), 4, 2, 3.0, 5, 4, 500, 29.665, 0.004)
LJ13 = Annealing("LJ13", LennardJones(each_pair=2), 13, 3, 0.7, 10, 10, 200, 59.886, 0.025)


def trained(folder: Path, samples: int) -> Case:
    """DW4 through the flow of a finished run."""
    recipe, _ = Run.open(folder).restore("ema", "cpu")
    flow, test = recipe.flow.eval(), recipe.data.test
    like = test.select(torch.arange(samples) % len(test))

    def weights(seed: int) -> Weights:
        return reweight(flow, DoubleWell(), like, torch.Generator().manual_seed(1000 + seed), chunk=500).weights

    return Case(f"DW4, flow `{folder.name}`, {samples} samples", weights, DW4.truth, DW4.unsure)


def row(case: Case, runs: int) -> list[object]:
    found = [case.weights(seed) for seed in range(runs)]
    z = [w.log_z() for w in found]
    errors = [(e.stderr**2 + case.unsure**2) ** 0.5 for e in z]
    within = sum(abs(e.value - case.truth) < 2 * error for e, error in zip(z, errors, strict=True))
    truth = f"{case.truth:.3f}" + (f" ± {case.unsure:g}" if case.unsure else "")
    spread = f"{statistics.fmean(e.value for e in z):.3f} ± {statistics.stdev(e.value for e in z):.3f}"
    mean = f"{statistics.fmean(e.stderr for e in z):.3f}"
    ess = f"{100 * statistics.fmean(w.efficiency for w in found):.0f}"
    print(f"{case.name}: {within} of {runs}", file=sys.stderr, flush=True)
    return [case.name, truth, spread, mean, ess, f"{within} of {runs}"]


def measure(quick: bool, dw4: Path | None = None, samples: int = 1000, lj13: bool = False) -> str:
    """The table as Markdown."""
    runs = 4 if quick else RUNS
    cases = [harmonic(200 if quick else 1000), DW4.case(quick)]
    cases += [LJ13.case(quick)] if lj13 else []
    cases += [trained(dw4, samples)] if dw4 is not None else []
    head = ["system", "log Z", "mean ± spread of runs", "mean s.e.", "ESS, %", "within 2 s.e."]
    return "## Reweighting with a known normaliser\n\n" + harness.table(head, [row(case, runs) for case in cases])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dw4", type=Path, help="folder of a finished run of the recipe dw4")
    parser.add_argument("--samples", type=int, default=1000, help="of that flow, per run")
    parser.add_argument("--lj13", action="store_true", help="anneal LJ13 too, some minutes")
    parser.add_argument("--quick", action="store_true", help="few runs at small budgets")
    parser.add_argument("--write", action="store_true", help="replace the section of RESULTS.md")
    found = parser.parse_args()
    torch.set_num_threads(1)
    text = measure(found.quick, found.dw4, found.samples, found.lj13)
    print(text)
    if found.write:
        harness.write("reweighting", text)


if __name__ == "__main__":
    main()
