"""Prior and data paired at random: the coupling of plain flow matching (Lipman et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["independent"]


def independent(x0: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
    """x0 as it was drawn, shaped like `batch.x`."""
    return x0
