"""The trace itself: every coordinate probed once.

    tr J = Σ_j e_jᵀ J e_j

The j-th probe is one at the j-th coordinate of *every* sample, so the cost follows the largest sample, not the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.trace.base import MODES, Linearisation, Velocity

__all__ = ["Exact"]

MOST, NUMBERS, PAIRS = 64, 2**18, 2**16  # of probes that share a pass; of numbers and of pairs of points in it


@dataclass(frozen=True)
class Exact:
    """All coordinates, `block` of them at once: memory grows with the block.

    Args:
        block: probes that share a vectorised pass; None takes up to 64, fewer where the batch is large or its sets have
            many pairs of points, since passes that leave the processor's cache take twice as long.
        mode: "reverse" (backward passes) or "forward" (tangents pushed through).

    Example:
        >>> batch = Batch(torch.ones(2, 3))
        >>> with torch.no_grad():
        ...     v, divergence = Exact()(lambda t, x, batch: x**2, torch.zeros(2), batch.x, batch, None)
        >>> divergence
        tensor([[6.],
                [6.]])
    """

    block: int | None = None
    mode: str = "reverse"

    def __post_init__(self) -> None:
        if (self.block is not None and self.block < 1) or self.mode not in MODES:
            raise ValueError(f'Exact: block must be at least 1 and mode "reverse" or "forward", got {self}.')

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> Tensor | None:
        return None

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        at = Linearisation(velocity, t, x, batch, self.mode)
        block = _block(x, batch) if self.block is None else self.block
        diagonal = torch.zeros_like(x)
        for slots in batch.slots(block):
            diagonal = diagonal + (at.times(slots) * slots).sum(0)
        return at.v, batch.total(diagonal)[:, None]


def _block(x: Tensor, batch: Batch) -> int:
    """Small batches gain from sharing a pass, large ones only lose memory to it: that of pairs, where points meet."""
    block = min(MOST, NUMBERS // max(1, x.numel()))
    if x.device.type == "cpu":
        dense = batch.size * batch.event[0] ** 2 if len(batch.event) == 2 else 0
        pairs = dense if batch.dense else int(batch.counts.square().sum())
        block = min(block, PAIRS // max(1, pairs))
    return max(1, block)
