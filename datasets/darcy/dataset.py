"""Darcy flow: pressure in a porous medium of two permeabilities; see README.md beside this file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data import fetch
from scifm.data.source import Data

FOLDER = "pde_neuralop_small"
# of the values of x (bytes 0 and 1), then y (little-endian float32)
SHA256 = {
    "darcy_train_16.npz": "ebd50ab1b7195f32e63daa688893d1964b5edd66d2e73eb77fb4803416143fa4",
    "darcy_test_16.npz": "ed9ef958ac9fd8b608be514c16635de5c96245273ae77de901e699175017e42e",
    "darcy_test_32.npz": "978729f1534e03b39ef955e18aadc967345487bf99c2527076c9af63384affa8",
}
BROKEN = 767  # its pressure falls to -0.43, where none can be negative
VALID = 100  # the last of the published training samples


def darcy() -> Data:
    """Pressure given permeability: x (B, 1, 16, 16) float32, context["permeability"] (B, 1, 16, 16) of zeros and ones.

    Raises:
        FileNotFoundError: where the files are not on this machine.
        ValueError: where they hold something else.
    """
    files = tuple(fetch.find(FOLDER, name) for name in ("darcy_train_16.npz", "darcy_test_16.npz"))
    rest, test = (read(path) for path in files)
    rest = rest.select([k for k in range(len(rest)) if k != BROKEN])
    cut = len(rest) - VALID
    train, valid = rest.select(range(cut)), rest.select(range(cut, len(rest)))
    return Data(
        "darcy",
        train,
        valid,
        test,
        files=files,
        export=to_xarray,
        summary=f"darcy: pressure given permeability on 16 x 16 points of the unit square; {len(train)} training, "
        f"{len(valid)} validation and {len(test)} test samples, one broken sample left out",
    )


def fine() -> Batch:
    """The test samples on 32 x 32 points, of which the 16 x 16 are every second one."""
    return read(fetch.find(FOLDER, "darcy_test_32.npz"))


def read(path: Path) -> Batch:
    """The samples of a file; ValueError where it does not hold the published values."""
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"].astype("<f4")
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise ValueError(
            f"darcy: {path.name} cannot be read as .npz with x and y ({error}); fetch it again."
        ) from error
    if hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest() != SHA256.get(path.name):
        raise ValueError(f"darcy: {path.name} holds other values than the published ones; fetch it again.")
    permeability = torch.from_numpy(x.astype("f4"))[:, None]
    return Batch(torch.from_numpy(y)[:, None], context={"permeability": permeability})


def to_xarray(batch: Batch) -> Any:
    """Pressure as an `xr.Dataset` (realization, y, x) on the unit square, with permeability as a coordinate."""
    import xarray as xr

    n = batch.event[-1]
    dims, place = ("realization", "y", "x"), np.arange(n) / n
    values = {"pressure": (dims, batch.x[:, 0].detach().cpu().numpy(), {"units": "1"})}
    coords: dict[str, Any] = {"realization": np.arange(len(batch)), "y": place, "x": place}
    coords |= {k: (dims, v[:, 0].cpu().numpy(), {"units": "1"}) for k, v in batch.context.items()}
    return xr.Dataset(values, coords, {"Conventions": "CF-1.11"})
