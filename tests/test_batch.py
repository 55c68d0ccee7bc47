"""The four layout operations, on dense and ragged batches, against the obvious loops."""

import pytest
import torch

from scifm.batch import Batch


def ragged(sizes=(3, 0, 1, 5), event=(3,), dtype=torch.float64, seed=0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.randn(sum(sizes), *event, generator=g, dtype=dtype)
    return Batch(x, index, len(sizes))


def dense(size=4, event=(2, 3), dtype=torch.float64) -> Batch:
    return Batch(torch.randn(size, *event, generator=torch.Generator().manual_seed(0), dtype=dtype))


def with_edges() -> Batch:
    index = torch.tensor([0, 0, 0, 1, 1, 2])
    edge_index = torch.tensor([[3, 0, 1, 4, 2], [4, 1, 2, 3, 0]])  # not in the order of the samples
    return Batch(
        torch.arange(6.0)[:, None],
        index,
        3,
        {"label": torch.tensor([7, 8, 9])},
        {"species": torch.tensor([1, 2, 3, 4, 5, 6])},
        edge_index,
        {"bond": torch.tensor([10, 20, 30, 40, 50])},
    )


@pytest.mark.parametrize("batch", [dense(), dense(1, (4,)), dense(3, (3,)), ragged(), ragged((2,)), ragged((1, 1, 1))])
def test_total_spread_split_and_dims_agree_with_loops(batch):
    parts = batch.split()
    assert len(parts) == len(batch)
    assert batch.dims.tolist() == [p.numel() for p in parts] and batch.dims.dtype == batch.x.dtype
    assert torch.allclose(batch.total(batch.x), torch.stack([p.sum() for p in parts]))
    value = torch.arange(1.0, len(batch) + 1, dtype=torch.float64)
    spread = batch.replace(batch.x * 0 + batch.spread(value))
    for number, part in enumerate(spread.split()):
        assert (part == number + 1).all()


@pytest.mark.parametrize("batch", [dense(), ragged(), ragged((4, 4)), dense(2, (5,))])
@pytest.mark.parametrize("block", [1, 4, 1000])
def test_slots_hit_every_coordinate_of_every_sample_once(batch, block):
    probes = list(batch.slots(block))
    assert all(len(p) <= block for p in probes)
    every = torch.cat(probes)
    assert len(every) == int(batch.dims.max())
    assert torch.equal(every.sum(0), torch.ones_like(batch.x))
    for probe in every:
        assert (batch.total(probe) <= 1).all()


def test_b_equal_to_d_does_not_broadcast_the_wrong_way():
    batch = dense(3, (3,))
    t = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert torch.equal(batch.spread(t) * torch.ones(3, 3), t[:, None].expand(3, 3))


def test_select_keeps_all_that_belongs_to_a_sample():
    batch = with_edges()
    part = batch.select([1, 0])
    assert part.counts.tolist() == [2, 3]
    assert part.x.flatten().tolist() == [3, 4, 0, 1, 2]
    assert part.nodes["species"].tolist() == [4, 5, 1, 2, 3]
    assert part.context["label"].tolist() == [8, 7]
    bonds = {tuple(e): int(b) for e, b in zip(part.edge_index.T.tolist(), part.edges["bond"], strict=True)}
    assert bonds == {(0, 1): 10, (1, 0): 40, (2, 3): 20, (3, 4): 30, (4, 2): 50}


def test_select_takes_masks_for_what_they_are():
    mask = torch.tensor([True, False, True])
    assert with_edges().select(mask).context["label"].tolist() == [7, 9]
    assert dense().select([False, True, False, True]).x.shape[0] == 2


def test_replace_keeps_everything_else_and_checks_the_rows():
    batch = with_edges()
    new = batch.replace(torch.zeros(6, 4))
    assert new.event == (4,) and new.nodes is batch.nodes and new.size == 3 and batch.event == (1,)


def test_select_may_repeat_a_sample():
    part = with_edges().select([2, 1, 1])
    assert part.counts.tolist() == [1, 2, 2]
    assert part.edge_index.max() == 4 and len(part.edges["bond"]) == 4


@pytest.mark.parametrize("batch", [dense(), ragged(), with_edges()])
def test_join_undoes_select(batch):
    again = Batch.join([batch.select([b]) for b in range(len(batch))])
    assert torch.equal(again.x, batch.x) and torch.equal(again.counts, batch.counts)
    for name, value in batch.nodes.items():
        assert torch.equal(again.nodes[name], value)
    if batch.edge_index is not None:
        before = {tuple(e) for e in batch.edge_index.T.tolist()}
        assert {tuple(e) for e in again.edge_index.T.tolist()} == before


@pytest.mark.parametrize("batch", [dense(), ragged((2, 3, 2, 2))])
def test_place_undoes_stack(batch):
    group = batch.groups()[0]
    values = batch.stack(batch.x, group)
    assert values.shape[0] == len(group)
    swapped = batch.place(batch.x, group, values.flip(0))
    assert torch.equal(batch.stack(swapped, group), values.flip(0))
    assert torch.equal(batch.place(swapped, group, values), batch.x)


def test_groups_tell_sizes_conditions_species_and_edges_apart():
    def sizes(batch):
        return sorted(tuple(g.tolist()) for g in batch.groups())

    assert sizes(dense(3)) == [(0, 1, 2)]
    assert sizes(Batch(torch.zeros(4, 2), context={"y": torch.tensor([1, 0, 1, 0])})) == [(0, 2), (1, 3)]
    assert sizes(ragged((2, 3, 2))) == [(0, 2), (1,)]
    index = torch.tensor([0, 0, 1, 1, 2, 2])
    species = torch.tensor([1, 6, 6, 1, 1, 6])
    batch = Batch(torch.zeros(6, 3), index, 3, nodes={"z": species})
    assert sizes(batch) == [(0, 2), (1,)]
    edges = Batch(torch.zeros(6, 3), index, 3, edge_index=torch.tensor([[0, 3, 4], [1, 2, 5]]))
    assert sizes(edges) == [(0, 2), (1,)]


def test_randn_is_the_generators_and_nobody_elses():
    batch = dense()
    state = torch.get_rng_state()
    a, b = (batch.randn(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(a, b) and torch.equal(state, torch.get_rng_state())
    assert a.dtype == torch.float64


def test_to_changes_floats_only():
    batch = with_edges().to(torch.float64)
    assert batch.x.dtype == torch.float64 and batch.nodes["species"].dtype == torch.long
    assert batch.index.dtype == torch.long


def test_pyg_in_pyg_out():
    from torch_geometric.data import Batch as PygBatch
    from torch_geometric.data import Data

    items = [
        Data(
            pos=torch.randn(n, 3, generator=torch.Generator().manual_seed(n)),
            z=torch.arange(n),
            edge_index=torch.tensor([[0, 1], [1, 0]]),
            edge_attr=torch.tensor([[1.0], [2.0]]),
            y=torch.tensor([float(n)]),
        )
        for n in (2, 4, 3)
    ]
    batch = Batch.from_pyg(PygBatch.from_data_list(items))
    assert batch.counts.tolist() == [2, 4, 3]
    assert set(batch.nodes) == {"z"} and set(batch.edges) == {"edge_attr"} and set(batch.context) == {"y"}
    back = batch.to_pyg().to_data_list()
    for old, new in zip(items, back, strict=True):
        for name in ("pos", "z", "edge_index", "edge_attr", "y"):
            assert torch.equal(old[name], new[name]), name
    assert len(Batch.from_pyg(items[0])) == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Batch(torch.tensor(1.0)), "at least one axis"),
        (lambda: Batch(torch.zeros(3, 2), size=4), "needs index"),
        (lambda: Batch(torch.zeros(3, 2), nodes={"z": torch.zeros(3)}), "belong to a ragged batch"),
        (lambda: Batch(torch.zeros(3, 2), context={"y": torch.zeros(2)}), r"context\['y'\]"),
        (lambda: Batch(torch.zeros(3, 2), torch.tensor([0, 1, 0]), 2), "sorted"),
        (lambda: Batch(torch.zeros(3, 2), torch.tensor([0, 1, 2]), 2), "outside"),
        (lambda: Batch(torch.zeros(3, 2), torch.tensor([0, 1, 1])), "needs size"),
        (lambda: Batch(torch.zeros(3, 2), torch.tensor([0.0, 1, 1]), 2), "int64"),
        (lambda: Batch(torch.zeros(3, 2), torch.tensor([0, 1, 1]), 2, nodes={"z": torch.zeros(2)}), "per row"),
        (lambda: Batch(torch.zeros(3, 2), torch.tensor([0, 1, 1]), 2, edges={"b": torch.zeros(1)}), "edge_index"),
        (lambda: Batch.join([]), "at least one"),
        (lambda: Batch.join([dense(), ragged(event=(2, 3))]), "differ in layout"),
        (
            lambda: Batch.join([Batch(torch.zeros(1, 2)), Batch(torch.zeros(1, 2), context={"y": torch.zeros(1)})]),
            "names",
        ),
        (lambda: Batch(torch.zeros(3, 2), torch.tensor([0, 1, 1]), 2, edge_index=torch.tensor([[0], [1]])), "crosses"),
        (lambda: Batch(torch.zeros(3, 2), torch.tensor([0, 1, 1]), 2, edge_index=torch.tensor([[1], [9]])), "3 rows"),
        (lambda: dense(3).replace(torch.zeros(2, 2)), "expected 3 rows"),
        (lambda: dense(3).spread(torch.zeros(2)), "one number per sample"),
        (lambda: ragged().grid("SpectralGaussian"), "SpectralGaussian works on dense"),
        (lambda: dense().to_pyg(), "no nodes"),
    ],
)
def test_bad_batches_are_refused_with_the_reason(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_groups_are_those_of_samples_taken_out_one_by_one():
    """An independent way to tell samples apart, over random graphs with edges in any order and empty samples."""
    g = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 3, (60,), generator=g)
    index, total = torch.arange(60).repeat_interleave(counts), int(counts.sum())
    pairs = torch.tensor([(i, j) for i in range(total) for j in range(total) if index[i] == index[j]])
    pairs = pairs[torch.randperm(len(pairs), generator=g)[: len(pairs) // 2]].T
    nodes, edges = ({"k": torch.randint(0, 2, (n,), generator=g)} for n in (total, pairs.shape[1]))
    batch = Batch(torch.zeros(total, 3), index, 60, {"y": torch.arange(60) % 2}, nodes, pairs, edges)
    keys = {}
    for b in range(60):
        one = batch.select([b])
        key = (len(one.x), b % 2, str(one.nodes["k"]), str(one.edge_index), str(one.edges["k"]))
        keys.setdefault(key, []).append(b)
    assert [found.tolist() for found in batch.groups()] == list(keys.values())
    assert 10 < len(keys) < 60
