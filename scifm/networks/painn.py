"""Vectors beside scalars: the polarisable atom network (Schütt, Unke and Gastegger 2021, arXiv:2102.03150).

Each point has scalars h_i and vectors V_i (three by width), and in each layer hears of all others and then thinks:

    message   h_i <- h_i + Σ_j φ_h(h_j) ∘ W_h f_ij
              V_i <- V_i + Σ_j V_j ∘ φ_v(h_j) ∘ W_v f_ij + u_ij ⊗ φ_u(h_j) ∘ W_u f_ij
    update    V_i <- V_i + α ∘ UV_i,   h_i <- h_i + β + γ ∘ ⟨UV_i, WV_i⟩,   α, β, γ from (h_i, |WV_i|)

f_ij are features of the distance and of the bond, u_ij = (x_i − x_j) / (|x_i − x_j| + a).  The velocity is a
combination of V_i.  Sums are divided by the root of the number of those who are heard.

The filters W f_ij are linear, so nothing of width × pairs is ever made: f and u ⊗ f are one matrix per sample, used by
all layers, and a message is a product of it with W ∘ φ(h_j).  That is why a step costs less than one of an EGNN.

Directions tell apart what distances do not (Schütt et al., figure 1), but not left from right: all of the above mirrors
with x.  With `chiral`, V_i also gains δ ∘ (UV_i × WV_i) / (1 + |WV_i|), an axial vector among polar ones.  It
turns with x and does not mirror with it, and scalars hear of triple products in the next layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.blocks import Block, blocks
from scifm.networks.checks import check_sizes
from scifm.networks.conditions import NOTHING, Conditions, Sizes
from scifm.networks.layers import linear, perceptron, tamed
from scifm.networks.radial import Radial, radial_of

__all__ = ["Head", "Message", "PaiNN", "Update", "check_chiral"]


class PaiNN(nn.Module):
    """Velocity on sets of points in space, equivariant under rotations and permutations, and reflections if asked.

    Work and memory grow with the squares of the sets' sizes.

    Args:
        width: scalars per point, and vectors per point.
        layers: of message passing.
        scale: a, a distance that matters, in model units; or a `Radial`, which may have a cutoff.
        chiral: tell left from right, as for molecules of one hand: mirror images get unlike velocities.
        nodes, context, edges: names of what does not flow and is looked at, see `Conditions`.

    Shapes: t (B,), x (N, 3) ragged or (B, n, 3) dense -> like x; each sample's velocities sum to zero.

    Raises:
        ValueError: when rows are not 3 numbers, the batch lacks what the network was made for, or a chiral one has one
            vector per point, which has no cross product with itself.

    Example:
        >>> x = torch.randn(5, 13, 3)
        >>> PaiNN(width=16)(torch.rand(5), x, Batch(x)).shape
        torch.Size([5, 13, 3])
    """

    def __init__(
        self,
        width: int = 32,
        layers: int = 3,
        scale: float | Radial = 1.0,
        chiral: bool = False,
        nodes: Sizes = NOTHING,
        context: Sizes = NOTHING,
        edges: Sizes = NOTHING,
    ):
        super().__init__()
        width, layers = check_sizes("PaiNN", "width and layers", (width, layers))
        check_chiral("PaiNN", width, chiral)
        mirrors = frozenset() if chiral else frozenset({"reflection"})
        self.symmetries = frozenset({"translation", "rotation", "permutation"}) | mirrors
        self.conditions = Conditions(width, nodes, context, edges)
        self.radial = radial_of(scale)
        count, pair = len(self.radial.k), self.conditions.pair_width
        features = count + (count + pair if pair else 0)
        self.messages = nn.ModuleList(Message(width, features, first=i == 0) for i in range(layers))
        self.updates = nn.ModuleList(Update(width, chiral) for _ in range(layers))
        self.head = Head(width)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points = batch.replace(x).points
        if points.event != (3,):
            raise ValueError(f"PaiNN: made for points of 3 coordinates, got points of shape {points.event}.")
        if not len(points.x):
            return torch.zeros_like(x)
        h, parts = self.conditions(t, points), blocks(points)
        moved = [self._block(block.pad(points.x), block.pad(h), block, points) for block in parts]
        return parts.rows(moved).reshape(x.shape)

    def _block(self, x: Tensor, h: Tensor, block: Block, points: Batch) -> Tensor:
        filters, directed = self._filters(x, block, self.conditions.pairs(points, block))
        v = torch.zeros_like(x)[..., None].expand(*x.shape, h.shape[-1])
        for message, update in zip(self.messages, self.updates, strict=True):
            h, v = update(*message(h, v, filters, directed))
        return self.head(h, v, block.mask)

    def _filters(self, x: Tensor, block: Block, pairs: Tensor | None) -> tuple[Tensor, Tensor]:
        """What i hears of j by its distance, (b, n, n K), and along the direction to it, (b, 3 n, n K)."""
        apart = x[:, :, None] - x[:, None]
        f, d = self.radial(apart.square().sum(-1))
        heard = self.radial.envelope(d) * block.pairs[..., None].to(d)
        if pairs is not None:  # bonds, and the distance along a bond
            f = torch.cat([f, pairs, f * pairs[..., :1]], -1)
        f = f * (heard / (1 + heard.sum(2, keepdim=True)).sqrt())
        directions = (apart / (d + self.radial.scale)).transpose(2, 3)
        directed = directions[..., None] * f[:, :, None]
        return f.flatten(2), directed.flatten(1, 2).flatten(2)


def check_chiral(who: str, width: int, chiral: bool) -> None:
    """Refuse to tell left from right by a single vector per point."""
    if chiral and width < 2:
        raise ValueError(
            f"{who}: one vector per point has no cross product with itself, so width=1 cannot tell left from right; "
            "take a width of 2 or more, or chiral=False."
        )


class Message(nn.Module):
    """h, v (b, n, 3, width) and what is heard -> h, v with the messages of all others."""

    def __init__(self, width: int, features: int, first: bool):
        super().__init__()
        self.parts = (width, width) if first else (width, width, width)  # at first there are no vectors to hear of
        self.phi = perceptron(width, width, sum(self.parts))
        self.filter = linear(features, sum(self.parts), bias=False)

    def forward(self, h: Tensor, v: Tensor, filters: Tensor, directed: Tensor) -> tuple[Tensor, Tensor]:
        b, n, width = h.shape
        by = self.phi(tamed(h))[:, :, None] * self.filter.weight.T  # (b, n, K, parts), the other's word in each filter
        own, along, *carried = (word.flatten(1, 2) for word in by.split(self.parts, -1))
        new = v + directed.matmul(along).reshape(b, n, 3, width)
        if carried:
            heard = carried[0].unflatten(1, (n, -1))[:, :, :, None] * v[:, :, None]
            new = new + filters.matmul(heard.reshape(b, -1, 3 * width)).reshape(b, n, 3, width)
        return h + filters.matmul(own), new


class Update(nn.Module):
    """h, v -> h, v by what a point can make of its own: norms, inner products and, if chiral, cross products."""

    def __init__(self, width: int, chiral: bool):
        super().__init__()
        self.chiral, self.width = chiral, width
        self.mix = linear(width, 2 * width, bias=False)
        self.gates = perceptron(2 * width, width, (4 if chiral else 3) * width)

    def forward(self, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        u, w = self.mix(v).chunk(2, -1)
        size = (w.square().sum(2) + 1e-6).sqrt()
        less = 1 / (1 + size)  # products of vectors grow as one of them
        gates = self.gates(tamed(torch.cat([h, size], -1)))
        alpha, beta, gamma, *delta = gates.chunk(4 if self.chiral else 3, -1)
        new = alpha[:, :, None] * u
        if delta:
            across = u.roll(-1, 2) * w.roll(-2, 2) - u.roll(-2, 2) * w.roll(-1, 2)  # faster than linalg.cross
            new = new + (delta[0] * less)[:, :, None] * across
        return h + beta + gamma * less * (u * w).sum(2), v + new


class Head(nn.Module):
    """h, v -> velocities (b, n, 3) without their mean; zero before training."""

    def __init__(self, width: int):
        super().__init__()
        self.gate = perceptron(width, width, width)
        self.mix = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, h: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        own = mask[..., None].to(v)
        moved = self.mix(v * self.gate(tamed(h))[:, :, None]).squeeze(-1) * own
        return (moved - moved.sum(1, keepdim=True) / own.sum(1, keepdim=True).clamp(min=1)) * own
