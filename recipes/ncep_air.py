"""Near-surface air temperature, four times a day: a flow of the anomalies from climatology.

NCEP reanalysis over North America, 2013-14, 25 x 53 points.  The climatology (annual harmonics and hour of day, point
by point) is fitted on the training blocks; the prior is a Gaussian field whose variance per cosine mode is that of the
training anomalies.  The network learns what is left, told the time of year and of day, for weather varies more in
winter.  Samples come back as an xarray Dataset in kelvin, with the file's coordinates and attributes.
"""

from __future__ import annotations

from typing import Literal

from scifm import Flow, Objective, Prior, Recipe, couplings, networks, paths, priors, times
from scifm.data import load_dataset
from scifm.data.transforms import Climatology
from scifm.priors import spectra


def recipe(
    *,
    prior: Literal["spectral", "full", "white"] = "spectral",
    path: Literal["linear", "vp", "trigonometric"] = "linear",
    coupling: Literal["independent", "ot"] = "independent",
    season: bool = True,
    harmonics: int = 3,
    width: int = 32,
    steps: int = 1500,
    batch_size: int = 16,
    test_samples: int = 126,
):
    """A flow of air temperature.

    prior: a variance per mode, the full covariance of all points, or white noise
    path: straight, variance preserving, or a quarter of a circle
    coupling: how draws of the prior are paired with data: at random, or by optimal transport in the metric of the prior
    season: tell the network the time of year and of day; not with ot, whose pairs disregard them
    harmonics: annual, in the climatology
    width: channels of the network's finest level
    steps: of the optimiser
    batch_size: maps per step
    test_samples: maps of the test split that are scored
    """
    data = load_dataset("ncep_air").ncep_air()
    anomaly = Climatology(harmonics=harmonics, per="global").fit(data.train)
    base = _prior(prior, anomaly(data.train))
    curve = {"linear": paths.Linear, "vp": paths.VariancePreserving, "trigonometric": paths.Trigonometric}[path]()
    told = networks.GridConditions(calendar=season and coupling != "ot")
    unet = networks.UNet(1, (width, 2 * width, 3 * width), stem=2, conditions=told)
    return Recipe(
        Flow(
            networks.GaussianSkip(unet, curve),
            base,
            coupling=couplings.OptimalTransport(("time",), base) if coupling == "ot" else couplings.independent,
            path=curve,
            objective=Objective(times=times.stratified),
            transform=anomaly,
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


def _prior(name: str, anomalies) -> Prior:
    shape = anomalies.event
    modes = priors.SpectralGaussian(shape, periodic=(False, False), spectrum=spectra.PerMode())
    if name == "spectral":
        return modes.fit(anomalies)
    if name == "full":  # shrunk towards the modes, or 1325 points would want more maps than there are
        return priors.FullGaussian(shape, target=modes).fit(anomalies)
    return priors.Gaussian()
