"""Sampling by a stochastic equation with the marginals of the flow.

For a Gaussian prior N(m, C) and an affine path with independent pairs, p_t is also the law of

    dx = [ v + ½ g² C ∇ log p_t ] dt + g C^½ dW        for every g(t) ≥ 0,

since the two additions cancel in the Fokker–Planck equation.  The noise has the prior's own colour, so C and the C⁻¹ of
the score cancel as well: C ∇ log p_t = −(x̂0 − m) / σ, with x̂0 read off the velocity (`scifm.conversions`).  We take

    g² = 2 η σ_t,      drift  v − η (x̂0 − m),

which is finite at both ends; η = 0 is the ordinary differential equation.  Noise forgets errors of earlier steps, at
the price of more steps.  The last step is taken without noise, or its noise would stay in the samples.  A stochastic
path has no likelihood: the density of the samples is that of the deterministic flow only as far as the velocity is
exact.

References: Song et al. 2021; Albergo, Boffi and Vanden-Eijnden 2023; Ma et al. 2024 (SiT), for white noise.
Kloeden and Platen 1992 for Euler–Maruyama and Heun, of weak order 1 and 2 for this additive noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.conversions import Gauge
from scifm.paths import Path

__all__ = ["Stochastic", "diffuse"]


@dataclass(frozen=True)
class Stochastic:
    """How to sample stochastically; goes where a `Solver` goes in `Flow.sample`.

    Args:
        method: "euler" (Euler–Maruyama, one evaluation a step) or "heun" (two).
        steps: of equal length, at least 2.
        strength: η; 0 has no noise.
    """

    method: str = "heun"
    steps: int = 100
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("euler", "heun"):
            raise ValueError(f'Stochastic: method must be "euler" or "heun", got {self.method!r}.')
        if not isinstance(self.steps, int) or self.steps < 2:
            raise ValueError(f"Stochastic: expected at least 2 steps, got {self.steps}; usual are 50 to 500.")
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"Stochastic: strength must be finite and not negative, got {self.strength}.")

    def __str__(self) -> str:
        return f"{self.method} SDE {self.steps} steps strength {self.strength:g}"


def diffuse(
    velocity: Callable[[Tensor, Tensor, Batch], Tensor],
    x: Tensor,
    like: Batch,
    path: Path,
    sde: Stochastic,
    draw: Callable[[], Tensor],
    mean: Tensor,
) -> Tensor:
    """Carry x, drawn at t = 0, to t = 1.

    Args:
        velocity: `(t (B,), x, batch) -> like x`.
        x: (rows, *event), draws of σ_0 x0.
        path: affine.
        draw: a fresh draw of x0 at each call, shaped like x.
        mean: m of x0, broadcasts to x.

    Returns:
        x at t = 1, shaped like x.
    """
    h = 1 / sde.steps

    def drift(t: Tensor, x: Tensor, strength: float) -> Tensor:
        v = velocity(t.to(x.dtype), x, like)
        if strength == 0:
            return v
        return v - strength * (Gauge(path, t.to(x.dtype), x, like).from_velocity("noise", v) - mean)

    for step in range(sde.steps):
        start = torch.full((len(like),), step * h, dtype=torch.float64, device=x.device)
        end = start + h
        strength = sde.strength if step + 1 < sde.steps else 0.0
        noise = torch.zeros_like(x)
        if strength:
            sigma = path.coefficients(start + 0.5 * h)[1]  # the midpoint: ∫ g² over the step to second order
            noise = like.spread((2 * strength * sigma * h).sqrt().to(x.dtype)) * (draw() - mean)
        first = drift(start, x, strength)
        x_end = x + h * first + noise
        if sde.method == "heun":
            x_end = x + 0.5 * h * (first + drift(end, x_end, strength)) + noise
        x = x_end
    return x
