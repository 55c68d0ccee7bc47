"""Downscaling: maps of air temperature given their averages over coarse cells, from a prior that fits the averages.

A map is known on cells of several points a side.  Expected is a smooth map through the averages; the prior is that plus
a Gaussian field with the variance per mode of what averages do not tell, and the network learns where fronts, coasts
and mountains put it.  The density says which of several sharp maps is the likelier one.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from scifm import Batch, Flow, Objective, Recipe, networks, priors, times
from scifm.data import Data, load_dataset
from scifm.data.transforms import Climatology
from scifm.priors import spectra


def recipe(
    *,
    cell: int = 5,
    width: int = 32,
    steps: int = 3000,
    batch_size: int = 16,
    test_samples: int = 64,
):
    """A flow of fine maps given coarse ones.

    cell: points per side of a coarse cell
    width: channels of the network's finest level
    steps: of the optimiser
    batch_size: maps per step
    test_samples: maps of the test split that are scored
    """
    source = load_dataset("ncep_air").ncep_air()
    anomaly = Climatology(harmonics=3, per="global").fit(source.train)
    splits = (source.train, source.valid, source.test)
    train, valid, test = (coarsened(split, anomaly(split).x, cell) for split in splits)
    data = Data(
        "downscaling", train, valid, test,
        unit=source.unit, delta=source.delta, files=source.files, export=source.export,
        summary=f"{source.summary}; averages over {cell} x {cell} points",
    )  # fmt: skip
    base = priors.SpectralGaussian(train.event, periodic=(False, False), spectrum=spectra.PerMode())
    conditions = networks.GridConditions(fields={"coarse": 1}, calendar=True)
    return Recipe(
        Flow(
            networks.UNet(1, (width, 2 * width, 3 * width), stem=2, conditions=conditions),
            priors.Conditional(base, mean="coarse").fit(anomaly(train)),
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


def averages(x: torch.Tensor, cell: int) -> torch.Tensor:
    """Means over cells (B, C, *coarse); cells at the end may hold fewer points."""
    return F.avg_pool2d(x, cell, ceil_mode=True, count_include_pad=False)


def coarsened(batch: Batch, anomalies: torch.Tensor, cell: int) -> Batch:
    """The batch with the smooth map through the averages of its anomalies, in model units."""
    if not 2 <= cell <= min(batch.event[1:]):
        raise ValueError(f"downscaling: expected a cell of 2 to {min(batch.event[1:])} points a side, got {cell}.")
    smooth = F.interpolate(averages(anomalies, cell), batch.event[1:], mode="bicubic", align_corners=False)
    return Batch(batch.x, context={**batch.context, "coarse": smooth})
