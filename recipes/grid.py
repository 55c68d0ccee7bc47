"""Your own file: a flow of the fields that it holds, with labelled samples and a density.

    scifm train grid --file my.zarr --variable z,t --samples member,time

What was understood is printed first.  The series is cut into blocks of time with gaps; the annual and the daily cycle
are taken out, or the mean map.  The prior is the Gaussian that suits the training data best: a spectrum, a covariance
per zonal wavenumber where longitude closes the circle, rows given the rows before inside a mask (`grids.base`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from scifm import Flow, Objective, Recipe, couplings, networks, times
from scifm.couplings import independent
from scifm.data import grids
from scifm.data.stored import some


def recipe(
    *,
    file: Path = Path("my.nc"),
    variable: tuple[str, ...] = (),
    samples: tuple[str, ...] = (),
    dims: tuple[str, ...] = (),
    missing: Literal["refuse", "drop"] = "refuse",
    stream: bool = False,
    coupling: Literal["independent", "ot"] = "independent",
    amounts: tuple[str, ...] = (),
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
    stream: leave the training samples in the file, which may be larger than memory, and read them chunk by chunk
    coupling: how draws of the prior are paired with data: at random, or by optimal transport in the metric of the prior
    amounts: variables that are never negative, such as rain, of which a power is taken that makes them more normal
    harmonics: annual, in the climatology
    width: channels of the network's finest level
    steps: of the optimiser
    batch_size: maps per step
    test_samples: maps of the test split that are scored
    """
    opened = grids.stream if stream else grids.read
    data, spec = opened(file, variable, samples, dims=grids.roles(dims), missing=missing)
    known = some(data.train)
    anomaly = grids.anomalies(known, spec, harmonics, amounts)
    base = grids.base(spec, anomaly(known))
    for held in (data.valid, data.test):
        anomaly(
            held
        )  # what it cannot take, rain below zero or an hour of day that it never saw, is said before the work
    stem = 2 if min(spec.event[1:]) > 30 else 1
    velocity = networks.UNet(spec.event[0], (width, 2 * width, 3 * width), padding=grids.edges(spec), stem=stem)
    # the network does not look at the time: it serves the climatology only
    pairs = couplings.OptimalTransport(ignore=("time",), prior=base) if coupling == "ot" else independent
    how = {"coupling": pairs, "objective": Objective(times=times.stratified), "transform": anomaly}
    return Recipe(
        Flow(velocity.to(known.x.dtype), base, **how),
        data,
        steps=steps,
        batch_size=min(batch_size, len(data.train)),
        learning_rate=2e-3,
        valid_samples=16,
        test_samples=test_samples,
    )
