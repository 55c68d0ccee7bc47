"""A network inside a prior: a copy that does not learn, without dropout.

The flow-matching loss would collapse a prior that learns, so the trainer refuses parameters that ask for gradients.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Frozen"]


class Frozen(nn.Module):
    """A copy of a module, its parameters fixed and in evaluation mode for good."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)  # the trainer calls flow.train(); dropout here would make the prior's law random

    def dtype(self, otherwise: torch.dtype) -> torch.dtype:
        """That of the first parameter or buffer in floating point."""
        values: list[Tensor] = [*self.parameters(), *self.buffers()]
        return next((v.dtype for v in values if v.is_floating_point()), otherwise)
