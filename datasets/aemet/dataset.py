"""Temperature through the year at 73 Spanish weather stations; see README.md beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data import fetch
from scifm.data.source import Data
from scifm.data.splits import by_name
from scifm.data.transforms import Affine

FOLDER, FILE = "ffm_functional_1d", "aemet.csv"
URL = (
    "https://raw.githubusercontent.com/GavinKerrigan/functional_flow_matching/"
    f"def292c11907d7d40ccf5a1639b1b1ac78ebf521/data/{FILE}"
)
SHA256 = "97ed66154154cfd3a6b53f47eba923deed7dfc02fad9568c8973cdc11e811380"
SHAPE = (73, 365)


def aemet(*, held: bool = True) -> Data:
    """Mean daily temperature in degrees Celsius, x (B, 1, 365) float32, from 1 January on; 29 February is left out.

    Args:
        held: split by station, about 7 : 1 : 2. Without, all three splits are all 73 curves, as in the protocol of
            functional flow matching, which compares what is generated with the curves that were trained on.

    Raises:
        FileNotFoundError: where the file is nowhere and cannot be downloaded.
        ValueError: where it does not hold what it should.
    """
    path = fetch.find(FOLDER, FILE, url=URL, sha256=SHA256)
    whole = read(path)
    names = [f"aemet station {k + 1}" for k in range(len(whole))]
    every = torch.arange(len(whole))
    rows = by_name(names, valid=0.1, test=0.2) if held else dict.fromkeys(("train", "valid", "test"), every)
    parts = [whole.select(rows[split]) for split in ("train", "valid", "test")]
    counts = f"{len(parts[0])} training, {len(parts[1])} validation and {len(parts[2])} test" if held else "the same 73"
    return Data(
        "aemet",
        *parts,
        unit="degC",
        files=(path,),
        export=to_xarray,
        summary=f"aemet: temperature of {SHAPE[1]} days, periodic; {counts} curves",
    )


def rescaled(batch: Batch) -> Affine:
    """The protocol's units: the smallest of all values becomes −3 and the largest 3."""
    low, high = float(batch.x.min()), float(batch.x.max())
    return Affine(shift=-(low + high) / 2, scale=6 / (high - low))


def read(path: Path) -> Batch:
    """The 73 curves; ValueError for a file of another content."""
    if fetch.sha256_of(path) != SHA256:
        raise ValueError(f"aemet: {path.name} holds other values than the published ones; fetch it again.")
    with open(path, encoding="ascii") as file:
        lines = [line.rstrip("\n").split(",")[1:] for line in file][1:]  # less the names of rows and columns
    return Batch(torch.from_numpy(np.array(lines, dtype="f4"))[:, None])


def to_xarray(batch: Batch) -> Any:
    """Curves as an `xr.Dataset` with dims (realization, day)."""
    import xarray as xr

    attrs = {"units": "degC", "standard_name": "air_temperature", "long_name": "mean of the day, 1980-2009"}
    values = {"temperature": (("realization", "day"), batch.x[:, 0].detach().cpu().numpy(), attrs)}
    day = ("day", np.arange(1, batch.event[-1] + 1), {"long_name": "day of year"})
    return xr.Dataset(values, {"realization": np.arange(len(batch)), "day": day}, {"Conventions": "CF-1.11"})
