"""A file as data for training: split in blocks of time, and what varies around its mean.

    read         variables -> Data with train, valid and test, in the file's units
    anomalies    a fitted transform: annual and daily cycle taken out where there are years enough, else the mean map

The spread of a channel is one number for all its points: dividing each point by its own roughens a field, and costs
likelihood under priors that know its spectrum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.channels import PerChannel
from scifm.data.grids.alike import read_alike
from scifm.data.grids.blocks import blocks
from scifm.data.grids.files import origin
from scifm.data.grids.lattices import continuous
from scifm.data.grids.reading import from_xarray
from scifm.data.grids.spec import GridSpec
from scifm.data.grids.standing import stand_in
from scifm.data.grids.writing import to_xarray
from scifm.data.source import Data
from scifm.data.splits import SPLITS
from scifm.data.transforms import Affine, BoxCox, Chain, Climatology, Transform

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["anomalies", "read"]


def read(
    file: Path | xr.Dataset,
    variable: str | Sequence[str] | None = None,
    samples: str | Sequence[str] | None = None,
    *,
    dims: Mapping[str, str] | None = None,
    missing: Literal["refuse", "drop"] = "refuse",
) -> tuple[Data, GridSpec]:
    """Variables of a file as training, validation and test data in blocks of time with gaps.

    Where channels lie on lattices of different widths, or some on none, the noise that makes their values continuous is
    added here, once and from a fixed seed: a score has one width only.

    Args:
        file, variable, dims, missing: as for `from_xarray`.
        samples: its sample_dim.

    Raises:
        FileNotFoundError, ValueError: see `from_xarray` and `scifm.data.splits.block_split`.
    """
    if (alone := stand_in(file)) is not None:
        return alone
    name, label, files = origin(file)
    batch, spec = from_xarray(file, variable or None, samples or None, dims=dims, missing=missing)
    rows, gaps = blocks(spec)
    noisy = spec.delta is None and any(spec.deltas)
    if spec.delta is None:
        batch = batch.replace(continuous(batch.x, spec.deltas, spec.mask).float())
    parts = {split: batch.select(rows[split]) for split in SPLITS}
    kept = ", ".join(f"{len(part)} {split}" for split, part in parts.items())
    told = "; noise of a step per channel was added, once" if noisy else ""
    return Data(
        name,
        parts["train"],
        parts["valid"],
        parts["test"],
        unit=spec.unit,
        delta=spec.delta,
        files=files,
        spec=spec,
        export=partial(to_xarray, spec=spec),
        read=partial(read_alike, spec=spec, dtype=batch.x.dtype),
        summary=f"{label}: {spec.describe()}. Samples in blocks {gaps}: {kept}{told}",
    ), spec


def anomalies(train: Batch, spec: GridSpec, harmonics: int = 3, amounts: Sequence[str] = ()) -> PerChannel:
    """What brings training data to mean zero and a spread of one, channel by channel, inside the mask.

    The cycle (`Climatology`, in the calendar of the file) wants times that span 1.9 years of training data, nine months
    of the year, and four samples for each number of a point.

    Args:
        train: in the file's units.
        harmonics: of the annual cycle.
        amounts: variables that are never negative, such as rain; a power of them (`BoxCox`) is taken first.

    Raises:
        ValueError: for names that are none, amounts below zero, and channels that do not vary.
    """
    known = [v.name for v in spec.variables]
    if unknown := [name for name in amounts if name not in known]:
        raise ValueError(f"anomalies: no variable {unknown[0]!r}; there are {', '.join(known)}.")
    mask = None if spec.mask is None else torch.from_numpy(spec.mask)
    names = [v.name for v in spec.variables for _ in spec.channels_of(v)]
    powers = [
        _power(name, x, delta) if name in amounts else None
        for name, x, delta in zip(names, train.x.unbind(1), spec.deltas, strict=True)
    ]
    hours = _hours(train, spec, harmonics)
    if hours is not None:
        each = [_after(p, Climatology(harmonics, hours, "global", year=spec.year)) for p in powers]
        return PerChannel(each, mask).fit(train)
    each = []
    for c, power in enumerate(powers):
        x = train.x[:, c].flatten(1)
        x = x if mask is None else x[:, mask[c].flatten()]
        each.append(_after(power, _mean_map(x if power is None else power.fit(Batch(x))(Batch(x)).x)))
    return PerChannel(each, mask)


def _power(name: str, x: Tensor, delta: float | None) -> BoxCox:
    """For amounts; values on a lattice have noise of half a step about them, and a step is added to them."""
    negative = x < -(0.501 * delta if delta is not None else 0.0)
    if negative.any():
        raise ValueError(
            f"anomalies: {name!r} is said to be an amount, but {int(negative.sum())} of its values are negative, the "
            f"smallest is {float(x.min()):g}; set them to zero, or leave it out of the amounts."
        )
    return BoxCox(shift=delta)


def _after(power: BoxCox | None, transform: Transform) -> Transform:
    return transform if power is None else Chain(power, transform)


def _hours(train: Batch, spec: GridSpec, harmonics: int) -> list[float] | None:
    """Hours of day that occur, where there is enough for a climatology; else None."""
    if "time" not in train.context:
        return None
    time = train.context["time"]
    hours = sorted({round(h, 2) % 24 for h in ((time % 1) * 24).tolist()})
    months = len((time % spec.year / spec.year * 12).floor().unique())
    enough = len(train) >= 4 * (1 + 2 * harmonics + 3 * (len(hours) - 1))
    long = float(time.max() - time.min()) >= 1.9 * spec.year
    return hours if enough and long and months >= 9 else None


def _mean_map(x: Tensor) -> Affine:
    """Values of a channel (B, n) minus their mean map, over the root mean square of the rest."""
    x = x.double()
    mean = x.mean(0) if len(x) > 3 else x.mean().expand(x.shape[1])  # of few maps the mean is nearly each of them
    spread = (x - mean).square().mean().sqrt()
    if not spread > 1e-10 * x.abs().max():
        raise ValueError("anomalies: the training data of a channel do not vary; leave that variable or level out.")
    return Affine(shift=-mean.clone(), scale=1 / spread)
