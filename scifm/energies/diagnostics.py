"""What a series of correlated values is worth: chains (S, C), S saves of C chains.

    R̂² = V⁺/W,     V⁺ = (S−1)/S W + B/S                     between chains against within; 1 when they agree
    τ = 1 + 2 Σ_t ρ_t,     error of the mean = √(V⁺ τ / S C)  each τ saves count as one

ρ_t is the autocorrelation at lag t, with the variance between chains in it, so that chains that stay apart have a long
τ. The sum ends where a pair of neighbouring lags is no longer positive (Geyer 1992).  Each chain is cut into two
halves, so that a drift counts as a disagreement.  References: Gelman and Rubin 1992; Vehtari et al. 2021.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm.bits import Estimate

__all__ = ["autocorrelation_time", "mean", "rhat"]


def rhat(values: Tensor) -> float:
    """Split R̂ of (S, C); NaN for fewer than four saves, or values that never change."""
    if len(values) < 4:
        return math.nan
    within, total, _ = _variances(_halves(values))
    return math.sqrt(total / within) if within > 0 else math.nan


def autocorrelation_time(values: Tensor) -> float:
    """τ of (S, C) in saves, at least 1 over log₁₀ of their number; NaN for fewer than four saves.

    Example:
        >>> 0.8 < autocorrelation_time(torch.randn(400, 8, generator=torch.Generator().manual_seed(0))) < 1.2
        True
    """
    if len(values) < 4:
        return math.nan
    halves = _halves(values)
    saves = len(halves)
    within, total, each = _variances(halves)
    if not total > 0:
        return 1.0
    spectrum = torch.fft.rfft(halves - halves.mean(0), n=2 * saves, dim=0)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * saves, dim=0)[:saves].mean(1) / saves
    rho = 1 - (within - covariance * saves / max(1, saves - 1)) / total
    rho[0] = 1
    pairs = rho[: saves // 2 * 2].reshape(-1, 2).sum(1)
    negative = (pairs <= 0).nonzero()
    pairs = pairs[: int(negative[0])] if len(negative) else pairs
    tau = -1 + 2 * float(pairs.cummin(0).values.sum())  # each pair at most its predecessor
    return max(tau, 1 / math.log10(max(10, halves.numel())))


def mean(values: Tensor) -> Estimate:
    """Mean of (S, C), and its standard error with the correlation in time taken into account."""
    values = values.double()
    tau = autocorrelation_time(values)
    if math.isnan(tau):  # too short for a time: the chains are all there is
        spread = values.mean(0).std() / math.sqrt(values.shape[1]) if values.shape[1] > 1 else math.nan
        return Estimate(float(values.mean()), float(spread))
    _, total, _ = _variances(_halves(values))
    return Estimate(float(values.mean()), math.sqrt(total * tau / values.numel()))


def _halves(values: Tensor) -> Tensor:
    values = values.double()
    half = len(values) // 2
    return torch.cat([values[:half], values[-half:]], 1)


def _variances(values: Tensor) -> tuple[float, float, Tensor]:
    """W, V⁺ and the variance within each chain."""
    saves = len(values)
    each = values.var(0)
    within = float(each.mean())
    between = float(values.mean(0).var()) if values.shape[1] > 1 else 0.0
    return within, within * (saves - 1) / saves + between, each
