"""Gaussian with independent values: white noise, or one mean and standard deviation per value.

log p(x) = Σ_i [ -½ ((x_i - m_i)/s_i)² - log s_i - ½ log 2π ]
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior

__all__ = ["Gaussian"]


class Gaussian(Prior):
    """Independent normal values, x = mean + std · ε.

    Args:
        mean: number, or tensor that broadcasts to the event (*event).
        std: the same, positive.
        per: what `fit` tells apart: "all" (one mean and std), "channel" (first event axis) or "value".

    Example:
        >>> like = Batch(torch.zeros(2, 3))
        >>> Gaussian(std=2.0).log_prob(like.x, like)
        tensor([-4.8363, -4.8363])
    """

    gaussian = True

    def __init__(self, mean: float | Tensor = 0.0, std: float | Tensor = 1.0, per: str = "all"):
        super().__init__()
        if per not in ("all", "channel", "value"):
            raise ValueError(f'Gaussian: per must be "all", "channel" or "value", got {per!r}.')
        self.per = per
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float64))
        if not (self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()):
            raise ValueError(f"Gaussian: mean must be finite and std positive, got mean={mean}, std={std}.")
        self._alike()

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        z = self.whiten(x, like)
        log_std = self.std.log().to(x).expand_as(x)
        return -like.total(0.5 * z.square() + log_std) - 0.5 * math.log(2 * math.pi) * like.dims

    def score(self, x: Tensor, like: Batch) -> Tensor:
        return -self.whiten(x, like) / self.std.to(x)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        self._fits(x)
        return (x - self.mean.to(x)) / self.std.to(x)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        self._fits(z)
        return self.mean.to(z) + self.std.to(z) * z

    def _fits(self, x: Tensor) -> None:
        event = x.shape[1:]
        for name, value in (("mean", self.mean), ("std", self.std)):
            last = event[len(event) - value.ndim :] if value.ndim <= len(event) else None
            if last is None or any(v not in (1, e) for v, e in zip(value.shape, last, strict=True)):
                raise ValueError(
                    f"Gaussian: {name} of shape {tuple(value.shape)} does not broadcast to events of shape "
                    f"{tuple(event)}; it is the same for all samples."
                )

    def fit(self, batch: Batch) -> Gaussian:
        """Mean and (biased, maximum-likelihood) standard deviation over the rows of `batch`."""
        x = batch.x.double()
        if not len(x) or not x.isfinite().all():
            raise ValueError("Gaussian.fit: expected finite data, got none or NaN; fill or drop missing values.")
        axes = {"all": tuple(range(x.ndim)), "channel": (0, *range(2, x.ndim)), "value": (0,)}[self.per]
        self.mean = x.mean(axes, keepdim=True)[0] if self.per != "all" else x.mean()
        self.std = x.std(axes, correction=0, keepdim=True)[0] if self.per != "all" else x.std(correction=0)
        if not (self.std > 0).all():
            raise ValueError("Gaussian.fit: some values never vary; drop them, or fit with a coarser per=.")
        self._alike()
        return self

    def _alike(self) -> None:
        self.symmetries = frozenset({"permutation"}) if self.mean.ndim == self.std.ndim == 0 else frozenset()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # One that has not seen data yet takes over the shapes of the saved mean and std.
        for name, buffer in list(self.named_buffers(recurse=False)):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != buffer.shape:
                setattr(self, name, buffer.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._alike()
