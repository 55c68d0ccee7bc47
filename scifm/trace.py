"""Divergence of a velocity field, tr(∂v/∂x), sample by sample.

    exact        Σ_j e_jᵀ (∂v/∂x) e_j       one backward pass per coordinate of the largest sample
    Hutchinson   (1/K) Σ_k ε_kᵀ (∂v/∂x) ε_k   K backward passes, unbiased for E[ε εᵀ] = I

The probes ε are drawn once and then kept for a whole solve: fresh ones at every call would make the right-hand side
random, and an adaptive solver would chase the noise.  Each probe's divergence is returned by itself, so that their
spread along the path gives the standard error of the log-likelihood.

A trace has two verbs: `draw(like, generator)` the probes, and `(velocity, t, x, batch, probes) -> (v, divergence)`.
References: Hutchinson 1990; Grathwohl et al. 2019 (FFJORD).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["Exact", "Hutchinson", "Trace", "default"]

Velocity = Callable[[Tensor, Tensor, Batch], Tensor]


class Trace(Protocol):
    """Divergence estimator."""

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> Tensor | None:
        """Probes for one solve, (K, rows, *event), or None where none are needed."""
        ...

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The velocity, shaped like x, and its divergence (B, K), one column per probe."""
        ...


@dataclass(frozen=True)
class Exact:
    """All coordinates, `block` of them per vectorised backward pass: memory grows with the block.

    Example:
        >>> batch = Batch(torch.ones(2, 3))
        >>> v, divergence = Exact()(lambda t, x, batch: x**2, torch.zeros(2), batch.x, batch, None)
        >>> divergence
        tensor([[6.],
                [6.]])
    """

    block: int = 16

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"Exact: block must be at least 1, got {self.block}.")

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> Tensor | None:
        return None

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x, v = _forward(velocity, t, x, batch)
        divergence = v.new_zeros(len(batch))
        if v.requires_grad:
            for slots in batch.slots(self.block):
                gradient = _pull(v, x, slots)
                if gradient is not None:
                    divergence = divergence + batch.total((gradient * slots).sum(0))
        return v.detach(), divergence[:, None]


@dataclass(frozen=True)
class Hutchinson:
    """K random probes with independent signs (Rademacher) or normal values.

    Rademacher probes have the smaller variance, and none at all for a diagonal Jacobian.

    Args:
        probes: K. From two on, their spread gives a standard error for each sample.
        kind: "rademacher" or "gaussian".
    """

    probes: int = 2
    kind: str = "rademacher"

    def __post_init__(self) -> None:
        if self.probes < 1 or self.kind not in ("rademacher", "gaussian"):
            raise ValueError(f'Hutchinson: expected probes >= 1 and kind "rademacher" or "gaussian", got {self}.')

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> Tensor | None:
        noise = torch.stack([like.randn(generator) for _ in range(self.probes)])
        return noise if self.kind == "gaussian" else torch.where(noise < 0, -1.0, 1.0).to(noise)

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if probes is None or probes.shape[1:] != x.shape:
            raise ValueError("Hutchinson: draw the probes once per solve with .draw(like, generator) and pass them.")
        x, v = _forward(velocity, t, x, batch)
        columns = [v.new_zeros(len(batch))] * len(probes)
        if v.requires_grad:
            # A loop, not a block: vectorising two or three backward passes of a large network gains nothing.
            for k, probe in enumerate(probes):
                (gradient,) = torch.autograd.grad(v, x, probe, retain_graph=k + 1 < len(probes), allow_unused=True)
                if gradient is not None:
                    columns[k] = batch.total(gradient * probe)
        return v.detach(), torch.stack(columns, 1)


def default(like: Batch) -> Trace:
    """Exact up to 64 numbers per sample, above that Hutchinson with two probes."""
    largest = int(like.dims.max()) if len(like) else 0
    return Exact() if largest <= 64 else Hutchinson(2)


def _forward(velocity: Velocity, t: Tensor, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    if torch.is_inference_mode_enabled():  # enable_grad would not help, and every divergence would be zero
        raise RuntimeError("A divergence needs derivatives: use torch.no_grad(), not torch.inference_mode().")
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return x, velocity(t, x, batch)


def _pull(v: Tensor, x: Tensor, probes: Tensor) -> Tensor | None:
    """Vector-Jacobian products of a block of probes, (k, *x.shape); None where v does not depend on x."""
    if len(probes) == 1:
        (gradient,) = torch.autograd.grad(v, x, probes[0], retain_graph=True, allow_unused=True)
        return None if gradient is None else gradient[None]
    return torch.autograd.grad(v, x, probes, retain_graph=True, allow_unused=True, is_grads_batched=True)[0]
