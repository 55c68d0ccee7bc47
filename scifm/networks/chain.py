"""A network along a chain: each residue sees its neighbours in the sequence, in a frame of its own.

Most of what a polymer's conformation holds is local along the chain: bonds, angles, torsions, helices and strands.  So
point i meets the points i + o, |o| ≤ W, only; work grows with n W and not with n².  Each point carries scalars h_i and
vectors V_i, which turn with the set.  To begin with, V_i holds the two links at i, the place x_i from the centre and,
in a network that can tell left from right, the normal of the links, their cross product.  A layer is

    m_io = φ(h_i, h_j, f(|r|), o, V_i·r̂, V_j·r̂, V_i·V_j),       r = x_j − x_i,  j = i + o
    h_i <- h_i + ψ(h_i, Σ_o m_io, mean_i h),       V_i <- V_i + Σ_o (a(m_io) r̂ + b(m_io) V_j),

and the velocity of a point is a combination of its vectors with coefficients made of its scalars.  Dot products with
the normals are triple products, which change sign in a mirror: with them the network is equivariant under rotations
only, and can learn that helices are right-handed.  Without them (chiral=False) it provably cannot.

References: Schütt et al. 2021 (vectors beside scalars); Jing et al. 2021 (GVP); Jumper et al. 2021 (relative position,
frames of residues).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.blocks import Block, blocks
from scifm.networks.conditions import NOTHING, Conditions, Sizes
from scifm.networks.radial import Radial
from scifm.networks.time import check_sizes

__all__ = ["ChainNet"]


class ChainNet(nn.Module):
    """Velocity on chains of points in space, rows in the order of the chain.

    Args:
        width: scalars per point.
        layers: of message passing; a point is reached by what is layers × window away.
        window: W, neighbours on each side.
        scale: distance that matters, in model units: the length of a link.
        vectors: per point.
        chiral: whether it may tell left from right.
        nodes: labels of points that are looked at, such as {"residue": 21}; see `Conditions`.

    Shapes: t (B,), x (N, 3) ragged or (B, n, 3) dense -> like x; each sample's velocities sum to zero.

    Raises:
        ValueError: when rows are not 3 numbers, or the batch lacks what the network was made for.

    Example:
        >>> x = torch.randn(5, 30, 3)
        >>> ChainNet(16, layers=2)(torch.rand(5), x, Batch(x)).shape
        torch.Size([5, 30, 3])
    """

    def __init__(
        self,
        width: int = 48,
        layers: int = 3,
        window: int = 8,
        scale: float = 3.8,
        vectors: int = 8,
        chiral: bool = True,
        nodes: Sizes = NOTHING,
    ):
        super().__init__()
        width, count, self.window, vectors = check_sizes(
            "ChainNet", "width, layers, window and vectors", (width, layers, window, vectors)
        )
        self.chiral, self.scale = chiral, scale
        self.symmetries = frozenset({"translation", "rotation"} | (set() if chiral else {"reflection"}))
        self.conditions = Conditions(width, nodes)
        self.radial = Radial(16, scale)
        self.start = nn.Linear(4 if chiral else 3, vectors, bias=False)
        self.layers = nn.ModuleList(_Layer(width, vectors, 2 * self.window + 1, self.radial) for _ in range(count))
        self.head = nn.Linear(width, vectors)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points = batch.replace(x).points
        if points.event != (3,):
            raise ValueError(f"ChainNet: made for points in space, 3 numbers each, got points of shape {points.event}.")
        h, parts = self.conditions(t, points), blocks(points)
        moved = [self._block(block.pad(points.x), block.pad(h), block) for block in parts]
        return parts.rows(moved).reshape(x.shape)

    def _block(self, x: Tensor, h: Tensor, block: Block) -> Tensor:
        own = block.mask[..., None].to(x)
        count = own.sum(1, keepdim=True).clamp(min=1)
        x = (x - x.sum(1, keepdim=True) / count) * own
        seen = self._around(own)[..., 0] * own  # (b, n, o), a point and itself left out
        seen = seen * (torch.arange(2 * self.window + 1, device=x.device) != self.window)
        r = self._around(x) - x[:, :, None]
        f, d = self.radial(r.square().sum(-1))
        at = _Around(f * seen[..., None], r / d * seen[..., None], seen, own, count, self._around)
        v = self.start(self._vectors(r, x, seen))
        for layer in self.layers:
            h, v = layer(h, v, at)
        moved = (v * self.head(h)[:, :, None]).sum(-1) * own
        return (moved - moved.sum(1, keepdim=True) / count) * own

    def _vectors(self, r: Tensor, x: Tensor, seen: Tensor) -> Tensor:
        """(b, n, 3, 3 or 4) of a point, in links: the link to the next, that from the last, its place, their normal."""
        after = r[:, :, self.window + 1] * seen[:, :, self.window + 1, None] / self.scale
        before = -r[:, :, self.window - 1] * seen[:, :, self.window - 1, None] / self.scale
        found = [after, before, x / self.scale]
        if self.chiral:
            found.append(torch.linalg.cross(before, after))
        v = torch.stack(found, -1)
        return v / (1 + v.square().sum(2, keepdim=True)).sqrt()  # of bounded length: noise must not be loud

    def _around(self, value: Tensor) -> Tensor:
        """(b, n, ...) -> (b, n, 2W + 1, ...): what the neighbours hold, zeros beyond the ends."""
        w, n = self.window, value.shape[1]
        edge = value.new_zeros(value.shape[0], w, *value.shape[2:])
        long = torch.cat([edge, value, edge], 1)
        return torch.stack([long[:, o : o + n] for o in range(2 * w + 1)], 2)


class _Around:
    """What the layers know of the neighbours (b, n, o, ...): features, directions, which there are."""

    def __init__(self, f: Tensor, direction: Tensor, seen: Tensor, own: Tensor, count: Tensor, around):
        self.f, self.direction, self.seen, self.own, self.count, self.around = f, direction, seen, own, count, around


class _Layer(nn.Module):
    def __init__(self, width: int, vectors: int, offsets: int, radial: Radial):
        super().__init__()
        self.receiver, self.sender = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.pair = nn.Linear(len(radial.k) + 3 * vectors, width, bias=False)
        self.offset = nn.Parameter(torch.zeros(offsets, width))
        self.message = nn.Linear(width, width)
        self.node = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.turn = nn.Linear(width, 2 * vectors)
        self.mix = nn.Linear(vectors, vectors, bias=False)
        self.scale = offsets**-0.5

    def forward(self, h: Tensor, v: Tensor, at: _Around) -> tuple[Tensor, Tensor]:
        other = at.around(v)  # (b, n, o, 3, vectors)
        direction, mine = at.direction[..., None], v[:, :, None]
        # products and sums, not matrix products: those of three numbers each take twenty times as long
        dots = [(direction * mine).sum(-2), (direction * other).sum(-2), (other * mine).sum(-2)]
        first = self.pair(torch.cat([at.f, *dots], -1)) + self.receiver(h)[:, :, None] + self.offset
        first = first + at.around(self.sender(h))
        m = nn.functional.silu(self.message(nn.functional.silu(first))) * at.seen[..., None]
        mean = (h * at.own).sum(1, keepdim=True) / at.count
        h = h + self.node(torch.cat([h, m.sum(2) * self.scale, mean.expand_as(h)], -1))
        a, b = self.turn(m).chunk(2, -1)  # (b, n, o, vectors)
        b = b * at.seen[..., None]
        pushed = (direction * a[..., None, :]).sum(2) + (other * b[..., None, :]).sum(2)
        return h, self.mix(v + self.scale * pushed)
