"""Padded blocks: a round trip that gradients pass, cuts that cost least, and a layout that is asked once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from scifm import Batch
from scifm.blocks import PRICE, _cuts, blocks


def sets(*counts, width=2, seed=0):
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))
    x = torch.randn(sum(counts), width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Batch(x, index, len(counts))


LAYOUTS = [(3, 1, 4), (0, 2, 0, 5, 0), (1,), (7,) * 6, (0,), (0, 0), (), tuple(range(60)), (100, 1, 1, 1)]


@pytest.mark.parametrize("counts", LAYOUTS, ids=str)
def test_rows_undoes_pad(counts):
    batch = sets(*counts)
    parts = blocks(batch)
    assert torch.equal(parts.rows([b.pad(batch.x) for b in parts]), batch.x)
    number = torch.arange(len(batch.x))
    assert torch.equal(parts.rows([b.pad(number) for b in parts]), number)  # of any dtype and shape


@pytest.mark.parametrize("counts", LAYOUTS, ids=str)
def test_each_set_is_whole_in_one_block_and_padding_is_zero(counts):
    batch = sets(*counts)
    seen = []
    for block in blocks(batch):
        x = block.pad(batch.x + 1)
        assert not x[~block.mask].any() and block.full == bool(block.mask.all())
        for sample, rows, mask in zip(block.samples.tolist(), x, block.mask, strict=True):
            seen.append(sample)
            assert torch.equal(rows[mask], batch.select([sample]).x + 1)
            assert mask[: int(mask.sum())].all()  # points first, padding last
        value = torch.arange(len(batch)) * 10
        assert torch.equal(block.take(value), block.samples * 10)
    assert sorted(seen) == [i for i, n in enumerate(counts) if n]


def test_pairs_are_of_two_different_points():
    (block,) = blocks(sets(3, 2))
    pairs = block.pairs
    assert pairs.sum().item() == 3 * 2 + 2 * 1
    assert not pairs.diagonal(dim1=1, dim2=2).any() and torch.equal(pairs, pairs.mT)


def test_equal_sizes_are_one_block_without_padding():
    parts = blocks(Batch(torch.zeros(5, 4, 3)).points)
    assert len(parts) == 1 and parts.parts[0].full and parts.parts[0].mask.shape == (5, 4)


def test_gradients_tangents_and_vmap_pass():
    batch = sets(3, 1, 4)
    parts = blocks(batch)

    def there_and_back(x):
        return parts.rows([b.pad(x).sin() for b in parts])

    assert torch.autograd.gradcheck(there_and_back, batch.x.clone().requires_grad_())
    tangent = torch.ones_like(batch.x)
    _, pushed = torch.func.jvp(there_and_back, (batch.x,), (tangent,))
    assert torch.allclose(pushed, batch.x.cos())
    many = torch.stack([batch.x, 2 * batch.x])
    assert torch.allclose(torch.vmap(there_and_back)(many), many.sin())


def work(sizes, cuts):
    return sum((b - a) * float(sizes[b - 1]) ** 2 + PRICE for a, b in cuts)


@pytest.mark.parametrize("seed", range(6))
def test_cuts_cost_least(seed):
    sizes = np.sort(np.random.default_rng(seed).integers(1, 200, 9))
    found = _cuts(sizes)
    assert found[0][0] == 0 and found[-1][1] == 9 and all(a[1] == b[0] for a, b in itertools.pairwise(found))
    ways = []
    for k in range(9):
        for inner in itertools.combinations(range(1, 9), k):
            edges = [0, *inner, 9]
            ways.append(work(sizes, list(itertools.pairwise(edges))))
    assert work(sizes, found) == pytest.approx(min(ways))


def test_sizes_of_5_to_59_waste_little():
    """Padded to the largest, such sets have 2.4 times as many pairs as they need; in blocks at most a quarter more."""
    counts = np.random.default_rng(0).integers(5, 60, 256)
    parts = blocks(sets(*counts.tolist()))
    padded = sum(b.mask.shape[0] * b.mask.shape[1] ** 2 for b in parts)
    needed = float(np.square(counts).sum())
    assert padded < 1.25 * needed < 0.6 * len(counts) * counts.max() ** 2


def test_a_layout_is_asked_once_and_shared_by_what_replaces_its_values():
    batch = sets(3, 1, 4)
    first = blocks(batch)
    assert blocks(batch.replace(2 * batch.x)) is first
    assert blocks(sets(3, 1, 4)) is not first
    dense = Batch(torch.zeros(2, 3, 2))
    assert blocks(dense.points) is blocks(dense.replace(dense.x + 1).points)
    with torch.inference_mode():
        kept = blocks(sets(2, 2))
    assert not kept.place.is_inference()  # it may serve a gradient later


def test_a_dense_batch_is_refused():
    with pytest.raises(ValueError, match=r"give batch\.points"):
        blocks(Batch(torch.zeros(2, 3, 3)))


# -- Batch.points --------------------------------------------------------------------------------------


def test_points_of_dense_events_are_rows_in_order():
    x = torch.arange(24.0).reshape(2, 4, 3)
    points = Batch(x, context={"label": torch.tensor([5, 6])}).points
    assert torch.equal(points.x.reshape(x.shape), x) and points.counts.tolist() == [4, 4]
    assert points.context["label"].tolist() == [5, 6]
    ragged = sets(3, 1)
    assert ragged.points is ragged
    assert Batch(torch.zeros(5, 3)).points.counts.tolist() == [1] * 5  # a vector is a set of one point


@pytest.mark.parametrize("event", [(), (2, 3, 4)])
def test_points_of_other_events_are_refused(event):
    with pytest.raises(ValueError, match="expected samples of n points"):
        _ = Batch(torch.zeros(2, *event)).points
