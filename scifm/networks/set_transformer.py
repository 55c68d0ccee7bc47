"""Attention within sets (Lee et al. 2019, Set Transformer, arXiv:1810.00825), for clouds of many points.

    h_i = W [x_i, sin(2π x_i / λ), cos(2π x_i / λ)] + conditions
    h   <- h + attend(A h, A h),    h <- h + MLP(A h),    A h = LN(h) (1 + s(t)) + b(t)

A is a layer norm whose scale and shift depend on time and context (Peebles and Xie 2023, arXiv:2212.09748).  Attention
of all to all costs n² per set.  With m inducing points, learnt queries I,

    z = LN(I + attend(I, A h)),    h <- h + attend(A h, z),

it costs n m, in memory too: what suits thousands of points.

Points of a set are told apart by where they are and what they are, never by their number.  Directions mean something to
this network: it turns neither with rotations nor with shifts, and learns from data turned at random if it should.
Attention is written out, for the fused kernel has no forward-mode derivative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.blocks import Block, blocks
from scifm.networks.checks import check_sizes
from scifm.networks.conditions import NOTHING, Conditions, Sizes

__all__ = ["SetTransformer"]

HEAD = 16  # numbers per head


class SetTransformer(nn.Module):
    """Velocity on sets of points: exchanging two points of a sample exchanges their velocities.

    Args:
        dim: coordinates per point.
        width: features per point, a multiple of 16, the width of a head.
        layers: of attention.
        inducing: m points through which the set attends to itself, at a cost of n m; 0 lets all attend to all, n².
        wavelengths: λ of the waves given beside the coordinates, in model units, down to the finest detail; none by
            default. Smooth networks are slow to learn what changes within a small part of the cloud.
        nodes, context: names of what does not flow and is looked at, see `Conditions`.

    Shapes: t (B,), x (N, dim) ragged or (B, n, dim) dense -> like x.

    Raises:
        ValueError: when rows are not `dim` numbers, or the batch lacks what the network was made for.

    Example:
        >>> x = torch.randn(2, 500, 3)
        >>> SetTransformer(3, width=32, layers=2, inducing=8)(torch.rand(2), x, Batch(x)).shape
        torch.Size([2, 500, 3])
    """

    symmetries = frozenset({"permutation"})

    def __init__(
        self,
        dim: int = 3,
        width: int = 64,
        layers: int = 4,
        inducing: int = 0,
        wavelengths: Sequence[float] = (),
        nodes: Sizes = NOTHING,
        context: Sizes = NOTHING,
    ):
        super().__init__()
        self.dim, width, layers = check_sizes("SetTransformer", "dim, width and layers", (dim, width, layers))
        if width % HEAD:
            raise ValueError(f"SetTransformer: width must be a multiple of {HEAD}, the width of a head, got {width}.")
        if isinstance(inducing, bool) or not isinstance(inducing, int) or inducing < 0:
            raise ValueError(f"SetTransformer: inducing must be a number of points, 0 or more, got {inducing!r}.")
        if not all(0 < wave < math.inf for wave in wavelengths):
            raise ValueError(f"SetTransformer: wavelengths must be positive, got {tuple(wavelengths)}.")
        self.wavelengths = tuple(map(float, wavelengths))
        self.conditions = Conditions(width, nodes, context)
        self.enter = nn.Linear(dim * (1 + 2 * len(self.wavelengths)), width)
        self.layers = nn.ModuleList(_Layer(width, inducing) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points = batch.replace(x).points
        if points.event != (self.dim,):
            raise ValueError(
                f"SetTransformer: made for points of {self.dim} coordinates, got points of shape {points.event}."
            )
        of_sample = self.conditions.of_samples(t, points)
        h = self.conditions.of_points(of_sample, points) + self.enter(self._waves(points.x))
        of_sample, parts = nn.functional.silu(of_sample), blocks(points)
        out = [self._block(block.pad(h), block.take(of_sample), block) for block in parts]
        return parts.rows(out).reshape(x.shape)

    def _waves(self, x: Tensor) -> Tensor:
        phases = [2 * math.pi / wave * x for wave in self.wavelengths]
        return torch.cat([x, *(p.sin() for p in phases), *(p.cos() for p in phases)], -1)

    def _block(self, h: Tensor, of_sample: Tensor, block: Block) -> Tensor:
        hidden = None if block.full else ~block.mask[:, None, None]  # (b, heads, queries, keys)
        for layer in self.layers:
            h = layer(h, of_sample, hidden)
        return self.head(self.norm(h))


class _Layer(nn.Module):
    def __init__(self, width: int, inducing: int):
        super().__init__()
        self.norm = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.modulate = nn.Linear(width, 4 * width)
        self.attend = _Attention(width)
        self.inducing = bool(inducing)
        if inducing:
            self.queries = nn.Parameter(nn.init.normal_(torch.empty(inducing, width)))
            self.gather, self.between = _Attention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor, of_sample: Tensor, hidden: Tensor | None) -> Tensor:
        scale, shift, scale_, shift_ = self.modulate(of_sample)[:, None].chunk(4, -1)
        a = self.norm[0](h) * (1 + scale) + shift
        if self.inducing:
            z = self.queries.expand(len(a), -1, -1)
            h = h + self.attend(a, self.between(z + self.gather(z, a, hidden)), None)
        else:
            h = h + self.attend(a, a, hidden)
        return h + self.mlp(self.norm[1](h) * (1 + scale_) + shift_)


class _Attention(nn.Module):
    """softmax(Q Kᵀ / √16) V in heads of 16: queries (b, q, width), keys and values (b, k, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.query, self.leave = nn.Linear(width, width), nn.Linear(width, width)
        self.keys = nn.Linear(width, 2 * width, bias=False)

    def forward(self, to: Tensor, of: Tensor, hidden: Tensor | None) -> Tensor:
        q = self.query(to).unflatten(-1, (-1, HEAD)).transpose(1, 2) / math.sqrt(HEAD)
        k, v = (part.unflatten(-1, (-1, HEAD)).transpose(1, 2) for part in self.keys(of).chunk(2, -1))
        weights = q.matmul(k.transpose(2, 3))
        if hidden is not None:
            weights = weights.masked_fill(hidden, -torch.inf)
        return self.leave(weights.softmax(-1).matmul(v).transpose(1, 2).flatten(2))
