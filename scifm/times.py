"""Where in time to train: distributions of t on [0, 1].

A time sampler is a callable `(n, generator) -> t (n,)` in float64, drawn where the generator lives.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Times", "logit_normal", "stratified", "uniform"]

Times = Callable[[int, "torch.Generator | None"], Tensor]


def uniform(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Independent uniform times, (n,)."""
    return torch.rand(n, generator=generator, dtype=torch.float64, device=_device(generator))


def stratified(n: int, generator: torch.Generator | None = None) -> Tensor:
    """One uniform time in each of n equal intervals, in random order, (n,).

    Each time is uniform by itself, but a batch covers [0, 1] evenly, which lowers the variance of the loss
    (Kingma et al. 2021, variational diffusion models, use one shared offset; here each interval has its own).
    """
    order = torch.randperm(n, generator=generator, device=_device(generator))
    return (order + uniform(n, generator)) / n


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Times:
    """Times whose logit is normal: more of the middle of the path (Esser et al. 2024)."""
    if not 0 < std < float("inf"):
        raise ValueError(f"logit_normal: std must be positive, got {std}.")

    def times(n: int, generator: torch.Generator | None = None) -> Tensor:
        normal = torch.randn(n, generator=generator, dtype=torch.float64, device=_device(generator))
        return torch.sigmoid(mean + std * normal)

    return times


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device
