"""A linear trend in time, taken off and put back.

    y = x − b (t − t̄),     b = Σ (t − t̄) x / Σ (t − t̄)²,     log |det ∂y/∂x| = 0

b is the least-squares slope of the training data and t̄ their mean time, so their mean stays: what is left are the data
as if all were of the time t̄.  A flow that has seen 1950 to 1990 then makes samples of 2020 by their time alone, as far
as a straight line can be trusted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.transforms.base import Transform, days, enough, finite

__all__ = ["Detrend"]


class Detrend(Transform):
    """x less the linear trend of the training data. Dense batches with `context["time"]`, days, (B,) float64.

    Args:
        per: slope of each "point", or of the mean over all values of an event, "global".

    Attributes:
        slope: (*event) or (), in the user's units per day; times 3652.425 per decade.
        middle: (), mean time of the training data in days.

    Raises:
        ValueError: for data without times, or all of one time; used before `fit`, or on another shape.

    Example:
        >>> batch = Batch(torch.tensor([[1.0], [2.0], [3.0]]), context={"time": torch.tensor([0.0, 1.0, 2.0])})
        >>> Detrend().fit(batch)(batch).x.flatten()
        tensor([2., 2., 2.])
    """

    def __init__(self, per: str = "point"):
        super().__init__()
        if per not in ("point", "global"):
            raise ValueError(f'Detrend: per must be "point" or "global", got {per!r}.')
        self.per = per
        self.slope: Tensor
        self.middle: Tensor
        self.register_buffer("slope", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("middle", torch.tensor(torch.nan, dtype=torch.float64))

    def fit(self, batch: Batch) -> Detrend:
        batch.grid("Detrend")
        x, time = enough(batch, "Detrend").double(), days(batch, "Detrend")
        middle = time.mean()
        t = time - middle
        if not t.abs().max() > 0:
            raise ValueError(f"Detrend.fit: all {len(batch)} samples are of the same time, which gives no trend.")
        slope = torch.einsum("b,b...->...", t, x) / t.square().sum()
        self.slope, self.middle = (slope if self.per == "point" else slope.mean()), middle
        return self

    def trend(self, batch: Batch) -> Tensor:
        """b (t − t̄) of each sample, in the user's units, (B, *event) or (B, 1, ...)."""
        if self.middle.isnan():
            raise ValueError("Detrend: used before fit; call .fit(training data) first.")
        if batch.grid("Detrend") != self.slope.shape and self.per == "point":
            raise ValueError(f"Detrend: fitted on samples of shape {tuple(self.slope.shape)}, got {batch.event}.")
        t = (days(batch, "Detrend") - self.middle).reshape(-1, *[1] * len(batch.event))
        return (self.slope * t).to(batch.x)

    def forward(self, batch: Batch) -> Batch:
        return batch.replace(finite(batch, "Detrend") - self.trend(batch))

    def inverse(self, batch: Batch) -> Batch:
        return batch.replace(batch.x + self.trend(batch))

    def log_det(self, batch: Batch) -> Tensor:
        self.trend(batch)  # the same refusals as forward
        return batch.x.new_zeros(len(batch))
