"""White noise on part of a grid: the sea without the land, the inside of a body, the channels that exist.

    log p(x) = Σ_{i in mask} [ −½ (x_i/s_i)² − log s_i − ½ log 2π ],     x_i = 0 elsewhere

The density lives on the values inside the mask; a density on all of them, with any variance elsewhere, would
depend on that arbitrary variance, and bits per dimension on how much land the box holds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.subspace import inside

__all__ = ["Masked"]


class Masked(Prior):
    """Independent normal values of mean zero inside a fixed mask, zeros outside. Dense batches only.

    Args:
        mask: bool (*event), True where values flow.
        std: number, or tensor that broadcasts to the event; positive inside the mask.
        per: what `fit` tells apart: "all" or "value".
    """

    gaussian = True

    def __init__(self, mask: Tensor, std: float | Tensor = 1.0, per: str = "all"):
        super().__init__()
        if per not in ("all", "value"):
            raise ValueError(f'Masked: per must be "all" or "value", got {per!r}.')
        if mask.dtype != torch.bool or not mask.any():
            raise ValueError(
                f"Masked: mask must be bool with at least one True (True where values flow), got {mask.dtype} with "
                f"{int(mask.count_nonzero())} of {mask.numel()}."
            )
        self.per = per
        self.mask: Tensor
        self.std: Tensor
        self.register_buffer("mask", mask.clone())
        self.register_buffer("std", torch.empty(mask.shape, dtype=torch.float64))
        self._set(torch.as_tensor(std, dtype=torch.float64).to(mask.device).expand(mask.shape))

    def _set(self, std: Tensor) -> None:
        std = torch.where(self.mask, std, 1.0)  # what is outside plays no part, and log 1 = 0
        if not (std.isfinite().all() and (std > 0).all()):
            raise ValueError("Masked: std must be positive and finite inside the mask; do some values never vary?")
        self.std = std.to(self.std)

    def fit(self, batch: Batch) -> Masked:
        """Root mean square inside the mask, over all values or per value."""
        x = self.project(batch.x.double(), batch)
        if not len(x) or not x.isfinite().all():
            raise ValueError("Masked.fit: expected finite data inside the mask, got none or NaN.")
        square = x.square().mean(0)
        self._set((square if self.per == "value" else square.sum() / self.mask.sum()).sqrt().expand(self.mask.shape))
        return self

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        z = self.whiten(x, like)
        constant = (self.std.log().sum() + 0.5 * math.log(2 * math.pi) * int(self.mask.sum())).to(x)
        return -0.5 * like.total(z.square()) - constant

    def score(self, x: Tensor, like: Batch) -> Tensor:
        return -self.project(x, like) / self.std.square().to(x)

    def dims(self, like: Batch) -> Tensor:
        return torch.full_like(like.dims, float(self.mask.sum()))

    def project(self, x: Tensor, like: Batch) -> Tensor:
        """Zeros outside the mask, whatever was there, NaN too."""
        if like.grid("Masked") != self.mask.shape or x.shape[1:] != self.mask.shape:
            raise ValueError(f"Masked: made for samples of shape {tuple(self.mask.shape)}, got {tuple(x.shape[1:])}.")
        return torch.where(self.mask, x, 0.0)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        projected = self.project(x, like)
        return inside("Masked", "values outside the mask must be zero", x, projected, like) / self.std.to(x)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        return self.project(z, like) * self.std.to(z)
