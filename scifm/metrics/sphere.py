"""The power spectrum of fields on the sphere, by degree.

    x = Σ_l Σ_m a_lm Y_lm,     C_l = (1/(2l + 1)) Σ_m a_lm²,     mean square over the sphere = Σ_l (2l + 1) C_l / 4π

with real, orthonormal Y_lm.  C_l is the variance per mode; (2l + 1) C_l / 4π, the power per degree, is another common
convention.  White on the sphere is C_l constant.  White noise on a latitude-longitude grid is not: its power is at the
poles, where the grid is dense.

The coefficients are a least-squares fit to the values, weighted by area: a Fourier transform along longitude, then one
small system per order m along latitude.  For a field of degrees ≤ L it is exact on any latitudes that determine it,
with or without poles; higher degrees leak where the grid is coarse, as in any quadrature.  Whoever has coefficients of
another transform gives them to `degree_power`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm.areas import latitude_weights
from scifm.metrics.spectra import Spectrum
from scifm.priors.harmonics import legendre

__all__ = ["degree_power", "degree_spectrum"]


def degree_power(coefficients: Tensor, degree: Tensor) -> Spectrum:
    """C_l from coefficients of orthonormal real harmonics, in any order.

    Args:
        coefficients: (..., K); means are over all leading dims.
        degree: (K,) the l of each, from 0 without a gap.  Complex coefficients with m ≥ 0 become real ones as a_l0,
            √2 Re a_lm and √2 Im a_lm.

    Example:
        >>> degree_power(torch.ones(2, 4), torch.tensor([0, 1, 1, 1])).power
        tensor([1., 1.], dtype=torch.float64)
    """
    modes = torch.bincount(degree).double() if degree.dtype == torch.int64 and degree.ndim == 1 else torch.zeros(1)
    if coefficients.shape[-1:] != degree.shape or coefficients.is_complex() or not (modes > 0).all():
        raise ValueError(
            "degree_power: expected real coefficients (..., K) and their degrees (K,), int64 from 0 without a gap, "
            f"got {tuple(coefficients.shape)} {coefficients.dtype} and {tuple(degree.shape)} {degree.dtype}."
        )
    energy = coefficients.detach().double().square().reshape(-1, len(degree)).mean(0)
    l = torch.arange(len(modes), dtype=torch.float64, device=degree.device)
    return Spectrum(l, torch.bincount(degree, energy) / modes, modes, 4 * math.pi)


def degree_spectrum(x: Tensor, latitude: Tensor, degrees: int | None = None) -> Spectrum:
    """C_l of fields on a grid of latitudes and evenly spaced longitudes that close the circle.

    Args:
        x: (..., H, W) finite fields.
        latitude: (H,) degrees, in any order, over the whole globe.
        degrees: the largest l; by default min(H, W) / 2 rounded down, less one.  At most H − 1 and less than W/2.

    Raises:
        ValueError: for more degrees than the grid has, or latitudes that do not fit.

    Example:
        >>> phi = torch.linspace(-90, 90, 9)
        >>> x = torch.sin(torch.deg2rad(phi))[:, None].expand(9, 16)  # Y_10 times √(4π/3)
        >>> degree_spectrum(x, phi).power.round(decimals=6)
        tensor([0.0000, 1.3963, 0.0000, 0.0000], dtype=torch.float64)
    """
    if x.ndim < 2 or latitude.shape != x.shape[-2:-1] or not x.isfinite().all():
        raise ValueError(
            f"degree_spectrum: expected finite fields (..., H, W) and latitude (H,), got {tuple(x.shape)} and "
            f"{tuple(latitude.shape)}."
        )
    height, width = x.shape[-2:]
    top = min(height, width) // 2 - 1 if degrees is None else degrees
    if not 0 <= top <= min(height - 1, (width - 1) // 2):
        raise ValueError(
            f"degree_spectrum: a grid of {height} latitudes and {width} longitudes tells degrees up to "
            f"{min(height - 1, (width - 1) // 2)}, got {top}."
        )
    root = latitude_weights(latitude).sqrt().to(x.device)
    P = legendre(top + 1, latitude.to(x.device))
    lines = torch.fft.rfft(x.detach().double(), norm="forward").reshape(-1, height, width // 2 + 1)
    found, degree = [], []
    for m in range(top + 1):
        # x = c_0 + Σ_m c_m cos mλ + s_m sin mλ: c_m and s_m are twice a coefficient, Y_lm is √2 P_lm cos mλ
        twice = 1.0 if m == 0 else 2.0
        matrix = root[:, None] * math.sqrt(twice) * P[m, m:].T  # (H, top + 1 − m)
        wave = root[:, None] * twice * lines[:, :, m].T
        for part in [wave.real, wave.imag][: 1 if m == 0 else 2]:
            found.append(torch.linalg.lstsq(matrix, part, driver="gelsd" if x.device.type == "cpu" else None).solution)
            degree.append(torch.arange(m, top + 1, device=x.device))
    return degree_power(torch.cat(found).T, torch.cat(degree))
