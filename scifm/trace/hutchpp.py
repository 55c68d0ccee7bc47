"""Hutch++: exact where the Jacobian is large, random on the rest.

A sketch J S of the range, with m random columns S, is orthonormalised to Q for each sample, and

    tr J = tr(Qᵀ J Q) + tr((1 − QQᵀ) J (1 − QQᵀ)),

the first term with m products, the second by Hutchinson's probes G.  Unbiased, since G is independent of S; where the
spectrum decays fast the error falls as 1/K instead of 1/√K.  Where it does not, and velocities of images are like
that, plain probes or `Colours` do better for the same work: look at the standard error.

The orthonormalisation is Gram and Schmidt's, twice, in sums over samples, so that it serves every layout; a column
that adds nothing to those before it is dropped.  Products are with Jᵀ, whose trace is the same.
Reference: Meyer, Musco, Musco and Woodruff 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.trace.base import Linearisation, Velocity
from scifm.trace.hutchinson import noise

__all__ = ["HutchPlusPlus"]


@dataclass(frozen=True)
class HutchPlusPlus:
    """A third of the products sketch, a third measure the sketch, the rest probe what is left, a column each.

    Args:
        probes: products with the Jacobian per evaluation, at least 3; from 4 on there is a standard error.
    """

    probes: int = 6

    def __post_init__(self) -> None:
        if self.probes < 3:
            raise ValueError(f"HutchPlusPlus: expected probes >= 3, a third of them for the sketch, got {self}.")

    @property
    def sketch(self) -> int:
        """Columns m of the sketch."""
        return self.probes // 3

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> Tensor | None:
        """The sketch's m columns, normal so that they span what they can, then the probes of the rest, signs."""
        sketch = noise(like, self.sketch, "gaussian", generator)
        return torch.cat([sketch, noise(like, self.probes - 2 * self.sketch, "rademacher", generator)])

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if probes is None or probes.shape != (self.probes - self.sketch, *x.shape):
            raise ValueError("HutchPlusPlus: draw the probes once per solve with .draw(like, generator) and pass them.")
        at = Linearisation(velocity, t, x, batch)
        basis = orthonormal([at.times(probe[None])[0] for probe in probes[: self.sketch]], batch)
        known = torch.stack([batch.total(at.times(q[None])[0] * q) for q in basis]).sum(0)
        columns = []
        for probe in probes[self.sketch :]:
            rest = _without(probe, basis, batch)
            columns.append(known + batch.total(at.times(rest[None])[0] * rest))
        return at.v, torch.stack(columns, 1)


def orthonormal(columns: list[Tensor], batch: Batch) -> list[Tensor]:
    """Each sample's columns made orthonormal; a column within rounding of the span of those before becomes zero."""
    basis: list[Tensor] = []
    for column in columns:
        before = batch.total(column.square())
        rest = _without(_without(column, basis, batch), basis, batch)
        after = batch.total(rest.square())
        kept = after > before * (100 * torch.finfo(column.dtype).eps) ** 2
        scale = torch.where(kept, torch.where(kept, after, 1.0).rsqrt(), 0.0)
        basis.append(rest * batch.spread(scale))
    return basis


def _without(x: Tensor, basis: list[Tensor], batch: Batch) -> Tensor:
    shares = [batch.spread(batch.total(q * x)) * q for q in basis]
    return x - torch.stack(shares).sum(0) if shares else x
