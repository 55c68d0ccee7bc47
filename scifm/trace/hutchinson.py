"""Random probes: E[εᵀ J ε] = tr J whenever E[ε εᵀ] = I.

The variance of one probe is 2 ‖S − diag S‖²_F for random signs and 2 ‖S‖²_F for normal ones, S = (J + Jᵀ)/2: signs
are never worse, and free of noise for a diagonal Jacobian.  The mean of K probes has a K-th of it.
References: Hutchinson 1990; Grathwohl et al. 2019 (FFJORD).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.trace.base import MODES, Linearisation, Velocity

__all__ = ["Hutchinson", "noise"]

KINDS = ("rademacher", "gaussian")


@dataclass(frozen=True)
class Hutchinson:
    """K random probes with independent signs (Rademacher) or normal values.

    Args:
        probes: K. From two on, their spread gives a standard error for each sample.
        kind: "rademacher" or "gaussian".
        mode: "reverse" or "forward"; reverse costs less, see `scifm.trace.base`.
    """

    probes: int = 2
    kind: str = "rademacher"
    mode: str = "reverse"

    def __post_init__(self) -> None:
        if self.probes < 1 or self.kind not in KINDS or self.mode not in MODES:
            raise ValueError(
                'Hutchinson: expected probes >= 1, kind "rademacher" or "gaussian" and mode "reverse" or "forward", '
                f"got {self}."
            )

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> Tensor | None:
        return noise(like, self.probes, self.kind, generator)

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if probes is None or probes.shape[1:] != x.shape or len(probes) == 0:
            raise ValueError("Hutchinson: draw the probes once per solve with .draw(like, generator) and pass them.")
        at = Linearisation(velocity, t, x, batch, self.mode)
        if self.mode == "forward":
            products = list(at.times(probes))
        else:  # a loop, not a block: vectorising two or three backward passes of a large network gains nothing
            products = [at.times(probe[None])[0] for probe in probes]
        columns = [batch.total(product * probe) for product, probe in zip(products, probes, strict=True)]
        return at.v, torch.stack(columns, 1)


def noise(like: Batch, number: int, kind: str, generator: torch.Generator | None) -> Tensor:
    """Probes (number, rows, *event) with mean 0 and covariance 1, in the dtype of the data."""
    values = torch.stack([like.randn(generator) for _ in range(number)])
    return values if kind == "gaussian" else torch.where(values < 0, -1.0, 1.0).to(values)
