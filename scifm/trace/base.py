"""What a divergence estimator is, and products with the Jacobian, on which all of them are built.

    reverse   Jᵀe   one forward pass, then a backward pass per probe; blocks of probes share a vectorised one
    forward   J e   tangents pushed through beside the values (dual numbers), a block of them at once

Both give eᵀJe.  Reverse costs less for nearly all networks, since a backward pass to the input alone is about as
cheap as a forward pass, and asks nothing of the network.  Forward keeps no activations.
References: Griewank and Walther 2008.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["MODES", "Linearisation", "Trace", "Velocity"]

Velocity = Callable[[Tensor, Tensor, Batch], Tensor]
MODES = ("reverse", "forward")


class Trace(Protocol):
    """Divergence estimator."""

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> Tensor | None:
        """Probes for one solve, (P, rows, *event), or None where none are needed: the trace is exact."""
        ...

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The velocity, shaped like x, and its divergence (B, K), one column per independent estimate."""
        ...


class Linearisation:
    """A velocity at one point, and products of probes (k, *x.shape) with its Jacobian or, reverse, its transpose."""

    def __init__(self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, mode: str = "reverse"):
        if torch.is_inference_mode_enabled():  # enable_grad would not help, and every divergence would be zero
            raise RuntimeError("A divergence needs derivatives: use torch.no_grad(), not torch.inference_mode().")
        self.velocity, self.t, self.batch, self.mode = velocity, t, batch, mode
        self.attached = torch.is_grad_enabled()
        self.x = x
        self._v: Tensor | None = None
        if mode == "reverse":
            with torch.enable_grad():
                self.x = x if self.attached and x.requires_grad else x.detach().requires_grad_()
                self._v = velocity(t, self.x, batch)

    @property
    def v(self) -> Tensor:
        """The velocity, in the graph where gradients were enabled."""
        if self._v is None:
            self._v = self.velocity(self.t, self.x, self.batch)
        return self._v if self.attached else self._v.detach()

    def times(self, probes: Tensor) -> Tensor:
        """Jᵀe (reverse) or J e (forward) for each probe, shaped like probes."""
        return self._pull(probes) if self.mode == "reverse" else self._push(probes)

    def _pull(self, probes: Tensor) -> Tensor:
        v = self._v
        assert v is not None
        if not v.requires_grad or len(probes) == 0:  # a velocity that depends on nothing
            return torch.zeros_like(probes)
        alone = len(probes) == 1  # vectorising a single backward pass would only cost
        (product,) = torch.autograd.grad(
            v,
            self.x,
            probes[0] if alone else probes,
            retain_graph=True,
            create_graph=self.attached,
            allow_unused=True,
            is_grads_batched=not alone,
        )
        if product is None:
            return torch.zeros_like(probes)
        return product[None] if alone else product

    def _push(self, probes: Tensor) -> Tensor:
        def along(tangent: Tensor) -> tuple[Tensor, Tensor]:
            pair = torch.func.jvp(lambda x: self.velocity(self.t, x, self.batch), (self.x,), (tangent,))
            return pair[0], pair[1]

        try:
            v, product = torch.func.vmap(along, out_dims=(None, 0))(probes)  # type: ignore[arg-type]
        except (RuntimeError, NotImplementedError) as error:
            raise RuntimeError(
                'mode="forward" pushes tangents through the velocity with torch.func, and this one does not go through '
                f"({str(error).splitlines()[0]}). Usually a layer without forward derivatives, a value read with "
                '.item(), or a change in place: use mode="reverse".'
            ) from error
        self._v = v
        return product if self.attached else product.detach()
