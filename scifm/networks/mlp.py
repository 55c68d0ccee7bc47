"""A multilayer perceptron on dense vectors: v(t, x) = W_L s(... s(W_1 [x, waves of t])), s = SiLU.

SiLU, not ReLU: the likelihood needs the divergence of the velocity, and a piecewise linear network has a divergence
that jumps, which an adaptive solver pays for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.networks.checks import check_sizes, check_times
from scifm.networks.time import SinusoidalTime

__all__ = ["MLP"]


class MLP(nn.Module):
    """Velocity on dense samples of one fixed event shape.

    Args:
        event: numbers per sample D, or the event shape, which is flattened.
        hidden: widths of the hidden layers.
        time_width: sinusoidal time features beside the input.

    Shapes: t (B,), x (B, *event) -> (B, *event).

    Raises:
        ValueError: on a ragged batch, another event shape, or sizes that are not positive.

    Example:
        >>> x = torch.randn(5, 2)
        >>> MLP(2)(torch.rand(5), x, Batch(x)).shape
        torch.Size([5, 2])
    """

    symmetries = frozenset()

    def __init__(self, event: int | Sequence[int], hidden: Sequence[int] = (128, 128, 128), time_width: int = 64):
        super().__init__()
        shape = (event,) if isinstance(event, int) else tuple(event)
        self.event = check_sizes("MLP", "event", shape)
        self.embed = SinusoidalTime(time_width)
        width = math.prod(self.event)
        widths = [width + time_width, *check_sizes("MLP", "hidden", tuple(hidden))]
        layers: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        if batch.grid("MLP") != self.event:
            raise ValueError(
                f"MLP: made for samples of shape {self.event}, got {batch.event}; give MLP(event=) that shape."
            )
        check_times("MLP", t, len(batch))
        features = torch.cat([x.flatten(1), self.embed(t.to(x))], 1)
        return self.head(self.body(features)).reshape(x.shape)
