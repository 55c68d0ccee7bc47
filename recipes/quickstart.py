"""Terrain: real elevation maps, a flow from a field prior, in minutes on a laptop and without a download.

The data are 32 x 32 patches of a digital elevation model in whole metres, split by area.  The prior is a Gaussian field
with the data's spectrum in a cosine basis, so the network starts from maps with the right roughness at every scale and
learns what is not Gaussian about them.  `--prior white` starts from white noise instead: compare the two.
"""

from __future__ import annotations

from typing import Literal

from scifm import Flow, Objective, Recipe, couplings, networks, paths, priors, times
from scifm.data import load_dataset
from scifm.data.transforms import Standardise
from scifm.priors import spectra


def recipe(
    *,
    prior: Literal["spectral", "white"] = "spectral",
    path: Literal["linear", "vp", "trigonometric"] = "linear",
    coupling: Literal["independent", "ot"] = "independent",
    steps: int = 1200,
    batch_size: int = 32,
    test_samples: int = 96,
):
    """A flow of terrain.

    prior: a Gaussian field with the spectrum of the data, or white noise
    path: straight, variance preserving, or a quarter of a circle
    coupling: how draws of the prior are paired with data: at random, or by optimal transport in the metric of the prior
    steps: of the optimiser
    batch_size: patches per step
    test_samples: patches of the test split that are scored
    """
    data = load_dataset("terrain").terrain()
    height = Standardise().fit(data.train)
    shape = data.train.event
    if prior == "spectral":
        base = priors.SpectralGaussian(shape, spectrum=spectra.PerMode()).fit(height(data.train))
    else:
        base = priors.Gaussian()
    velocity = networks.UNet(shape[0], widths=(32, 64, 96), stem=2)
    return Recipe(
        Flow(
            velocity,
            base,
            coupling=couplings.OptimalTransport(prior=base) if coupling == "ot" else couplings.independent,
            path={"linear": paths.Linear, "vp": paths.VariancePreserving, "trigonometric": paths.Trigonometric}[path](),
            objective=Objective(times=times.stratified),
            transform=height,
        ),
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        valid_samples=16,
        test_samples=test_samples,
    )
