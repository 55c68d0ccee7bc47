"""Affine paths, x_t = α_t x1 + σ_t x0: which mixture of prior and data stands at which time.

    Linear               α = t                  σ = 1 − (1 − σ_min) t       straight lines
    Trigonometric        α = sin(πt/2)          σ = cos(πt/2)               keeps a variance of one
    Polynomial           α = tⁿ                 σ = 1 − tⁿ                  straight lines, another clock
    VariancePreserving   α = exp(−½ B)          σ = √(1 − α²)               B = ∫ β, the noising diffusion reversed
    VarianceExploding    α = 1                  σ = σ_max^(1−t) σ_min^t     noise that is taken away
    Affine               α and σ of your own, differentiated for you

The last two were made for diffusions, which never quite reach their ends: at t = 0 a little of the data is left in x_t,
α_0 > 0, and at t = 1 a little noise, σ_1 > 0.  The flow starts from σ_0 x0 all the same; its density is exact for what
it does, but what it does misses α_0 x1.  With the defaults that is below 1 % of a standard deviation for the first;
for the second σ_max must be large beside the data.

References: Lipman et al. 2023 (Linear, with σ_min: the "conditional OT path", a name that has nothing to do with
couplings); Albergo and Vanden-Eijnden 2023 (Trigonometric); Song et al. 2021 (VP, VE).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.paths.base import Path

__all__ = ["Affine", "Linear", "Polynomial", "Trigonometric", "VarianceExploding", "VariancePreserving"]

Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Linear(Path):
    """Straight lines, α_t = t and σ_t = 1 − (1 − σ_min) t.

    Args:
        sigma_min: what is left of x0 at t = 1, in [0, 1). The flow then ends in data blurred by σ_min x0.

    Example:
        >>> import torch
        >>> from scifm import Batch
        >>> x0, x1 = torch.zeros(2, 3), torch.ones(2, 3)
        >>> Linear()(x0, x1, torch.tensor([0.0, 0.25]), Batch(x1))[0]
        tensor([[0.0000, 0.0000, 0.0000],
                [0.2500, 0.2500, 0.2500]])
    """

    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < 1:
            raise ValueError(f"Linear: sigma_min must be in [0, 1), got {self.sigma_min}; usual values are 0 to 0.01.")

    def coefficients(self, t: Tensor) -> Coefficients:
        lost = 1 - self.sigma_min
        return t, 1 - lost * t, t.new_ones(t.shape), t.new_full(t.shape, -lost)


@dataclass(frozen=True)
class Trigonometric(Path):
    """Quarter circles, α = sin(πt/2) and σ = cos(πt/2): the variance stays one where prior and data have one."""

    def coefficients(self, t: Tensor) -> Coefficients:
        half = math.pi / 2
        # cos(π/2) is not quite zero in floating point; sin of the rest of the way is
        alpha, sigma = (half * t).sin(), (half * (1 - t)).sin()
        return alpha, sigma, half * sigma, -half * alpha


@dataclass(frozen=True)
class Polynomial(Path):
    """Straight lines on another clock, α = tⁿ and σ = 1 − tⁿ: n > 1 stays near the prior for longer.

    Args:
        power: n, at least 1; below, the velocity is infinite at t = 0.
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.power < math.inf:
            raise ValueError(f"Polynomial: power must be at least 1, got {self.power}; 1 is paths.Linear().")

    def coefficients(self, t: Tensor) -> Coefficients:
        alpha, speed = t.pow(self.power), self.power * t.pow(self.power - 1)
        return alpha, 1 - alpha, speed, -speed


@dataclass(frozen=True)
class VariancePreserving(Path):
    """The variance-preserving diffusion reversed: α = exp(−½ B(s)), σ = √(1 − α²), B(s) = β_min s + ½ (β_max − β_min)
    s².

    s is the diffusion's own time, from 1 at the prior to `least` at the data.  At s = 0 the velocity is infinite, so it
    stops short, with σ_1 about √(β_min · least).

    Args:
        beta_min, beta_max: rate of the noising at the data and at the prior.
        least: s at t = 1, positive.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    least: float = 1e-5

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max < math.inf and 0 < self.least < 1):
            raise ValueError(
                "VariancePreserving: expected 0 < beta_min <= beta_max and 0 < least < 1, got "
                f"{self.beta_min}, {self.beta_max}, {self.least}."
            )
        if self.beta_min + self.beta_max < 9.2:
            raise ValueError(
                f"VariancePreserving: with rates {self.beta_min} to {self.beta_max} more than a tenth of the data is "
                "left at t = 0, where the flow starts from the prior alone; raise beta_max (usual: 20)."
            )

    def coefficients(self, t: Tensor) -> Coefficients:
        s = self.least + (1 - self.least) * (1 - t)
        beta = self.beta_min + (self.beta_max - self.beta_min) * s
        B = self.beta_min * s + 0.5 * (self.beta_max - self.beta_min) * s.square()
        alpha, sigma = (-0.5 * B).exp(), (-torch.expm1(-B)).sqrt()
        speed = (1 - self.least) * 0.5 * beta
        return alpha, sigma, speed * alpha, -speed * alpha.square() / sigma


@dataclass(frozen=True)
class VarianceExploding(Path):
    """The variance-exploding diffusion reversed: α = 1, σ = σ_max^(1−t) σ_min^t.

    Args:
        sigma_min: what is left of x0 at t = 1, positive.
        sigma_max: size of the prior at t = 0, in units of its own draws: large beside the data.
    """

    sigma_min: float = 0.001
    sigma_max: float = 20.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < 1 and 1 < self.sigma_max < math.inf):
            raise ValueError(
                "VarianceExploding: expected 0 < sigma_min < 1 < sigma_max, got "
                f"{self.sigma_min}, {self.sigma_max}; usual values are 0.001 and 20 times the data's spread."
            )

    def coefficients(self, t: Tensor) -> Coefficients:
        rate = math.log(self.sigma_max / self.sigma_min)
        sigma = self.sigma_max * (-rate * t).exp()
        return t.new_ones(t.shape), sigma, t.new_zeros(t.shape), -rate * sigma


@dataclass(frozen=True)
class Affine(Path):
    """α and σ of your own; their derivatives are taken by automatic differentiation.

    Args:
        alpha, sigma: functions of t (B,) made of torch operations. α grows from (about) 0, σ falls to (about) 0.

    Raises:
        ValueError: where a coefficient or its slope is not finite on [0, 1], or α/σ does not grow.

    Example:
        >>> path = Affine(alpha=lambda t: t**2, sigma=lambda t: (1 - t) * (1 + t))
        >>> path.coefficients(torch.tensor([0.5]))
        (tensor([0.2500]), tensor([0.7500]), tensor([1.]), tensor([-1.]))
    """

    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        if not (callable(self.alpha) and callable(self.sigma)):
            raise TypeError("Affine: alpha and sigma must be functions of t (B,), such as lambda t: t**2.")
        t = torch.linspace(0, 1, 101, dtype=torch.float64)
        for name, value in zip(("α", "σ", "α̇", "σ̇"), self.coefficients(t), strict=True):
            if value.shape != t.shape or not value.isfinite().all():
                where = "" if value.shape != t.shape else f" at t={float(t[~value.isfinite()][0]):g}"
                raise ValueError(
                    f"Affine: {name} must be finite and of shape (B,) for every t in [0, 1], got {tuple(value.shape)}"
                    f"{where}. A root that starts at 0 has an infinite slope: stop it short, √(t² + ε²)."
                )
        alpha, sigma, alpha_dot, sigma_dot = self.coefficients(t)
        if not (alpha_dot * sigma - alpha * sigma_dot >= 0).all():
            raise ValueError("Affine: α/σ must grow from the prior at t=0 to the data at t=1; are they exchanged?")
        if not (abs(float(alpha[0])) < 0.2 * float(sigma[0]) and abs(float(sigma[-1])) < float(alpha[-1])):
            raise ValueError(
                f"Affine: at t=0 α/σ is {float(alpha[0]):g}/{float(sigma[0]):g}, where the path must be (nearly) a "
                f"multiple of x0, and at t=1 {float(alpha[-1]):g}/{float(sigma[-1]):g}, where it must be one of x1."
            )

    def coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        alpha, alpha_dot = torch.func.jvp(self.alpha, (t,), (one,))[:2]
        sigma, sigma_dot = torch.func.jvp(self.sigma, (t,), (one,))[:2]
        return alpha, sigma, alpha_dot, sigma_dot
