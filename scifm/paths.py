"""Paths from prior to data, x_t = α_t x1 + σ_t x0, and their velocities u_t = α̇_t x1 + σ̇_t x0.

Time runs from the prior at t = 0 to the data at t = 1.  The noise that is left at t = 1 is the prior's own x0, not a
hidden white one: with σ_1 = σ_min the path ends in x1 + σ_min x0, whatever the law of x0.  So no formula here assumes
a standard normal prior.

Reference: Lipman et al. 2023 (flow matching); Albergo and Vanden-Eijnden 2023 (interpolants).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from scifm.batch import Batch

__all__ = ["Linear", "Path"]


class Path(ABC):
    """An affine path, given by its coefficients."""

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(α, σ, α̇, σ̇) at times t (B,), each (B,)."""

    def __call__(self, x0: Tensor, x1: Tensor, t: Tensor, like: Batch) -> tuple[Tensor, Tensor]:
        """The point x_t and its velocity u_t, each shaped like x1.

        Args:
            x0, x1: draws of prior and data, shaped like `like.x`.
            t: (B,) one time per sample.
            like: the batch that knows which row belongs to which sample.
        """
        alpha, sigma, alpha_dot, sigma_dot = (like.spread(c) for c in self.coefficients(t))
        return alpha * x1 + sigma * x0, alpha_dot * x1 + sigma_dot * x0


@dataclass(frozen=True)
class Linear(Path):
    """Straight lines, α_t = t and σ_t = 1 − (1 − σ_min) t.

    Args:
        sigma_min: what is left of x0 at t = 1, in [0, 1). The flow then ends in data blurred by σ_min x0.

    Example:
        >>> import torch
        >>> x0, x1 = torch.zeros(2, 3), torch.ones(2, 3)
        >>> Linear()(x0, x1, torch.tensor([0.0, 0.25]), Batch(x1))[0]
        tensor([[0.0000, 0.0000, 0.0000],
                [0.2500, 0.2500, 0.2500]])
    """

    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < 1:
            raise ValueError(f"Linear: sigma_min must be in [0, 1), got {self.sigma_min}; usual values are 0 to 0.01.")

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lost = 1 - self.sigma_min
        return t, 1 - lost * t, t.new_ones(t.shape), t.new_full(t.shape, -lost)
