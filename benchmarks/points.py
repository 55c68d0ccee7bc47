"""Networks on sets of points: what padding, edge lists and e3nn's own product would cost.

Times are what one thread computes (`time.process_time`), medians of calls in turn; a step is forward and backward to
the weights.  Contestants have the same weights and give the same velocities; the largest difference is printed.

ragged     sets of 5 to 59 points, the layout new at every step as in training: blocks of like size, all padded to the
           largest, and lists of edges; beside them uniform sets of the same number of pairs
split      EGNN with the first edge layer split between points and pairs, not split, and on lists of edges with
           index_add, as PyTorch Geometric has it
product    tensor products summed before they are coupled, and e3nn's `o3.TensorProduct` on each pair
all        every network on the same sets
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import harness
import torch
from harness import milliseconds, table
from torch import Tensor, nn
from torch.nn import functional as F

from scifm import Batch
from scifm.blocks import Block, Blocks, blocks
from scifm.networks import EGNN, PaiNN, Residues, SetTransformer, TensorProduct
from scifm.trace import Exact

interleaved = partial(harness.interleaved, clock=time.process_time)


def measure(quick: bool) -> str:
    """The tables as Markdown."""
    return "\n\n".join(["## Networks on points", ragged(quick), split(quick), product(quick), every(quick)])


def woken(network: nn.Module) -> nn.Module:
    """The same network, its head not zero: nothing is saved by zeros."""
    torch.manual_seed(0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.5 / math.sqrt(max(1, p[0].numel())) if p.ndim > 1 else 0.1)
    return network


def uniform(number: int, n: int, scale: float = 1.5) -> Batch:
    return Batch(scale * torch.randn(number, n, 3, generator=torch.Generator().manual_seed(0)))


def sizes(number: int) -> Tensor:
    return torch.randint(5, 60, (number,), generator=torch.Generator().manual_seed(0))


def fresh(x: Tensor, counts: Tensor) -> Batch:
    """A batch whose layout nobody has seen yet."""
    return Batch(x, torch.arange(len(counts)).repeat_interleave(counts), len(counts))


def step(network: nn.Module, make: Callable[[], Batch]) -> Callable[[], None]:
    def call() -> None:
        batch = make()
        network.zero_grad()
        network(torch.full((len(batch),), 0.5), batch.x, batch).square().mean().backward()

    return call


def answer(network: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return network(torch.full((len(batch),), 0.5), batch.x, batch)


def difference(one: Tensor, other: Tensor) -> str:
    return f"{float((one - other).abs().max() / one.abs().max()):.0e}"


# -- other ways to the same function -------------------------------------------------------------------


class Padded(nn.Module):
    """The network with all samples padded to the largest of the batch: one block."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        batch.points.keep("blocks", lambda: self._one(batch.points))
        return self.network(t, x, batch)

    @staticmethod
    def _one(points: Batch) -> Blocks:
        counts, rows = points.counts, len(points.x)
        column = torch.arange(int(counts.max()))
        mask = column < counts[:, None]
        row = torch.where(mask, (counts.cumsum(0) - counts)[:, None] + column, rows)
        block = Block(torch.arange(len(points)), row, mask, bool(mask.all()))
        return Blocks((block,), mask.flatten().nonzero().flatten())


class Unsplit(nn.Module):
    """An EGNN whose first edge layer sees [h_i, h_j, f] of every pair; dense, or a list of edges and index_add."""

    def __init__(self, network: EGNN, edges: bool):
        super().__init__()
        self.network, self.edges, self.first = network, edges, nn.ModuleList()
        for layer in network.layers:
            weight = torch.cat([layer.receiver.weight, layer.sender.weight, layer.pair.weight], 1).detach()
            first = nn.Linear(weight.shape[1], weight.shape[0])
            first.load_state_dict({"weight": weight, "bias": layer.receiver.bias.detach()})
            self.first.append(first)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points = batch.replace(x).points
        h, parts = self.network.conditions(t, points), blocks(points)
        if self.edges:
            return self._sparse(points, h).reshape(x.shape)
        return parts.rows([self._dense(b.pad(points.x), b.pad(h), b) for b in parts]).reshape(x.shape)

    def _sparse(self, points: Batch, h: Tensor) -> Tensor:
        x, (i, j) = points.x, points.keep("all edges", lambda: _all_edges(points))
        for layer, first in zip(self.network.layers, self.first, strict=True):
            apart = x[i] - x[j]
            f, d = self.network.radial(apart.square().sum(-1))
            m = F.silu(layer.edge(F.silu(first(torch.cat([h[i], h[j], f], -1)))))
            x = x.index_add(0, i, layer.move(m) / (d + layer.scale) * apart)
            if not layer.last:
                heard = torch.zeros_like(h).index_add(0, i, layer.attention(m).sigmoid() * m)
                h = h + layer.node(torch.cat([h, heard], -1))
        moved = x - points.x
        mean = moved.new_zeros(len(points), 3).index_add(0, points.index, moved) / points.counts[:, None]
        return moved - mean[points.index]

    def _dense(self, x: Tensor, h: Tensor, block: Block) -> Tensor:
        mask, start, n = block.pairs[..., None].to(x), x, x.shape[1]
        for layer, first in zip(self.network.layers, self.first, strict=True):
            apart = x[:, :, None] - x[:, None]
            f, d = self.network.radial(apart.square().sum(-1))
            both = [h[:, :, None].expand(-1, -1, n, -1), h[:, None].expand(-1, n, -1, -1), f]
            m = F.silu(layer.edge(F.silu(first(torch.cat(both, -1)))))
            x = x + (layer.move(m) * mask / (d + layer.scale) * apart).sum(2)
            if not layer.last:
                heard = (layer.attention(m).sigmoid() * mask * m).sum(2)
                h = h + layer.node(torch.cat([h, heard], -1))
        own = block.mask[..., None].to(x)
        moved = (x - start) * own
        return (moved - moved.sum(1, keepdim=True) / own.sum(1, keepdim=True)) * own


def _all_edges(points: Batch) -> Tensor:
    same = points.index[:, None] == points.index
    same.fill_diagonal_(False)
    return same.nonzero().T.contiguous()


class PairByPair(nn.Module):
    """A TensorProduct with e3nn's product on each pair of points, and then the sum."""

    def __init__(self, network: TensorProduct):
        super().__init__()
        from e3nn import o3

        def irreps(muls: tuple[int, ...]) -> o3.Irreps:
            return o3.Irreps([(mul, (l, (-1) ** l)) for l, mul in enumerate(muls)])

        self.network, self.products = network, nn.ModuleList()
        for layer in network.layers:
            middle = o3.Irreps([(layer.before[a], (c, (-1) ** c)) for a, _, c in layer.paths])
            paths = [(a, b, k, "uvu", True) for k, (a, b, _) in enumerate(layer.paths)]
            around = irreps((1,) * (network.degree + 1))
            self.products.append(
                o3.TensorProduct(
                    irreps(layer.before), around, middle, paths, shared_weights=False, internal_weights=False
                )
            )

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points, net = batch.replace(x).points, self.network
        (block,) = blocks(points)
        x_, h = block.pad(points.x), block.pad(net.conditions(t, points))
        apart, n = x_[:, :, None] - x_[:, None], x_.shape[1]
        f, d = net.radial(apart.square().sum(-1))
        near = block.pairs[..., None].to(d)
        g = net.filters(f) * near / (1 + near.sum(2, keepdim=True)).sqrt()
        y = torch.cat(net._harmonics(apart / (d + net.radial.scale)), -1)
        for layer, each in zip(net.layers, self.products, strict=True):
            weights = torch.cat([g @ w for w in layer.weights], -1)
            heard = each(h[:, None].expand(-1, n, -1, -1), y, weights).sum(2)
            new = layer.after(layer.gate(layer.mix(heard) + layer.own(h)))
            h = h + new if layer.residual else new
        v = net.head(h.unflatten(-1, (-1, 3)).transpose(-1, -2)).squeeze(-1)
        return (v - v.mean(1, keepdim=True)).reshape(x.shape)


# -- tables --------------------------------------------------------------------------------------------


def ragged(quick: bool) -> str:
    counts = sizes(16 if quick else 64)
    x = 2 * torch.randn(int(counts.sum()), 3, generator=torch.Generator().manual_seed(1))
    pairs, even = int(counts.square().sum()), round(float(counts.float().square().mean().sqrt()))
    rows, networks = [], {"EGNN 3 x 32": EGNN(3, 32, 3), "EGNN 4 x 64": EGNN(3, 64, 4), "PaiNN 3 x 32": PaiNN(32, 3)}
    for name, network in networks.items():
        woken(network)
        like = uniform(len(counts), even, 2.0).x
        cases: dict[str, Callable[[], object]] = {
            "blocks": step(network, lambda: fresh(x, counts)),
            "padded": step(Padded(network), lambda: fresh(x, counts)),
            "uniform": step(network, lambda like=like: Batch(like)),
        }
        other = {"padded": difference(answer(network, fresh(x, counts)), answer(Padded(network), fresh(x, counts)))}
        if isinstance(network, EGNN):
            listed = Unsplit(network, edges=True)
            cases["edges"] = step(listed, lambda listed=listed: fresh(x, counts))
            other["edges"] = difference(answer(network, fresh(x, counts)), answer(listed, fresh(x, counts)))
        seconds = interleaved(cases, 1 if quick else 7)
        own = seconds["blocks"]
        cells = [f"{seconds[k] / own:.2f} x ({other[k]})" if k in seconds else "" for k in ("padded", "edges")]
        even_pairs = len(counts) * even**2
        rows.append([name, milliseconds(own), *cells, f"{seconds['uniform'] / even_pairs * pairs / own:.2f} x"])
    made = sum(b.mask.shape[0] * b.mask.shape[1] ** 2 for b in blocks(fresh(x, counts)))
    padded = len(counts) * int(counts.max()) ** 2
    return "\n\n".join(
        [
            f"**Ragged sets**: a step on {len(counts)} sets of 5 to 59 points, {pairs} pairs with those of a point "
            f"with itself. Blocks make {made / pairs:.2f} times as many, padding to the largest {padded / pairs:.2f} "
            f"times. Uniform: {len(counts)} sets of {even} points, per pair.",
            table(["step, multiples of that with blocks", "blocks", "padded", "list of edges", "uniform"], rows),
        ]
    )


def split(quick: bool) -> str:
    rows = []
    cases = [("4 points x 256", 256, 4), ("LJ13 x 64", 64, 13), ("LJ13 x 256", 256, 13), ("LJ55 x 8", 8, 55)]
    for width, layers in ((32, 3), (64, 4)):
        network = woken(EGNN(3, width, layers))
        others = {"not split": Unsplit(network, edges=False), "edges": Unsplit(network, edges=True)}
        for name, number, n in cases[1:2] if quick else cases:
            batch = uniform(number, n)
            ways = {"split": network, **others}
            seconds = interleaved({k: step(w, lambda batch=batch: batch) for k, w in ways.items()}, 1 if quick else 7)
            gaps = [difference(answer(network, batch), answer(w, batch)) for w in others.values()]
            ratios = [f"{seconds[k] / seconds['split']:.2f} x ({gap})" for k, gap in zip(others, gaps, strict=True)]
            rows.append([f"EGNN {layers} x {width}, {name}", milliseconds(seconds["split"]), *ratios])
    head = ["step, multiples of the split one", "split", "not split", "list of edges, index_add"]
    return "**First edge layer**:\n\n" + table(head, rows)


def product(quick: bool) -> str:
    rows = []
    cases = [("LJ13 x 64", 64, 13), ("LJ55 x 8", 8, 55)]
    for widths in ((32, 16), (32, 16, 8)):
        network = woken(TensorProduct(widths, 3))
        pairwise = PairByPair(network)
        for name, number, n in cases[:1] if quick else cases:
            batch = uniform(number, n)
            ways = {"first": network, "pairs": pairwise}
            seconds = interleaved({k: step(w, lambda batch=batch: batch) for k, w in ways.items()}, 1 if quick else 3)
            gap = difference(answer(network, batch), answer(pairwise, batch))
            row = [f"l <= {len(widths) - 1}, {name}", milliseconds(seconds["first"])]
            rows.append([*row, f"{seconds['pairs'] / seconds['first']:.1f} x ({gap})"])
    head = ["step, multiples of the first column", "summed before it is coupled", "e3nn, pair by pair"]
    return "**Tensor products**, 3 layers:\n\n" + table(head, rows)


def every(quick: bool) -> str:
    networks = {
        "EGNN 3 x 32": EGNN(3, 32, 3),
        "EGNN 4 x 64": EGNN(3, 64, 4),
        "PaiNN 3 x 32": PaiNN(32, 3),
        "PaiNN 3 x 32, chiral": PaiNN(32, 3, chiral=True),
        "TensorProduct 3 x (32, 16)": TensorProduct((32, 16), 3),
        "TensorProduct 3 x (32, 16), chiral": TensorProduct((32, 16), 3, chiral=True),
        "TensorProduct 3 x (32, 16, 8)": TensorProduct((32, 16, 8), 3),
        "TensorProduct 3 x (32, 16, 8), chiral": TensorProduct((32, 16, 8), 3, chiral=True),
        "Residues 3 x 32": Residues(32, 3),
        "Residues 3 x 48": Residues(48, 3),
        "SetTransformer 4 x 64": SetTransformer(3, 64, 4),
        "SetTransformer 4 x 64, 32 inducing": SetTransformer(3, 64, 4, 32),
    }
    for network in networks.values():
        woken(network)
    sets = {"LJ13 x 64": uniform(64, 13), "LJ55 x 8": uniform(8, 55), "128 x 4": uniform(4, 128, 4.0)}
    columns = []
    for batch in list(sets.values())[: 1 if quick else None]:
        steps = {name: step(net, lambda batch=batch: batch) for name, net in networks.items()}
        columns.append(interleaved(steps, 1 if quick else 3))
    few, exact = uniform(2 if quick else 8, 13), {}
    with torch.no_grad():
        for name, net in networks.items():
            exact[name] = partial(Exact(), net, torch.full((len(few),), 0.5), few.x, few)
        columns.append(interleaved(exact, 1 if quick else 3))
    rows = []
    for name, net in networks.items():
        times = [f"{c[name] / c['EGNN 3 x 32']:.2f}" for c in columns]
        rows.append([name, sum(p.numel() for p in net.parameters()), *times])
    first = [milliseconds(c["EGNN 3 x 32"]) for c in columns]
    names = [*list(sets)[: len(columns) - 1], f"exact trace, LJ13 x {len(few)}"]
    head = ["multiples of EGNN 3 x 32", "weights", *(f"{n} ({t})" for n, t in zip(names, first, strict=True))]
    return "**All networks**: a step, or an exact trace without gradients.\n\n" + table(head, rows)
