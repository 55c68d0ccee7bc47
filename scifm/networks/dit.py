"""A small diffusion transformer on grids (Peebles and Xie 2023, arXiv:2212.09748).

Patches of p points per axis become tokens, and layers of attention and perceptron let every token see every other.
Time and conditions c act by adaLN-Zero: with LN the layer norm without weights,

    h <- h + α₁(c) · Attention(γ₁(c) · LN(h) + β₁(c)),      h <- h + α₂(c) · MLP(γ₂(c) · LN(h) + β₂(c)),      γ = 1 + …

where all of α, β and γ − 1 start at zero: every layer starts as the identity, and the velocity as zero.

Where a token is, fixed sines and cosines say: of 2πku on circular axes, of πku on others, with u in (0, 1) the place of
its centre and k = 1, 2, …  So the places of a circular axis form a circle, but they are absolute: no shift is a
symmetry, not even by a patch.  Axes that are no multiple of p grow by their boundary rule and are cropped again.

Attention costs the square of the number of tokens: p = 4 is cheap on a CPU, p = 2 costs four times as much and more.
The seams of patches show in spectra.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scifm.batch import Batch
from scifm.networks.checks import check_sizes, check_times
from scifm.networks.grid_conditions import GridConditions
from scifm.networks.padding import Padding, Pole, check_grid, check_padding, extend
from scifm.networks.pixels import fold, unfold

__all__ = ["DiT"]


class DiT(nn.Module):
    """Velocity on grids of any size, by attention between patches.

    Args:
        channels: C, fields on the grid.
        patch: edge p of a patch.
        width: of a token; a multiple of `heads` and of twice the number of axes.
        layers: of attention and perceptron.
        heads: of attention.
        padding: "replicate", "reflect", "circular" or "pole" for each grid axis, as for `UNet`.
        conditions: what else it is told, and the width of the time embedding; None for time alone.

    Shapes: t (B,), x (B, C, *grid) -> (B, C, *grid).

    Raises:
        ValueError: on a ragged batch, other channels or axes, or constructor arguments that make no network.

    Example:
        >>> x = torch.randn(2, 1, 25, 53)
        >>> DiT(1, width=16, layers=2)(torch.rand(2), x, Batch(x)).shape
        torch.Size([2, 1, 25, 53])
    """

    symmetries = frozenset()

    def __init__(
        self,
        channels: int,
        patch: int = 4,
        width: int = 128,
        layers: int = 6,
        heads: int = 4,
        padding: str | Pole | Sequence[str | Pole] = ("replicate", "circular"),
        conditions: GridConditions | None = None,
    ):
        super().__init__()
        sizes = (channels, patch, width, layers, heads)
        check_sizes("DiT", "channels, patch, width, layers and heads", sizes)
        self.channels, self.patch, self.width = channels, patch, width
        self.conditions = GridConditions() if conditions is None else conditions
        read = channels + self.conditions.channels
        self.padding = check_padding("DiT", padding, read)
        axes, time = len(self.padding), self.conditions.waves.width
        if width % heads or width % (2 * axes):
            raise ValueError(
                f"DiT: width must be a multiple of heads ({heads}) and of sines and cosines on {axes} axes "
                f"({2 * axes}), got {width}."
            )
        self.embed = self.conditions.embedding()
        self.enter = nn.Linear(read * patch**axes, width)
        self.layers = nn.ModuleList(_Layer(width, heads, time) for _ in range(layers))
        self.film = nn.Linear(time, 2 * width)
        self.head = nn.Linear(width, channels * patch**axes)
        for linear in (self.film, self.head):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        check_grid("DiT", batch.grid("DiT"), self.channels, self.padding)
        check_times("DiT", t, len(batch))
        size, waves = x.shape[2:], self.embed(self.conditions(t, batch))
        x = torch.cat([x, *self.conditions.beside(x, batch)], 1)
        for axis in sorted(range(len(size)), key=lambda axis: self.padding[axis] == "circular"):  # poles before
            if missing := -size[axis] % self.patch:
                x = extend(x, axis, 0, missing, self.padding)
        patches = fold(x, self.patch)
        h = self.enter(patches.flatten(2).mT) + _places(patches, self.padding, self.width)
        for layer in self.layers:
            h = layer(h, waves)
        h = self.head(_modulate(h, *self.film(waves)[:, None].chunk(2, -1)))
        h = unfold(h.mT.unflatten(2, patches.shape[2:]), self.patch, self.channels)
        for axis, n in enumerate(size):
            h = h if h.shape[axis + 2] == n else h.narrow(axis + 2, 0, n)
        return h.contiguous()


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, time_width: int):
        super().__init__()
        self.heads = heads
        self.modulate = nn.Linear(time_width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.tokens, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, waves: Tensor) -> Tensor:
        scale, shift, gate, scale_, shift_, gate_ = self.modulate(waves)[:, None].chunk(6, -1)
        h = h + gate * self._attend(_modulate(h, scale, shift))
        return h + gate_ * self.mlp(_modulate(h, scale_, shift_))

    def _attend(self, h: Tensor) -> Tensor:
        """softmax(Q Kᵀ / √d) V, written out: the fused one has no forward derivatives."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.tokens(h).chunk(3, -1))
        weights = (q / math.sqrt(q.shape[-1])) @ k.mT
        return self.leave((weights.softmax(-1) @ v).transpose(1, 2).flatten(2))


def _modulate(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift


def _places(patches: Tensor, padding: Padding, width: int) -> Tensor:
    """Where the tokens are, (tokens, width): width / axes sines and cosines of each axis."""
    grid = patches.shape[2:]
    found = []
    for axis, (n, rule) in enumerate(zip(grid, padding, strict=True)):
        u = (torch.arange(n, dtype=patches.dtype, device=patches.device) + 0.5) / n
        k = torch.arange(1, width // (2 * len(grid)) + 1, dtype=patches.dtype, device=patches.device)
        phase = math.pi * (2 if rule == "circular" else 1) * u[:, None] * k
        waves = torch.cat([phase.sin(), phase.cos()], 1)
        found.append(waves.reshape(*[n if a == axis else 1 for a in range(len(grid))], -1).expand(*grid, -1))
    return torch.cat(found, -1).flatten(0, -2)
