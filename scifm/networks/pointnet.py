"""A small permutation-equivariant network on sets (Zaheer et al. 2017, Deep Sets, arXiv:1703.06114).

Each layer mixes a point with the mean of its own set:  h_i <- s( A h_i + C mean_j h_j + FiLM(t) ).
Sums over a set and the way back are `Batch.total` and `Batch.spread`, so the same lines serve ragged sets of
different sizes and dense vectors, which are sets of one point.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.networks.checks import check_sizes, check_times
from scifm.networks.time import SinusoidalTime

__all__ = ["PointNet"]


class PointNet(nn.Module):
    """Velocity on points: exchanging two points of a sample exchanges their velocities.

    Args:
        dim: numbers per point D.
        hidden: widths of the layers.
        time_width: sinusoidal time features.

    Shapes: t (B,), x (N, D) ragged or (B, D) dense -> like x.

    Raises:
        ValueError: when rows are not D numbers, or sizes are not positive.

    Example:
        >>> sets = Batch(torch.randn(5, 2), index=torch.tensor([0, 0, 0, 1, 1]), size=2)
        >>> PointNet(2)(torch.rand(2), sets.x, sets).shape
        torch.Size([5, 2])
    """

    symmetries = frozenset({"permutation"})

    def __init__(self, dim: int, hidden: Sequence[int] = (64, 64, 64), time_width: int = 64):
        super().__init__()
        (self.dim,) = check_sizes("PointNet", "dim", (dim,))
        widths = [dim, *check_sizes("PointNet", "hidden", tuple(hidden))]
        self.embed = SinusoidalTime(time_width)
        self.layers = nn.ModuleList(
            _SetLayer(before, after, time_width) for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.head = nn.Linear(widths[-1], dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        if batch.event != (self.dim,):
            raise ValueError(f"PointNet: made for rows of {self.dim} numbers, got rows of shape {batch.event}.")
        check_times("PointNet", t, len(batch))
        waves = self.embed(batch.spread(t.to(x)).reshape(-1))
        h = x
        for layer in self.layers:
            h = layer(h, waves, batch)
        return self.head(h)


class _SetLayer(nn.Module):
    def __init__(self, before: int, after: int, time_width: int):
        super().__init__()
        self.point = nn.Linear(before, after)
        self.set = nn.Linear(before, after, bias=False)
        self.film = nn.Linear(time_width, 2 * after)

    def forward(self, h: Tensor, waves: Tensor, batch: Batch) -> Tensor:
        # one feature at a time through the layout operations, which know numbers per sample only
        total = torch.vmap(batch.total, in_dims=1, out_dims=1)(h)
        mean = total / batch.counts.clamp(min=1)[:, None].to(h)
        of_the_set = torch.vmap(batch.spread, in_dims=1, out_dims=1)(self.set(mean)).reshape(
            h.shape[0], self.set.out_features
        )
        scale, shift = self.film(waves).chunk(2, 1)
        return nn.functional.silu((self.point(h) + of_the_set) * (1 + scale) + shift)
