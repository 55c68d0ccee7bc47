"""C²OT: optimal transport that leaves draws and conditions (nearly) independent (Cheng and Schwing 2025).

Transport that ignores a condition c sends each draw to a sample near it, hence to a c that goes with such samples: in
training, x0 given c is then a skewed part of the prior, but sampling starts from all of it.  For labels the cure is to
never pair across them, which `OptimalTransport` does.  Where c is continuous no two samples share it.  C²OT gives each
draw a condition at random, that of the sample it was drawn beside, and adds to the cost what the conditions differ:

    min Σ_i ‖x1_i − x0_π(i)‖² + w d(c_i, c_π(i))

w → ∞ pairs within equal conditions only, w = 0 is transport that ignores c.  A useful w depends on units, dimension
and batch, so it is found anew for each batch from a ratio: the share of (draw, sample) pairs whose total is no more
than that of the sample with its own draw.  That share falls as w grows; each pair drops out at w = saving/d, so w is a
quantile of these numbers, and needs no search.

References: Cheng and Schwing 2025, arXiv 2503.10636.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from scifm.batch import Batch
from scifm.couplings.assignment import assign, finite
from scifm.couplings.pairing import pair, products
from scifm.priors.base import Prior

__all__ = ["ConditionalTransport"]


@dataclass(frozen=True)
class ConditionalTransport:
    """C²OT: mini-batch optimal transport with a cost for conditions that differ.

    It needs draws that do not depend on the conditions `on`, as those of all unconditional priors.

    Args:
        on: names of context that vary continuously, e.g. ("longitude",). Pairs cross them at a cost, and never
            cross other context: labels stay out of `on`.
        weight: w, relative: at 1 the two terms are equally large on average. None finds it from `ratio`.
        ratio: the share of pairs that stay eligible, see above; smaller is stricter. At least 1/n are.
        metric: "square", squared distance of each condition in units of its spread over the group, summed; or
            "cosine", 1 − cos, for embeddings.
        ignore: names of context that the velocity does not look at.
        prior: measure the cost in this prior's metric; plain if None.
    """

    on: tuple[str, ...]
    weight: float | None = None
    ratio: float = 0.05
    metric: Literal["square", "cosine"] = "square"
    ignore: tuple[str, ...] = ()
    prior: Prior | None = None

    def __post_init__(self) -> None:
        if isinstance(self.on, str) or not self.on:
            raise ValueError(
                f'ConditionalTransport: on must be a tuple of names of context, e.g. ("lon", "lat"), got {self.on!r}; '
                "without continuous conditions use OptimalTransport."
            )
        if self.weight is not None and not 0 <= self.weight < math.inf:
            raise ValueError(
                f"ConditionalTransport: weight must be finite and not negative, got {self.weight}; for an infinite one "
                "leave the condition out of on."
            )
        if not 0 < self.ratio < 1 or self.metric not in ("square", "cosine"):
            raise ValueError(
                'ConditionalTransport: expected 0 < ratio < 1 and metric "square" or "cosine", got '
                f"{self.ratio}, {self.metric!r}."
            )

    def __call__(self, x0: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """x0 (rows, *event) re-paired with `batch.x`.

        Raises:
            ValueError: where x0 is not shaped and typed like the data, either is empty or not finite, or a condition
                is missing or not finite.
        """
        for name in self.on:
            if name not in batch.context:
                has = ", ".join(batch.context) or "none"
                raise ValueError(f"ConditionalTransport: the batch has no context {name!r}; it has {has}.")
            if not finite(batch.context[name].double()):
                raise ValueError(f"ConditionalTransport: context {name!r} is not finite (NaN or infinity).")

        def choose(data: Tensor, draws: Tensor, samples: Tensor) -> Tensor:
            cost, apart = products(data, draws), self.apart(batch, samples).to(data.device)
            weight = self.weight
            if weight is None:
                weight = weight_of(saving(cost, data, draws), apart.to(cost), self.ratio)
            else:
                weight *= float(cost.abs().mean()) / max(float(apart.mean()), 1e-300)
            return assign(cost.add(apart.to(cost), alpha=weight))

        return pair("ConditionalTransport", x0, batch, choose, (*self.ignore, *self.on), self.prior)

    def apart(self, batch: Batch, samples: Tensor) -> Tensor:
        """(n, n) float64: how far the conditions of two samples of a group differ; zero where they are equal."""
        conditions = [batch.context[name].double().reshape(len(batch), -1) for name in self.on]
        conditions = [c[samples.to(c.device)] for c in conditions]
        if self.metric == "cosine":
            unit = F.normalize(torch.cat(conditions, 1), dim=1)
            distance = (1 - unit @ unit.T).clamp(min=0)
        else:
            centred = [c - c.mean(0) for c in conditions]
            scaled = [c / c.square().sum(1).mean().sqrt().clamp(min=1e-300) for c in centred]
            every = torch.cat(scaled, 1)
            distance = torch.cdist(every, every, compute_mode="donot_use_mm_for_euclid_dist").square()
        return distance.fill_diagonal_(0)


def saving(cost: Tensor, data: Tensor, draws: Tensor) -> Tensor:
    """(n, n) ‖x1_i − x0_i‖² − ‖x1_i − x0_j‖² from `products`, which lacks the terms of the draws alone."""
    draws, data = draws.to(cost), data.to(cost)
    middle = draws.mean(0)
    centred = draws - middle
    alone = centred.square().sum(1) - 2 * centred @ (data.mean(0) - middle)
    total = cost + alone
    return total.diagonal()[:, None] - total


def weight_of(saving: Tensor, apart: Tensor, ratio: float) -> float:
    """The w at which a share `ratio` of all pairs has saving >= w · apart; 0 where less has even at w = 0."""
    drops = torch.where(apart > 0, saving / apart, torch.inf)  # the weight from which a pair is out
    drops = torch.where(saving >= 0, drops, -torch.inf).flatten()
    eligible = max(1, int(ratio * drops.numel()))
    at = float(drops.kthvalue(drops.numel() + 1 - eligible).values)
    if math.isinf(at) and at > 0:  # more pairs share their condition than the ratio asks for: keep to them
        known = drops[drops.isfinite()]
        at = 10 * float(known.max()) if known.numel() else 0.0
    return max(at, 0.0)
