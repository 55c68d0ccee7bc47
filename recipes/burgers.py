"""Burgers' equation backward: the wave at t = 0, given the wave at t = 1.

Viscosity forgets: many first waves end in nearly the same one, so the answer is a law and not a wave.  The network sees
the last wave beside the first; the prior is a Gaussian field on the ring with the spectrum of first waves.
"""

from __future__ import annotations

from scifm import Flow, Objective, Recipe, networks, priors, times
from scifm.data import load_dataset
from scifm.data.transforms import Standardise
from scifm.priors import spectra


def recipe(*, width: int = 32, steps: int = 3000, batch_size: int = 64, test_samples: int = 400):
    """A flow of first waves given the last.

    width: of the network's finest level
    steps: of the optimiser
    batch_size: waves per step
    test_samples: waves of the test split that are scored
    """
    data = load_dataset("burgers").burgers("initial")
    scale = Standardise().fit(data.train)
    ring = priors.SpectralGaussian(data.train.event, periodic=True, spectrum=spectra.PerMode())
    given = networks.GridConditions(fields={"final": 1})
    network = networks.UNet(1, (width, 2 * width), padding=("circular",), conditions=given)
    return Recipe(
        Flow(
            network,
            ring.fit(scale(data.train)),
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
