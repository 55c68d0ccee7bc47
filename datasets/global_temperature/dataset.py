"""Internal variability of annual temperature on the globe, an ensemble of one model; see README.md beside this file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from scifm.batch import Batch
from scifm.data import fetch, grids
from scifm.data.source import Data

FOLDER = "csm_trefht_t42_global"
URL = "https://raw.githubusercontent.com/NCAR/geocat-datafiles/c06ec3ec6d1c38711c6d4ac6c327c680a0a8aced/netcdf_files"
SHAPE = (110, 1, 64, 128)
FILES = {  # of a file at URL
    "TREFHT.B06.57.atm.1890-1999ANN.nc": "47d0377633703d8a98183ac24a6cdf87335f862dcc67bd5d05a61c02e4238d21",
    "TREFHT.B06.59.atm.1890-1999ANN.nc": "be94d956dc5ac072170e3c4284de9e89e1944476a75ca1a084ec739839f81aaf",
    "TREFHT.B06.60.atm.1890-1999ANN.nc": "f02a4eead00b7bd7ca571dd304794c0b07ef340aec97e797d030a7103bbf98bc",
    "TREFHT.B06.61.atm.1890-1999ANN.nc": "f79910ebc35c854ae32ba457ddf6876755f1b609922170d9de1421bff9403087",
    "TREFHT.B06.66.atm.1890-1999ANN.nc": "824396298d2e22a7d7d37642dd46cfa86109702f9ba71e26bf4eae0c1726c98e",
    "TREFHT.B06.67.atm.1890-1999ANN.nc": "2ef094fae97bb795ec9ce57f9e3137b41a103c6b7cfe2f4ea4b4270d02c18eeb",
    "TREFHT.B06.68.atm.1890-1999ANN.nc": "284f2893e4943bc22df8ba1c2e69e84a2d6e7e0f6535856dfe1e84b4c659f398",
    "TREFHT.B06.69.atm.1890-1999ANN.nc": "61ccad988f604a0c7934b27187067ba024c95fca6fda3ba52327dcea61f263a8",
}
VALUES = {  # of the decoded values, little-endian float32, the same for every packing
    "TREFHT.B06.57.atm.1890-1999ANN.nc": "89f9c5bd8f2b3c702578ed1951334c02c7068200a29ac73a57d898181dbf9810",
    "TREFHT.B06.59.atm.1890-1999ANN.nc": "9ef3ac1c37d251a9341bf9b5e0f6f21b665171f2513476ee16dedec50176a962",
    "TREFHT.B06.60.atm.1890-1999ANN.nc": "a7284386f40b74ad7dc751674d17b975a07f84805fa272c95d4e110328fb2e78",
    "TREFHT.B06.61.atm.1890-1999ANN.nc": "d7716143028b6ae8054a3108513c6e1d0dbc56b03071401cb667cd86b2fa5259",
    "TREFHT.B06.66.atm.1890-1999ANN.nc": "d40d160643fd53018b3df8fb269a4a3127ab775d1ec731426ad9d640b9dc2966",
    "TREFHT.B06.67.atm.1890-1999ANN.nc": "c46c1fd7ca4278cf2e7a319a082ba00acad9546c4ffe8dc3656f206797dd1c56",
    "TREFHT.B06.68.atm.1890-1999ANN.nc": "137b24b214e93031ded59be3b533d5ad763505762ba7dc07c3d9fe7e08914ff2",
    "TREFHT.B06.69.atm.1890-1999ANN.nc": "d7c574e5a2a57b7014fe50267e8c6b4cba5e20ada4ca44978eec4b6570237f9f",
}
TRAIN = 6  # members; the seventh is for validation, the eighth for testing


def global_temperature() -> Data:
    """Deviations from the mean of the training members, x (B, 1, 64, 128) float32 in kelvin, context["time"] in days.

    Raises:
        FileNotFoundError: where a file is nowhere and cannot be downloaded.
        ValueError: where one does not hold what it should.
    """
    paths = [fetch.find(FOLDER, name, url=f"{URL}/{name}", sha256=sha256) for name, sha256 in FILES.items()]
    members, spec = read(paths)
    x = deviations(members.x.unflatten(0, (len(paths), -1)))
    time = members.context["time"][: SHAPE[0]]
    parts = [part.flatten(0, 1) for part in (x[:TRAIN], x[TRAIN:-1], x[-1:])]
    train, valid, test = (Batch(part, context={"time": time.repeat(len(part) // len(time))}) for part in parts)
    told = "Reference height temperature less the mean of six members of that year"
    (variable,) = spec.variables
    spec = replace(spec, variables=(replace(variable, attrs={**variable.attrs, "long_name": told}),))
    return Data(
        "global_temperature",
        train,
        valid,
        test,
        unit="K",
        files=tuple(paths),
        export=partial(grids.to_xarray, spec=spec),
        spec=spec,
        summary=f"global_temperature: deviations of {len(paths)} members from the mean of {TRAIN}, in K. "
        f"{spec.describe()}. {len(train)} training, {len(valid)} validation and {len(test)} test fields by member",
    )


def read(paths: Sequence[Path]) -> tuple[Batch, grids.GridSpec]:
    """Temperature of the members, one after the other, with the times of the first, and the grid of the first."""
    found: list[Batch] = []
    specs = []
    for path in paths:
        batch, spec = grids.from_xarray(path, variable="TREFHT", sample_dim="time")
        if batch.x.shape != SHAPE:
            raise ValueError(f"global_temperature: expected {SHAPE} values, {path.name} has {tuple(batch.x.shape)}.")
        if hashlib.sha256(batch.x.numpy().astype("<f4").tobytes()).hexdigest() != VALUES.get(path.name):
            raise ValueError(f"global_temperature: {path.name} holds other values than the published ones.")
        found.append(batch)
        specs.append(spec)
    time = found[0].context["time"]
    return Batch(torch.cat([b.x for b in found]), context={"time": time.repeat(len(found))}), specs[0]


def deviations(x: torch.Tensor, train: int = TRAIN) -> torch.Tensor:
    """Members (M, years, ...) less the mean of the first ones, scaled so that all have the variance of a member.

    A member that is in a mean of n deviates from it by √(1 − 1/n) of its spread, another one by √(1 + 1/n).
    """
    y = x.double() - x[:train].double().mean(0)
    scale = torch.full((len(x),), math.sqrt(train / (train + 1)), dtype=torch.float64)
    scale[:train] = math.sqrt(train / (train - 1))
    return (y * scale.reshape(-1, *[1] * (x.ndim - 1))).float()
