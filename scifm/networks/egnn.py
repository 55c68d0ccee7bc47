"""An equivariant graph network on all pairs of points (Satorras, Hoogeboom and Welling 2021, arXiv:2102.09844).

    m_ij = φ_e(h_i, h_j, f(|x_i − x_j|), e_ij)
    x_i <- x_i + Σ_j (x_i − x_j) / (|x_i − x_j| + a) φ_x(m_ij)
    h_i <- h_i + φ_h(h_i, Σ_j φ_a(m_ij) m_ij)

and the velocity is what x has moved, without its mean.  Positions enter by differences and distances only, so the
network turns and mirrors with its input, ignores translations, and treats points of equal features alike.  It cannot
tell left from right.

The first layer of φ_e is linear in [h_i, h_j, f, e], so it is split: W_1 h_i and W_2 h_j are made once per point and
not once per pair.  It is the same function; a step takes 1.4 times less.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.blocks import Block, blocks
from scifm.networks.checks import check_sizes
from scifm.networks.conditions import NOTHING, Conditions, Sizes
from scifm.networks.partners import Partners
from scifm.networks.radial import Radial

__all__ = ["EGNN"]


class EGNN(nn.Module):
    """Velocity on sets of points in `dim` dimensions, equivariant under rotations, reflections and permutations.

    Work and memory grow with the squares of the sets' sizes.

    Args:
        dim: coordinates per point.
        width: features per point and per pair.
        layers: of message passing.
        scale: a, a distance that matters, in model units, such as that of neighbours.
        nodes, context, edges: names of what does not flow and is looked at, see `Conditions`.

    Shapes: t (B,), x (N, dim) ragged or (B, n, dim) dense -> like x; each sample's velocities sum to zero.

    Raises:
        ValueError: when rows are not `dim` numbers, or the batch lacks what the network was made for.

    Example:
        >>> x = torch.randn(5, 13, 3)
        >>> EGNN(3, width=16)(torch.rand(5), x, Batch(x)).shape
        torch.Size([5, 13, 3])
    """

    symmetries = frozenset({"translation", "rotation", "reflection", "permutation"})

    def __init__(
        self,
        dim: int = 3,
        width: int = 32,
        layers: int = 3,
        scale: float = 1.0,
        nodes: Sizes = NOTHING,
        context: Sizes = NOTHING,
        edges: Sizes = NOTHING,
    ):
        super().__init__()
        self.dim, width, count = check_sizes("EGNN", "dim, width and layers", (dim, width, layers))
        self.conditions = Conditions(width, nodes, context, edges)
        self.radial = Radial(16, scale)
        self.layers = nn.ModuleList(
            _Layer(width, len(self.radial.k) + self.conditions.pair_width, scale, last=i == count - 1)
            for i in range(count)
        )

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points = batch.replace(x).points
        if points.event != (self.dim,):
            raise ValueError(f"EGNN: made for points of {self.dim} coordinates, got points of shape {points.event}.")
        h, parts = self.conditions(t, points), blocks(points)
        moved = [self._block(block.pad(points.x), block.pad(h), block, points) for block in parts]
        return parts.rows(moved).reshape(x.shape)

    def _block(self, x: Tensor, h: Tensor, block: Block, points: Batch) -> Tensor:
        near, pairs = Partners(block, x.dtype), self.conditions.pairs(points, block)
        pairs = None if pairs is None else near.among(pairs)
        moved = torch.zeros_like(x)  # summed by itself: a difference of positions would lose the digits of their size
        for layer in self.layers:
            step, h = layer(x + moved, h, near, self.radial, pairs)
            moved = moved + step
        own = block.mask[..., None].to(x)
        moved = moved * own
        return (moved - moved.sum(1, keepdim=True) / own.sum(1, keepdim=True).clamp(min=1)) * own


class _Layer(nn.Module):
    def __init__(self, width: int, pair: int, scale: float, last: bool):
        super().__init__()
        self.scale = scale
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.pair = nn.Linear(pair, width, bias=False)
        self.edge = nn.Linear(width, width)
        head = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(head.weight)
        self.move = nn.Sequential(nn.Linear(width, width), nn.SiLU(), head)
        if not last:
            self.attention = nn.Linear(width, 1)
            self.node = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.last = last

    def forward(
        self, x: Tensor, h: Tensor, near: Partners, radial: Radial, pairs: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        apart = x[:, :, None] - near.of(x)  # (b, n, m, dim)
        f, d = radial(apart.square().sum(-1))
        f = f if pairs is None else torch.cat([f, pairs], -1)
        ends = self.receiver(h)[:, :, None] + near.of(self.sender(h))
        first = torch.addmm(ends.flatten(0, 2), f.flatten(0, 2), self.pair.weight.T)  # one pass less than a sum
        m = nn.functional.silu(self.edge(nn.functional.silu(first))).reshape(ends.shape)
        push = self.move(m) / (d + self.scale)
        step = ((push if near.met is None else push * near.met) * apart).sum(2)
        if self.last:
            return step, h
        gate = self.attention(m).sigmoid()
        gathered = (gate if near.met is None else gate * near.met).transpose(-1, -2).matmul(m).squeeze(-2)
        return step, h + self.node(torch.cat([h, gathered], -1))
