"""Clouds of exchangeable points: independent draws around the origin, filling a ball or covering a sphere.

In d dimensions the sphere of radius r has the area S r^(d−1), S = 2π^(d/2)/Γ(d/2).  With r = |x| of a point,

    Ball    p(x) = p / (S R^d Γ(d/p)) · exp(−(r/R)^p)           flat inside, and the sharper at the rim the larger p
            p(x) = d / (S R^d)  for r ≤ R                        its limit p → ∞
    Shell   p(x) = N(log r; log R, w²) / (S r^d)                 a log-normal radius, so no point comes to the origin

Directions are uniform.  A smooth rim matters: from a prior that ends abruptly a trained flow leads back to a density
of zero for every data point that it misses by a little.  Points keep their own centre, so data must come in a frame
with the origin where the prior has it; clouds that are centred have the density of their subspace, for which there is
`MeanFreeGaussian`. Reference for the Ball: the generalised normal law, Goodman and Kotz 1973.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.lent import lent
from scifm.priors.subspace import coordinates

__all__ = ["Ball", "Shell"]


class Ball(Prior):
    """Independent points in a ball with a smooth or sharp rim; ragged rows (d,) or dense events (n, d).

    Args:
        radius: R, in model units.
        power: p of the rim; 2 is a Gaussian, math.inf a ball with a sharp rim, outside of which log p is −inf.

    Example:
        >>> Ball(2.0, math.inf).log_prob(torch.zeros(1, 5, 3), Batch(torch.zeros(1, 5, 3)))  # −5 log(4π 2³/3)
        tensor([-17.5593])
    """

    symmetries = frozenset({"permutation", "rotation", "reflection"})

    def __init__(self, radius: float = 1.0, power: float = 8.0):
        super().__init__()
        if not 1 < power <= math.inf:
            raise ValueError(f"Ball: power must be more than 1, math.inf for a sharp rim, got {power}.")
        self.power, self.gaussian = float(power), power == 2
        self.radius: Tensor
        self.register_buffer("radius", _positive("Ball", "radius", radius))

    def fit(self, batch: Batch) -> Ball:
        """The most likely radius at the given power; with a sharp rim, that of the point that is farthest out."""
        r, d = _radii("Ball", batch), coordinates("Ball", batch)
        most = r.max()
        if math.isinf(self.power):
            self.radius = most.to(self.radius)
        else:
            self.radius = (most * ((r / most).pow(self.power).mean() * self.power / d).pow(1 / self.power)).to(
                self.radius
            )
        return self

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        d, way = coordinates("Ball", like), _directions(like, generator)
        r = _uniform(like, generator).pow(1 / d)
        if not math.isinf(self.power):
            # γ(a) is γ(a + 1) u^(1/a): drawn at once, γ of a small a = d/p would underflow, and no point come near 0.
            device = like.x.device if generator is None else generator.device
            law = torch.distributions.Gamma(torch.tensor(1 + d / self.power, dtype=like.x.dtype, device=device), 1.0)
            with lent(generator):
                r = r * law.sample(like.x.shape[:-1]).to(like.x.device).pow(1 / self.power)
        return way * (r * self.radius.to(r))[..., None]

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        d, s = coordinates("Ball", like), x.norm(dim=-1) / self.radius.to(x)
        constant = -_log_area(d) - d * self.radius.log().to(x)
        if math.isinf(self.power):
            value = torch.where(s <= 1, math.log(d) + constant + 0 * s, -math.inf)
        else:
            value = math.log(self.power) - math.lgamma(d / self.power) + constant - s.pow(self.power)
        return like.total(value)

    def score(self, x: Tensor, like: Batch) -> Tensor:
        if math.isinf(self.power):
            return torch.zeros_like(x)
        coordinates("Ball", like)
        r = x.norm(dim=-1, keepdim=True)
        steep = self.power * (r / self.radius.to(x)).pow(self.power - 1) / self.radius.to(x)
        return -steep * torch.where(r > 0, x / r, 0.0)


class Shell(Prior):
    """Independent points near a sphere; ragged rows (d,) or dense events (n, d).

    Args:
        radius: R, the median distance from the origin, in model units.
        width: w, the standard deviation of log r, about that of r in units of R.
    """

    symmetries = frozenset({"permutation", "rotation", "reflection"})

    def __init__(self, radius: float = 1.0, width: float = 0.1):
        super().__init__()
        self.radius: Tensor
        self.width: Tensor
        self.register_buffer("radius", _positive("Shell", "radius", radius))
        self.register_buffer("width", _positive("Shell", "width", width))

    def fit(self, batch: Batch) -> Shell:
        """Mean and standard deviation of log r."""
        log = _radii("Shell", batch).log()
        if not log.isfinite().all() or not log.std(correction=0) > 0:
            raise ValueError("Shell.fit: expected points away from the origin, at distances that differ.")
        self.radius, self.width = log.mean().exp().to(self.radius), log.std(correction=0).to(self.width)
        return self

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        coordinates("Shell", like)
        way, z = _directions(like, generator), like.randn(generator)[..., 0]
        return way * (self.radius.to(z) * (self.width.to(z) * z).exp())[..., None]

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        d, log_r, width = coordinates("Shell", like), x.norm(dim=-1).log(), self.width.to(x)
        z = (log_r - self.radius.log().to(x)) / width
        value = -0.5 * z.square() - width.log() - 0.5 * math.log(2 * math.pi) - _log_area(d) - d * log_r
        return like.total(torch.where(x.norm(dim=-1) == 0, -math.inf, value))

    def score(self, x: Tensor, like: Batch) -> Tensor:
        d, r, width = coordinates("Shell", like), x.norm(dim=-1, keepdim=True), self.width.to(x)
        z = (r.log() - self.radius.log().to(x)) / width
        return torch.where(r > 0, -(z / width + d) * x / r.square(), 0.0)


def _directions(like: Batch, generator: torch.Generator | None) -> Tensor:
    noise = like.randn(generator)
    return noise / noise.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(noise.dtype).tiny)


def _uniform(like: Batch, generator: torch.Generator | None) -> Tensor:
    device = like.x.device if generator is None else generator.device
    return torch.rand(like.x.shape[:-1], generator=generator, dtype=like.x.dtype, device=device).to(like.x.device)


def _log_area(d: int) -> float:
    """log of the area of the unit sphere in d dimensions."""
    return math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)


def _radii(who: str, batch: Batch) -> Tensor:
    coordinates(who, batch)
    r = batch.x.double().norm(dim=-1).flatten()
    if not len(r) or not r.isfinite().all() or not r.max() > 0:
        raise ValueError(f"{who}.fit: expected finite points, some of them away from the origin.")
    return r


def _positive(who: str, name: str, value: float) -> Tensor:
    number = torch.as_tensor(value, dtype=torch.float64)
    if number.ndim or not 0 < float(number) < math.inf:
        raise ValueError(f"{who}: {name} must be one positive number, got {value}.")
    return number
