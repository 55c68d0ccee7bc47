"""Padded blocks: what goes in comes out, nothing leaks through the padding, and the cuts are the cheapest there are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from scifm.batch import Batch
from scifm.blocks import PRICE, _cuts, blocks

LAYOUTS = {
    "mixed": [3, 0, 7, 1, 2, 3, 0],
    "one": [4],
    "single points": [1, 1, 1],
    "empty first": [0, 5],
    "nothing": [0, 0],
    "wide": [5, 59, 31, 6, 58, 30, 7, 59] * 4,
}
every = pytest.mark.parametrize("counts", LAYOUTS.values(), ids=LAYOUTS)


def sets(counts: list[int], event: tuple[int, ...] = (3,), seed: int = 0) -> Batch:
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    g = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(len(index), *event, generator=g, dtype=torch.float64), index, len(counts))


@every
@pytest.mark.parametrize("event", [(), (3,), (2, 5)])
def test_rows_undo_pad(counts, event):
    batch = sets(counts, event)
    parts = blocks(batch)
    assert torch.equal(parts.rows([block.pad(batch.x) for block in parts]), batch.x)


@every
def test_every_point_has_one_place_and_padding_is_zero(counts):
    batch = sets(counts)
    parts = blocks(batch)
    samples = torch.cat([block.samples for block in parts])
    assert sorted(samples.tolist()) == [b for b, n in enumerate(counts) if n]
    for block in parts:
        padded = block.pad(batch.x)
        assert (padded[~block.mask] == 0).all() and block.full == bool(block.mask.all())
        for b, rows, mask in zip(block.samples, padded, block.mask, strict=True):
            assert torch.equal(rows[mask], batch.split()[b]) and int(mask.sum()) == counts[b]
            assert mask.sort(descending=True).values.equal(mask)  # points first, padding after


@every
def test_take_gives_each_sample_its_own(counts):
    own = torch.arange(len(counts))
    for block in blocks(sets(counts)):
        assert torch.equal(block.take(own), block.samples)


@every
def test_pairs_are_of_two_different_points(counts):
    for block in blocks(sets(counts)):
        n = block.mask.sum(1)
        assert torch.equal(block.pairs.sum((1, 2)), n * (n - 1))
        assert not block.pairs.diagonal(dim1=1, dim2=2).any()
        assert torch.equal(block.pairs, block.pairs.transpose(1, 2))


def test_sets_of_one_size_are_one_full_block_in_the_order_of_the_batch():
    (block,) = blocks(sets([6] * 5))
    assert block.full and block.mask.shape == (5, 6) and block.samples.tolist() == list(range(5))


@every
def test_gradients_reach_every_row_once(counts):
    batch = sets(counts)
    parts, weight = blocks(batch), sets(counts, seed=1).x
    x = batch.x.clone().requires_grad_()
    (parts.rows([block.pad(x) for block in parts]) * weight).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, weight)


@every
def test_tangents_and_vmap_pass(counts):
    batch = sets(counts)
    parts, tangent = blocks(batch), sets(counts, seed=1).x

    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        return parts.rows([block.pad(x).sin() for block in parts])

    out, along = torch.func.jvp(there_and_back, (batch.x,), (tangent,))
    assert torch.equal(out, batch.x.sin())
    torch.testing.assert_close(along, batch.x.cos() * tangent)
    many = torch.stack([batch.x, 2 * batch.x])
    assert torch.equal(torch.func.vmap(there_and_back)(many), many.sin())


def test_blocks_are_made_once_for_a_layout():
    batch = sets([3, 5, 2])
    assert blocks(batch) is blocks(batch.replace(batch.x + 1)) is blocks(batch.replace(batch.x[:, :1]))
    assert blocks(batch) is not blocks(batch.select([0, 1]))


@pytest.mark.parametrize("transform", ["jvp", "vmap", "grad", "inference"])
def test_blocks_made_inside_a_transform_serve_outside_of_it(transform):
    """What a transform wraps is dead after it; what is kept for a layout must not be wrapped."""
    batch = sets([3, 5, 2])

    def loss(x: torch.Tensor) -> torch.Tensor:
        parts = blocks(batch.replace(x))
        return parts.rows([block.pad(x) for block in parts]).square().sum()

    if transform == "jvp":
        torch.func.jvp(loss, (batch.x,), (batch.x,))
    elif transform == "vmap":
        torch.func.vmap(loss)(batch.x[None])
    elif transform == "grad":
        torch.func.grad(loss)(batch.x)
    else:
        with torch.inference_mode():
            loss(batch.x)
    x = batch.x.clone().requires_grad_()
    loss(x).backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_sizes_5_to_59_waste_little():
    """Padding all to the largest makes 2.4 times as many pairs as there are; blocks less than 1.25 times."""
    sizes = np.random.default_rng(0).integers(5, 60, 128)
    batch = sets(sizes.tolist())
    needed = int((sizes**2).sum())
    parts = blocks(batch)
    made = sum(block.mask.shape[0] * block.mask.shape[1] ** 2 for block in parts)
    assert len(sizes) * sizes.max() ** 2 > 2.2 * needed
    assert made < 1.25 * needed and len(parts) < 20


@pytest.mark.parametrize("seed", range(8))
def test_cuts_are_the_cheapest_of_all(seed):
    rng = np.random.default_rng(seed)
    sizes = np.sort(rng.integers(1, rng.choice([8, 60, 300]), rng.integers(1, 10)))

    def cost(cuts: list[tuple[int, int]]) -> float:
        return sum((last - first) * float(sizes[last - 1]) ** 2 + PRICE for first, last in cuts)

    best = min(
        cost(list(zip((0, *inner), (*inner, len(sizes)), strict=True)))
        for k in range(len(sizes))
        for inner in combinations(range(1, len(sizes)), k)
    )
    found = _cuts(sizes)
    assert [first for first, _ in found] == [0, *(last for _, last in found[:-1])] and found[-1][1] == len(sizes)
    assert cost(found) == best


def test_a_dense_batch_and_a_wrong_number_of_tensors_are_refused():
    with pytest.raises(ValueError, match=r"give batch\.points"):
        blocks(Batch(torch.zeros(2, 3, 3)))
    parts = blocks(sets([3, 59, 58, 2] * 8))
    assert len(parts) > 1
    with pytest.raises(ValueError, match="one tensor per block"):
        parts.rows([parts.parts[0].pad(torch.zeros(976, 3))])


# -- the points of a batch, and what a layout keeps ----------------------------------------------------


def test_points_of_a_ragged_batch_are_the_batch():
    batch = sets([3, 0, 2])
    assert batch.points is batch


@pytest.mark.parametrize(("shape", "counts"), [((4, 5, 3), [5] * 4), ((4, 3), [1] * 4), ((3, 3, 3), [3] * 3)])
def test_points_of_a_dense_batch_are_its_rows(shape, counts):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    label = torch.arange(shape[0])
    points = Batch(x, context={"label": label}).points
    assert points.counts.tolist() == counts and points.event == (3,) and torch.equal(points.x.reshape(shape), x)
    assert torch.equal(points.context["label"], label)


def test_points_share_their_layout_and_follow_x():
    batch = Batch(torch.randn(4, 5, 3))
    first, second = batch.points, batch.replace(batch.x + 1).points
    assert first.index is second.index and torch.equal(second.x, first.x + 1)
    assert blocks(first) is blocks(second)
    x = batch.x.clone().requires_grad_()
    batch.replace(x).points.x.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_points_follow_another_number_of_points_and_another_dtype():
    batch = Batch(torch.zeros(4, 5, 3))
    assert len(batch.points.x) == 20
    more = batch.replace(torch.ones(4, 7, 3, dtype=torch.float64)).points
    assert more.counts.tolist() == [7] * 4 and more.x.dtype == torch.float64


def test_points_keep_no_values_of_the_first_batch_alive():
    batch = Batch(torch.randn(4, 500, 3))
    _ = batch.points
    kept = next(iter(batch._kept.values()))
    assert kept.x.untyped_storage().nbytes() < 100


def test_points_made_inside_a_transform_serve_outside_of_it():
    batch = Batch(torch.randn(4, 5, 3))
    _, along = torch.func.jvp(lambda x: batch.replace(x).points.x.square(), (batch.x,), (torch.ones_like(batch.x),))
    assert torch.equal(along.reshape(4, 5, 3), 2 * batch.x)
    assert torch.equal(batch.points.x.reshape(4, 5, 3), batch.x)


def test_grids_have_no_points():
    with pytest.raises(ValueError, match=r"samples of n points.*\(1, 8, 8\)"):
        _ = Batch(torch.zeros(2, 1, 8, 8)).points


def test_keep_makes_a_thing_once_for_all_replaced_batches():
    batch, made = sets([2, 1]), []

    def make() -> int:
        made.append(1)
        return len(made)

    assert batch.keep("a", make) == batch.replace(batch.x + 1).keep("a", make) == 1
    assert batch.keep("b", make) == 2 and batch.select([0]).keep("a", make) == 3
