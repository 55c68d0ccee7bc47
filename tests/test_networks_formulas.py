"""What each network on points is: against plain loops over pairs, e3nn's own product, and counts of neighbours."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.blocks import blocks
from scifm.networks import EGNN, PaiNN, Radial, Residues, SetTransformer, TensorProduct
from scifm.networks.layers import linear, perceptron, tamed
from scifm.networks.partners import SMALL
from scifm.networks.residues import _chain
from scifm.networks.set_transformer import _Attention
from scifm.testing import check_velocity
from scifm.trace import Exact

LABELS = {"nodes": {"z": 5}, "context": {"label": 3}}
BONDS = {"edges": {"bond": 4}}
MAKE = {
    "egnn": lambda: EGNN(3, 12, 2, **LABELS, **BONDS),
    "painn": lambda: PaiNN(8, 2, Radial(8, 1.0, 4.0), chiral=True, **LABELS, **BONDS),
    "tensor product": lambda: TensorProduct((6, 4, 2), 2, Radial(8, 1.0, 4.0), chiral=True, **LABELS, **BONDS),
    "attention": lambda: SetTransformer(3, 16, 2, 0, (4.0, 1.0), **LABELS),
    "inducing": lambda: SetTransformer(3, 16, 2, 3, **LABELS),
    "residues": lambda: Residues(8, 2, window=2, **LABELS),
}
every = pytest.mark.parametrize("name", MAKE)


def wake(network: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """No zeros left: a zero head hides every law."""
    g, network = torch.Generator().manual_seed(0), network.to(dtype)
    with torch.no_grad():
        for p in network.parameters():
            fan = max(1, p[0].numel()) if p.ndim > 1 else 4
            p.copy_(torch.randn(p.shape, dtype=p.dtype, generator=g) / fan**0.5)
    return network


def ragged(counts: list[int], dtype: torch.dtype = torch.float64) -> Batch:
    """Sets with elements, labels, places along two chains with a gap, and bonds between rows that follow each other."""
    g = torch.Generator().manual_seed(0)
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = len(index)
    within = torch.cat([torch.arange(n) for n in counts])
    first = (index[1:] == index[:-1]).nonzero().flatten()
    kind = torch.randint(0, 4, (len(first),), generator=g)
    z = torch.randint(0, 5, (rows,), generator=g)
    return Batch(
        torch.randn(rows, 3, generator=g, dtype=dtype),
        index,
        len(counts),
        {"label": torch.randint(0, 3, (len(counts),), generator=g)},
        {"z": z, "position": within + (within > 1), "chain": (within > 4).long()},
        torch.stack([torch.cat([first, first + 1]), torch.cat([first + 1, first])]),
        {"bond": torch.cat([kind, kind])},
    )


def dense(b: int, n: int, dtype: torch.dtype = torch.float64) -> Batch:
    return Batch(torch.randn(b, n, 3, dtype=dtype, generator=torch.Generator().manual_seed(0)))


def times(batch: Batch) -> Tensor:
    return torch.linspace(0.1, 0.9, len(batch), dtype=batch.x.dtype)


# -- what all of them must stand -----------------------------------------------------------------------


@every
def test_as_many_samples_as_coordinates_and_points(name):
    """B = n = 3: whatever is broadcast over the wrong axis fits here."""
    network, batch = wake(MAKE[name]()), ragged([3, 3, 3])
    t = times(batch)
    parts = [batch.select([b]) for b in range(3)]
    alone = [network(t[b : b + 1], part.x, part) for b, part in enumerate(parts)]
    torch.testing.assert_close(network(t, batch.x, batch), torch.cat(alone), rtol=0, atol=1e-12)


@every
def test_gradients_reach_every_parameter(name):
    network, batch = wake(MAKE[name]()), ragged([5, 7])
    network(times(batch), batch.x, batch).square().sum().backward()
    unreached = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert unreached == []


@every
def test_a_divergence_can_be_differentiated(name):
    network, batch = wake(MAKE[name]()), ragged([3])
    total = Exact()(network, times(batch), batch.x, batch)[1].sum()
    (slope,) = torch.autograd.grad(total, network.conditions.time.weight)
    assert slope.isfinite().all() and slope.abs().max() > 0


@every
def test_coincident_points_have_finite_velocities_and_derivatives(name):
    network, batch = wake(MAKE[name]()), ragged([4])
    x = torch.zeros_like(batch.x).requires_grad_()
    out = network(times(batch), x, batch)
    (slope,) = torch.autograd.grad(out.square().sum() + out.sum(), x)
    assert out.isfinite().all() and slope.isfinite().all()


@every
def test_sets_far_apart_do_not_blow_up(name):
    network, batch = wake(MAKE[name]()), ragged([7])
    near = network(times(batch), batch.x, batch).abs().max()
    far = network(times(batch), 1000 * batch.x, batch)
    assert far.isfinite().all() and far.abs().max() < 1e5 * (1 + near)


@every
def test_copies_and_saved_states_are_the_same_network(name):
    network, batch = wake(MAKE[name]()), ragged([3, 4])
    other = MAKE[name]().double()
    other.load_state_dict(network.state_dict())
    wanted = network(times(batch), batch.x, batch)
    for one in (copy.deepcopy(network), other):
        assert torch.equal(one(times(batch), batch.x, batch), wanted)


@every
def test_a_batch_of_empty_sets_has_no_velocities(name):
    batch = Batch(
        torch.zeros(0, 3, dtype=torch.float64),
        torch.zeros(0, dtype=torch.long),
        2,
        {"label": torch.zeros(2, dtype=torch.long)},
        {key: torch.zeros(0, dtype=torch.long) for key in ("z", "position", "chain")},
        torch.zeros(2, 0, dtype=torch.long),
        {"bond": torch.zeros(0, dtype=torch.long)},
    )
    assert wake(MAKE[name]())(times(batch), batch.x, batch).shape == (0, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: EGNN(0), "dim, width and layers must be"),
        (lambda: EGNN(3, 8, 0), "dim, width and layers must be"),
        (lambda: EGNN(3, 8, 1, scale=-1.0), "scale positive"),
        (lambda: PaiNN(0), "width and layers must be"),
        (lambda: PaiNN(8, scale=0.0), "scale positive"),
        (lambda: TensorProduct((8,)), "scalars and vectors at least"),
        (lambda: TensorProduct((8, 0)), "widths must be"),
        (lambda: TensorProduct((8, 4), 0), "layers must be"),
        (lambda: SetTransformer(3, 24), "multiple of 16"),
        (lambda: SetTransformer(3, 16, inducing=-1), "inducing must be"),
        (lambda: SetTransformer(3, 16, wavelengths=(1.0, 0.0)), "wavelengths must be positive"),
        (lambda: Residues(8, window=0), "window must be"),
    ],
)
def test_bad_constructor_arguments_are_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()


# -- layers --------------------------------------------------------------------------------------------


def test_layers_keep_the_size_of_what_passes():
    torch.manual_seed(0)
    z = torch.randn(4000, 64)
    with torch.no_grad():
        for layer in (linear(64, 64), perceptron(64, 64, 64)):
            assert 0.85 < float(layer(z).std()) < 1.15
        assert 1.7 < float(linear(64, 64, gain=2.0)(z).std()) < 2.3
    assert float(tamed(1e3 * z).abs().max()) < 8
    torch.testing.assert_close(tamed(1e-3 * z), 1e-3 * z, rtol=1e-5, atol=0)


# -- EGNN ----------------------------------------------------------------------------------------------


def egnn_by_loops(net: EGNN, t: Tensor, batch: Batch) -> Tensor:
    """Satorras et al.'s formulas, pair by pair, with one first layer for [h_i, h_j, f, e] that is not split."""
    x, h_all, out = batch.x, net.conditions(t, batch), []
    edges = {(i, j): k for k, (i, j) in enumerate(batch.edge_index.T.tolist())}
    for rows in torch.arange(len(x)).split(batch.counts.tolist()):
        rows = rows.tolist()
        at, h = [x[i] for i in rows], [h_all[i] for i in rows]
        for layer in net.layers:
            weight = torch.cat([layer.receiver.weight, layer.sender.weight, layer.pair.weight], 1)
            moved, heard = [], []
            for i in range(len(rows)):
                push, gathered = torch.zeros_like(at[i]), torch.zeros_like(h[i])
                for j in range(len(rows)):
                    if i == j:
                        continue
                    f, d = net.radial((at[i] - at[j]).square().sum())
                    bond = x.new_zeros(5)
                    if (rows[i], rows[j]) in edges:
                        bond[0] = bond[1 + int(batch.edges["bond"][edges[rows[i], rows[j]]])] = 1
                    m = nn.functional.linear(torch.cat([h[i], h[j], f, bond]), weight, layer.receiver.bias)
                    m = nn.functional.silu(layer.edge(nn.functional.silu(m)))
                    push = push + (at[i] - at[j]) / (d + layer.scale) * layer.move(m)
                    if not layer.last:
                        gathered = gathered + layer.attention(m).sigmoid() * m
                moved.append(at[i] + push)
                if not layer.last:
                    heard.append(h[i] + layer.node(torch.cat([h[i], gathered])))
            at, h = moved, heard
        if rows:
            v = torch.stack(at) - x[rows]
            out.append(v - v.mean(0))
    return torch.cat(out)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_egnn_is_what_its_page_says_and_its_split_first_layer_changes_nothing(dtype, bound):
    network, batch = wake(EGNN(3, 16, 3, **LABELS, **BONDS), dtype), ragged([1, 5, 0, 2], dtype)
    with torch.no_grad():
        wanted = egnn_by_loops(network, times(batch), batch)
        gap = (network(times(batch), batch.x, batch) - wanted).abs().max() / wanted.abs().max()
    assert gap < bound


def test_small_sets_that_are_gathered_and_large_ones_that_are_broadcast_agree():
    network, small = wake(EGNN(3, 8, 2)), dense(2, SMALL)
    index = torch.cat([torch.arange(2).repeat_interleave(SMALL), torch.full((SMALL + 1,), 2)])
    mixed = Batch(torch.cat([small.x.reshape(-1, 3), dense(1, SMALL + 1).x[0]]), index, 3)
    assert len(blocks(mixed)) == 1  # padded together, so that all are broadcast
    t = torch.tensor([0.1, 0.9, 0.5], dtype=torch.float64)
    together = network(t, mixed.x, mixed)[: 2 * SMALL].reshape(2, SMALL, 3)
    torch.testing.assert_close(together, network(t[:2], small.x, small), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_egnn_in_any_dimension(dim):
    g = torch.Generator().manual_seed(0)
    check_velocity(wake(EGNN(dim, 8, 2)), Batch(torch.randn(3, 4, dim, dtype=torch.float64, generator=g)))


# -- PaiNN ---------------------------------------------------------------------------------------------


def painn_by_loops(net: PaiNN, t: Tensor, batch: Batch, chiral: bool) -> Tensor:
    """Schütt et al.'s message and update, pair by pair, for one sample."""
    x, h = batch.x, net.conditions(t, batch)
    n, width = h.shape
    v = x.new_zeros(n, 3, width)
    for message, update in zip(net.messages, net.updates, strict=True):
        new_h, new_v = h.clone(), v.clone()
        for i in range(n):
            radials = [net.radial((x[i] - x[j]).square().sum()) for j in range(n)]
            weight = [float(i != j) * net.radial.envelope(d) for j, (_, d) in enumerate(radials)]
            heard = (1 + sum(weight)).sqrt()
            for j in range(n):
                f, d = radials[j]
                w = message.filter(f) * message.phi(tamed(h[j])) * weight[j] / heard
                own, along, *carried = w.split(message.parts)
                new_h[i] = new_h[i] + own
                new_v[i] = new_v[i] + torch.outer((x[i] - x[j]) / (d + net.radial.scale), along)
                if carried:
                    new_v[i] = new_v[i] + v[j] * carried[0]
        h, v = new_h, new_v
        for i in range(n):
            u, w = update.mix(v[i]).chunk(2, -1)
            size = (w.square().sum(0) + 1e-6).sqrt()
            alpha, beta, gamma, *delta = update.gates(tamed(torch.cat([h[i], size]))).chunk(4 if chiral else 3)
            h[i] = h[i] + beta + gamma * (u * w).sum(0) / (1 + size)
            v[i] = v[i] + alpha * u
            if delta:
                v[i] = v[i] + delta[0] * torch.linalg.cross(u, w, dim=0) / (1 + size)
    out = torch.stack([net.head.mix(v[i] * net.head.gate(tamed(h[i]))).squeeze(-1) for i in range(n)])
    return out - out.mean(0)


@pytest.mark.parametrize("chiral", [False, True])
@pytest.mark.parametrize("cutoff", [None, 1.5])
def test_painn_is_what_its_page_says(chiral, cutoff):
    network, batch = wake(PaiNN(6, 2, Radial(5, 1.0, cutoff), chiral)), ragged([4])
    with torch.no_grad():
        wanted = painn_by_loops(network, times(batch), batch, chiral)
        torch.testing.assert_close(network(times(batch), batch.x, batch), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [lambda r: PaiNN(8, 1, r), lambda r: TensorProduct((8, 4), 1, r)])
def test_beyond_the_cutoff_points_know_nothing_of_each_other(make):
    network = wake(make(Radial(8, 1.0, 3.0)))
    index, t = torch.zeros(6, dtype=torch.long), torch.tensor([0.5], dtype=torch.float64)
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 3

    def answer(apart: float) -> Tensor:
        two = x.clone()
        two[3:, 0] += apart
        return network(t, two, Batch(two, index, 1))

    torch.testing.assert_close(answer(50), answer(100), rtol=0, atol=1e-12)
    assert (answer(2) - answer(100)).abs().max() > 1e-3


# -- tensor products -----------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(4, 3), (4, 3, 2), (3, 2, 2, 1)])
@pytest.mark.parametrize("chiral", [False, True])
def test_summing_first_is_e3nns_own_tensor_product_of_each_pair(widths, chiral):
    """o3.TensorProduct with uvu paths and weights from outside, on every pair, and then the sum."""
    from e3nn import o3

    network, points = wake(TensorProduct(widths, 3, chiral=chiral)), dense(2, 4).points
    layer = network.layers[1]

    def irreps(muls) -> o3.Irreps:
        return o3.Irreps([(mul, (l, 1 if chiral else (-1) ** l)) for l, mul in enumerate(muls)])

    before, around = irreps(widths), irreps([1] * len(widths))
    middle = o3.Irreps([(widths[a], (c, 1 if chiral else (-1) ** c)) for a, _, c in layer.paths])
    paths = [(a, b, k, "uvu", True) for k, (a, b, _) in enumerate(layer.paths)]
    product = o3.TensorProduct(before, around, middle, paths, shared_weights=False, internal_weights=False).double()

    (block,) = blocks(points)
    g = torch.Generator().manual_seed(1)
    x, h = block.pad(points.x), torch.randn(2, 4, before.dim, dtype=torch.float64, generator=g)
    with torch.no_grad():
        found = layer._product(h, network._heard(x, block, None))
        apart = x[:, :, None] - x[:, None]
        f, d = network.radial(apart.square().sum(-1))
        y = o3.spherical_harmonics(list(range(len(widths))), apart / (d + 1), False, "component")
        filters = network.filters(f) * block.pairs[..., None] / (1 + 3) ** 0.5
        weights = torch.cat([filters @ w for w in layer.weights], -1)
        wanted = product(h[:, None].expand(-1, 4, -1, -1), y, weights).sum(2)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)  # e3nn's constants are float32


@pytest.mark.parametrize(("degree", "chiral", "number"), [(1, False, 4), (1, True, 5), (2, False, 11), (2, True, 15)])
def test_all_products_that_the_parity_allows_are_formed(degree, chiral, number):
    layer = TensorProduct((2,) * (degree + 1), 3, chiral=chiral).layers[1]
    assert len(layer.paths) == number and ((1, 1, 1) in layer.paths) is chiral


def test_harmonics_are_e3nns_and_smooth_at_zero():
    from e3nn import o3

    network = TensorProduct((2, 2, 2, 2, 2), 1).double()
    u = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for l, y in enumerate(network._harmonics(u)):
        torch.testing.assert_close(y, o3.spherical_harmonics(l, u, False, "component"), rtol=1e-12, atol=1e-12)
        assert network._harmonics(torch.zeros_like(u))[l].eq(1 if l == 0 else 0).all()


def test_no_irreps_are_kept_on_the_network():
    """torch.compile cannot guard on them (e3nn#446)."""
    from e3nn import o3

    network = TensorProduct((4, 2), 2)
    for module in (network, *network.layers):
        assert not any(isinstance(value, o3.Irreps | o3.Irrep) for value in vars(module).values())


# -- attention -----------------------------------------------------------------------------------------


def test_attention_is_softmax_of_products():
    attend, g = wake(_Attention(32)), torch.Generator().manual_seed(0)
    to, of = (torch.randn(2, n, 32, dtype=torch.float64, generator=g) for n in (3, 5))
    hidden = torch.tensor([[False] * 5, [False, False, True, False, True]])
    got = attend(to, of, hidden[:, None, None])
    q, (k, v) = attend.query(to), attend.keys(of).chunk(2, -1)
    for b in range(2):
        there, parts = ~hidden[b], []
        for head in range(2):
            at = slice(16 * head, 16 * head + 16)
            weight = (q[b, :, at] @ k[b, there][:, at].T / 4).exp()
            parts.append(weight / weight.sum(1, keepdim=True) @ v[b, there][:, at])
        torch.testing.assert_close(got[b], attend.leave(torch.cat(parts, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("inducing", "grows"), [(4, 2), (0, 4)])
def test_memory_is_linear_with_inducing_points(inducing, grows):
    """The largest tensor that is kept for the backward pass, for twice as many points."""
    network, largest = wake(SetTransformer(3, 16, 1, inducing), torch.float32), []
    for n in (200, 400):
        batch, sizes = dense(1, n, torch.float32), []

        def note(kept: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(kept.numel())
            return kept

        with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
            network(times(batch), batch.x, batch)
        largest.append(max(sizes))
    assert largest[1] / largest[0] == pytest.approx(grows, rel=0.1)


# -- residues ------------------------------------------------------------------------------------------


def chain(place: list[int], number: list[int] | None = None) -> Batch:
    n, nodes = len(place), {"position": torch.tensor(place)}
    if number is not None:
        nodes["chain"] = torch.tensor(number)
    return Batch(ragged([n]).x, torch.zeros(n, dtype=torch.long), 1, nodes=nodes)


def neighbours(batch: Batch, window: int = 2) -> list[list[tuple[int, int]]]:
    """(place in the window: -2, -1, 1, 2 are 0 to 3; row) of each residue's neighbours along the chain."""
    (block,) = blocks(batch)
    found, n = _chain(batch, block, window), len(batch.x)
    index, there = found.index.reshape(n, 2 * window), found.there.reshape(n, 2 * window) > 0
    return [[(int(o), int(index[i, o])) for o in there[i].nonzero().flatten()] for i in range(n)]


def test_neighbours_are_those_of_the_chain_and_not_of_the_rows():
    whole = [[(2, 1), (3, 2)], [(1, 0), (2, 2), (3, 3)], [(0, 0), (1, 1), (2, 3)], [(0, 1), (1, 2)]]
    assert neighbours(chain([1, 2, 3, 4])) == whole
    assert neighbours(Batch(torch.zeros(1, 4, 3)).points) == whole  # without places, rows follow each other
    assert neighbours(chain([1, 2, 7, 8])) == [[(2, 1)], [(1, 0)], [(2, 3)], [(1, 2)]]
    assert neighbours(chain([1, 2, 4, 5]))[1] == [(1, 0), (3, 2)]  # one is missing: the next is two places away
    assert neighbours(chain([1, 2, 3, 4], [0, 0, 1, 1])) == [[(2, 1)], [(1, 0)], [(2, 3)], [(1, 2)]]
    assert neighbours(chain([4, 2, 1, 3]))[0] == [(0, 1), (1, 3)]  # whatever order the rows have


def test_far_and_near_are_all_others_once():
    batch = ragged([7, 3, 1])
    for block in blocks(batch):
        found, n = _chain(batch, block, 2), block.mask.sum(1)
        total = (found.there > 0).sum((1, 2, 3)) + (found.far > 0).sum((1, 2, 3))
        assert torch.equal(total, n * (n - 1))


def test_a_gap_and_another_chain_change_the_velocity_and_another_numbering_does_not():
    network, t = wake(Residues(12, 2, window=2)), torch.tensor([0.5], dtype=torch.float64)
    whole = chain([1, 2, 3, 4, 5])
    answer = network(t, whole.x, whole)
    for other in (chain([1, 2, 3, 5, 6]), chain([1, 2, 3, 4, 5], [0, 0, 0, 1, 1])):
        assert (network(t, other.x, other) - answer).abs().max() > 1e-6
    moved = chain([11, 12, 13, 14, 15], [7] * 5)
    torch.testing.assert_close(network(t, moved.x, moved), answer, rtol=0, atol=1e-12)
