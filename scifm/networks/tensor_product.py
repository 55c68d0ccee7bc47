"""Tensor products of spherical harmonics and features, with e3nn (Thomas et al. 2018, arXiv:1802.08219; Batzner et al.
2022, arXiv:2101.03164; Geiger and Smidt 2022, arXiv:2207.09453).

A point has features of degree l = 0 (scalars), 1 (vectors), 2, ..., u = 1 … mul_l of each, and hears of the others
through one path for each (l₁, l₂, l₃) that can be coupled:

    m_i^{l₃,u} = Σ_j w_{u}(ij) [ h_j^{l₁,u} ⊗ Y^{l₂}(u_ij) ]^{l₃},     w_u(ij) = Σ_k A_{uk} g_k(ij),

g from a small network on the features of the distance and of the bond.  In e3nn's words this is `o3.TensorProduct` with
"uvu" paths and weights from outside; then come `o3.Linear` and `nn.Gate`.  The velocity is a vector of the last layer.

e3nn makes the product for each pair.  But it is linear in g Y, so one may sum over j first,

    m_i = A : [ Σ_j g_k(ij) Y_m(u_ij) (A_{uk} h_j)^{u,m'} ] C_{m m'}^{m''},

one matrix of all (g_k Y_m)(ij) per sample, made once for all layers, times features of points, and the Clebsch-Gordan
coefficients C once per point.  It is the same function, see benchmarks/points.py for what it saves.

Without `chiral`, features of degree l have parity (−1)^l and only products of even l₁ + l₂ + l₃ are formed: mirror
images get mirrored velocities.  With it all products are formed, the cross product among them, parity is not kept,
and left differs from right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.blocks import Block, blocks
from scifm.networks.checks import check_sizes
from scifm.networks.conditions import NOTHING, Conditions, Sizes
from scifm.networks.layers import perceptron
from scifm.networks.radial import Radial, radial_of

__all__ = ["TensorProduct"]

FILTERS = 8  # K
Path = tuple[int, int, int]


class TensorProduct(nn.Module):
    """Velocity on sets of points in space, equivariant under rotations and permutations, and reflections if asked.

    Work and memory grow with the squares of the sets' sizes.

    Args:
        widths: features of degree 0, 1, ...: (32, 16) has 32 scalars and 16 vectors, (32, 16, 8) also 8 of degree 2.
        layers: of message passing.
        scale: a, a distance that matters, in model units; or a `Radial`, which may have a cutoff.
        chiral: tell left from right, as for molecules of one hand: mirror images get unlike velocities.
        nodes, context, edges: names of what does not flow and is looked at, see `Conditions`.

    Shapes: t (B,), x (N, 3) ragged or (B, n, 3) dense -> like x; each sample's velocities sum to zero.

    Raises:
        ValueError: when rows are not 3 numbers, the batch lacks what the network was made for, or a chiral one has a
            single layer, which cannot tell left from right.

    Example:
        >>> x = torch.randn(2, 5, 3)
        >>> TensorProduct((8, 4))(torch.rand(2), x, Batch(x)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 16),
        layers: int = 3,
        scale: float | Radial = 1.0,
        chiral: bool = False,
        nodes: Sizes = NOTHING,
        context: Sizes = NOTHING,
        edges: Sizes = NOTHING,
    ):
        super().__init__()
        widths = check_sizes("TensorProduct", "widths", tuple(widths))
        (layers,) = check_sizes("TensorProduct", "layers", (layers,))
        if len(widths) < 2:
            raise ValueError(f"TensorProduct: widths must hold scalars and vectors at least, got {widths}.")
        if chiral and layers < 2:
            raise ValueError(
                "TensorProduct: a single layer has no vectors whose cross products tell left from right; chiral=True "
                "takes 2 layers or more."
            )
        mirrors = frozenset() if chiral else frozenset({"reflection"})
        self.symmetries = frozenset({"translation", "rotation", "permutation"}) | mirrors
        self.conditions = Conditions(widths[0], nodes, context, edges)
        self.radial, self.degree = radial_of(scale), len(widths) - 1
        features = len(self.radial.k) + self.conditions.pair_width
        self.filters = perceptron(features, 2 * FILTERS, FILTERS)
        vectors = (0, widths[1])  # all that the velocity needs of the last layer
        self.layers = nn.ModuleList(
            _Layer(widths[:1] if i == 0 else widths, vectors if i == layers - 1 else widths, self.degree, chiral)
            for i in range(layers)
        )
        self.head = nn.Linear(widths[1], 1, bias=False)
        nn.init.zeros_(self.head.weight)
        for l in range(1, self.degree + 1):
            self.register_buffer(f"raise_{l}", _coupling(1, l - 1, l), persistent=False)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points = batch.replace(x).points
        if points.event != (3,):
            raise ValueError(f"TensorProduct: made for points of 3 coordinates, got points of shape {points.event}.")
        h, parts = self.conditions(t, points), blocks(points)
        moved = [self._block(block.pad(points.x), block.pad(h), block, points) for block in parts]
        return parts.rows(moved).reshape(x.shape)

    def _block(self, x: Tensor, h: Tensor, block: Block, points: Batch) -> Tensor:
        heard = self._heard(x, block, self.conditions.pairs(points, block))
        for layer in self.layers:
            h = layer(h, heard)
        own = block.mask[..., None].to(x)
        moved = self.head(h.unflatten(-1, (-1, 3)).transpose(-1, -2)).squeeze(-1) * own
        return (moved - moved.sum(1, keepdim=True) / own.sum(1, keepdim=True).clamp(min=1)) * own

    def _heard(self, x: Tensor, block: Block, pairs: Tensor | None) -> list[Tensor]:
        """For each degree l the products g_k Y_m of all pairs, (b, n (2l + 1), n K)."""
        apart = x[:, :, None] - x[:, None]
        f, d = self.radial(apart.square().sum(-1))
        near = self.radial.envelope(d) * block.pairs[..., None].to(d)
        g = self.filters(f if pairs is None else torch.cat([f, pairs], -1))
        g = g * (near / (1 + near.sum(2, keepdim=True)).sqrt())
        harmonics = self._harmonics(apart / (d + self.radial.scale))
        return [(y.transpose(2, 3)[..., None] * g[:, :, None]).flatten(3).flatten(1, 2) for y in harmonics]

    def _harmonics(self, u: Tensor) -> list[Tensor]:
        """e3nn's Y^l(u), component normalised, each raised from the one before: polynomials, smooth at u = 0."""
        out = [torch.ones_like(u[..., :1])]
        for l in range(1, self.degree + 1):
            raised = torch.einsum("...a,...b,abc->...c", u, out[-1], getattr(self, f"raise_{l}").to(u))
            out.append((2 * l + 1) / math.sqrt(l) * raised)
        return out


class _Layer(nn.Module):
    """Features (b, n, Σ mul_l (2l + 1)) of e3nn's order -> features of other widths."""

    def __init__(self, before: Sequence[int], after: Sequence[int], degree: int, chiral: bool):
        super().__init__()
        from e3nn import nn as gated
        from e3nn import o3

        def irreps(widths: Sequence[int]) -> o3.Irreps:
            found: Any = [(mul, (l, 1 if chiral else (-1) ** l)) for l, mul in enumerate(widths) if mul]
            return o3.Irreps(found)  # type: ignore[return-value]

        scalars, others = irreps(after[:1]), irreps((0, *after[1:]))
        gates = o3.Irreps([(others.num_irreps, (0, 1))])
        gate = gated.Gate(scalars, [nn.functional.silu] * len(scalars), gates, [torch.sigmoid], others)
        self.before, self.paths = tuple(before), _paths(before, range(len(after)), degree, chiral)
        middle = o3.Irreps([(before[a], (c, 1 if chiral else (-1) ** c)) for a, _, c in self.paths])
        self.mix, self.own = o3.Linear(middle, gate.irreps_in), o3.Linear(irreps(before), gate.irreps_in)
        self.gate, self.after = gate, o3.Linear(gate.irreps_out, irreps(after))
        self.residual = tuple(before) == tuple(after)
        self.weights = nn.ParameterList(nn.init.normal_(torch.empty(FILTERS, before[a])) for a, _, _ in self.paths)
        for path in self.paths:
            self.register_buffer("couple_{}{}{}".format(*path), _coupling(*path), persistent=False)

    def forward(self, h: Tensor, heard: list[Tensor]) -> Tensor:
        new = self.after(self.gate(self.mix(self._product(h, heard)) + self.own(h)))
        return h + new if self.residual else new

    def _product(self, h: Tensor, heard: list[Tensor]) -> Tensor:
        b, n, _ = h.shape
        sizes = [mul * (2 * l + 1) for l, mul in enumerate(self.before)]
        features = [part.unflatten(-1, (-1, 2 * l + 1)) for l, part in enumerate(h.split(sizes, -1))]
        out: dict[Path, Tensor] = {}
        for l, filters in enumerate(heard):  # all paths with the same harmonics in one product
            paths = [(path, weight) for path, weight in zip(self.paths, self.weights, strict=True) if path[1] == l]
            if not paths:
                continue
            said = [(weight[..., None] * features[path[0]][:, :, None]).flatten(3) for path, weight in paths]
            sums = filters.matmul(torch.cat(said, -1).flatten(1, 2)).unflatten(1, (n, -1))  # (b, n, 2l + 1, ...)
            for (path, _), part in zip(paths, sums.split([w.shape[-1] for w in said], -1), strict=True):
                part = part.unflatten(-1, (-1, 2 * path[0] + 1))
                coupling = getattr(self, "couple_{}{}{}".format(*path)).to(h)
                out[path] = torch.einsum("bnyua,ayc->bnuc", part, math.sqrt(2 * path[2] + 1) * coupling).flatten(2)
        return torch.cat([out[path] for path in self.paths], -1)


def _paths(before: Sequence[int], after: Sequence[int], degree: int, chiral: bool) -> list[Path]:
    """(l₁, l₂, l₃) with |l₁ − l₂| ≤ l₃ ≤ l₁ + l₂, of even sum unless chiral; sorted by l₃, as e3nn sorts."""
    every = [(a, b, c) for c in after for a in range(len(before)) for b in range(degree + 1)]
    return [(a, b, c) for a, b, c in every if abs(a - b) <= c <= a + b and (chiral or (a + b + c) % 2 == 0)]


def _coupling(a: int, b: int, c: int) -> Tensor:
    """Wigner's 3j symbols in e3nn's real basis, float64, of norm one."""
    from e3nn import o3

    return o3.wigner_3j(a, b, c, dtype=torch.float64)
