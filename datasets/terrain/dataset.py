"""Patches of the elevation grid inside matplotlib's sample data, split by area; see README.md beside this file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from scifm.batch import Batch
from scifm.data.source import Data

ELEVATION_SHA256 = "0c7e9f894eb7c8d444ca4475e64249e060d96c90ab63fdf439a0381c590ed502"
SHAPE = (344, 403)


def terrain(patch: int = 32, stride: int = 4, gap: int = 8) -> Data:
    """Elevation patches in metres, x (B, 1, patch, patch) float32.

    Args:
        patch: side of a patch in grid points.
        stride: between training patches; validation and test patches overlap by half.
        gap: rows between the strips of training, validation and test.

    Raises:
        ValueError: where patches do not fit into the strips.
        FileNotFoundError: where matplotlib's sample data are missing or not the expected ones.
    """
    elevation, path = read()
    height = SHAPE[0]
    rows = {"test": (0, 80), "valid": (80 + gap, 130), "train": (130 + gap, height)}
    largest = min(b - a for a, b in rows.values())
    if not (2 <= patch <= largest and stride >= 1 and gap >= 0):
        raise ValueError(
            f"terrain: expected 2 <= patch <= {largest}, stride >= 1 and gap >= 0, got patch={patch}, "
            f"stride={stride}, gap={gap}; the narrowest strip has {largest} rows beside the gap."
        )
    half = max(1, patch // 2)
    strips = {name: elevation[a:b] for name, (a, b) in rows.items()}
    train = cut_patches(strips["train"], patch, stride)
    valid, test = (cut_patches(strips[name], patch, half) for name in ("valid", "test"))
    apart = (80 // patch) * (SHAPE[1] // patch)
    summary = (
        f"terrain: {len(train)} training, {len(valid)} validation and {len(test)} test patches of {patch} x {patch} "
        f"points, elevation in whole metres, strips {gap} rows apart ({apart} test patches without overlap)"
    )
    return Data(
        "terrain",
        Batch(train),
        Batch(valid),
        Batch(test),
        unit="m",
        delta=1.0,
        files=(path,),
        export=to_xarray,
        summary=summary,
    )


def read() -> tuple[torch.Tensor, Path]:
    """The elevation grid (344, 403) float32 in metres, and the file it comes from."""
    import numpy as np
    from matplotlib import cbook

    path = Path(str(cbook.get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)))
    if not path.is_file():
        raise FileNotFoundError(
            f"terrain: matplotlib's sample data are not installed ({path}); install matplotlib again."
        )
    with np.load(path, allow_pickle=False) as file:
        elevation = file["elevation"].astype("<i2")
    found = hashlib.sha256(elevation.tobytes()).hexdigest()
    if elevation.shape != SHAPE or found != ELEVATION_SHA256:
        raise FileNotFoundError(
            f"terrain: {path} is not the expected grid (sha256 {found[:12]}); install matplotlib again."
        )
    return torch.from_numpy(elevation.astype("f4")), path


def cut_patches(grid: torch.Tensor, patch: int, stride: int) -> torch.Tensor:
    """All patches at multiples of the stride, (n, 1, patch, patch)."""
    return grid.unfold(0, patch, stride).unfold(1, patch, stride).reshape(-1, 1, patch, patch).clone()


def to_xarray(batch: Batch) -> Any:
    """Elevation patches as an `xr.Dataset` with dims (realization, y, x), distances in metres from the corner."""
    import numpy as np
    import xarray as xr

    values = batch.x[:, 0].detach().cpu().numpy()
    step = 1 / 1200 * 111_195  # metres per grid step along a meridian
    along = {"units": "m", "long_name": "distance from the southern edge"}
    across = {"units": "m", "long_name": "distance from the western edge"}
    coords = {
        "realization": np.arange(len(values)),
        "y": ("y", step * np.arange(values.shape[1])[::-1], along),
        "x": ("x", step * np.cos(np.deg2rad(36.59)) * np.arange(values.shape[2]), across),
    }
    attrs = {"units": "m", "standard_name": "surface_altitude", "long_name": "elevation"}
    return xr.Dataset({"elevation": (("realization", "y", "x"), values, attrs)}, coords, {"Conventions": "CF-1.11"})
