"""Distances and neighbours: invariances, gradients where points coincide, graphs against brute force."""

from __future__ import annotations

import pytest
import torch

from scifm import Batch
from scifm.geometry import (
    Box,
    differences,
    distances,
    nearest,
    nearest_graph,
    norm,
    pair_mask,
    radius_graph,
    random_rotation,
    squared_distances,
    within,
)
from scifm.geometry import neighbours as module

DTYPE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def sets(counts, d=3, seed=0):
    counts = torch.tensor(counts)
    return Batch(
        normal(int(counts.sum()), d, seed=seed), torch.arange(len(counts)).repeat_interleave(counts), len(counts)
    )


# -- distances ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 2), (2, 3, 6, 1), (3, 1, 3), (2, 0, 3), (3, 3, 3)])
def test_distances_are_those_of_the_differences(shape, dtype):
    x = normal(*shape).to(dtype)
    r = differences(x)
    assert r.shape == (*shape[:-1], shape[-2], shape[-1]) and r.dtype == dtype
    torch.testing.assert_close(squared_distances(x), r.square().sum(-1))
    torch.testing.assert_close(distances(x), r.norm(dim=-1))
    other = normal(*shape[:-2], 7, shape[-1], seed=1).to(dtype)
    torch.testing.assert_close(distances(x, other), (x[..., :, None, :] - other[..., None, :, :]).norm(dim=-1))


@pytest.mark.parametrize("d", [2, 3])
def test_distances_do_not_see_motions_and_follow_permutations(d):
    x, r = normal(6, d), random_rotation(1, d, torch.Generator().manual_seed(0), DTYPE)[0]
    torch.testing.assert_close(distances(x @ r.T + 3), distances(x))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(distances(x[order]), distances(x)[order][:, order])


def test_near_points_far_from_the_origin_keep_their_digits():
    x = 1e4 + 1e-2 * torch.arange(40.0)[:, None].expand(40, 3)
    wanted = (x.double()[:, None] - x.double()).norm(dim=-1)
    torch.testing.assert_close(distances(x).double(), wanted, rtol=1e-5, atol=1e-7)


def test_gradients_are_finite_where_points_coincide():
    x = torch.cat([normal(3, 3), normal(3, 3)]).requires_grad_()
    distances(x).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
    y = normal(4, 2, seed=2).requires_grad_()
    upper = torch.triu_indices(4, 4, 1)
    assert torch.autograd.gradcheck(lambda y: distances(y)[upper[0], upper[1]], (y,))
    assert torch.autograd.gradgradcheck(lambda y: distances(y)[upper[0], upper[1]], (y,))
    zero = torch.zeros(2, 3, dtype=DTYPE, requires_grad=True)
    assert norm(zero).tolist() == [0.0, 0.0]
    assert torch.autograd.grad(norm(zero).sum(), zero)[0].tolist() == [[0.0] * 3] * 2


def test_masked_pairs_are_filled_and_padding_does_not_matter():
    x, mask = normal(2, 5, 3), torch.tensor([[True] * 5, [True, True, False, False, False]])
    pairs = pair_mask(mask)
    assert pairs.sum().item() == 5 * 4 + 2 and not pairs.diagonal(dim1=1, dim2=2).any()
    assert pair_mask(mask, loops=True).sum().item() == 25 + 4
    assert pair_mask(mask[:1], mask[1:]).sum().item() == 10
    found = distances(x, mask=pairs, fill=-1.0)
    assert bool((found[~pairs] == -1).all())
    torch.testing.assert_close(found[1, :2, :2], distances(x[1, :2]).masked_fill(torch.eye(2, dtype=torch.bool), -1))


def test_periodic_distances_do_not_see_how_points_are_wrapped():
    box = Box(torch.tensor([[3.0, 0, 0], [1.2, 2.5, 0], [-0.7, 1.0, 2.0]], dtype=DTYPE))
    x = 4 * normal(7, 3)
    torch.testing.assert_close(distances(x, box=box), distances(box.wrap(x), box=box))
    assert bool((distances(x, box=box) <= distances(x) + 1e-12).all())
    boxes = Box(torch.stack([box.cell, 2 * box.cell]))
    both = distances(torch.stack([x, x]), box=boxes)
    torch.testing.assert_close(both[0], distances(x, box=box))
    torch.testing.assert_close(both[1], 2 * distances(x / 2, box=box))


def test_what_is_no_set_of_points_is_refused():
    for x, y in ((torch.zeros(3), None), (torch.zeros(3, 2), torch.zeros(3, 3)), (torch.zeros(3, 0), None)):
        with pytest.raises(ValueError, match="expected points"):
            squared_distances(x, y)


# -- padded neighbours --------------------------------------------------------------------------------------------


def brute(x, radius=None, k=None, box=None):
    """{(neighbour, centre)} by definition, ties by number."""
    d, found = distances(x, box=box), set()
    for i in range(len(x)):
        order = sorted((float(d[i, j]), j) for j in range(len(x)) if j != i)
        found |= {(j, i) for far, j in (order if k is None else order[:k]) if radius is None or far <= radius}
    return found


def told(index, mask):
    return {(int(j), i) for i, row in enumerate(index) for j, m in zip(row, mask[i], strict=True) if m}


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_the_padded_nearest_are_the_nearest(n, k):
    x = normal(4, n, 3)
    index, mask = nearest(x, k)
    assert index.shape == mask.shape == (4, n, k)
    for b in range(4):
        assert told(index[b], mask[b]) == brute(x[b], k=k)
    far = (x.gather(1, index.reshape(4, -1, 1).expand(-1, -1, 3)).reshape(4, n, k, 3) - x[:, :, None]).norm(dim=-1)
    assert bool((far[~mask] == 0).all())  # padding names the point itself
    assert bool((far.masked_fill(~mask, torch.inf).diff(dim=-1).nan_to_num(0) >= 0).all())  # nearest first


def test_padding_and_batch_mates_do_not_change_neighbours():
    x = normal(6, 3)
    padded = torch.cat([x, torch.zeros(3, 3, dtype=DTYPE)])
    mask = torch.arange(9) < 6
    both, here = torch.stack([padded, normal(9, 3, seed=1)]), torch.stack([mask, torch.ones(9, dtype=torch.bool)])
    index, found = nearest(both, 2, here)
    assert told(index[0], found[0]) == brute(x, k=2)
    index, found = within(both, 1.5, here)
    assert told(index[0], found[0]) == brute(x, radius=1.5)
    assert not found[0, 6:].any()
    index, found = nearest(torch.zeros(0, 4, 3), 2)
    assert index.shape == (0, 4, 2)
    assert within(torch.zeros(2, 0, 3), 1.0)[0].shape == (2, 0, 0)


def test_within_keeps_the_nearest_of_the_most():
    x = normal(10, 2)
    index, mask = within(x, 1.5, most=2)
    assert index.shape == (10, 2)
    assert told(index, mask) == brute(x, radius=1.5) & brute(x, k=2)
    assert within(x, 1e-6)[0].shape == (10, 0)
    assert within(x, 1e-6, most=3)[1].sum() == 0


def test_ties_go_to_the_lower_number():
    x = torch.tensor([[0.0], [1.0], [-1.0], [0.0]], dtype=DTYPE)
    assert nearest(x, 2)[0].tolist() == [[3, 1], [0, 3], [0, 3], [0, 1]]
    same = torch.zeros(5, 3, dtype=DTYPE)
    assert nearest(same, 2)[0].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]


# -- graphs -------------------------------------------------------------------------------------------------------


def edges_of(batch, find):
    """What `find` says of each sample alone, in rows of the batch."""
    found, first = set(), 0
    for x in batch.points.split():
        found |= {(j + first, i + first) for j, i in find(x)}
        first += len(x)
    return found


@pytest.mark.parametrize("dense", [10_000, 0])  # all pairs, and trees
@pytest.mark.parametrize("counts", [[5, 0, 1, 9, 2, 0], [3, 3, 3], [1], [0, 0], [30]])
def test_graphs_of_ragged_sets_are_those_of_each_set(counts, dense, monkeypatch):
    monkeypatch.setattr(module, "DENSE", dense)
    monkeypatch.setattr(module, "PAIRS", 40)  # several slabs
    batch = sets(counts)
    for graph, find in (
        (radius_graph(batch, 1.6), lambda x: brute(x, radius=1.6)),
        (nearest_graph(batch, 3), lambda x: brute(x, k=3)),
    ):
        assert graph.dtype == torch.long and graph.shape[0] == 2
        assert set(map(tuple, graph.T.tolist())) == edges_of(batch, find)
        assert graph.shape[1] == len(edges_of(batch, find))
        order = graph[1] * 1000 + graph[0]
        assert bool((order.diff() > 0).all())
        Batch(batch.x, batch.index, batch.size, edge_index=graph)  # a batch takes them


@pytest.mark.parametrize("dense", [10_000, 0])
def test_graphs_break_ties_by_number_whatever_the_way(dense, monkeypatch):
    monkeypatch.setattr(module, "DENSE", dense)
    lattice = torch.stack(torch.meshgrid(*[torch.arange(4.0, dtype=DTYPE)] * 3, indexing="ij"), -1).reshape(1, -1, 3)
    twice = torch.cat([lattice, lattice], 1)  # every point is there twice
    for x in (lattice, twice):
        for k in (1, 2, 7):
            assert set(map(tuple, nearest_graph(Batch(x), k).T.tolist())) == brute(x[0], k=k)
        assert set(map(tuple, radius_graph(Batch(x), 1.0).T.tolist())) == brute(x[0], radius=1.0)
    box = Box(torch.full((3,), 4.0, dtype=DTYPE))  # now all have six neighbours at 1, some of them through the walls
    for k in (1, 4, 6, 8):
        assert set(map(tuple, nearest_graph(Batch(lattice), k, box).T.tolist())) == brute(lattice[0], k=k, box=box)


@pytest.mark.parametrize("dense", [10_000, 0])
@pytest.mark.parametrize("kind", ["lengths", "skewed", "per sample"])
def test_periodic_graphs_use_the_nearest_image(kind, dense, monkeypatch):
    monkeypatch.setattr(module, "DENSE", dense)
    batch = sets([12, 7, 12])
    batch = batch.replace(5 * batch.x)
    lengths = torch.tensor([3.0, 4.0, 3.5], dtype=DTYPE)
    cell = torch.diag(lengths) + torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, -1, 0]], dtype=DTYPE)
    each = torch.diag_embed(torch.stack([lengths, lengths + 1, lengths + 2]))
    box = Box({"lengths": lengths, "skewed": cell, "per sample": each}[kind])
    alone = [Box(each[b]) if kind == "per sample" else box for b in range(3)]
    for graph, which in ((radius_graph(batch, 1.4, box), {"radius": 1.4}), (nearest_graph(batch, 4, box), {"k": 4})):
        wanted, first = set(), 0
        for x, here in zip(batch.split(), alone, strict=True):
            wanted |= {(j + first, i + first) for j, i in brute(x, box=here, **which)}
            first += len(x)
        assert set(map(tuple, graph.T.tolist())) == wanted
    index, mask = nearest(batch.split()[0][None], 4, box=Box(alone[0].cell[None]))
    assert told(index[0], mask[0]) == brute(batch.split()[0], k=4, box=alone[0])


def test_dense_events_and_gradients():
    x = normal(3, 5, 2).requires_grad_()
    graph = radius_graph(Batch(x), 1.0)
    assert not graph.requires_grad
    assert bool((graph // 5).diff(dim=0).eq(0).all())  # no edge between samples
    swapped = graph.flip(0)
    assert set(map(tuple, graph.T.tolist())) == set(map(tuple, swapped.T.tolist()))  # both directions


def test_what_makes_no_graph_is_refused():
    batch, box = sets([4]), Box(torch.tensor([2.0, 3.0, 4.0], dtype=DTYPE))
    for call in (lambda r: radius_graph(batch, r, box), lambda r: within(batch.x, r, box=box)):
        call(1.0)
        with pytest.raises(ValueError, match="half the shortest lattice vector, 1,"):
            call(1.01)
    for call in (
        lambda: radius_graph(batch, 0.0),
        lambda: radius_graph(batch, float("nan")),
        lambda: nearest_graph(batch, 0),
        lambda: nearest(batch.x, 0),
        lambda: within(batch.x, 1.0, most=0),
    ):
        with pytest.raises(ValueError, match="must be positive"):
            call()
