"""Linear layers that keep the size of what passes through them.

PyTorch's own start with a third of the variance, and half of that is lost in a SiLU. Features that are products of
three others, as the difference between left and right is, then start a thousand times too small to be found. Here a
unit normal vector stays one: W ~ N(0, 1 / fan-in), after a SiLU N(0, 1 / (0.356 fan-in)), for E[silu(z)²] = 0.356,
and no bias. And what has grown in the layers before, with more points or further apart, is brought back before a
perceptron: h / √(1 + mean h²), smooth, and nearly h where that is small.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["linear", "perceptron", "tamed"]

SILU = 0.356  # E[silu(z)²] for a standard normal z


def linear(before: int, after: int, bias: bool = True, gain: float = 1.0) -> nn.Linear:
    """A linear layer whose answer to standard normal numbers has the standard deviation `gain`."""
    layer = nn.Linear(before, after, bias)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(before))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def perceptron(before: int, hidden: int, after: int) -> nn.Sequential:
    """Linear, SiLU, linear."""
    return nn.Sequential(linear(before, hidden), nn.SiLU(), linear(hidden, after, gain=SILU**-0.5))


def tamed(h: Tensor) -> Tensor:
    """(..., width) -> h / √(1 + mean h²)."""
    return h * (1 + h.square().mean(-1, keepdim=True)).rsqrt()
