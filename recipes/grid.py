"""Your own file: a flow of the fields that it holds, with labelled samples and a density.

    scifm train recipes/grid.py --file my.nc --variable t2m
    scifm train recipes/grid.py --file my.zarr --variable z,t --samples member,time

What was understood is printed before the training: dims and their direction, periodicity, calendar, what is missing.
The series is cut into blocks of time with gaps.  Where there are years enough the annual and the daily cycle are taken
out, else the mean map, channel by channel, fitted on the training blocks.  The prior is a Gaussian field with the
variance of the training data per mode, Fourier along a longitude that closes the circle and cosines elsewhere; over a
mask, white noise inside it.  Samples come back with the file's dims, order, units, calendar and mask.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import torch

from scifm import Batch, Flow, Objective, Recipe, couplings, networks, priors, times
from scifm.data import Data, grids
from scifm.data.channels import PerChannel
from scifm.data.splits import block_split
from scifm.data.transforms import Affine, Climatology
from scifm.priors import spectra


def recipe(
    *,
    file: Path,
    variable: tuple[str, ...] = (),
    samples: tuple[str, ...] = (),
    dims: tuple[str, ...] = (),
    missing: Literal["refuse", "drop"] = "refuse",
    coupling: Literal["independent", "ot"] = "independent",
    harmonics: int = 3,
    width: int = 32,
    steps: int = 3000,
    batch_size: int = 16,
    test_samples: int = 64,
):
    """A flow of the fields of a file.

    file: netCDF, Zarr or GRIB
    variable: one name or several, z,t; the only one on a grid if none is given
    samples: dims whose entries are samples; those of time and realization if none is given
    dims: roles where attributes mislead, lat=TLAT,lon=TLONG
    missing: samples with gaps of their own are refused, or dropped
    coupling: how draws of the prior are paired with data: at random, or by optimal transport in the metric of the prior
    harmonics: annual, in the climatology
    width: channels of the network's finest level
    steps: of the optimiser
    batch_size: maps per step
    test_samples: maps of the test split that are scored
    """
    roles = dict(pair.split("=", 1) for pair in dims)
    batch, spec = grids.from_xarray(file, variable or None, samples or None, dims=roles, missing=missing)
    data = _data(file, batch, spec)
    mask = None if spec.mask is None else torch.from_numpy(spec.mask)
    cycle = _cycle(data.train, spec, harmonics)
    anomaly = PerChannel([cycle() for _ in spec.channels], mask) if cycle else _mean_map(data.train, mask)
    base = _prior(spec, anomaly.fit(data.train)(data.train), mask)
    padding = ["circular" if periodic else "replicate" for periodic in spec.periodic]
    stem = 2 if min(spec.event[1:]) > 30 else 1
    velocity = networks.UNet(spec.event[0], (width, 2 * width, 3 * width), padding=padding, stem=stem)
    return Recipe(
        Flow(
            velocity.to(data.train.x.dtype),
            base,
            # the network does not look at the time: it serves the climatology only
            coupling=couplings.OptimalTransport(ignore=("time",), prior=base)
            if coupling == "ot"
            else couplings.independent,
            objective=Objective(times=times.stratified),
            transform=anomaly,
        ),
        data,
        steps=steps,
        batch_size=min(batch_size, len(data.train)),
        learning_rate=2e-3,
        valid_every=500,
        checkpoint_every=500,
        valid_samples=16,
        test_samples=test_samples,
    )


def _data(file: Path, batch: Batch, spec: grids.GridSpec) -> Data:
    rows = block_split(batch.context["time"] if "time" in batch.context else len(batch))
    delta = spec.delta
    if delta is None:  # no lattice, or one per channel: then the noise that makes values continuous is added here, once
        shape = (-1, *[1] * len(spec.grid))
        widths = torch.tensor([d or 0.0 for d in spec.deltas], dtype=batch.x.dtype).reshape(shape)
        noise = torch.rand(batch.x.shape, generator=torch.Generator().manual_seed(0), dtype=batch.x.dtype) - 0.5
        inside = torch.ones(()) if spec.mask is None else torch.from_numpy(spec.mask)
        batch = batch.replace((batch.x + widths * noise * inside).float())
    parts = [batch.select(rows[name]) for name in ("train", "valid", "test")]
    kept = ", ".join(f"{len(part)} {name}" for part, name in zip(parts, ("training", "validation", "test"), strict=True))
    lattice = "; noise of a step per channel was added, once" if delta is None and any(spec.deltas) else ""
    summary = f"{file.name}: {spec.describe()}. {kept} maps in blocks with gaps{lattice}"
    export = partial(grids.to_xarray, spec=spec)
    return Data(file.stem, *parts, unit=spec.unit, delta=delta, files=(file,), export=export, summary=summary)


def _cycle(train: Batch, spec: grids.GridSpec, harmonics: int):
    """Climatology, where the training data hold two years and several times for each of its numbers; else None."""
    if "time" not in train.context:
        return None
    time = train.context["time"]
    hours = sorted({round(h, 2) % 24 for h in ((time % 1) * 24).tolist()})
    numbers = 1 + 2 * harmonics + 3 * (len(hours) - 1)
    seasons = len(((time % spec.year) / spec.year * 12).floor().unique())
    if len(train) < 4 * numbers or seasons < 9 or float(time.max() - time.min()) < 1.9 * spec.year:
        return None
    return partial(Climatology, harmonics, hours, "global", spec.year)


def _mean_map(train: Batch, mask: torch.Tensor | None) -> PerChannel:
    """Each channel minus its mean map, over the root mean square of what remains; one map alone has no anomalies."""
    each = []
    for c in range(train.event[0]):
        x = train.x[:, c].flatten(1).double()
        x = x if mask is None else x[:, mask[c].flatten()]
        mean = x.mean(0) if len(x) > 3 else x.mean().expand(x.shape[1])
        scale = (x - mean).square().mean().sqrt().clamp(min=1e-12)
        each.append(Affine(shift=-mean.clone(), scale=1 / scale))
    return PerChannel(each, mask)


def _prior(spec: grids.GridSpec, anomalies: Batch, mask: torch.Tensor | None):
    if mask is not None:
        return priors.Masked(mask).fit(anomalies)
    spectrum = spectra.PerMode() if len(anomalies) >= 8 else spectra.Isotropic()
    return priors.SpectralGaussian(spec.event, spec.periodic, spectrum).fit(anomalies)
