"""Whom each point of a block meets.

Of n points each meets n − 1 others.  A broadcast over all n and a mask is the least work per pair; a gather without
the diagonal has fewer pairs, a quarter less for four points.  So small sets are gathered and large ones broadcast:
m = n − 1 or m = n partners, and what is written with `of` and `met` need not know.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.blocks import Block

__all__ = ["Partners"]

SMALL = 16  # points up to which pairs are gathered


class Partners:
    """The m partners of each point of a block.

    Attributes:
        met: (b, n, m, 1) one where there are both a point and its partner, and they differ; zero elsewhere. None where
            there is no zero.
    """

    def __init__(self, block: Block, dtype: torch.dtype):
        n, device = block.mask.shape[1], block.mask.device
        self.n, self.m = n, n - 1 if n <= SMALL else n
        if self.m == n:
            self.met = block.pairs[..., None].to(dtype)
            return
        own = torch.arange(n, device=device)[:, None]
        other = (own + torch.arange(1, n, device=device)) % n  # starting with the next one, going round
        self.other, self.pair = other.reshape(-1), (own * n + other).reshape(-1)
        self.met = None
        if not block.full:
            self.met = (block.mask[:, :, None] & self.of(block.mask))[..., None].to(dtype)

    def of(self, values: Tensor) -> Tensor:
        """(b, n, ...) one entry per point -> those of its partners, (b, n, m, ...), or (b, 1, n, ...) to broadcast."""
        if self.m == self.n:
            return values[:, None]
        return values.index_select(1, self.other).reshape(values.shape[0], self.n, self.m, *values.shape[2:])

    def among(self, pairs: Tensor) -> Tensor:
        """(b, n, n, ...) one entry per pair -> (b, n, m, ...)."""
        if self.m == self.n:
            return pairs
        flat = pairs.reshape(pairs.shape[0], self.n * self.n, *pairs.shape[3:])
        return flat.index_select(1, self.pair).reshape(pairs.shape[0], self.n, self.m, *pairs.shape[3:])
