"""Trajectories that forget slowly: a first-order autoregression in time over any Gaussian of one step.

In the coordinates in which the base is white, x_t = colour(z_t),

    z_{t+1} = φ z_t + √(1 − φ²) ξ_t,     z_1, ξ_t ~ N(0, 1),

so that every step has the base's law, correlations fall as φ^|t−s|, and the density of a trajectory is the product of
the densities of its innovations,

    log p(x_1..T) = log p_b(x_1) + Σ_t [ log p_b(colour(ξ_t)) − Σ_i ½ log(1 − φ_i²) ].

With one φ this is the familiar x_{t+1} − m = φ (x_t − m) + √(1 − φ²) η_t, η of the base without its mean.  With a φ for
each channel it is the same where channels are independent; where they are not, that form would change the correlations
between channels with every step, and this one keeps them.

Steps lie along the first event axis, x (B, T·C, *grid), the C channels of a step together: what networks and
transforms take, which know channels and no time.  References: Yule 1927; Walker 1931.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior

__all__ = ["AR1"]


class AR1(Prior):
    """Stationary autoregression of first order, x (B, steps · C, *grid), whose every step has the law of `base`.

    Args:
        base: Gaussian of one step, events (C, *grid), that whitens.  Conditions in context belong to the whole
            trajectory: the base is given them at every step.
        steps: number T of steps.
        phi: correlation from one step to the next, in (−1, 1): a number or one per channel, (C,).
        per: what `fit` tells apart: "all" or "channel".

    Example:
        >>> from scifm.priors import Gaussian
        >>> like = Batch(torch.zeros(4000, 5, 3))
        >>> x = AR1(Gaussian(std=2.0), steps=5, phi=0.9).sample(like, torch.Generator().manual_seed(0))
        >>> [round(float((x[:, t] * x[:, 0]).mean()) / 4, 1) for t in range(5)]
        [1.0, 0.9, 0.8, 0.7, 0.7]
    """

    metric = "prior"
    gaussian = True

    def __init__(self, base: Prior, steps: int, phi: float | Tensor = 0.0, per: str = "all"):
        super().__init__()
        if not (base.gaussian and base.whitens):
            raise ValueError(f"AR1: the base must be a Gaussian that whitens, such as SpectralGaussian; got {base}.")
        if steps < 1 or per not in ("all", "channel"):
            raise ValueError(f'AR1: expected steps of at least 1 and per "all" or "channel", got {steps} and {per!r}.')
        self.base, self.steps, self.per = base, int(steps), per
        self.conditional = base.conditional
        self.phi: Tensor
        self.register_buffer("phi", self._valid(torch.as_tensor(phi, dtype=torch.float64)))

    @staticmethod
    def _valid(phi: Tensor) -> Tensor:
        if phi.ndim > 1 or not (phi.abs() < 1).all():
            raise ValueError(
                f"AR1: phi must be in (-1, 1), a number or one per channel, got {phi.tolist()}; at 1 the first step "
                "would decide all others, and there is no density."
            )
        return phi.clone()

    def fit(self, batch: Batch) -> AR1:
        """The base from all steps, then φ, the mean product of neighbouring whitened steps over their mean square."""
        inner = self._inner(batch.x, batch)
        if self.steps < 2:
            raise ValueError("AR1.fit: one step says nothing about the next; give trajectories of 2 steps or more.")
        self.base.fit(inner)
        z = self._split(self.base.whiten(inner.x, inner)).double()  # (B, T, C, *grid)
        before, after = z[:, :-1], z[:, 1:]
        axes = [a for a in range(z.ndim) if a != 2 or self.per == "all"]
        square = 0.5 * (before.square() + after.square()).sum(axes)  # at least as large as the product: |φ| ≤ 1
        self.phi = self._valid(((before * after).sum(axes) / square).to(self.phi))
        return self

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        inner = self._inner(x, like)
        z = self._split(self.base.whiten(inner.x, inner))
        own = self._split(self.base.log_prob(inner.x, inner)).sum(1)
        change = 0.5 * (like.total(z.square()) - like.total(self._innovations(z).square()))
        # φ per value of one step; on the base's subspace where it has one
        narrow = 0.5 * torch.log1p(-self._phi(z).square()).expand_as(z[:, 0])
        if self.phi.ndim:
            one = Batch(narrow, context=like.context)
            logdet = one.total(self.base.project(narrow, one))
        else:
            logdet = narrow.flatten(1)[:, 0] * self._split(self.base.dims(inner))[:, 0].to(x)
        return own + change - (self.steps - 1) * logdet

    def score(self, x: Tensor, like: Batch) -> Tensor:
        # With z = R⁻¹(x − m) and ξ = A z the score is −R⁻ᵀ Aᵀ ξ, and the base's score at colour(v) is −R⁻ᵀ v.
        inner = self._inner(x, like)
        z = self._split(self.base.whiten(inner.x, inner))
        v, (φ, s) = self._innovations(z), self._coefficients(z)
        v = torch.cat([v[:, :1], v[:, 1:] / s], 1) - torch.cat([φ * v[:, 1:] / s, torch.zeros_like(v[:, :1])], 1)
        point = self.base.colour(v.flatten(0, 1), inner)
        return self.base.score(point, inner).reshape(x.shape)

    def dims(self, like: Batch) -> Tensor:
        return self._split(self.base.dims(self._inner(like.x, like))).sum(1)

    def project(self, x: Tensor, like: Batch) -> Tensor:
        inner = self._inner(x, like)
        return self.base.project(inner.x, inner).reshape(x.shape)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        inner = self._inner(x, like)
        return self._innovations(self._split(self.base.whiten(inner.x, inner))).reshape(x.shape)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        inner = self._inner(z, like)
        noise = self._split(inner.x)
        φ, s = self._coefficients(noise)
        steps = [noise[:, 0]]
        for t in range(1, self.steps):
            steps.append(φ[:, 0] * steps[-1] + s[:, 0] * noise[:, t])
        return self.base.colour(torch.stack(steps, 1).flatten(0, 1), inner).reshape(z.shape)

    def _innovations(self, z: Tensor) -> Tensor:
        φ, s = self._coefficients(z)
        return torch.cat([z[:, :1], (z[:, 1:] - φ * z[:, :-1]) / s], 1)

    def _coefficients(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ and √(1 − φ²), which broadcast to z (B, T, C, *grid)."""
        φ = self._phi(z)[:, None]
        return φ, (1 - φ.square()).sqrt()

    def _phi(self, z: Tensor) -> Tensor:
        """φ as it broadcasts to one step (B, C, *grid) of z."""
        if self.phi.ndim and self.phi.shape != z.shape[2:3]:
            raise ValueError(f"AR1: phi has {len(self.phi)} channels, a step has {z.shape[2]}.")
        return self.phi.to(z).reshape(1, -1, *[1] * (z.ndim - 3))

    def _split(self, values: Tensor) -> Tensor:
        """(B·T, ...) -> (B, T, ...)."""
        return values.reshape(-1, self.steps, *values.shape[1:])

    def _inner(self, x: Tensor, like: Batch) -> Batch:
        """All steps of all trajectories as samples of the base, with the conditions of their trajectory."""
        event = like.grid("AR1")
        if not event or event[0] % self.steps or x.shape[1:] != event:
            raise ValueError(
                f"AR1: expected samples (steps · channels, *grid) with {self.steps} steps, got {tuple(x.shape[1:])}; "
                "lay the steps along the first axis, the channels of a step together."
            )
        context = {k: v.repeat_interleave(self.steps, 0) for k, v in like.context.items()}
        return Batch(x.reshape(-1, event[0] // self.steps, *event[1:]), context=context)
