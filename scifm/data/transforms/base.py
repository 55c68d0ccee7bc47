"""What every transform can do, and what it refuses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from scifm.batch import Batch

__all__ = ["Identity", "Transform", "days", "enough", "finite", "inside", "varies"]


class Transform(nn.Module, ABC):
    """Invertible map x -> y with a known log-determinant. x (rows, *event), dense or ragged."""

    @abstractmethod
    def forward(self, batch: Batch) -> Batch:
        """User's units -> model units."""

    @abstractmethod
    def inverse(self, batch: Batch) -> Batch:
        """Model units -> user's units."""

    @abstractmethod
    def log_det(self, batch: Batch) -> Tensor:
        """log |det ∂y/∂x| of each sample of a batch in the user's units, (B,)."""

    def fit(self, batch: Batch) -> Transform:
        """Set the parameters from training data in the user's units; returns self."""
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # A transform that has not seen data yet takes over the shapes of the saved parameters.
        for name, buffer in list(self.named_buffers(recurse=False)):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != buffer.shape:
                setattr(self, name, buffer.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Identity(Transform):
    """Nothing: model units are the user's."""

    def forward(self, batch: Batch) -> Batch:
        return batch

    def inverse(self, batch: Batch) -> Batch:
        return batch

    def log_det(self, batch: Batch) -> Tensor:
        return batch.x.new_zeros(len(batch))


def days(batch: Batch, who: str) -> Tensor:
    """context["time"], days since 1970-01-01, (B,) float64; ValueError where there is none."""
    if "time" not in batch.context:
        raise ValueError(
            f'{who}: needs context["time"], days since 1970-01-01 (B,); the batch has '
            f"{sorted(batch.context) or 'no context'}."
        )
    return batch.context["time"].double()


def finite(batch: Batch, who: str) -> Tensor:
    """The values of a batch; ValueError for integers, NaN and infinity."""
    x = batch.x
    if not x.is_floating_point():
        raise ValueError(f"{who}: expected floating-point values, got {x.dtype}; convert them with batch.x.float().")
    if not x.isfinite().all():
        bad = batch.total((~x.isfinite()).double()) > 0
        raise ValueError(
            f"{who}: {int(bad.sum())} of {len(batch)} samples hold NaN or infinity, the first is "
            f"{int(bad.nonzero()[0])}; fill or drop them."
        )
    return x


def enough(batch: Batch, who: str) -> Tensor:
    """The values to fit to; ValueError for fewer than two samples, and as in `finite`."""
    if len(batch) < 2:
        raise ValueError(f"{who}.fit: expected at least 2 samples, got {len(batch)}.")
    return finite(batch, f"{who}.fit")


def inside(mask: Tensor, batch: Batch, who: str) -> Tensor:
    """A mask that broadcasts to the event of a dense batch, True where values count; ValueError for another."""
    event = batch.grid(f"{who}(mask=...)")
    spare = len(event) - mask.ndim
    if (
        mask.dtype != torch.bool
        or spare < 0
        or any(m not in (1, n) for m, n in zip(mask.shape, event[spare:], strict=True))
    ):
        raise ValueError(
            f"{who}: mask must be bool and broadcast to samples of shape {event}, True where values count, got "
            f"{mask.dtype} {tuple(mask.shape)}."
        )
    if not mask.any():
        raise ValueError(f"{who}: the mask is False everywhere, so that no value is left; True is where values count.")
    return mask.to(batch.x.device)


def varies(std: Tensor, size: Tensor, who: str, cure: str = "") -> None:
    """Refuse a spread that is nothing but the rounding of values of that size."""
    flat = ~(std > 1e-10 * size.abs())
    if flat.any():
        where = f" (the first at {tuple(flat.nonzero()[0].tolist())})" if std.numel() > 1 else ""
        raise ValueError(
            f"{who}.fit: {int(flat.sum())} of {std.numel()} scales are zero{where}: the data do not vary there. "
            f'Drop those values, or take one scale for all (per="global").{cure}'
        )
