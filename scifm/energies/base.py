"""What an energy is: the law of a system in equilibrium, but for its normalising constant.

    p(x) = exp(−U(x)/T) / Z,     Z = ∫ exp(−U(x)/T) dx,     log Z = −F/T

A call gives U/T, the energy in units of kT, so that −energy(x) is a log-density up to log Z and nothing else needs to
know of a temperature.  An energy that does not change under translations has a finite Z only on centred sets,
Σ_i x_i = 0, and there D = (n − 1) d numbers are free: every constant of this package is that of this subspace, with the
length it inherits from R^(n×d).  Z has the unit length^D, so log Z changes with the unit of the coordinates.

An energy is written for padded sets, x (..., n, d) with a mask of the points that are there, and `of` applies it to any
`Batch`, dense or ragged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.bits import Estimate
from scifm.blocks import blocks

__all__ = ["Energy", "per_sample"]

PAIRS = 1 << 22  # pairs of points looked at together, which bounds the memory


class Energy(ABC):
    """Potential energy of sets of points, in units of kT.

    A subclass defines `potential`. It may define a gradient in closed form by deriving from `PairEnergy`.

    Attributes:
        temperature: T in the unit of the potential, positive.
        symmetries: transformations that leave it unchanged: "translation", "rotation", "reflection", "permutation".
    """

    temperature: float = 1.0
    symmetries: frozenset[str] = frozenset()

    @abstractmethod
    def potential(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """U in its own unit, (...), of x (..., n, d); mask (..., n) is False where there is no point."""

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """U/T, (...)."""
        self._check(x, mask)
        return self.potential(x, mask) / self.temperature

    def gradient(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """∇U/T, shaped like x, detached; minus the force in units of kT per length. By automatic differentiation."""
        if torch.is_inference_mode_enabled():
            raise RuntimeError("An energy's gradient needs derivatives: use torch.no_grad(), not inference_mode().")
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self(x, mask).sum(), x)[0]

    def of(self, batch: Batch) -> Tensor:
        """U/T of each sample, (B,): dense events (n, d), or ragged rows (d,)."""
        return per_sample(self, batch)

    def dims(self, like: Batch) -> Tensor:
        """Degrees of freedom of each sample, (B,), in the dtype of x: (n − 1) d where translations change nothing."""
        dims = like.points.dims
        return (dims - like.points.event[-1]).clamp(min=0) if "translation" in self.symmetries else dims

    def known_log_z(self, points: int, width: int) -> Estimate | None:
        """log Z of sets of so many points in so many dimensions, with its error; None, as here, where none is known."""
        return None

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        name = type(self).__name__
        if x.ndim < 2 or not x.is_floating_point():
            raise ValueError(
                f"{name}: expected floating-point sets of points (..., n, d), got {x.dtype} {tuple(x.shape)}; flat "
                "rows are reshaped with x.reshape(-1, n, d), a Batch goes to energy.of(batch)."
            )
        if mask is not None and (mask.shape != x.shape[:-1] or mask.dtype != torch.bool):
            raise ValueError(f"{name}: mask must be bool {tuple(x.shape[:-1])}, got {mask.dtype} {tuple(mask.shape)}.")


def per_sample(function: Callable[[Tensor, Tensor | None], Tensor], batch: Batch) -> Tensor:
    """`function(x (b, n, d), mask (b, n) or None) -> (b,)` for the samples of any batch, (B,); 0 for empty ones."""
    points = batch.points
    value = points.x.new_zeros(len(batch))
    for block in blocks(points):
        size = max(1, PAIRS // max(1, block.mask.shape[1] ** 2))
        parts = block.pad(points.x).split(size)
        masks = [None] * len(parts) if block.full else block.mask.split(size)
        found = [function(part, mask) for part, mask in zip(parts, masks, strict=True)]
        value = value.index_copy(0, block.samples, torch.cat(found))
    return value
