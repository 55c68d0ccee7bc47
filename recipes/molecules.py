"""Molecules: coordinates from elements and bonds, by a flow that starts from springs on the bonds.

The data are molecules of the Chemical Component Dictionary, split by skeleton.  The prior is a Gaussian whose modes are
those of each molecule's own graph of bonds, so atoms that are bonded begin near each other, and `--prior isotropic`
shows what that is worth.  The network sees atoms in space while the flow learns in the prior's metric, where a bond
length weighs as much as the size of the whole; before training the flow is its prior.  Samples are .xyz or .sdf files:

    scifm train molecules && scifm sample runs/<the run> --log-prob -o molecules.xyz
"""

from __future__ import annotations

from typing import Literal

from scifm import Flow, Objective, Recipe, couplings, networks, priors
from scifm.data import load_dataset


def recipe(
    *,
    prior: Literal["spectral", "harmonic", "isotropic"] = "spectral",
    coupling: Literal["aligned", "independent"] = "aligned",
    source: Literal["ccd", "qm7", "qm9", "md17"] = "ccd",
    molecule: str = "",
    max_atoms: int = 24,
    width: int = 48,
    layers: int = 4,
    steps: int = 3000,
    batch_size: int = 32,
    test_samples: int = 64,
):
    """A flow of conformers.

    prior: springs on bonds with a power law of the modes, plain springs, or white noise
    coupling: draws turned onto their data and twins among atoms relabelled, or left as they are
    source: the dictionary of components inside biotite, QM7, QM9, or a trajectory of MD17
    molecule: whose trajectory of MD17, such as ethanol or "salicylic acid"; without it aspirin
    max_atoms: larger molecules are left out
    width: features of the network
    layers: of the network
    steps: of the optimiser
    batch_size: molecules per step
    test_samples: molecules of the test split that are scored
    """
    if molecule and source != "md17":
        raise ValueError(f"molecules: --molecule names a trajectory of MD17; give --source md17, not {source}.")
    data = load_dataset("molecules").molecules(f"{source}:{molecule}" if molecule else source, max_atoms=max_atoms)
    base = {
        "spectral": priors.SpectralGraph(weak=0.01),
        "harmonic": priors.HarmonicGraph(weak=0.01),
        "isotropic": priors.MeanFreeGaussian(),
    }[prior].fit(data.train)
    velocity = networks.PaiNN(width, layers, scale=1.5, nodes={"z": 54}, edges={"bond": 5})
    flow = Flow(
        networks.GaussianSkip(networks.Unwhitened(velocity, base)),
        base,
        coupling=couplings.Aligned() if coupling == "aligned" else couplings.independent,
        objective=Objective(metric="prior"),
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
        valid_samples=64,
        test_samples=test_samples,
    )
