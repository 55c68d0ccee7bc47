"""Gaussian fields whose law does not change when the sphere is turned at all: a variance per degree, and a nugget.

    y = Σ_{l<L} Σ_{|m|≤l} a_lm Y_lm + ε,     a_lm ~ N(0, C_l),     ε_i ~ N(0, s² / w_i)

Y_lm are the real spherical harmonics, orthonormal over the sphere (`scifm.priors.harmonics`); the variance of a value
is Σ (2l+1) C_l / 4π.  The L² harmonics do not span the N points of a grid, so there is a density only with the nugget
ε, the white noise *of the sphere*, whose variance is s² over the area w_i of a cell, Σ w = 4π.  Noise of equal variance
per value is not white there: it has too much power near the poles.  White means equal C_l; power per degree,
(2l+1) C_l / 4π, is the other convention in use.

On a grid of parallels the law is zonally stationary, so its covariance has one block per zonal wavenumber m,

    S_m = W P_m C P_mᵀ + s² diag(1/w),      P_m[i, l] = P̄_lm(sin φ_i),    for m < L,

exact whatever the latitudes, poles too (`scifm.priors.zonal`); above there is the nugget only.  L is at most ⌈W/2⌉, or
sin mλ and cos mλ would alias, and at most H, or the data could not tell the degrees apart.

Fit.  With the analysis a = Yᵀ W y and G = Yᵀ W Y, energies have the expectations

    E Σ_m a_lm² = Σ_l' C_l' Σ_mm' G_lm,l'm'² + s² Σ_m G_lm,lm,       E yᵀ W y = Σ_l C_l Σ_m G_lm,lm + s² N,

L + 1 linear equations, whose solution is the least-squares fit of the area-weighted covariance.  On a Gauss-Legendre
grid G = 1, and with e_l = Σ_m a_lm² it is that of the largest likelihood, s² = (yᵀ W y − Σ e_l) / (N − L²) and
C_l = e_l / (2l+1) − s².

Reference: Lang and Schwab 2015 (isotropic Gaussian fields on the sphere).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.harmonics import legendre, quadrature
from scifm.priors.zonal import Zonal

__all__ = ["SphericalGaussian"]


class SphericalGaussian(Zonal):
    """Isotropic Gaussian on the sphere with an area-weighted nugget, independent channels, exact density.

    Args:
        shape: (*channels, H, W) of one sample; longitude equally spaced and closed.
        latitudes: (H,) in degrees, of any spacing, poles too.
        lmax: number L of degrees; at most and by default min(H, ⌈W/2⌉).
        spectrum: C_l, (L,) or (*channels, L), in squared units of the data times steradian; None to be fitted.
        nugget: variance of the nugget, averaged over the sphere, as a share of that of the harmonics; `fit` finds
            it, and this is the least.
        mean: number, or tensor that broadcasts to (*channels, 1, 1); `fit` takes the area mean of each channel.

    Attributes:
        spectrum: (channels, L) C_l.
        noise: (channels,) s², squared units times steradian.

    Example:
        >>> prior = SphericalGaussian((1, 4, 8), torch.tensor([-67.5, -22.5, 22.5, 67.5]), spectrum=torch.ones(4))
        >>> prior.sample(Batch(torch.zeros(2, 1, 4, 8))).shape
        torch.Size([2, 1, 4, 8])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latitudes: Tensor | Sequence[float],
        lmax: int | None = None,
        spectrum: Tensor | None = None,
        nugget: float = 1e-6,
        mean: float | Tensor = 0.0,
    ):
        super().__init__(shape, math.prod(shape[:-2]), mean)
        H, W = self.shape[-2:]
        φ = torch.as_tensor(latitudes, dtype=torch.float64)
        if len(self.shape) < 3 or φ.shape != (H,):
            raise ValueError(
                f"SphericalGaussian: expected shape (*channels, latitudes, longitudes) and one latitude per row, got "
                f"{self.shape} and {tuple(φ.shape)}."
            )
        most = min(H, (W + 1) // 2)
        self.lmax = most if lmax is None else lmax
        if not 1 <= self.lmax <= most:
            raise ValueError(
                f"SphericalGaussian: lmax must be in 1..{most}, the degrees that {H} latitudes and {W} longitudes tell "
                f"apart; got {lmax}."
            )
        if not 0 < nugget < 1:
            raise ValueError(
                f"SphericalGaussian: nugget must be in (0, 1), got {nugget}; the harmonics alone have no density."
            )
        self.nugget = nugget
        self.areas: Tensor
        self.harmonics: Tensor
        self.spectrum: Tensor
        self.noise: Tensor
        self.register_buffer("areas", quadrature(φ, W), persistent=False)
        self.register_buffer("harmonics", legendre(self.lmax, φ).mT.contiguous(), persistent=False)  # (m, H, l)
        blank = torch.full((self.parts,), torch.nan, dtype=torch.float64)
        self.register_buffer("spectrum", blank[:, None].expand(-1, self.lmax).clone())
        self.register_buffer("noise", blank)
        if spectrum is not None:
            self._make(torch.as_tensor(spectrum, dtype=torch.float64).expand(*self.shape[:-2], self.lmax))

    def fit(self, batch: Batch) -> SphericalGaussian:
        """Mean, spectrum and nugget of fields (B, *channels, H, W), by the energies of each degree."""
        x = self._data(batch, 2)
        H, W = self.shape[-2:]
        area, P = self.areas.to(x), self.harmonics.to(x)
        mean = (x.mean((0, -1)) * area).sum(-1) / area.sum()
        self.mean = mean[..., None, None].expand(*self.shape[:-1], 1).contiguous().to(self.mean)
        y = x - self.mean.to(x)
        twice = self.weight.to(x)[: self.lmax]  # sin mλ and cos mλ
        c = self._coefficients(y)[: self.lmax].permute(1, 0, 2, 3)  # (channels, m, H, B)
        energy = (P.mT.to(c) @ (area[:, None] * c)).abs().square().sum(-1)
        energy = W * (twice[:, None] * energy).sum(1).T / len(x)  # (L, channels)
        whole = (area[:, None] * y.square()).sum((-1, -2)).mean(0).reshape(1, -1)
        if not (whole > 0).all():
            raise ValueError("SphericalGaussian.fit: a channel never varies; drop it.")
        G = W * P.mT @ (area[:, None] * P)
        own = (twice[:, None] * G.diagonal(dim1=-2, dim2=-1)).sum(0)[:, None]
        pairs = (twice[:, None, None] * G.square()).sum(0)
        left = torch.cat([torch.cat([pairs, own], 1), torch.cat([own.T, own.new_full((1, 1), H * W)], 1)])
        found = torch.linalg.solve(left, torch.cat([energy, whole]))
        self._make(found[:-1].T.clamp(min=0), found[-1])
        return self

    def _make(self, C: Tensor, noise: Tensor | None = None) -> None:
        H, W = self.shape[-2:]
        C = C.reshape(self.parts, self.lmax).to(self.spectrum)
        degrees = 2 * torch.arange(self.lmax, device=C.device) + 1
        least = self.nugget * (C * degrees).sum(1) / (H * W)
        noise = least if noise is None else torch.maximum(noise.to(least), least)
        if not (C.isfinite().all() and (C >= 0).all() and (noise > 0).all()):
            raise ValueError("SphericalGaussian: the spectrum must be finite, not negative, and not zero everywhere.")
        P = self.harmonics.to(C)
        S = torch.diag_embed(noise[:, None] / self.areas.to(C)).expand(self.waves, -1, -1, -1).clone()
        S[: self.lmax] += W * (P[:, None] * C[:, None]) @ P[:, None].mT
        self.spectrum, self.noise = C, noise
        self._set(S, "Give a larger nugget.")
