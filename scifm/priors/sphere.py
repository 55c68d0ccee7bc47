"""Gaussian fields whose law does not change when the sphere is turned at all: a variance per degree, and a nugget.

    y = Σ_{l<L} Σ_{|m|≤l} a_lm Y_lm + ε,     a_lm ~ N(0, C_l),     ε_i ~ N(0, s² / w_i)

Y_lm are the real spherical harmonics, orthonormal over the sphere; the variance of a value is Σ (2l+1) C_l / 4π.  The L²
harmonics do not span the N points of a grid, so there is a density only with the nugget ε, the white noise *of the sphere*
with variance one over the area w_i of a cell, Σ w = 4π.  (White noise of equal variance per value is not white on the
sphere: it has more power towards the poles.)  White on the sphere means equal C_l; power per degree (2l+1) C_l / 4π is
the other convention in use.

On a grid of parallels the law is zonally stationary, so its covariance has one block per zonal wavenumber m,

    S_m = W P_m C P_mᵀ + s² diag(1/w),      P_m[i, l] = P̄_lm(sin φ_i),    for m < W/2,

exact whatever the latitudes, poles too (`scifm.priors.zonal`).  At m = W/2 there is the nugget only, and L is at most
⌈W/2⌉, or sin mλ and cos mλ would alias.

Fit.  With a = Yᵀ W y (the analysis) and G = Yᵀ W Y, energies have the expectations

    E Σ_m a_lm² = Σ_l' C_l' Σ_m G_lm,l'm² + s² Σ_m G_lm,lm,       E yᵀ W y = Σ_l C_l Σ_m G_lm,lm + s² N,

L + 1 linear equations in C and s², solved at once.  On a Gauss-Legendre grid G = 1 for L ≤ H, and they are the maximum
of likelihood, C_l = e_l / (2l+1) − s² with s² = (yᵀ W y − Σ e_l) / (N − L²).

References: Holmes and Featherstone 2002 (stable recurrence); Lang and Schwab 2015 (isotropic fields).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.zonal import Zonal

__all__ = ["SphericalGaussian", "cell_areas", "legendre"]


def legendre(lmax: int, latitudes: Tensor) -> Tensor:
    """Normalised associated Legendre functions P̄_lm(sin φ), so that P̄_l0 and √2 P̄_lm cos mλ, √2 P̄_lm sin mλ are
    orthonormal over the sphere; without the sign (−1)^m.

    Args:
        lmax: degrees l = 0 .. lmax − 1.
        latitudes: (H,) in degrees.

    Returns:
        (lmax, lmax, H) float64 at [m, l]; zero where l < m.

    Example:
        >>> P = legendre(2, torch.tensor([0.0, 90.0]))
        >>> (4 * torch.pi * P[0].square()).tolist()  # 1 and 3 sin² φ
        [[1.0, 1.0], [0.0, 3.0]]
    """
    sin = torch.sin(torch.deg2rad(latitudes.double()))
    cos = (1 - sin.square()).clamp(min=0).sqrt()
    P = sin.new_zeros(lmax, lmax, len(sin))
    P[0, 0] = math.sqrt(1 / (4 * math.pi))
    for m in range(1, lmax):
        P[m, m] = math.sqrt((2 * m + 1) / (2 * m)) * cos * P[m - 1, m - 1]
    for l in range(1, lmax):  # upwards in degree, all orders at once: no cancellation, unlike upwards in order
        m = torch.arange(l, dtype=torch.float64, device=sin.device)[:, None]
        up = ((4 * l * l - 1) / (l * l - m.square())).sqrt()
        down = ((((l - 1) ** 2 - m.square()) / (4 * (l - 1) ** 2 - 1)).clamp(min=0)).sqrt() if l > 1 else 0 * m
        P[:l, l] = up * (sin * P[:l, l - 1] - (down * P[:l, l - 2] if l > 1 else 0))
    return P


def cell_areas(latitudes: Tensor, longitudes: int) -> Tensor:
    """Area of a cell of each parallel, (H,) in steradian; all cells together have 4π.

    Quadrature weights where the latitudes are those of Gauss and Legendre; else from edges half-way between parallels
    and at the poles, so that a row at a pole has the area of its cap and not cos φ = 0.

    Args:
        latitudes: (H,) in degrees, ascending or descending.
        longitudes: number W of cells of a parallel.

    Raises:
        ValueError: where latitudes do not run one way within −90 to 90.
    """
    φ = latitudes.double().flatten()
    step = φ.diff()
    if not ((step > 0).all() or (step < 0).all()) or float(φ.abs().amax()) > 90 + 1e-6:
        raise ValueError(
            f"cell_areas: latitudes must ascend or descend strictly within -90 to 90 degrees, got {φ[:4].tolist()} ..."
        )
    nodes, weights = (torch.from_numpy(v).to(φ) for v in np.polynomial.legendre.leggauss(len(φ)))
    sin = torch.sin(torch.deg2rad(φ))
    order = sin.argsort()
    if len(φ) > 1 and float((sin[order] - nodes).abs().amax()) < 1e-5:  # files have 5 or 6 digits
        share = torch.empty_like(sin)
        share[order] = weights
    else:
        end = 90.0 if len(φ) == 1 else 90.0 * float(step[0].sign())
        edges = torch.cat([φ.new_tensor([-end]), 0.5 * (φ[1:] + φ[:-1]), φ.new_tensor([end])])
        share = torch.sin(torch.deg2rad(edges)).diff().abs()
    return share * 2 * math.pi / longitudes


class SphericalGaussian(Zonal):
    """Isotropic Gaussian on the sphere with an area-weighted nugget, independent channels, exact density.

    Args:
        shape: (*channels, H, W) of one sample; longitude equally spaced and closed.
        latitudes: (H,) in degrees, of any spacing, poles too.
        lmax: number L of degrees; min(H, ⌈W/2⌉) when None.
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
        most = (W + 1) // 2
        self.lmax = min(H, most) if lmax is None else lmax
        if not 1 <= self.lmax <= most:
            raise ValueError(
                f"SphericalGaussian: lmax must be in 1..{most} for {W} longitudes, which do not tell higher orders "
                f"apart; got {lmax}."
            )
        if not 0 < nugget < 1:
            raise ValueError(f"SphericalGaussian: nugget must be in (0, 1), got {nugget}; without it no density exists.")
        self.nugget = nugget
        self.areas: Tensor
        self.harmonics: Tensor
        self.spectrum: Tensor
        self.noise: Tensor
        self.register_buffer("areas", cell_areas(φ, W), persistent=False)
        self.register_buffer("harmonics", legendre(self.lmax, φ).mT.contiguous(), persistent=False)  # (m, H, l)
        blank = torch.full((self.parts,), torch.nan, dtype=torch.float64)
        self.register_buffer("spectrum", blank[:, None].expand(-1, self.lmax).clone())
        self.register_buffer("noise", blank)
        if spectrum is not None:
            self._make(torch.as_tensor(spectrum, dtype=torch.float64).expand(*self.shape[:-2], self.lmax))

    def fit(self, batch: Batch) -> SphericalGaussian:
        """Mean, spectrum and nugget of fields (B, *channels, H, W), by the energies of each degree."""
        x = self._data(batch, 2)
        area, P = self.areas.to(x), self.harmonics.to(x)
        mean = (x.mean((0, -1)) * area).sum(-1) / area.sum()
        self.mean = mean[..., None, None].expand(*self.shape[:-1], 1).contiguous().to(self.mean)
        y = x - self.mean.to(x)
        W, number = self.shape[-1], self.weight.to(x)[: self.lmax]  # of harmonics per order, 1 or 2
        c = self._coefficients(y)[: self.lmax].permute(1, 0, 2, 3)  # (channels, m, H, B)
        analysed = P.mT.to(c) @ (area[:, None] * c)
        energy = W * torch.einsum("m,cmlb->cl", number, analysed.abs().square()) / len(x)
        whole = (area[:, None] * y.square()).sum((-1, -2)).mean(0).flatten()
        G = W * P.mT @ (area[:, None] * P)
        own = torch.einsum("m,mll->l", number, G)
        left = torch.cat([torch.einsum("m,mkl->kl", number, G.square()), own[None]])
        right = torch.cat([own, own.new_tensor([len(area) * W])])
        found = torch.linalg.lstsq(
            torch.cat([left, right[:, None]], 1), torch.cat([energy, whole[:, None]], 1).T
        ).solution
        C, noise = found[:-1].T.clamp(min=0), found[-1]
        if not (whole > 0).all():
            raise ValueError("SphericalGaussian.fit: a channel never varies; drop it.")
        self._make(C, noise)
        return self

    def _make(self, C: Tensor, noise: Tensor | None = None) -> None:
        H, W = self.shape[-2:]
        C = C.reshape(self.parts, self.lmax).to(self.spectrum)
        if not (C.isfinite().all() and (C >= 0).all() and (C.sum(1) > 0).all()):
            raise ValueError("SphericalGaussian: the spectrum must be finite, not negative, and not zero everywhere.")
        degrees = 2 * torch.arange(self.lmax, device=C.device) + 1
        least = self.nugget * (C * degrees).sum(1) / (H * W)
        noise = least if noise is None else torch.maximum(noise.to(least), least)
        P = self.harmonics.to(C)
        S = torch.diag_embed(noise[:, None] / self.areas.to(C)).expand(self.waves, -1, -1, -1).clone()
        S[: self.lmax] += W * (P[:, None] * C[:, None]) @ P[:, None].mT
        self.spectrum, self.noise = C, noise
        self._set(S, "Give a larger nugget.")
