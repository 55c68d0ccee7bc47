"""Trained flows of fields below the Gaussian ladder, and the spectra of what they draw.

    python benchmarks/fields_flow.py                               # both sets, three seeds
    python benchmarks/fields_flow.py ncep_air --seeds 1 --steps 500 --samples 32

Each run is one of `scifm train`, kept in runs/fields_flow/, so that an interrupted table goes on.  Likelihoods are
those of all test fields, per kelvin, beside the closed-form Gaussians of `benchmarks/ladder.py`, fitted to the flow's
own training fields.  Values on a lattice of steps δ get uniform noise of that width, and log2 δ is added to the bits.

Spectra are in rings of |k|, of fields in the units of the model, as many samples as there are test fields; beside them
stands how far the training fields themselves are from the test fields, which no sampler can be expected to beat.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import harness
import ladder

from scifm import Batch, Flow, Solver, trace
from scifm.likelihood import bits_per_dim
from scifm.metrics import Spectrum, radial_spectrum, spectrum_error
from scifm.recipe import Recipe
from scifm.run import Run

ROOT = Path("runs/fields_flow")
TOLERANCE = Solver(rtol=1e-4, atol=1e-4)
SETS = {"ncep_air": (False, False), "global_temperature": (False, True)}
CHUNK = 32


def train(name: str, seed: int, steps: int | None, root: Path) -> Path:
    """The folder of a finished run, trained unless it is there already."""
    folder = root / "-".join([name, str(seed), *([] if steps is None else [str(steps)])])
    words = [name, "--seed", str(seed), "--test-samples", "16"]
    return harness.train(folder, words + ([] if steps is None else ["--steps", str(steps)]))


def rungs(recipe: Recipe, name: str) -> dict[str, float]:
    """Bits per dimension, per kelvin, of the closed-form Gaussians, fitted and tested as the flow is."""
    train, test = recipe.data.train, recipe.data.test
    assert isinstance(train, Batch)
    if name == "ncep_air":  # the flow's climatology, without its scale
        normal = recipe.flow.transform
        train, test = (Batch(b.x.double() - normal.mean(b).double()) for b in (train, test))  # type: ignore[operator]
        chosen = ladder.NCEP
    else:
        train, test = (Batch(b.x.double()) for b in (train, test))
        latitude = torch.from_numpy(recipe.data.export(recipe.data.test.select([0])).lat.values).double()
        chosen = ladder.globe(latitude)
    return {rung.name.strip("*"): ladder.fitted(rung, train).bits(test) for rung in chosen}


def some(batch: Batch, count: int) -> Batch:
    return batch.select(torch.linspace(0, len(batch) - 1, min(count, len(batch))).round().long())


def drawn(flow: Flow, like: Batch) -> tuple[Batch, float]:
    """A sample for each, and the mean number of evaluations."""
    parts, nfe = [], 0.0
    for k, rows in enumerate(torch.arange(len(like)).split(CHUNK)):
        part, solution = flow.sample(like.select(rows), torch.Generator().manual_seed(k), TOLERANCE, statistics=True)
        parts.append(part)
        nfe += float(solution.nfe.sum())
    return Batch.join(parts), nfe / len(like)


def measure(folder: Path, name: str, samples: int) -> dict[str, Any]:
    """Figures of a finished run, kept in its folder."""
    return harness.kept(folder / f"fields-{samples}.json", lambda: scored(folder, name, samples))


def scored(folder: Path, name: str, samples: int) -> dict[str, Any]:
    recipe, _ = Run.open(folder).restore("ema", "cpu")
    flow, data = recipe.flow.eval(), recipe.data
    assert isinstance(data.train, Batch)
    test = some(data.test, samples)
    settings = {"trace": trace.Hutchinson(2), "solver": TOLERANCE, "chunk": CHUNK, "check": 0}
    score = bits_per_dim(flow, test, delta=data.delta, generator=torch.Generator().manual_seed(0), **settings)
    made, nfe = drawn(flow, test)

    def spectrum(batch: Batch) -> Spectrum:
        return radial_spectrum(flow.transform(batch).x, SETS[name])

    ours, theirs, known = (spectrum(b) for b in (made, test, data.train))
    off, floor, base = (
        spectrum_error(a, b)
        for a, b in ((ours, theirs), (known, theirs), (radial_spectrum(based(flow, test).x, SETS[name]), theirs))
    )
    return {
        "bits": score.value + math.log2(data.delta or 1.0),
        "stderr": score.stderr,
        "spectrum": [off.mean, off.max],
        "to training": spectrum_error(ours, known).mean,
        "floor": [floor.mean, floor.max],
        "prior spectrum": [base.mean, base.max],
        "nfe": nfe,
        "fields": len(test),
        "ladder": rungs(recipe, name),
    }


def based(flow: Flow, like: Batch) -> Batch:
    """Draws of the prior, in the units of the model."""
    return like.replace(flow.prior.sample(like, torch.Generator().manual_seed(0)))


def measured(name: str, seeds: int, steps: int | None, samples: int, root: Path) -> str:
    """The section of a set as Markdown."""
    folders = [train(name, seed, steps, root) for seed in range(seeds)]
    runs = [measure(folder, name, samples) for folder in folders]
    best = min(runs[0]["ladder"], key=lambda rung: runs[0]["ladder"][rung])
    rows = [
        [
            f"flow, seed {seed}",
            f"{run['bits']:.3f} ± {run['stderr']:.3f}",
            f"{run['bits'] - run['ladder'][best]:+.3f}",
            *("{:.3f} / {:.3f}".format(*run["spectrum"]), f"{run['to training']:.3f}"),
            f"{run['nfe']:.0f}",
            f"{harness.minutes(folder):.0f}",
        ]
        for seed, (run, folder) in enumerate(zip(runs, folders, strict=True))
    ]
    values = [run["bits"] for run in runs]
    spread = f" ± {statistics.stdev(values):.3f}" if seeds > 1 else ""
    beside = sorted(runs[0]["ladder"].items(), key=lambda item: item[1])
    rows += [[rung, f"{bits:.3f}", f"{bits - runs[0]['ladder'][best]:+.3f}", *"––––"] for rung, bits in beside[:4]]
    rows += [["training fields", "–", "–", "{:.3f} / {:.3f}".format(*runs[0]["floor"]), *"–––"]]
    rows += [["draws of the prior", "–", "–", "{:.3f} / {:.3f}".format(*runs[0]["prior spectrum"]), *"–––"]]
    head = [
        "",
        "bits/dim (K)",
        "less the best Gaussian",
        "spectrum off, mean / max",
        "off training",
        "evaluations",
        "minutes",
    ]
    return (
        f"## Flows against the Gaussian ladder: {name}\n\n{runs[0]['fields']} test fields; the flow "
        f"{statistics.fmean(values):.3f}{spread} over {seeds} seed(s). "
        f"`python benchmarks/fields_flow.py {' '.join(sys.argv[1:])}`\n\n"
        + harness.table(head, rows)
        + "\n\nSpectra: |log10 ratio| to the test fields. Minutes of training on one thread of a machine that did "
        "other things too. ± is the standard error over fields, which are not independent."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of the optimiser (default: the recipe's)")
    parser.add_argument("--samples", type=int, default=504, help="test fields, and samples beside them")
    parser.add_argument("--root", type=Path, default=ROOT)
    found = parser.parse_args()
    torch.set_num_threads(1)
    for name in found.sets:
        text = measured(name, found.seeds, found.steps, found.samples, found.root)
        print(text)
        if found.root == ROOT and found.steps is None:
            harness.write(f"fields-{name}", text)


if __name__ == "__main__":
    main()
