"""One protein in motion: conformations of ubiquitin, or of your own trajectory, by an equivariant flow.

The prior is a Gaussian with the covariance of all residues, whatever the pose: all that a Gaussian can know of a fold
that may stand any way.  Its draws are the fold squeezed and sheared, in both hands; the flow learns which of them are a
protein, and how the large motions hang together.  A hundred models determine a few modes; for thousands of frames
`--modes 0` takes a network on all points.

    scifm train protein_ensemble --file traj.xtc --topology top.pdb
    scifm sample runs/<the run> -n 20 --log-prob -o models.pdb
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from scifm import Batch, Flow, Objective, Prior, Recipe, couplings, networks, priors
from scifm.data import load_dataset


def recipe(
    *,
    file: Path | None = None,
    topology: Path | None = None,
    atoms: Literal["ca", "backbone"] = "ca",
    stride: int = 1,
    prior: Literal["full", "spectral", "isotropic"] = "full",
    modes: int = 6,
    coupling: Literal["aligned", "independent"] = "aligned",
    width: int = 64,
    steps: int = 1500,
    batch_size: int = 64,
    test_samples: int = 200,
):
    """A flow of conformations.

    file: models or frames of one protein: .pdb, .cif, .xtc, .trr, .dcd; without it 116 NMR models of ubiquitin
    topology: structure file that a trajectory needs: .pdb, .cif, .gro
    atoms: one per residue, or N, CA, C and O
    stride: every so many models or frames
    prior: covariance of all points, a power law along the chain, or white noise
    modes: of the full covariance that flow, those of the largest variance; 0, and for other priors, all points do
    coupling: draws turned onto their data, or left as they are
    width: of the network
    steps: of the optimiser
    batch_size: conformations per step
    test_samples: conformations of the test split that are scored, all if it has fewer
    """
    data = load_dataset("protein_ensembles").protein_ensembles(file, topology, atoms=atoms, stride=stride)
    base = _prior(prior, data.train)
    if isinstance(base, priors.FullPoints) and modes:
        velocity = networks.LeadingModes(base, modes, width)
    else:
        kinds = {name: int(value.max()) + 1 for name, value in data.train.nodes.items()}  # who each point is
        velocity = networks.Unwhitened(networks.PaiNN(width, scale=3.8, chiral=True, nodes=kinds), base)
    flow = Flow(
        networks.GaussianSkip(velocity),
        base,
        coupling=couplings.Aligned(permutation=False) if coupling == "aligned" else couplings.independent,
        objective=Objective(metric="prior"),
    )
    return Recipe(
        flow, data, steps=steps, batch_size=batch_size, learning_rate=3e-3, weight_decay=0.0, valid_every=500,
        test_samples=test_samples,
    )  # fmt: skip


def _prior(name: str, train: Batch) -> Prior:
    place = "position" if "atom" not in train.nodes else None  # four atoms of a backbone share theirs
    chain = priors.SpectralChain(chain="chain", position=place)
    full = priors.FullPoints(int(train.counts[0]), target=chain)
    return {"full": full, "spectral": chain, "isotropic": priors.MeanFreeGaussian()}[name].fit(train)
