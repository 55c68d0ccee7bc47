"""Moments and quantiles of fields, place by place, and how far those of samples are from those of data.

    mean m,   variance Σ (x − m)² / (B − 1),   skewness μ_3 / μ_2^3/2,   excess kurtosis μ_4 / μ_2² − 3

with μ_p = Σ (x − m)^p / B, over the B fields; and, along one axis of the grid, the autocorrelation of each field

    ρ(j) = Σ_i y_i y_{i+j} / Σ_i y_i²,     y = x minus its own mean along the axis, nothing wrapped around,

averaged over fields.  Functional Flow Matching (Kerrigan, Migliorini and Smyth 2024) compares 1-D sets by the mean
squares of the differences of these five; `moment_errors` gives them, and bootstraps of the data the floor.

Mean, variance and autocorrelation are what a Gaussian with the data's covariance has right without any training.  A
flow shows in skewness and kurtosis what it has learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["MomentErrors", "Moments", "moment_errors", "moments", "quantile_maps"]


@dataclass(frozen=True)
class Moments:
    """Pointwise moments, float64.

    Attributes:
        mean: (*event).
        variance: (*event).
        skewness: (*event); NaN where all fields have the same value.
        kurtosis: (*event), in excess of 3; NaN there too.
        autocorrelation: (n,) by lag along one axis, 1 at lag 0.
    """

    mean: Tensor
    variance: Tensor
    skewness: Tensor
    kurtosis: Tensor
    autocorrelation: Tensor


def moments(x: Tensor, axis: int = -1) -> Moments:
    """Moments of fields (B, *event), B at least 2.

    Args:
        x: finite fields.
        axis: of the grid, negative, along which the autocorrelation is taken; fields that do not vary along it,
            have none and are left out.

    Raises:
        ValueError: for fewer than 2 fields, an axis that is not of the grid, or values that are not finite.

    Example:
        >>> moments(torch.tensor([[0.0, 1.0], [2.0, 5.0]])).mean
        tensor([1., 3.], dtype=torch.float64)
    """
    x = _fields("moments", x)
    if not -x.ndim < axis < 0:
        raise ValueError(f"moments: axis must be one of the last {x.ndim - 1}, given from the end as -1, got {axis}.")
    m = x.mean(0)
    y = x - m
    second = y.square().mean(0)
    flat = second <= (1e-14 * m.abs()).square()  # rounding, not variance
    scale = torch.where(flat, torch.nan, second)
    kurtosis = y.pow(4).mean(0) / scale.square() - 3
    return Moments(m, x.var(0), y.pow(3).mean(0) / scale**1.5, kurtosis, _autocorrelation(x.movedim(axis, -1)))


@dataclass(frozen=True)
class MomentErrors:
    """Mean squares of the differences of the moments of samples and data, in powers of the unit of a value."""

    mean: float
    variance: float
    skewness: float
    kurtosis: float
    autocorrelation: float

    def __str__(self) -> str:
        return ", ".join(f"{f.name} {getattr(self, f.name):.2e}" for f in fields(self))


def moment_errors(samples: Tensor, data: Tensor, axis: int = -1) -> MomentErrors:
    """How far the moments of samples are from those of data: FFM's five numbers.

    Args:
        samples, data: (B, *event) and (B', *event). Published numbers depend on the unit: FFM rescales data to
            [−3, 3] by the smallest and the largest value before.
        axis: as for `moments`.

    Example:
        >>> data = torch.randn(500, 1, 20, generator=torch.Generator().manual_seed(0))
        >>> print(moment_errors(data + 1, data))
        mean 1.00e+00, variance ...e-..., skewness ...e-..., kurtosis ...e-..., autocorrelation ...e-...
    """
    if samples.shape[1:] != data.shape[1:]:
        raise ValueError(
            f"moment_errors: expected fields of one shape, got {tuple(samples.shape[1:])} and {tuple(data.shape[1:])}."
        )
    ours, theirs = moments(samples, axis), moments(data, axis)
    gaps = [(getattr(ours, f.name) - getattr(theirs, f.name).to(ours.mean)).square() for f in fields(Moments)]
    return MomentErrors(*(float(gap.nanmean()) for gap in gaps))


def quantile_maps(x: Tensor, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> Tensor:
    """Quantiles of fields (B, *event) place by place, (levels, *event), linear between order statistics.

    Beside those of data they are maps of where samples are too warm, and where too variable.

    Example:
        >>> quantile_maps(torch.arange(5.0)[:, None], [0.0, 0.5, 0.9])
        tensor([[0.0000],
                [2.0000],
                [3.6000]])
    """
    if x.ndim < 2 or not len(x) or not levels or not all(0 <= q <= 1 for q in levels):
        raise ValueError(
            f"quantile_maps: expected fields (B, *event) and levels in [0, 1], got {tuple(x.shape)} and {list(levels)}."
        )
    ordered, top = x.detach().sort(0).values, len(x) - 1  # torch.quantile refuses more than 2^24 values
    below = [min(int(q * top), max(top - 1, 0)) for q in levels]
    maps = [torch.lerp(ordered[k], ordered[min(k + 1, top)], q * top - k) for k, q in zip(below, levels, strict=True)]
    return torch.stack(maps)


def _autocorrelation(x: Tensor) -> Tensor:
    n = x.shape[-1]
    y = (x - x.mean(-1, keepdim=True)).reshape(-1, n)
    power = torch.fft.rfft(y, n=2 * n).abs().square()  # zeros at the end, so that nothing wraps around
    c = torch.fft.irfft(power, n=2 * n)[:, :n]
    varies = c[:, 0] > n * (1e-14 * x.abs().amax(-1).reshape(-1)).square()
    return (c[varies] / c[varies, :1]).mean(0)


def _fields(who: str, x: Tensor) -> Tensor:
    if x.ndim < 2 or len(x) < 2 or not x.numel() or not x.isfinite().all():
        raise ValueError(f"{who}: expected at least 2 finite fields (B, *event), got {tuple(x.shape)}.")
    return x.detach().double()
