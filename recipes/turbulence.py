"""Decaying two-dimensional turbulence: a flow of vorticity fields on a periodic square.

The prior is a Gaussian field on the torus with the spectrum of the data, the same in all directions; it has the size of
their eddies and none of their vortices, which are strong, round and apart.  The network pads circularly on both axes,
so neither knows where the square begins.  The data are made on first use, in about a minute (`scifm.data.vorticity`).

`benchmarks/prior_table.py turbulence spectral white` shows what the spectrum is worth.
"""

from __future__ import annotations

from typing import Literal

from scifm import Flow, Objective, Recipe, networks, priors, times
from scifm.data import load_dataset
from scifm.data.transforms import Standardise
from scifm.priors import spectra


def recipe(
    *,
    prior: Literal["spectral", "white"] = "spectral",
    seed_of_data: int = 0,
    steps: int = 2000,
    batch_size: int = 16,
    test_samples: int = 64,
):
    """A flow of vorticity.

    prior: one variance per wavenumber, or white noise
    seed_of_data: another one makes another set
    steps: of the optimiser
    batch_size: fields per step
    test_samples: fields of the test split that are scored
    """
    data = load_dataset("turbulence").turbulence(seed_of_data)
    scale = Standardise().fit(data.train)
    base: priors.Prior = priors.Gaussian()
    if prior == "spectral":
        shape = data.train.event
        base = priors.SpectralGaussian(shape, periodic=True, spectrum=spectra.Isotropic()).fit(scale(data.train))
    return Recipe(
        Flow(
            networks.UNet(1, widths=(32, 64, 96), padding="circular", stem=2),
            base,
            objective=Objective(times=times.stratified),
            transform=scale,
        ),
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        valid_every=500,
        checkpoint_every=500,
        valid_samples=16,
        test_samples=test_samples,
    )
