"""Energies that are a sum over pairs of points, with springs to the common centre.

    U(x) = Σ_{i<j} u(|x_i − x_j|²) + (k/2) Σ_i |x_i − x̄|²

u is a function of the *squared* distance s, so that no root is differentiated where two points coincide.  The gradient
needs no automatic differentiation and no scatter: with W_ij = 2 u'(s_ij) (zero on the diagonal),

    ∂U/∂x_i = Σ_j W_ij (x_i − x_j) + k (x_i − x̄),     that is (diag(W 1) − W) x + k (x − x̄).

Differences are formed one by one and not from scalar products, which cancel where sets are far from the origin.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from scifm.energies.base import Energy

__all__ = ["PairEnergy", "squared_distances"]


class PairEnergy(Energy):
    """Base of energies of pairs. A subclass is a frozen dataclass with `temperature` that defines `pair` and `slope`.

    Attributes:
        spring: k, energy per squared length, of the springs to the centre.
    """

    symmetries = frozenset({"translation", "rotation", "reflection", "permutation"})
    spring: float = 0.0

    @abstractmethod
    def pair(self, s: Tensor) -> Tensor:
        """u(s), elementwise, s ≥ 0 the squared distance."""

    @abstractmethod
    def slope(self, s: Tensor) -> Tensor:
        """u'(s), the derivative by the squared distance; finite for s = 0."""

    def potential(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        s, apart = _pairs(x, mask)
        value = 0.5 * torch.where(apart, self.pair(s), 0).sum((-2, -1))
        return value if self.spring == 0 else value + 0.5 * self.spring * centred(x, mask).square().sum((-2, -1))

    def gradient(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        self._check(x, mask)
        x = x.detach()
        s, apart = _pairs(x, mask)
        w = torch.where(apart, 2 * self.slope(s), 0)
        # From the centre: W_ij (x_i − x_j) loses digits where |x| is much larger than the differences.
        y = centred(x, mask)
        value = w.sum(-1, keepdim=True) * y - w @ y
        return (value if self.spring == 0 else value + self.spring * y) / self.temperature


def squared_distances(x: Tensor) -> Tensor:
    """|x_i − x_j|², (..., n, n), of x (..., n, d); zero on the diagonal."""
    s = x.new_zeros(())
    for c in x.unbind(-1):  # d is small; this never holds (..., n, n, d)
        s = s + (c[..., :, None] - c[..., None, :]).square()
    return s


def centred(x: Tensor, mask: Tensor | None) -> Tensor:
    """x minus the centre of its points; zero where there is none."""
    if mask is None:
        return x - x.mean(-2, keepdim=True)
    there = mask[..., None].to(x)
    return (x - (x * there).sum(-2, keepdim=True) / there.sum(-2, keepdim=True).clamp(min=1)) * there


def _pairs(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Squared distances, 1 where there is no pair so that nothing diverges, and where there is one."""
    apart = ~torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
    if mask is not None:
        apart = apart & mask[..., :, None] & mask[..., None, :]
    return torch.where(apart, squared_distances(x), 1), apart
