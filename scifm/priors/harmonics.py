"""Real spherical harmonics on the parallels of a grid, and sums over the sphere.

    Y_l0 = P̄_l0(sin φ),    Y_lm = √2 P̄_lm(sin φ) cos mλ,    Y_l,−m = √2 P̄_lm(sin φ) sin mλ,    ∫ Y_lm Y_l'm' dΩ = δ

with the normalised associated Legendre functions P̄_lm, made upwards in degree at fixed order,

    P̄_mm = √((2m+1)/2m) cos φ P̄_m−1,m−1,     P̄_lm = a_lm ( sin φ P̄_l−1,m − P̄_l−2,m / a_l−1,m ),
    a_lm = √((4l² − 1)/(l² − m²)),

which keeps its digits for thousands of degrees in float64.  The sums ∫ f dΩ ≈ Σ_ij w_i f_ij are exact for products of
harmonics below degree H on the H parallels of Gauss and Legendre, and approximate on others.
Reference: Holmes and Featherstone 2002.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["quadrature", "legendre"]


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
        >>> (4 * torch.pi * P[0].square()).round(decimals=6).tolist()  # 1 and 3 sin² φ
        [[1.0, 1.0], [0.0, 3.0]]
    """
    φ = torch.deg2rad(latitudes.double())
    sin, cos = φ.sin(), φ.cos()
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


def quadrature(latitudes: Tensor, longitudes: int) -> Tensor:
    """Weight of a value on each parallel in a sum over the sphere, (H,) in steradian; all together have 4π.

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
            f"quadrature: latitudes must ascend or descend strictly within -90 to 90 degrees, got {φ[:4].tolist()} ..."
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
