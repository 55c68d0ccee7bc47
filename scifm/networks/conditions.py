"""What a point and a pair of points know besides where they are: time, labels, species, bonds.

A network on points takes three small dictionaries, name -> how many, for what its batches carry in `nodes` (per point),
`context` (per sample) and `edges` (per bond).  Whole numbers are classes 0 … k − 1, so k is the number of classes;
floating-point values are k numbers per entry.  Both enter by one linear map, for an embedding is a linear map of
one-hot vectors:

    h_i = W_t waves(t) + Σ_context W c + Σ_nodes W s_i,          e_ij = [joined, one-hot of the bond, ...] or nothing.

All of it is invariant under rotations, so it breaks no symmetry but those of labels: points of different species do not
exchange.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.blocks import Block
from scifm.networks.checks import check_times
from scifm.networks.time import SinusoidalTime

__all__ = ["NOTHING", "Conditions", "Sizes", "numbers"]

Sizes = Mapping[str, int]
NOTHING: Sizes = MappingProxyType({})


class Conditions(nn.Module):
    """Features of points and of pairs from what does not flow.

    Args:
        width: of a point's features.
        nodes, context, edges: names of what is looked at, with the number of classes or of numbers.
        time_width: sinusoidal time features.

    Attributes:
        pair_width: numbers per pair; 0 where no edges are looked at.

    Example:
        >>> sets = Batch(torch.zeros(3, 3), torch.tensor([0, 0, 1]), 2, nodes={"z": torch.tensor([6, 8, 1])})
        >>> Conditions(16, nodes={"z": 10})(torch.rand(2), sets).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        width: int,
        nodes: Sizes = NOTHING,
        context: Sizes = NOTHING,
        edges: Sizes = NOTHING,
        time_width: int = 32,
    ):
        super().__init__()
        self.sizes = {"nodes": dict(nodes), "context": dict(context), "edges": dict(edges)}
        for kind, sizes in self.sizes.items():
            if any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in sizes.values()):
                raise ValueError(f"Conditions: {kind} must name whole numbers of at least 1, got {sizes}.")
        self.embed = SinusoidalTime(time_width)
        self.time = nn.Linear(time_width, width)
        self.nodes = nn.ModuleDict({name: nn.Linear(k, width, bias=False) for name, k in nodes.items()})
        self.context = nn.ModuleDict({name: nn.Linear(k, width, bias=False) for name, k in context.items()})
        for weight in (*self.nodes.parameters(), *self.context.parameters()):
            nn.init.normal_(weight)  # as embeddings start: of k classes only one is there at a time
        self.pair_width = 1 + sum(edges.values()) if edges else 0

    def forward(self, t: Tensor, points: Batch) -> Tensor:
        """Features of every point, (N, width), at times t (B,)."""
        return self.of_points(self.of_samples(t, points), points)

    def of_samples(self, t: Tensor, points: Batch) -> Tensor:
        """Features of time and context, (B, width)."""
        check_times("Conditions", t, len(points))
        sample = self.time(self.embed(t.to(points.x)))
        for name, linear in self.context.items():
            sample = sample + linear(numbers("Conditions", points, "context", name, self.sizes["context"][name]))
        return sample

    def of_points(self, sample: Tensor, points: Batch) -> Tensor:
        """Features of samples (B, width) -> of their points, (N, width), with what the points are."""
        h = torch.vmap(points.spread, in_dims=1, out_dims=1)(sample).reshape(len(points.x), sample.shape[1])
        for name, linear in self.nodes.items():
            h = h + linear(numbers("Conditions", points, "nodes", name, self.sizes["nodes"][name]))
        return h

    def pairs(self, points: Batch, block: Block) -> Tensor | None:
        """Features of every pair of a block, (b, n, n, pair_width); None where no edges are looked at."""
        if not self.pair_width:
            return None
        key = ("pairs", tuple(self.sizes["edges"].items()), block, points.x.dtype)
        return points.keep(key, lambda: self._pairs(points, block))

    def _pairs(self, points: Batch, block: Block) -> Tensor:
        if points.edge_index is None:
            names = ", ".join(self.sizes["edges"])
            raise ValueError(f"Conditions: made for the edges {names}, but the batch has no edge_index.")
        b, n = block.row.shape
        count = points.x.shape[0]
        place = torch.full((count + 1,), -1, dtype=torch.long, device=points.x.device)
        place[block.row.flatten()] = torch.arange(b * n, device=points.x.device)
        place[count] = -1
        first, second = place[points.edge_index]
        inside = first >= 0
        kind = {"dtype": points.x.dtype, "device": points.x.device}  # not new_ones: x may be wrapped by a transform
        one = torch.ones(points.edge_index.shape[1], 1, **kind)
        values = [numbers("Conditions", points, "edges", name, size) for name, size in self.sizes["edges"].items()]
        features = torch.zeros(b * n * n, self.pair_width, **kind)
        value = torch.cat([one, *values], 1)[inside]
        first, second = first[inside], second[inside]
        features[second * n + first % n] = value  # a bond that is given once counts in both directions
        features[first * n + second % n] = value
        return features.reshape(b, n, n, self.pair_width)


def numbers(who: str, batch: Batch, kind: str, name: str, size: int) -> Tensor:
    """What a batch carries as `kind` (nodes, context, edges) under a name: a row of `size` numbers each, one-hot for
    classes; a ValueError that names `who` where it is not there or does not fit."""
    held: Mapping[str, Tensor] = getattr(batch, kind)
    if name not in held:
        raise ValueError(
            f"{who}: made for {kind}[{name!r}], which the batch does not carry; it has {sorted(held) or 'none'}."
        )
    value = held[name]
    if value.is_floating_point():
        value = value.reshape(value.shape[0], -1).to(batch.x)
        if value.shape[1] != size:
            raise ValueError(f"{who}: {kind}[{name!r}] must hold {size} numbers each, got {value.shape[1]}.")
        return value
    if value.ndim > 1 and value.shape[1:] != (1,):
        raise ValueError(f"{who}: {kind}[{name!r}] must hold one class each, got shape {tuple(value.shape)}.")
    key, like = ("classes", kind, name, size, batch.x.dtype), batch.x
    return batch.keep(key, lambda: _classes(f"{who}: {kind}[{name!r}]", value.reshape(-1).long(), size, like))


def _classes(what: str, value: Tensor, size: int, like: Tensor) -> Tensor:
    if value.numel() and not 0 <= int(value.min()) <= int(value.max()) < size:
        raise ValueError(
            f"{what} must hold classes 0 to {size - 1}, got {int(value.min())} to "
            f"{int(value.max())}; make the network with a larger number."
        )
    return nn.functional.one_hot(value, size).to(like.device, like.dtype)
