"""What a network is asked to predict, in which coordinates, at which times and with which weight.

    velocity   E[u_t | x_t]                  the network is the velocity
    x1         E[x1 | x_t]                   it says where the curve ends: a denoiser
    noise      E[x0 | x_t]                   it says where the curve began: DDPM's ε
    score      E[∇ log p0(x0) | x_t] / σ_t   denoising score matching, weighted by σ_t²

All four are the same function in other words (`scifm.conversions`), but not the same loss: a network that is to say x1
weighs early times most, one that is to say the noise late ones.  Only the velocity is finite at both ends of a path
that begins in pure noise and ends in pure data.

References: Ho et al. 2020 (ε); Vincent 2011, Song et al. 2021 (score); Salimans and Ho 2022 (the choice among them).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.times import Times, uniform

__all__ = ["PREDICTIONS", "Objective"]

PREDICTIONS = ("velocity", "x1", "noise", "score")


@dataclass(frozen=True)
class Objective:
    """How a flow is regressed.

    Args:
        predict: what the network's output means: "velocity", "x1", "noise" or "score".
        metric: "plain", or "prior": network and loss live in coordinates whitened by the prior. None takes the
            prior's own choice, which is "prior" for informed priors: in likelihood it decides everything.
        times: training times, `(n, generator) -> t (n,)`.
        weight: t (B,) -> (B,), not negative; multiplies the loss of a sample. Changes no minimiser, but how well it is
            met where.
        thickening: standard deviation σ_data of white noise added to the data, in model units, anew in each step. Data
            on a thin manifold have no density; thickened data have one, and it is that which the flow learns.

    Raises:
        TypeError, ValueError: the message names the field.
    """

    predict: str = "velocity"
    metric: str | None = None
    times: Times = uniform
    weight: Callable[[Tensor], Tensor] | None = None
    thickening: float = 0.0

    def __post_init__(self) -> None:
        if self.predict not in PREDICTIONS:
            raise ValueError(f"Objective: predict must be one of {', '.join(PREDICTIONS)}, got {self.predict!r}.")
        if self.metric not in (None, "plain", "prior"):
            raise ValueError(f'Objective: metric must be "plain" or "prior", got {self.metric!r}.')
        for name, part in (("times", self.times), ("weight", self.weight)):
            if part is not None and (isinstance(part, type) or not callable(part)):
                raise TypeError(f"Objective: {name} must be a callable, made if it is a class; got {part!r}.")
        if self.weight is not None:
            t = torch.linspace(0, 1, 101, dtype=torch.float64)
            w = self.weight(t)
            if not isinstance(w, Tensor) or w.shape != t.shape or not (w.isfinite().all() and (w >= 0).all()):
                got = tuple(w.shape) if isinstance(w, Tensor) else type(w).__name__
                raise ValueError(
                    "Objective: weight must give one number per sample, (B,) for t (B,), finite and not negative; got "
                    f"{got if got != tuple(t.shape) else 'numbers that are negative or not finite'}."
                )
        if not 0 <= self.thickening < math.inf:
            raise ValueError(f"Objective: thickening must be finite and not negative, got {self.thickening}.")
