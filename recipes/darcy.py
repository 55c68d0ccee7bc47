"""Darcy flow: pressure in a porous medium, given where it lets the fluid through.

The network sees the permeability beside the pressure; the prior is the full covariance of pressures, shrunk to a
spectrum of cosines, for the square has walls.  Permeability determines pressure but for what 16 x 16 points do not say,
so the law of the answer is narrow, and a good likelihood says how narrow.
"""

from __future__ import annotations

from scifm import Flow, Objective, Recipe, networks, priors, times
from scifm.data import load_dataset
from scifm.data.transforms import Standardise
from scifm.priors import spectra


def recipe(*, width: int = 32, steps: int = 3000, batch_size: int = 32, test_samples: int = 50):
    """A flow of pressure given permeability.

    width: of the network's finest level
    steps: of the optimiser
    batch_size: samples per step
    test_samples: samples of the test split that are scored
    """
    data = load_dataset("darcy").darcy()
    scale = Standardise().fit(data.train)
    modes = priors.SpectralGaussian(data.train.event, periodic=False, spectrum=spectra.PerMode())
    prior = priors.FullGaussian(data.train.event, target=modes).fit(scale(data.train))
    given = networks.GridConditions(fields={"permeability": 1})
    network = networks.UNet(1, (width, 2 * width, 3 * width), padding="replicate", conditions=given)
    return Recipe(
        Flow(
            network,
            prior,
            objective=Objective(times=times.stratified),
            transform=scale,
        ),
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        valid_every=500,
        test_samples=test_samples,
    )
