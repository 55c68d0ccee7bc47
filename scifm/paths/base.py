"""Paths from prior to data, x_t = α_t x1 + σ_t x0 + γ_t ε, and their velocities u_t = α̇_t x1 + σ̇_t x0 + γ̇_t ε.

Time runs from the prior at t = 0 to the data at t = 1.  What is left at t = 1 is the prior's own x0, not a hidden
white noise: the path ends in α_1 x1 + σ_1 x0, whatever the law of x0.  So no formula here assumes a standard normal
prior.  A flow takes σ_0 and α_1 out again: it starts from σ_0 x0 and returns x_1 / α_1, with both in its density.

Most paths have no noise of their own, γ = 0.  Then x_t and u_t are two linear equations for x0 and x1, and with the
determinant Δ = α̇ σ − α σ̇ (which is positive, since α/σ grows)

    x1 = (σ u_t − σ̇ x_t) / Δ,      x0 = (α̇ x_t − α u_t) / Δ:

by linearity the same holds for the conditional means given x_t, on which `scifm.conversions` builds.

References: Lipman et al. 2023 (flow matching); Albergo, Boffi and Vanden-Eijnden 2023 (interpolants).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["Path"]


class Path(ABC):
    """A path, given by its coefficients."""

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(α, σ, α̇, σ̇) at times t (B,), each (B,) and finite for every t in [0, 1]."""

    def noise(self, t: Tensor) -> tuple[Tensor, Tensor] | None:
        """(γ, γ̇) at times t (B,), or None for a path without noise of its own."""
        return None

    def weight(self, t: Tensor) -> Tensor | None:
        """(B,) what to multiply the loss with so that its variance is finite; None for 1."""
        return None

    @property
    def ends(self) -> tuple[float, float]:
        """σ_0 and α_1: the flow starts from σ_0 x0 and ends in α_1 x1 (+ σ_1 x0)."""
        _, sigma, _, _ = self.coefficients(torch.zeros(1, dtype=torch.float64))
        alpha, _, _, _ = self.coefficients(torch.ones(1, dtype=torch.float64))
        return float(sigma), float(alpha)

    def __call__(
        self, x0: Tensor, x1: Tensor, t: Tensor, like: Batch, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The point x_t and its velocity u_t, each shaped like x1.

        Args:
            x0, x1: draws of prior and data, shaped like `like.x`.
            t: (B,) one time per sample.
            like: the batch that knows which row belongs to which sample.
            generator: draws ε, where the path has noise of its own.
        """
        alpha, sigma, alpha_dot, sigma_dot = (like.spread(c) for c in self.coefficients(t))
        x_t, u_t = torch.addcmul(alpha * x1, sigma, x0), torch.addcmul(alpha_dot * x1, sigma_dot, x0)
        noise = self.noise(t)
        if noise is None:
            return x_t, u_t
        epsilon = like.replace(x1).randn(generator)
        gamma, gamma_dot = (like.spread(c) for c in noise)
        return x_t + gamma * epsilon, u_t + gamma_dot * epsilon
