"""Annual temperature on the globe: a flow of internal variability, from a base that does not know longitudes.

Eight members of one climate model on the Gaussian grid of 64 x 128, deviations from the mean of six.  Fields are
divided by their standard deviation at each point; the prior is the zonally stationary Gaussian of the result, one
covariance of latitudes per zonal wavenumber, the best closed-form base of `benchmarks/ladder.py`.  What it cannot know
the network is told: where on the globe a point lies, and how much temperature varies there, which is little over water.
"""

from __future__ import annotations

from typing import Literal

import torch

from scifm import Batch, Flow, Objective, Prior, Recipe, networks, priors, times
from scifm.data import load_dataset
from scifm.data.transforms import Standardise
from scifm.priors.spectra import PerMode


def recipe(
    *,
    prior: Literal["zonal", "spectral", "white"] = "zonal",
    width: int = 32,
    steps: int = 600,
    batch_size: int = 16,
    test_samples: int = 110,
):
    """A flow of deviations from the ensemble's mean.

    prior: a covariance of latitudes per zonal wavenumber, a variance per mode, or white noise
    width: channels of the network's finest level
    steps: of the optimiser
    batch_size: fields per step
    test_samples: fields of the test member that are scored
    """
    data = load_dataset("global_temperature").global_temperature()
    standard = Standardise(per="point").fit(data.train)
    told = networks.GridConditions(static=places(data.train))
    velocity = networks.UNet(1, (width, 2 * width, 3 * width), padding=("pole", "circular"), stem=2, conditions=told)
    return Recipe(
        Flow(
            networks.GaussianSkip(velocity),
            _prior(prior, standard(data.train)),
            objective=Objective(times=times.stratified),
            transform=standard,
        ),
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        valid_every=250,
        checkpoint_every=250,
        valid_samples=16,
        test_samples=test_samples,
    )


def places(train: Batch) -> torch.Tensor:
    """Sine and cosine of latitude and longitude, and the logarithm of the spread of each point, (5, 64, 128)."""
    latitude, longitude = torch.linspace(-87.86, 87.86, train.event[1]), torch.arange(0, 360, 360 / train.event[2])
    spread = train.x.std(0).log()
    return torch.cat([networks.coordinates(latitude, longitude), (spread - spread.mean()) / spread.std()])


def _prior(name: str, fields: Batch) -> Prior:
    if name == "zonal":
        return priors.ZonalGaussian(fields.event, 0.02).fit(fields)
    if name == "spectral":
        return priors.SpectralGaussian(fields.event, periodic=(False, True), spectrum=PerMode()).fit(fields)
    return priors.Gaussian()
