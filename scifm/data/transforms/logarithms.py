"""Logarithms: data that are positive, or that lie between two bounds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.transforms.base import Transform, finite

__all__ = ["Log", "Logit"]


class Log(Transform):
    """y = log x, for positive data."""

    def forward(self, batch: Batch) -> Batch:
        return batch.replace(self._positive(batch).log())

    def inverse(self, batch: Batch) -> Batch:
        return batch.replace(batch.x.exp())

    def log_det(self, batch: Batch) -> Tensor:
        return -batch.total(self._positive(batch).log())

    def _positive(self, batch: Batch) -> Tensor:
        if not (finite(batch, "Log") > 0).all():
            raise ValueError(f"Log: data must be positive, the smallest is {float(batch.x.min()):g}; shift them first.")
        return batch.x


class Logit(Transform):
    """y = log(p / (1 − p)), p = (x − low) / (high − low), for data within bounds."""

    def __init__(self, low: float, high: float):
        super().__init__()
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"Logit: expected finite low < high, got {low} and {high}.")
        self.low, self.high = float(low), float(high)

    def forward(self, batch: Batch) -> Batch:
        return batch.replace(torch.logit(self._share(batch)))

    def inverse(self, batch: Batch) -> Batch:
        return batch.replace(self.low + (self.high - self.low) * torch.sigmoid(batch.x))

    def log_det(self, batch: Batch) -> Tensor:
        p = self._share(batch)
        return -batch.total(p.log() + (-p).log1p() + math.log(self.high - self.low))

    def _share(self, batch: Batch) -> Tensor:
        p = (finite(batch, "Logit") - self.low) / (self.high - self.low)
        if not ((p > 0) & (p < 1)).all():
            raise ValueError(
                f"Logit: data must lie strictly between {self.low:g} and {self.high:g}; they run from "
                f"{float(batch.x.min()):g} to {float(batch.x.max()):g}. Widen the bounds."
            )
        return p
