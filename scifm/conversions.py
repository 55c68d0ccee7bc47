"""Velocity, x1, noise and score: four ways to say the same thing about x_t.

For an affine path x_t = α x1 + σ x0, u_t = α̇ x1 + σ̇ x0 and Δ = α̇ σ − α σ̇. With v = E[u_t | x_t] and x̂ = E[x | x_t],

    x̂1 = (σ v − σ̇ x_t) / Δ          v = (σ̇ x_t + Δ x̂1) / σ
    x̂0 = (α̇ x_t − α v) / Δ          v = (α̇ x_t − Δ x̂0) / α

If x0 is independent of x1, the score of the marginal is ∇ log p_t(x_t) = E[∇ log p0(x0) | x_t] / σ.  For a Gaussian
prior N(m, C), white or coloured, full or on a subspace,

    s = −C⁻¹ (x̂0 − m) / σ           x̂0 = m − σ C s.

A formula with the score of a standard normal, −x̂0/σ, is wrong for every other prior.

Two of these divide by zero at an end: v from x̂1 where σ = 0, v from x̂0 or s where α = 0.  The numerator vanishes there
too, so there is a limit, but not a value.  So a flow whose network predicts one of these looks at the time √ε of the
dtype away from either end instead (3e-4 in float32, 1.5e-8 in float64), where rounding is of that size as well; and
nothing is ever divided by less than √ε.

References: Albergo, Boffi and Vanden-Eijnden 2023; Ma et al. 2024 (SiT), for white noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.paths import Path
from scifm.priors import Prior

__all__ = ["Gauge", "away_from_the_ends", "check_convertible"]


class Gauge:
    """The conversions at given points and times.

    Args:
        path: affine.
        t: (B,) times.
        x: x_t, shaped like `like.x`.
        like: the batch that knows which row belongs to which sample.
        prior: law of x0; None for a standard normal, as in whitened coordinates.
    """

    def __init__(self, path: Path, t: Tensor, x: Tensor, like: Batch, prior: Prior | None = None):
        self.x, self.like, self.prior = x, like, prior
        coefficients = path.coefficients(t)
        self.alpha, self.sigma, self.alpha_dot, self.sigma_dot = (like.spread(c) for c in coefficients)
        self.delta = self.alpha_dot * self.sigma - self.alpha * self.sigma_dot

    def to_velocity(self, predict: str, value: Tensor) -> Tensor:
        """The velocity, from a prediction of the kind `predict`; all shaped like x."""
        if predict == "velocity":
            return value
        if predict == "x1":
            return (self.sigma_dot * self.x + self.delta * value) / _away(self.sigma)
        if predict == "score":
            value = self._origin(self.sigma * value)
        return (self.alpha_dot * self.x - self.delta * value) / _away(self.alpha)

    def from_velocity(self, predict: str, v: Tensor) -> Tensor:
        """A prediction of the kind `predict`, from the velocity; all shaped like x."""
        if predict == "velocity":
            return v
        # At an end that the path leaves at no speed (tⁿ) Δ vanishes too, and only the larger share of x_t is known.
        x1 = (self.sigma * v - self.sigma_dot * self.x) / _away(self.delta)
        x0 = (self.alpha_dot * self.x - self.alpha * v) / _away(self.delta)
        if predict == "x1":
            return torch.where(self.sigma > self.alpha, x1, (self.x - self.sigma * x0) / _away(self.alpha))
        x0 = torch.where(self.alpha > self.sigma, x0, (self.x - self.alpha * x1) / _away(self.sigma))
        return x0 if predict == "noise" else self.slope(x0) / _away(self.sigma)

    def residual(self, predict: str, value: Tensor, x0: Tensor, x1: Tensor, u_t: Tensor) -> Tensor:
        """What the loss squares: prediction minus target, and for the score σ_t times that, or it would be infinite."""
        if predict == "score":
            return self.sigma * value - self.slope(x0)
        return value - {"velocity": u_t, "x1": x1, "noise": x0}[predict]

    def slope(self, x0: Tensor) -> Tensor:
        """Score of the prior at x0."""
        return -x0 if self.prior is None else self.prior.score(x0, self.like)

    def _origin(self, score: Tensor) -> Tensor:
        """The x0 at which the prior has this score: m − C s, with C = L Lᵀ from colouring, colour(z) = m + L z."""
        if self.prior is None:
            return -score
        prior, like = self.prior, self.like
        pull = torch.func.vjp(lambda z: prior.colour(z, like), torch.zeros_like(score))[1]
        return prior.colour(-pull(score)[0], like)


def check_convertible(predict: str, path: Path, prior: Prior | None) -> None:
    """Refuse conversions that do not exist: `predict` on this path, for this prior (None: standard normal).

    Raises:
        ValueError: the message says why, and what to use instead.
    """
    if predict == "velocity":
        return
    if path.noise(torch.full((1,), 0.5)) is not None:
        raise ValueError(
            f"{type(path).__name__} has noise of its own, so its velocity does not tell x0, x1 and the noise apart: "
            f'there is no conversion to or from "{predict}". Use predict="velocity", or an affine path.'
        )
    if predict == "score" and prior is not None and not (prior.gaussian and prior.whitens):
        lacks = "has no whiten and colour" if prior.gaussian else "is not Gaussian (prior.gaussian is False)"
        raise ValueError(
            f"{type(prior).__name__} {lacks}: the score of x_t is then no known function of the velocity. Use "
            'predict="velocity", or a Gaussian prior that whitens, such as FullGaussian.'
        )


def away_from_the_ends(t: Tensor) -> Tensor:
    """Times (B,) within [√ε, 1 − √ε]."""
    least = torch.finfo(t.dtype).eps ** 0.5
    return t.clamp(least, 1 - least)


def _away(value: Tensor) -> Tensor:
    """A divisor, not negative, kept away from zero."""
    return value.clamp(min=torch.finfo(value.dtype).eps ** 0.5)
