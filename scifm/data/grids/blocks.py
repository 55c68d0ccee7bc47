"""Which samples of a file are for training, validation and test: blocks along time, with gaps where there are enough.

dates                       gaps in days, see `scifm.data.splits.block_split`
times that are no dates     months, counts, lead times: a gap of one, where there are thirty of them or more
no time                     members, cases: blocks without gaps
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scifm.data.grids.spec import GridSpec
from scifm.data.splits import block_split

__all__ = ["blocks"]

ENOUGH = 30  # times without dates, of which some can be spared


def blocks(spec: GridSpec) -> tuple[dict[str, Tensor], str]:
    """Sample numbers of each split, and "with gaps" or "without gaps".

    Raises:
        ValueError: see `block_split`.
    """
    every = [spec.sizes[d] for d in spec.samples]
    rows = np.arange(int(np.prod(every))) if spec.rows is None else spec.rows
    time = spec.roles.get("time", "")
    along = spec.coords[time].dims if time in spec.coords else (time,)
    axes = [a for a, d in enumerate(spec.samples) if d in along]
    if spec.days is not None:
        found = block_split(torch.from_numpy(spec.days))
    elif np.prod([every[a] for a in axes]) >= ENOUGH and axes:
        # members of one time stay together
        at = np.ravel_multi_index([np.unravel_index(rows, every)[a] for a in axes], [every[a] for a in axes])
        found = block_split(torch.from_numpy(np.asarray(at, dtype=np.float64)), gap=1.0)
    else:
        found = block_split(len(rows))
    return found, "with gaps" if sum(map(len, found.values())) < len(rows) else "without gaps"
