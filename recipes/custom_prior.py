"""A prior of your own, in the recipe's own file: points near a circle flow to rings.

A prior says how to draw and how likely a draw is; that the two agree is checked by
`scifm.testing.check_prior(Shell(1.0), like)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm import Batch, Flow, Prior, Recipe, couplings, networks
from scifm.data import rings


class Shell(Prior):
    """Points x = r u in the plane: u uniform on the circle, r ~ N(radius, width²), which may be negative.

    Two (r, u) give the same x, so with f the normal density, p(x) = [f(|x|) + f(−|x|)] / (2π |x|).
    """

    def __init__(self, radius: float, width: float = 0.2):
        super().__init__()
        self.radius, self.width = radius, width

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        z = like.randn(generator)
        u = z / z.norm(dim=1, keepdim=True)
        r = self.radius + self.width * like.randn(generator)[:, :1]
        return r * u

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        r = x.norm(dim=1).clamp(min=1e-12)
        ways = [-0.5 * ((s * r - self.radius) / self.width) ** 2 for s in (1, -1)]
        normal = torch.logaddexp(*ways) - 0.5 * math.log(2 * math.pi * self.width**2)
        return like.total(normal - torch.log(2 * math.pi * r))


def recipe(*, radius: float = 1.0, width: float = 0.2, steps: int = 2000, batch_size: int = 256):
    """Rings from a shell.

    radius: of the shell
    width: its standard deviation
    steps: of the optimiser
    batch_size: points per step
    """
    prior = Shell(radius, width)
    flow = Flow(networks.MLP(2), prior, coupling=couplings.OptimalTransport())
    return Recipe(flow, rings(), steps=steps, batch_size=batch_size, valid_samples=256, test_samples=1000)
