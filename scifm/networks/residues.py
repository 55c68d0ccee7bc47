"""A network for chains of residues, by their Cα: along the chain it looks closely, through space it looks far.

What makes a protein of a random walk is mostly local: bonds of 3.8 Å, angles and torsions of consecutive Cα, of one
hand in helices.  So each residue hears of those up to `window` places before and behind it, in its own chain, through a
network on pairs that knows the offset (relative positions, Shaw et al. 2018, arXiv:1803.02155), both residues and their
distance,

    m_ij = φ(h_i, h_j, f(|x_i − x_j|), j − i)
    h_i <- h_i + A Σ_j m_ij,    V_i <- V_i + C Σ_j u_ij ⊗ m_ij + Σ_j B m_ij ∘ V_j

and of all others in space through the linear filters of PaiNN (`scifm.networks.painn`), without a network on pairs.
Vectors start from sums of x_j − x_i over the chain, weighted by eight waves of the distance along it: the large shape.
Then each residue thinks by itself, with norms, inner products and cross products of its vectors.  The cost is that of
2 · window pairs per residue and a fraction of all others; an EGNN pays the full price for all n².

Places come from `nodes["position"]` and `nodes["chain"]` where a batch has them, so that a residue beyond a gap is no
neighbour; else rows follow one another.  Residues do not exchange: they have a place in the chain.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.blocks import Block, blocks
from scifm.networks.checks import check_sizes
from scifm.networks.conditions import NOTHING, Conditions, Sizes
from scifm.networks.layers import SILU, linear, tamed
from scifm.networks.painn import Head, Message, Update, check_chiral
from scifm.networks.radial import Radial

__all__ = ["Residues"]

FAR = 8  # features of the distance to residues that are not near along the chain, in space and along it


class Residues(nn.Module):
    """Velocity on Cα traces, equivariant under rotations, and under reflections only if `chiral` is switched off.

    Args:
        width: scalars per residue, and vectors per residue.
        layers: of message passing.
        scale: the distance of neighbours along the chain in model units, 3.8 where those are Å.
        window: places along the chain, in both directions, that are looked at closely.
        chiral: tell left from right, as proteins do.
        nodes, context: names of what does not flow and is looked at, such as nodes={"residue": 21}, see `Conditions`.

    Shapes: t (B,), x (N, 3) ragged or (B, n, 3) dense -> like x; each sample's velocities sum to zero.

    Raises:
        ValueError: when rows are not 3 numbers, the batch lacks what the network was made for, or a chiral one has one
            vector per residue, which has no cross product with itself.

    Example:
        >>> x = torch.randn(2, 60, 3)
        >>> Residues(width=16)(torch.rand(2), x, Batch(x)).shape
        torch.Size([2, 60, 3])
    """

    def __init__(
        self,
        width: int = 32,
        layers: int = 3,
        scale: float = 1.0,
        window: int = 8,
        chiral: bool = True,
        nodes: Sizes = NOTHING,
        context: Sizes = NOTHING,
    ):
        super().__init__()
        width, layers, window = check_sizes("Residues", "width, layers and window", (width, layers, window))
        check_chiral("Residues", width, chiral)
        mirrors = frozenset() if chiral else frozenset({"reflection"})
        self.symmetries = frozenset({"translation", "rotation"}) | mirrors
        self.window = window
        self.conditions = Conditions(width, nodes, context)
        self.near, self.far = Radial(16, scale), Radial(FAR, 4 * scale)
        self.place = linear(3, width, bias=False)
        self.start = linear(FAR + 1, width, bias=False)
        self.windows = nn.ModuleList(_Window(width, len(self.near.k), 2 * window) for _ in range(layers))
        self.messages = nn.ModuleList(Message(width, FAR, first=True) for _ in range(layers))
        self.updates = nn.ModuleList(Update(width, chiral) for _ in range(layers))
        self.head = Head(width)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points = batch.replace(x).points
        if points.event != (3,):
            raise ValueError(f"Residues: made for points of 3 coordinates, got points of shape {points.event}.")
        h, parts = self.conditions(t, points), blocks(points)
        moved = [self._block(block.pad(points.x), block.pad(h), block, points) for block in parts]
        return parts.rows(moved).reshape(x.shape)

    def _block(self, x: Tensor, h: Tensor, block: Block, points: Batch) -> Tensor:
        key = ("chain", self.window, block, points.x.dtype)
        chain = points.keep(key, lambda: _chain(points, block, self.window))
        own = block.mask[..., None].to(x)
        centred = (x - x.sum(1, keepdim=True) / own.sum(1, keepdim=True).clamp(min=1)) * own
        one = torch.cat([centred, torch.ones_like(centred[..., :1])], -1)
        shape, weight = chain.waves.matmul(one).unflatten(1, (-1, FAR)).split([3, 1], -1)
        shape = torch.cat([shape - weight * centred[:, :, None], centred[:, :, None]], 2)  # (b, n, FAR + 1, 3)
        v = self.start(shape.transpose(2, 3) / self.far.scale)
        h = h + self.place(chain.place)
        filters, directed = self._filters(x, chain)
        seen = _Seen(x, chain, self.near)
        for window, message, update in zip(self.windows, self.messages, self.updates, strict=True):
            h, v = window(h, v, seen)
            h, v = update(*message(h, v, filters, directed))
        return self.head(h, v, block.mask)

    def _filters(self, x: Tensor, chain: _Chain) -> tuple[Tensor, Tensor]:
        """What i hears of j from afar, (b, n, n K), and along the direction to it, (b, 3 n, n K)."""
        apart = x[:, :, None] - x[:, None]
        f, d = self.far(apart.square().sum(-1))
        f = f * chain.far
        directions = (apart / (d + self.far.scale)).transpose(2, 3)
        return f.flatten(2), (directions[..., None] * f[:, :, None]).flatten(1, 2).flatten(2)


class _Chain(NamedTuple):
    """What the chain says, whatever x: made once for a layout."""

    index: Tensor  # (b n W,) row, among the b n padded ones, of each residue's neighbours along the chain
    there: Tensor  # (b, n, W, 1) one over the root of W where there is such a neighbour
    far: Tensor  # (b, n, n, 1) one over the root of their number for all that are not near along the chain, else zero
    waves: Tensor  # (b, n FAR, n) means over the chain, weighted by waves of the distance along it
    place: Tensor  # (b, n, 3) how far the ends of the chain are, and how long it is


class _Seen:
    """The neighbours along the chain in space: features of distances (b, n, W, 16) and directions (b, n, W, 3)."""

    def __init__(self, x: Tensor, chain: _Chain, radial: Radial):
        self.index, self.there = chain.index, chain.there
        self.shape = chain.there.shape[:3]
        apart = x[:, :, None] - self.of(x)
        self.f, d = radial(apart.square().sum(-1))
        self.directions = apart / (d + radial.scale)

    def of(self, values: Tensor) -> Tensor:
        """(b, n, ...) -> (b, n, W, ...) those of the neighbours."""
        return values.flatten(0, 1).index_select(0, self.index).reshape(*self.shape, *values.shape[2:])


class _Window(nn.Module):
    """h, v (b, n, 3, width) -> h, v with the messages of neighbours along the chain."""

    def __init__(self, width: int, features: int, places: int):
        super().__init__()
        self.receiver, self.sender = linear(width, width), linear(width, width, bias=False)
        self.pair, self.edge = linear(features, width, bias=False), linear(width, width, gain=SILU**-0.5)
        self.offset = nn.Parameter(nn.init.normal_(torch.empty(places, width), std=0.5))
        self.scalar, self.vector, self.carry = (linear(width, width, bias=False, gain=SILU**-0.5) for _ in range(3))

    def forward(self, h: Tensor, v: Tensor, seen: _Seen) -> tuple[Tensor, Tensor]:
        known = tamed(h)
        first = self.receiver(known)[:, :, None] + seen.of(self.sender(known)) + self.pair(seen.f) + self.offset
        m = nn.functional.silu(self.edge(nn.functional.silu(first))) * seen.there
        along = self.vector(seen.directions.transpose(2, 3).matmul(m))  # (b, n, 3, width)
        carried = (self.carry(m)[:, :, :, None] * seen.of(v)).sum(2)
        return h + self.scalar(m.sum(2)), v + along + carried


def _chain(points: Batch, block: Block, window: int) -> _Chain:
    b, n = block.mask.shape
    device, dtype = points.x.device, points.x.dtype
    nothing = torch.zeros(len(points.x), dtype=torch.long, device=device)
    place = torch.arange(n, device=device).expand(b, n)
    if "position" in points.nodes:
        place = block.pad(points.nodes["position"].long())
    chain = block.pad(points.nodes.get("chain", nothing).long())
    same = (chain[:, :, None] == chain[:, None]) & block.mask[:, :, None] & block.mask[:, None]
    offset = place[:, None] - place[:, :, None]
    index, there = [], []
    for step in (*range(-window, 0), *range(1, window + 1)):
        found = same & (offset == step)
        index.append(found.to(torch.uint8).argmax(2))
        there.append(found.any(2))
    first = torch.arange(b, device=device)[:, None, None] * n
    along = offset.abs()
    far = block.pairs & ~(same & (along <= window))
    u = (along / (along + 16.0)).to(dtype)[:, :, None] * torch.arange(FAR, dtype=dtype, device=device)[:, None]
    waves = (torch.pi * u).cos() * same[:, :, None]
    size = same.sum(2).clamp(min=1).to(dtype)
    ends = [torch.where(same, side, 0).amax(2).to(dtype) for side in (offset, -offset)]  # places to the last, the first
    return _Chain(
        (torch.stack(index, 2) + first).reshape(-1),
        torch.stack(there, 2)[..., None].to(dtype) / (2 * window) ** 0.5,
        far[..., None].to(dtype) / far.sum(2).clamp(min=1).to(dtype).sqrt()[:, :, None, None],
        (waves / size[:, :, None, None]).flatten(1, 2),
        torch.stack([*(e / (e + window) for e in ends), size.log() / 4], -1) * block.mask[..., None],
    )
