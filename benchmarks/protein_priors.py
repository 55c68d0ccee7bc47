"""How good each base distribution is on real proteins before anything is learnt, as Markdown tables.

    SCIFM_DATA=... python benchmarks/protein_priors.py            # prints
    SCIFM_DATA=... python benchmarks/protein_priors.py --write    # and keeps them in RESULTS.md

Segments: Cα atoms of the 823 segments of 48 to 256 residues of `proteins_bm5`, in Angstrom, each moved to its centre.
The split is `numpy.random.default_rng(seed).permutation(823)`, the first 658 for fitting and 165 for the test; seed 0
is the table's.  Bits per dimension are Σ −log p / (log 2 · Σ (n − 1) 3), sums over the test set, on the subspace of
centred sets and given the sizes.

Ensemble: the 116 models of ubiquitin (76 Cα atoms) of `protein_ensembles`, split in the same way, 92 and 24.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import harness
import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.geometry import align
from scifm.priors import (
    FullPoints,
    GlobularChain,
    HarmonicChain,
    HarmonicGraph,
    MeanFreeGaussian,
    Prior,
    Sizes,
    SpectralChain,
    SpectralGraph,
    variances,
)

SPRING = 3 / 3.8**2  # per Å², for which Cα atoms are 3.8 Å apart
SEEDS = range(5)
Row = tuple[str, int, Callable[[], Prior], bool]  # name, numbers that are fitted, prior, whether to fit it

SEGMENTS: list[Row] = [
    ("isotropic, σ = 1 Å", 0, MeanFreeGaussian, False),
    ("isotropic, σ fitted", 1, MeanFreeGaussian, True),
    ("isotropic, σ ~ n^ν fitted", 2, lambda: SpectralChain(variances.Isotropic()), True),
    ("harmonic chain, a = 3/3.8²", 0, lambda: HarmonicChain(SPRING), False),
    ("globular chain, link 3.8, Rg = 2.2 n^0.4", 0, GlobularChain, False),
    ("globular chain, Rg ~ n^1/3 fitted", 2, lambda: GlobularChain(exponent=1 / 3), True),
    ("harmonic chain fitted", 1, HarmonicChain, True),
    ("springs to 2 neighbours", 2, lambda: SpectralChain(variances.Springs(2, None)), True),
    ("**spectral power law**", 2, SpectralChain, True),
    ("spectral cubic in log λ × n", 8, lambda: SpectralChain(variances.Cubic()), True),
    ("springs to 2 neighbours in a trap", 3, lambda: SpectralChain(variances.Springs()), True),
    ("springs to 4 neighbours in a trap", 5, lambda: SpectralChain(variances.Springs(4)), True),
    ("springs to 6 neighbours in a trap", 7, lambda: SpectralChain(variances.Springs(6)), True),
]
ENSEMBLE: list[Row] = [
    ("isotropic", 1, MeanFreeGaussian, True),
    ("harmonic chain", 1, HarmonicChain, True),
    ("globular chain, Rg ~ n^1/3", 2, lambda: GlobularChain(exponent=1 / 3), True),
    ("spectral power law, chain", 2, SpectralChain, True),
    ("springs to 2 neighbours in a trap", 3, lambda: SpectralChain(variances.Springs()), True),
    ("springs to 4 neighbours in a trap", 5, lambda: SpectralChain(variances.Springs(4)), True),
    ("harmonic, contacts within 8 Å", 1, HarmonicGraph, True),
    ("spectral power law, contacts", 2, SpectralGraph, True),
    ("one variance per chain mode", 75, lambda: SpectralChain(variances.PerMode(76)), True),
    ("one variance per contact mode", 75, lambda: SpectralGraph(variances.PerMode(76)), True),
    ("full covariance, shrunk to white noise", 2850, lambda: FullPoints(76), True),
    ("full covariance, shrunk to its contacts", 2850, lambda: FullPoints(76, target=SpectralGraph()), True),
]


def folder(name: str) -> Path:
    root = os.environ.get("SCIFM_DATA")
    if not root or not (Path(root) / name).is_dir():
        raise SystemExit(f"protein_priors: set SCIFM_DATA to the folder that holds {name}/.")
    return Path(root) / name


def centred(x: Tensor, counts: Tensor, **more: Tensor) -> Batch:
    index = torch.repeat_interleave(torch.arange(len(counts)), counts)
    batch = Batch(x.double(), index, len(counts), edge_index=more.get("edge_index"))
    return batch.replace(MeanFreeGaussian().project(batch.x, batch))


def segments() -> Batch:
    with np.load(folder("proteins_bm5") / "bm5_segments.npz", allow_pickle=False) as file:
        counts, x = torch.from_numpy(file["offset"]).diff(), torch.from_numpy(file["backbone"][:, 1])
    chosen = (counts >= 48) & (counts <= 256)
    return centred(x, counts).select(chosen)


def ensemble() -> Batch:
    with np.load(folder("protein_ensembles") / "ensembles_ca.npz", allow_pickle=False) as file:
        x = torch.from_numpy(file["ubiquitin_2k39"])
    b, n, _ = x.shape
    near = torch.linalg.vector_norm(x[0, :, None] - x[0, None], dim=2) < 8.0  # contacts of the first model, for all
    bonds = near.triu(1).nonzero().T
    every = torch.cat([bonds + k * n for k in range(b)], 1)
    return centred(x.reshape(b * n, 3), torch.full((b,), n), edge_index=every)


def split(data: Batch, seed: int, share: float = 0.8) -> tuple[Batch, Batch]:
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data)))
    cut = int(share * len(data))
    return data.select(order[:cut]), data.select(order[cut:])


def bits(prior: Prior, test: Batch) -> tuple[float, float]:
    """Ratio of sums, which the tables show, and mean of ratios."""
    cost, dims = -prior.log_prob(test.x, test) / math.log(2), prior.dims(test)
    return float(cost.sum() / dims.sum()), float((cost / dims).mean())


def transport(prior: Prior, test: Batch, draws: int = 4) -> tuple[float, float, float]:
    """Mean squared distance per residue of draws to data, the same after superposition, and Rg of draws."""
    before, after, size = [], [], []
    for k in range(draws):
        drawn = test.replace(prior.sample(test, torch.Generator().manual_seed(k)))
        for x0, x1 in zip(drawn.split(), test.split(), strict=True):
            before.append(float((x1 - x0).square().sum(1).mean()))
            after.append(float((x1 - align(x0, x1)).square().sum(1).mean()))
            size.append(float(x0.square().sum(1).mean().sqrt()))
    return statistics.mean(before), statistics.mean(after), statistics.mean(size)


def table(rows: list[Row], data: Batch, unit: str, quick: bool) -> str:
    lines = []
    for name, numbers, make, fitted in rows:
        found = []
        for seed in [0] if quick else SEEDS:
            train, test = split(data, seed)
            prior = make()
            found.append(bits(prior.fit(train) if fitted else prior, test))
            if seed == 0:
                moved = transport(prior, test, 1 if quick else 4)
                said = ", ".join(f"{k} {v:.3g}" for k, v in numbers_of(prior).items()) if numbers <= 5 else ""
        values = [f[0] for f in found]
        spread = f"{statistics.mean(values):.3f} ± {statistics.pstdev(values):.3f}"
        lines.append(
            [name, numbers, f"{values[0]:.3f}", spread, f"{found[0][1]:.3f}", *(f"{m:.0f}" for m in moved[:2])]
            + [f"{moved[2]:.1f}", said]
        )
    head = ["base", "fitted numbers", "test bits/dim", "5 splits", "mean of ratios", "E\\|x1−x0\\|²", "after Kabsch"]
    return harness.table([*head, "Rg of draws", f"what was fitted ({unit})"], lines)


def numbers_of(prior: Prior) -> dict[str, float]:
    if isinstance(prior, MeanFreeGaussian):
        return {"std": float(prior.std)}
    if isinstance(prior, GlobularChain):
        return dict(zip(("link", "radius", "exponent"), prior.theta.tolist(), strict=True))
    return getattr(prior, "numbers", {})


def sizes(data: Batch) -> str:
    train, test = split(data, 0)
    cost = -Sizes.fit(train.counts).log_prob(test.counts)
    dims = MeanFreeGaussian().dims(test).sum()
    return (
        f"Sizes: log p(n) adds {float(cost.mean()):.2f} nats per segment (smoothed law of the training sizes), "
        f"{float(cost.sum() / dims / math.log(2)):.4f} bits/dim."
    )


def measure(quick: bool) -> str:
    data, models = segments(), ensemble()
    test = split(data, 0)[1]
    size = statistics.mean(float(x.square().sum(1).mean().sqrt()) for x in test.split())
    return "\n\n".join(
        [
            "## Base distributions on real proteins",
            f"Cα segments of 48 to 256 residues, 658 to fit and 165 to test; mean Rg of the test set {size:.1f} Å.",
            table(SEGMENTS, data, "Å", quick),
            sizes(data),
            "Ubiquitin, 116 models of 76 residues, 92 to fit and 24 to test, however they are turned.",
            table(ENSEMBLE, models, "Å", quick),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one split and few draws")
    parser.add_argument("--write", action="store_true", help="keep the tables in RESULTS.md")
    found = parser.parse_args()
    torch.set_num_threads(1)
    text = measure(found.quick)
    print(text)
    if found.write:
        harness.write("protein_priors", text)


if __name__ == "__main__":
    main()
