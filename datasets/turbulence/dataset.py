"""Decaying two-dimensional turbulence, made on first use; see README.md beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data import fetch
from scifm.data.source import Data
from scifm.data.vorticity import Fluid, eddies, evolve

VERSION = 1  # of what is made: with another one the same seed gives other fields
POINTS = 64
COUNTS = {"train": 640, "valid": 64, "test": 128}
FLUID = Fluid(viscosity=5e-4)
TIME, STEP = 20.0, 0.1  # in turnover times of the first eddies, whose vorticity has mean square 1
NOISE = 0.01  # of the observation: without it the modes that the solver drops would have no variance, nor any density
CHUNK = 64  # fields that evolve together


def turbulence(seed: int = 0) -> Data:
    """Vorticity on a periodic square of side 2π, seen with white noise of 0.01, x (B, 1, 64, 64) float32.

    About a minute of computing on first use; then it is read from the user's cache.

    Args:
        seed: of the flows' beginnings; every field is a flow of its own.

    Raises:
        ValueError: where a file of the cache holds something else.

    Warns:
        UserWarning: where what was made cannot be kept.
    """
    names = {split: f"made-v{VERSION}-seed{seed}-{split}.npy" for split in COUNTS}
    try:
        paths = [fetch.find("turbulence", name) for name in names.values()]
    except FileNotFoundError:
        x = make(seed)
        paths = fetch.keep("turbulence", {names[split]: value.numpy() for split, value in x.items()})
    if paths:
        x = {split: read(path, COUNTS[split]) for split, path in zip(COUNTS, paths, strict=True)}
    batches = [Batch(x[split][:, None]) for split in COUNTS]
    counts = ", ".join(f"{count} {split}" for split, count in COUNTS.items())
    return Data(
        "turbulence",
        *batches,
        files=tuple(paths),
        export=to_xarray,
        summary=f"turbulence: vorticity on {POINTS} x {POINTS} points of a periodic square, viscosity "
        f"{FLUID.viscosity:g}, after {TIME:g} turnover times of its first eddies; {counts}",
    )


def make(seed: int = 0) -> dict[str, torch.Tensor]:
    """Splits (B, 64, 64) float32."""
    from tqdm import tqdm

    generator = torch.Generator().manual_seed(seed)
    start = eddies(sum(COUNTS.values()), POINTS, generator, dtype=torch.float32)
    parts = start.split(CHUNK)
    # disable=None: the bar is drawn on a terminal only
    with tqdm(total=len(parts) * round(TIME / STEP), unit="step", desc="turbulence", disable=None) as bar:
        done = torch.cat([evolve(part, TIME, STEP, FLUID, bar.update) for part in parts])
    done = done + NOISE * torch.randn(done.shape, generator=generator)
    return dict(zip(COUNTS, done.split(list(COUNTS.values())), strict=True))


def read(path: Path, count: int) -> torch.Tensor:
    """Fields of a file; ValueError where it does not hold as many."""
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"turbulence: {path} cannot be read ({error}); delete it to have it made again.") from error
    if values.shape != (count, POINTS, POINTS) or values.dtype != np.float32:
        raise ValueError(
            f"turbulence: {path} holds {values.dtype} {values.shape}, expected float32 {(count, POINTS, POINTS)}; "
            "delete it to have it made again."
        )
    return torch.from_numpy(values)


def to_xarray(batch: Batch) -> Any:
    """Vorticity as an `xr.Dataset` with dims (realization, y, x)."""
    import xarray as xr

    n = batch.event[-1]
    place = np.arange(n) * 2 * np.pi / n
    attrs = {"units": "1", "long_name": "vorticity"}
    values = {"vorticity": (("realization", "y", "x"), batch.x[:, 0].detach().cpu().numpy(), attrs)}
    coords = {"realization": np.arange(len(batch)), "y": place, "x": place}
    return xr.Dataset(values, coords, {"Conventions": "CF-1.11"})
