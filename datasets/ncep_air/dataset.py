"""Near-surface air temperature over North America, 2013-14, split in time; see README.md beside this file."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data import fetch, grids
from scifm.data.source import Data
from scifm.data.transforms import Climatology

FILE = "air_temperature.nc"
URL = f"https://raw.githubusercontent.com/pydata/xarray-data/2baf0c22d9671a2058415f17e71b3fe06239a3dd/{FILE}"
FILE_SHA256 = "c606b89c35970a2983b914b76df4adbb409003ef34aa7cfd7f582e41f307482b"  # at URL; other packings differ
SHAPE = (2920, 25, 53)
# of the values in whole hundredths of a kelvin, little-endian int32: the same for every packing and file format
VALUES_SHA256 = "347cdd430e39b2578424821a91aa269c41cffb81a7b55563b887b2a2cdd4446f"

BLOCK, TRAIN, GAP = 40, 30, 3  # days; the rest of a block, 7 days, is for testing
VALID, VALID_EVERY = 5, 4  # the last days of the training part in every fourth block, so that all seasons occur


def ncep_air(path: Path | None = None, *, gap_after: int = 3) -> Data:
    """Air temperature in kelvin, x (B, 1, 25, 53) float32, with context["time"] in days since 1970-01-01.

    Args:
        path: of the file; by default it is looked for (`scifm.data.fetch`) and downloaded on first use.
        gap_after: days left out between each test week and the training days that follow it.

    Raises:
        FileNotFoundError: where the file is nowhere and cannot be downloaded.
        ValueError: where it does not hold what it should, or for a gap that leaves too little to train on.
    """
    longest = TRAIN - VALID - GAP - 1
    if not 0 <= gap_after <= longest:
        raise ValueError(f"ncep_air: expected gap_after of 0 to {longest} days, got {gap_after}.")
    if path is None:
        path = fetch.find("ncep_air_temperature", FILE, url=URL, sha256=FILE_SHA256)
    batch, spec = read(Path(path))
    rows = split(batch.context["time"], gap_after)
    parts = {name: batch.select(chosen) for name, chosen in rows.items()}
    summary = (
        f"ncep_air: {spec.describe()}. {len(rows['train'])} training, {len(rows['valid'])} validation and "
        f"{len(rows['test'])} test maps in blocks of {BLOCK} days with gaps"
    )
    return Data(
        "ncep_air",
        parts["train"],
        parts["valid"],
        parts["test"],
        unit="K",
        delta=spec.delta,
        files=(Path(path),),
        export=partial(grids.to_xarray, spec=spec),
        spec=spec,
        read=partial(grids.read_alike, spec=spec, dtype=batch.x.dtype),
        summary=summary,
    )


def climatology(data: Data, harmonics: int = 3, per: str = "point") -> Climatology:
    """Annual harmonics and hour of day, fitted on the training maps only."""
    return Climatology(harmonics=harmonics, per=per).fit(data.train)


def read(path: Path) -> tuple[Batch, grids.GridSpec]:
    """The file's 2920 maps; ValueError where variable, unit, shape or values are not the expected ones."""
    batch, spec = grids.from_xarray(path, variable="air", sample_dim="time", dtype=torch.float64)
    if spec.unit not in ("K", "degK", "kelvin"):
        raise ValueError(f"ncep_air: expected kelvin, but {path.name} is in {spec.unit or 'no unit'!r}.")
    found, axes = (len(batch), *spec.event[1:]), (*spec.samples, *spec.grid)
    if found != SHAPE or spec.event[0] != 1 or "time" not in batch.context:
        raise ValueError(f"ncep_air: expected {SHAPE} values (time, lat, lon), {path.name} has {axes} {found}.")
    if spec.delta is None:
        raise ValueError(f"ncep_air: {path.name} has lost its packing (scale_factor), so its steps are unknown.")
    hundredths = np.rint(batch.x.numpy() * 100).astype("<i4")
    if hashlib.sha256(hundredths.tobytes()).hexdigest() != VALUES_SHA256:
        raise ValueError(f"ncep_air: {path.name} holds other values than the published ones; fetch it again.")
    return batch.replace(batch.x.float()), spec


def split(time: torch.Tensor, gap_after: int = 3) -> dict[str, torch.Tensor]:
    """Row numbers of train, valid and test from times (B,) in days.

    A block of 40 days is 30 days of training, a gap of 3, and 7 days of test, followed by another gap at the cost of
    the next block.  In every fourth block the last 5 training days serve for validation, with 3 days before them left
    out.  Maps are 6 hours apart and alike for days: a random split, or one without gaps, would score memory.
    """
    day = (time - time[0].floor()).floor().long()
    block, within = day.div(BLOCK, rounding_mode="floor"), day % BLOCK
    usable = (within < TRAIN) & ((within >= gap_after) | (block == 0))
    held = block % VALID_EVERY == 1
    rows = {
        "train": usable & ~(held & (within >= TRAIN - VALID - GAP)),
        "valid": usable & held & (within >= TRAIN - VALID),
        "test": within >= TRAIN + GAP,
    }
    return {name: chosen.nonzero()[:, 0] for name, chosen in rows.items()}
