"""Protein backbones, Cα by Cα: a flow that starts from a polymer, or from noise, to see what the polymer is worth.

Chains of 48 to 256 residues of docking benchmark 5, or of a folder of your own, split by family.  A Gaussian polymer
with springs to four neighbours, five fitted numbers, knows which residues are near and how large a protein is;
isotropic noise of the right width knows nothing of the kind and costs 2.3 bits per dimension more before anything is
learnt.  The network sees the chain in space, in a frame of each residue, and may tell left from right; the loss is
in the prior's own metric, where a bond counts as much as the fold.

    scifm sample RUN --stochastic 150 --strength 4      chains without a density, whose bonds are right
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from scifm import Flow, Objective, Recipe, couplings, networks, priors
from scifm import times as laws
from scifm.data import load_dataset


def recipe(
    *,
    folder: Path | None = None,
    lengths: tuple[int, ...] = (48, 256),
    split: Literal["family", "chain"] = "family",
    prior: Literal["springs", "powerlaw", "harmonic", "isotropic"] = "springs",
    coupling: Literal["independent", "aligned"] = "independent",
    sequence: bool = False,
    times: Literal["late", "uniform"] = "late",
    width: int = 48,
    layers: int = 4,
    steps: int = 8000,
    batch_size: int = 8,
    test_samples: int = 64,
):
    """A flow of protein chains.

    folder: of PDB, mmCIF or BinaryCIF files; without it docking benchmark 5
    lengths: of the shortest and the longest chain, in residues
    split: relatives together, or each chain by itself, for relatives alone
    prior: chain with springs to four neighbours, with a power law of variances or with springs to one; or white noise
    coupling: draws and data paired at random, or each draw turned onto its chain
    sequence: whether the network sees the residue types, for conformations given the sequence
    times: more of the end of the path, where an error costs most likelihood, or all alike
    width: features per residue
    layers: of message passing along the chain
    steps: of the optimiser
    batch_size: chains per step
    test_samples: chains of the test split that are scored
    """
    if len(lengths) != 2:
        raise ValueError(f"protein_backbone: --lengths takes the least and the most, got {len(lengths)} number(s).")
    data = load_dataset("proteins").proteins(folder, min_length=lengths[0], max_length=lengths[1], split=split)
    base = {
        "springs": priors.SpectralChain(priors.variances.Springs(4)),
        "powerlaw": priors.SpectralChain(),
        "harmonic": priors.HarmonicChain(),
        "isotropic": priors.MeanFreeGaussian(),
    }[prior].fit(data.train)
    network = networks.Residues(width, layers, scale=3.8, nodes={"residue": 21} if sequence else {})
    flow = Flow(
        networks.GaussianSkip(networks.Unwhitened(network, base)),
        base,
        coupling=couplings.Aligned(permutation=False) if coupling == "aligned" else couplings.independent,
        objective=Objective(metric="prior", times=laws.logit_normal(1.0, 1.5) if times == "late" else laws.uniform),
    )
    return Recipe(
        flow,
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        weight_decay=0.0,
        valid_every=1000,
        checkpoint_every=500,
        valid_samples=16,
        test_samples=test_samples,
    )
