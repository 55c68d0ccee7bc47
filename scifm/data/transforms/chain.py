"""Transforms one after the other."""

from __future__ import annotations

from torch import Tensor, nn

from scifm.batch import Batch
from scifm.data.transforms.base import Transform

__all__ = ["Chain"]


class Chain(Transform):
    """One transform after the other; their log-determinants add up."""

    def __init__(self, *transforms: Transform):
        super().__init__()
        for number, transform in enumerate(transforms):
            if not isinstance(transform, Transform):
                raise TypeError(f"Chain: argument {number + 1} must be a Transform, got {type(transform).__name__}.")
        self.transforms = nn.ModuleList(transforms)

    def fit(self, batch: Batch) -> Chain:
        for transform in self._each():
            batch = transform.fit(batch)(batch)
        return self

    def forward(self, batch: Batch) -> Batch:
        for transform in self._each():
            batch = transform(batch)
        return batch

    def inverse(self, batch: Batch) -> Batch:
        for transform in reversed(self._each()):
            batch = transform.inverse(batch)
        return batch

    def log_det(self, batch: Batch) -> Tensor:
        total = batch.x.new_zeros(len(batch))
        for transform in self._each():
            total = total + transform.log_det(batch)
            batch = transform(batch)
        return total

    def _each(self) -> list[Transform]:
        return list(self.transforms)  # type: ignore[arg-type]
