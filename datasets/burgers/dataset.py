"""Burgers' equation in one dimension: waves that steepen and decay; see README.md beside this file."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data import fetch
from scifm.data.source import Data

FOLDER = "pde_neuralop_small"
# of the values of y, little-endian float64; x is y at time 0
SHA256 = {
    "burgers_train_16.npz": "56c5f978809292ad33cc1fa101bee7ab9eb93b7edecea5473011a466ceab263d",
    "burgers_test_16.npz": "8e2053c48c66bf543a9a166dbe73dbb33f94cc8af270744bb47dfe74208bb27c",
}
VISCOSITY = 0.01
VALID = 100  # the last of the published training samples
WHAT = ("initial", "final", "course")


def burgers(what: str = "initial") -> Data:
    """Waves on a ring, u(t, x), float32.

    Args:
        what: "initial" is the wave at t = 0 given that at t = 1, context["final"], which viscosity has smoothed: a
            law with some width. "final" is the other way round, given context["initial"], and "course" all of
            t = 1/16, 2/16, ..., 1, x (B, 1, 16, 16): both are almost determined by what is given.

    Returns:
        x and context (B, 1, 16), but for "course".

    Raises:
        FileNotFoundError: where the files are not on this machine.
        ValueError: where they hold something else, or for another word.
    """
    if what not in WHAT:
        raise ValueError(f"burgers: what must be one of {', '.join(WHAT)}, got {what!r}.")
    files = tuple(fetch.find(FOLDER, name) for name in ("burgers_train_16.npz", "burgers_test_16.npz"))
    rest, test = (arrange(read(path), what) for path in files)
    cut = len(rest) - VALID
    train, valid = rest.select(range(cut)), rest.select(range(cut, len(rest)))
    return Data(
        "burgers",
        train,
        valid,
        test,
        files=files,
        export=partial(to_xarray, what=what),
        summary=f"burgers: {what} wave(s) on 16 points of a ring, viscosity {VISCOSITY}; {len(train)} training, "
        f"{len(valid)} validation and {len(test)} test samples",
    )


def read(path: Path) -> torch.Tensor:
    """u (B, 17, 16) float64 at t = 0, 1/16, ..., 1 and x = 0, 1/16, ..., 15/16; ValueError for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            y = file["y"].astype("<f8")
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise ValueError(f"burgers: {path.name} cannot be read as .npz with y ({error}); fetch it again.") from error
    if hashlib.sha256(y.tobytes()).hexdigest() != SHA256.get(path.name):
        raise ValueError(f"burgers: {path.name} holds other values than the published ones; fetch it again.")
    return torch.from_numpy(y)


def arrange(u: torch.Tensor, what: str) -> Batch:
    """What flows and what is given, from u (B, 17, 16)."""
    u = u.float()[:, None]
    first, last = u[:, :, 0], u[:, :, -1]
    if what == "initial":
        return Batch(first, context={"final": last})
    return Batch(last if what == "final" else u[:, :, 1:], context={"initial": first})


def to_xarray(batch: Batch, what: str = "initial") -> Any:
    """u as an `xr.Dataset` with dims (realization, x), for a course (realization, time, x), and what is given."""
    import xarray as xr

    values, n = batch.x[:, 0].detach().cpu().numpy(), batch.event[-1]
    coords: dict[str, Any] = {"realization": np.arange(len(batch)), "x": np.arange(n) / n}
    dims = ("realization", "x")
    if what == "course":
        dims, coords["time"] = ("realization", "time", "x"), np.arange(1, values.shape[1] + 1) / values.shape[1]
    coords |= {k: (("realization", "x"), v[:, 0].cpu().numpy(), {"units": "1"}) for k, v in batch.context.items()}
    return xr.Dataset({"u": (dims, values, {"units": "1"})}, coords, {"Conventions": "CF-1.11"})
