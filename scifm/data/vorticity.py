"""Two-dimensional turbulence on a periodic square, by a pseudo-spectral method.

    ∂ω/∂t + u · ∇ω = ν ∇²ω − μ ω + f,     u = (∂ψ/∂y, −∂ψ/∂x),     −∇²ψ = ω

for the vorticity ω (..., n, n) on [0, 2π)², rows along y and columns along x.  Products are made on the grid and
derivatives in Fourier space, where modes beyond two thirds of the largest wavenumber are kept at zero: a product of two
kept modes then aliases onto none of them (Orszag 1971).  With ν = μ = f = 0 the truncated equations conserve energy
½⟨u²⟩ and enstrophy ½⟨ω²⟩ exactly, and what is lost is due to the time step.  Friction and viscosity are integrated
exactly by the factor exp(−(ν k² + μ) t), the rest by the classical Runge-Kutta scheme of fourth order
(Canuto et al. 1988).  The mean vorticity of a periodic flow is zero.

Decaying from many small eddies, the flow merges them into few and strong vortices: a law far from Gaussian, whose
spectrum alone says little of it (McWilliams 1984).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Fluid", "eddies", "energy", "enstrophy", "evolve", "velocity"]


@dataclass(frozen=True)
class Fluid:
    """What resists and drives the flow, in the units of a box of side 2π.

    Args:
        viscosity: ν.
        friction: μ, a linear drag that stops the growth of the largest eddies.
        forcing: f (n, n), of mean zero; None for a flow that decays.
    """

    viscosity: float = 1e-3
    friction: float = 0.0
    forcing: Tensor | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.viscosity < math.inf and 0 <= self.friction < math.inf):
            raise ValueError(
                f"Fluid: viscosity and friction must be finite and not negative, got {self.viscosity} and "
                f"{self.friction}."
            )


def evolve(
    omega: Tensor,
    time: float,
    dt: float,
    fluid: Fluid = Fluid(),
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """The vorticity after some time.

    Args:
        omega: (..., n, n) with n even, of mean zero. Modes that are not kept are dropped at once.
        time: to go on for, a whole number of steps.
        dt: step. The fastest flow should not cross a grid cell of 2π/n in it.
        fluid: its constants.
        progress: called with 1 after each step.

    Raises:
        ValueError: for another shape, a mean that is not zero, times that do not fit, or a flow that became infinite.

    Example:
        >>> x = torch.arange(8) * 2 * torch.pi / 8
        >>> omega = 2 * torch.cos(x) * torch.cos(x)[:, None]  # Taylor and Green's vortices only decay
        >>> torch.allclose(evolve(omega, 1.0, 0.1, Fluid(0.1)), omega * math.exp(-0.2), atol=1e-6)
        True
    """
    n, steps = _check(omega), round(time / dt) if dt > 0 else 0
    if steps < 1 or abs(steps * dt - time) > 1e-9 * time:
        raise ValueError(f"evolve: time must be a whole number of steps, got time={time} and dt={dt}.")
    kx, ky, kept = _modes(n, omega)
    square = kx.square() + ky.square()
    inverse = kept / square.clamp(min=1)
    half = torch.exp(-0.5 * dt * (fluid.viscosity * square + fluid.friction))
    force = 0.0 if fluid.forcing is None else torch.fft.rfft2(fluid.forcing.to(omega)) * kept

    def rate(w: Tensor) -> Tensor:
        """−u · ∇ω + f in Fourier space, from u · ∇ω = ∇ · (u ω)."""
        psi = w * inverse
        parts = torch.fft.irfft2(torch.stack([w, 1j * ky * psi, -1j * kx * psi]), s=(n, n))
        flux_x, flux_y = torch.fft.rfft2(parts[0] * parts[1:]).unbind(0)
        return force - 1j * kept * (kx * flux_x + ky * flux_y)

    w = torch.fft.rfft2(omega) * kept
    for _ in range(steps):
        a = rate(w)
        b = rate(half * (w + 0.5 * dt * a))
        c = rate(half * w + 0.5 * dt * b)
        d = rate(half * half * w + dt * half * c)
        w = half * half * (w + dt / 6 * a) + dt / 3 * half * (b + c) + dt / 6 * d
        if progress is not None:
            progress(1)
    out = torch.fft.irfft2(w, s=(n, n))
    if not out.isfinite().all():
        raise ValueError(f"evolve: the flow became infinite; take smaller steps than dt={dt}, or more viscosity.")
    return out


def eddies(
    count: int,
    n: int,
    generator: torch.Generator | None = None,
    wavenumber: float = 6.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Random vorticity (count, n, n), Gaussian, of mean zero and mean square 1 over the law.

    Enstrophy per mode goes as k⁶/(k² + k₀²)⁶, which is largest near k₀: many eddies of size π/k₀ and no large ones.

    Args:
        count, n: fields and points per side, n even.
        generator: of all randomness.
        wavenumber: k₀.
        dtype: of the result; draws are made in float64, so it does not change them.
    """
    if n < 4 or n % 2 or not wavenumber > 0:
        raise ValueError(f"eddies: n must be even and at least 4, and wavenumber positive, got {n} and {wavenumber}.")
    white = torch.fft.rfft2(torch.randn(count, n, n, generator=generator, dtype=torch.float64), norm="ortho")
    kx, ky, kept = _modes(n, torch.zeros(n, n, dtype=torch.float64))
    square = (kx.square() + ky.square()) / wavenumber**2
    power = kept * square.pow(3) / (1 + square).pow(6)
    twice = torch.full_like(power, 2.0)  # the half spectrum holds one of each pair, but for its first and last column
    twice[:, 0] = twice[:, -1] = 1
    power = power / ((twice * power).sum() / n**2)
    return torch.fft.irfft2(white * power.sqrt(), s=(n, n), norm="ortho").to(dtype)


def velocity(omega: Tensor) -> Tensor:
    """Velocity (..., 2, n, n), along x and y, of the vorticity (..., n, n)."""
    n = _check(omega)
    kx, ky, kept = _modes(n, omega)
    psi = torch.fft.rfft2(omega) * kept / (kx.square() + ky.square()).clamp(min=1)
    return torch.fft.irfft2(torch.stack([1j * ky * psi, -1j * kx * psi], -3), s=(n, n))


def energy(omega: Tensor) -> Tensor:
    """½ ⟨u²⟩ of each field, (...)."""
    return 0.5 * velocity(omega).square().sum(-3).mean((-2, -1))


def enstrophy(omega: Tensor) -> Tensor:
    """½ ⟨ω²⟩ of each field, (...)."""
    _check(omega)
    return 0.5 * omega.square().mean((-2, -1))


def _modes(n: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """kx (n/2+1,), ky (n, 1) and 1 for the modes below two thirds of n/2, but for k = 0, else 0."""
    k = torch.fft.fftfreq(n, 1 / n, dtype=like.dtype, device=like.device)
    kx, ky = torch.arange(n // 2 + 1, dtype=like.dtype, device=like.device), k[:, None]
    kept = ((kx < n / 3) & (ky.abs() < n / 3) & (kx + ky.abs() > 0)).to(like)
    return kx, ky, kept


def _check(omega: Tensor) -> int:
    n = omega.shape[-1] if omega.ndim >= 2 else 0
    if n < 4 or n % 2 or omega.shape[-2] != n or not omega.is_floating_point():
        raise ValueError(
            f"vorticity: expected floats (..., n, n) with n even and at least 4, got {omega.dtype} "
            f"{tuple(omega.shape)}."
        )
    mean, size = omega.mean((-2, -1)).abs().max(), omega.abs().max()
    if not mean <= 1e-4 * size:
        raise ValueError(
            f"vorticity: the mean over a periodic square must be zero, got {float(mean):.3g} where values reach "
            f"{float(size):.3g}; subtract it."
        )
    return n
