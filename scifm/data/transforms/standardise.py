"""Mean zero and variance one, over the training data.

    y = (x − m) / s,     log |det ∂y/∂x| = −Σ log s

Where a grid has values that never vary, the land of a sea surface, there is nothing to divide by.  With a mask the
statistics are those of the values inside, and those outside pass as they are: y = x, which costs no volume.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.transforms.base import Transform, enough, finite, inside, varies

__all__ = ["Standardise"]


class Standardise(Transform):
    """y = (x − mean) / std with mean and standard deviation of the training data.

    Args:
        per: "global" (one of each), "channel" (first event axis; each coordinate of a ragged row) or "point" (every
            value of a dense event by itself).
        mask: bool, broadcasts to the event of dense batches; False where values pass as they are. They must still be
            finite: put zeros there.

    Raises:
        ValueError: by `fit`, for data that do not vary where they are to be divided by their spread; by all, for values
            that are not finite or rows of another shape than those it was fitted to.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
        >>> Standardise("point", mask=torch.tensor([True, False])).fit(Batch(x))(Batch(x)).x
        tensor([[-1.,  0.],
                [ 1.,  0.]])
    """

    def __init__(self, per: str = "global", mask: Tensor | None = None):
        super().__init__()
        if per not in ("global", "channel", "point"):
            raise ValueError(f'Standardise: per must be "global", "channel" or "point", got {per!r}.')
        self.per = per
        self.mean: Tensor
        self.std: Tensor
        self.mask: Tensor | None
        self.register_buffer("mean", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("mask", None if mask is None else mask.clone())

    def fit(self, batch: Batch) -> Standardise:
        x = enough(batch, "Standardise").double()
        if self.per == "point":
            batch.grid('Standardise(per="point")')
        axes = {"global": tuple(range(x.ndim)), "channel": (0, *range(2, x.ndim)), "point": (0,)}[self.per]
        if self.mask is None:
            mean, std = x.mean(axes, keepdim=True)[0], x.std(axes, correction=0, keepdim=True)[0]
        else:
            within = inside(self.mask, batch, "Standardise")
            count = (within.double().expand_as(x)).sum(axes, keepdim=True)
            mean = torch.where(within, x, 0.0).sum(axes, keepdim=True) / count.clamp(min=1)
            std = (torch.where(within, x - mean, 0.0).square().sum(axes, keepdim=True) / count.clamp(min=1)).sqrt()
            mean, std = mean[0], torch.where(count > 0, std, 1.0)[0]
        varies(std, mean, "Standardise", "" if self.mask is not None else " Where they are land, say so by mask=.")
        self.mean, self.std = (mean.squeeze(), std.squeeze()) if self.per == "global" else (mean, std)
        return self

    def forward(self, batch: Batch) -> Batch:
        finite(batch, "Standardise")
        mean, std = self._fitted(batch)
        return batch.replace((batch.x - mean) / std)

    def inverse(self, batch: Batch) -> Batch:
        mean, std = self._fitted(batch)
        return batch.replace(mean + std * batch.x)

    def log_det(self, batch: Batch) -> Tensor:
        return -batch.total(self._fitted(batch)[1].log().expand_as(batch.x))

    def _fitted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x = batch.x
        if self.mean.ndim == 0 and self.mean.isnan():
            raise ValueError("Standardise: used before fit; call .fit(training data) first.")
        wanted = {"global": (), "point": x.shape[1:], "channel": (*x.shape[1:2], *[1] * (x.ndim - 2))}[self.per]
        if self.mean.shape != wanted:
            raise ValueError(
                f'Standardise(per="{self.per}"): fitted on rows that give shape {tuple(self.mean.shape)}, '
                f"but rows of shape {tuple(x.shape[1:])} need {tuple(wanted)}."
            )
        mean, std = self.mean, self.std
        if self.mask is not None:
            within = inside(self.mask, batch, "Standardise")
            mean, std = torch.where(within, mean, 0.0), torch.where(within, std, 1.0)
        return mean.to(x), std.to(x)
