"""A run of a grid without its file: data that stand in for those that are gone, so that samples can be drawn.

What sampling needs of the data is their form: channels, grid, mask, calendar, how many samples there are and when.
That is all in the `GridSpec` that a run keeps.  The recipe is run on made-up values in that form; everything that it
fits to them is then replaced by the weights of the checkpoint.  Whether really everything was, `scifm.proof` says.

    1, 2, ... steps of the lattice, or between 1 and 2      positive, so that logarithms can be fitted
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.grids.blocks import blocks
from scifm.data.grids.spec import GridSpec
from scifm.data.grids.writing import to_xarray
from scifm.data.source import Data
from scifm.data.splits import SPLITS
from scifm.data.stored import Stored

__all__ = ["Standing", "stand_in", "standing"]


@dataclass
class Standing:
    """What is known of a file that may be gone.

    Attributes:
        spec, dtype: of the data.
        used: whether they had to stand in.
    """

    spec: GridSpec
    dtype: torch.dtype
    used: bool = False


standing: ContextVar[Standing | None] = ContextVar("standing", default=None)
"""Set while a run is restored whose data may be gone."""


def stand_in(file: Any, stored: tuple[int, int] | None = None) -> tuple[Data, GridSpec] | None:
    """Made-up data in the form of those of a file, where it is gone and something may stand in for it; else None.

    Args:
        file: that was to be read.
        stored: how many samples of validation and test are held, and how much memory there is, for data that stay in
            their file; None for data in memory.
    """
    known = standing.get()
    if known is None or not isinstance(file, str | Path) or Path(file).exists():
        return None
    known.used, spec = True, known.spec
    count = int(np.prod([spec.sizes[d] for d in spec.samples])) if spec.rows is None else len(spec.rows)
    days = None if spec.days is None else torch.from_numpy(spec.days.copy())
    rows, _ = blocks(spec)
    read = partial(_made_up, spec, known.dtype, days)
    train: Batch | Stored
    if stored is None:
        train, valid, test = (read(0, count).select(rows[split]) for split in SPLITS)
    else:
        held, memory = stored
        train, *rest = (Stored(read, count, 1, rows[split], memory) for split in SPLITS)
        valid, test = (part.some(held) for part in rest)
    name = Path(file)
    return Data(
        name.stem,
        train,
        valid,
        test,
        unit=spec.unit,
        delta=spec.delta,
        export=partial(to_xarray, spec=spec),
        spec=spec,
        summary=f"{name.name} is gone; from what is kept: {spec.describe()}",
    ), spec


def _made_up(spec: GridSpec, dtype: torch.dtype, days: Tensor | None, first: int, last: int) -> Batch:
    g = torch.Generator().manual_seed(first)
    x = torch.rand(last - first, *spec.event, generator=g, dtype=dtype) + 1
    widths = torch.tensor([d or 0.0 for d in spec.deltas], dtype=dtype).reshape(-1, *[1] * len(spec.grid))
    x = torch.where(widths > 0, (200 * (x - 1)).ceil() * widths, x)
    if spec.mask is not None:
        x = x * torch.from_numpy(spec.mask)
    return Batch(x, context={} if days is None else {"time": days[first:last]})
