"""Values on the lattices of packed files, made continuous where channels have lattices of different widths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["continuous"]


def continuous(x: Tensor, deltas: Sequence[float | None], mask: np.ndarray | None = None, seed: int = 0) -> Tensor:
    """Values (B, C, *grid) with noise of a step of their channel's lattice, inside the mask (C, *grid)."""
    width = torch.tensor([d or 0.0 for d in deltas], dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 2))
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype) - 0.5
    return x + width * noise * (1 if mask is None else torch.from_numpy(mask))
