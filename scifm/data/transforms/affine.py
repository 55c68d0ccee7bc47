"""A given shift and scale."""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.transforms.base import Transform, finite

__all__ = ["Affine"]


class Affine(Transform):
    """y = (x + shift) · scale, with given numbers or tensors that broadcast to the event.

    Example:
        >>> Affine(shift=-2.0, scale=0.5)(Batch(torch.tensor([[4.0]]))).x
        tensor([[1.]])
    """

    def __init__(self, shift: float | Tensor = 0.0, scale: float | Tensor = 1.0):
        super().__init__()
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.as_tensor(shift, dtype=torch.float64))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float64))
        finite = self.shift.isfinite().all() and self.scale.isfinite().all()
        if not finite or (self.scale == 0).any():
            raise ValueError(f"Affine: shift must be finite and scale finite and not zero, got {shift} and {scale}.")

    def forward(self, batch: Batch) -> Batch:
        self._fits(batch)
        return batch.replace((finite(batch, "Affine") + self.shift.to(batch.x)) * self.scale.to(batch.x))

    def inverse(self, batch: Batch) -> Batch:
        self._fits(batch)
        return batch.replace(batch.x / self.scale.to(batch.x) - self.shift.to(batch.x))

    def log_det(self, batch: Batch) -> Tensor:
        self._fits(batch)
        return batch.total(self.scale.abs().log().to(batch.x).expand_as(batch.x))

    def _fits(self, batch: Batch) -> None:
        for name, value in (("shift", self.shift), ("scale", self.scale)):
            wanted = batch.event[len(batch.event) - value.ndim :]
            if value.ndim > len(batch.event) or any(v not in (1, w) for v, w in zip(value.shape, wanted, strict=True)):
                raise ValueError(
                    f"Affine: {name} of shape {tuple(value.shape)} does not fit rows of shape {batch.event}; "
                    "a number per channel of a grid has shape (C, 1, 1)."
                )
