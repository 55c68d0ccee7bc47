"""Distances of clouds and of sets of clouds: closed forms, brute force, symmetries, and what each one is blind to."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from scifm import Batch
from scifm.geometry import random_rotation
from scifm.metrics import clouds
from scifm.metrics import wasserstein as exact
from scifm.metrics.clouds import chamfer, cloud_scores, coverage, emd, minimum_matching_distance, pairwise
from scifm.metrics.clouds import nearest_neighbour_accuracy as accuracy


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- two clouds ------------------------------------------------------------------------------------------------------


def test_chamfer_is_its_formula():
    x, y = normal(7, 3), normal(5, 3, seed=1)
    to_y = [min(float((a - b).square().sum()) for b in y) for a in x]
    to_x = [min(float((a - b).square().sum()) for a in x) for b in y]
    assert float(chamfer(x, y)) == pytest.approx(sum(to_y) / 7 + sum(to_x) / 5, rel=1e-12)


def test_emd_is_the_best_of_all_bijections():
    x, y = normal(6, 2), normal(6, 2, seed=1)
    best = min(float((x - y[list(p)]).norm(dim=1).mean()) for p in permutations(range(6)))
    assert float(emd(x, y)) == pytest.approx(best, rel=1e-12)
    big, other = normal(40, 3), normal(40, 3, seed=2)
    assert float(emd(big, other)) == pytest.approx(exact(big, other, power=1), rel=1e-7)


def test_a_shifted_cloud_is_as_far_as_the_shift():
    grid = 10 * torch.cartesian_prod(*[torch.arange(3.0)] * 2)  # far enough apart that the nearest is the same point
    shift = torch.tensor([0.3, -0.4])
    assert float(emd(grid, grid + shift)) == pytest.approx(0.5, rel=1e-6)
    assert float(chamfer(grid, grid + shift)) == pytest.approx(2 * 0.25, rel=1e-5)


@pytest.mark.parametrize("distance", [chamfer, emd])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_are_symmetric_and_see_neither_order_nor_pose(distance, dtype):
    x, y = normal(8, 3, dtype=dtype), normal(8, 3, seed=1, dtype=dtype)
    close = {"rtol": 2e-5 if dtype == torch.float32 else 1e-10, "atol": 0}
    d = distance(x, y)
    assert d.dtype == dtype and d.shape == ()
    torch.testing.assert_close(distance(y, x), d, **close)
    torch.testing.assert_close(distance(x.flip(0), y), d, **close)
    turn = random_rotation(1, 3, torch.Generator().manual_seed(0), dtype)[0]
    torch.testing.assert_close(distance(x @ turn.T + 1, y @ turn.T + 1), d, **close)
    unit = 4 if distance is chamfer else 2  # squared and plain
    torch.testing.assert_close(distance(2 * x, 2 * y), unit * d, **close)
    assert float(distance(x, x.flip(0))) == pytest.approx(0, abs=1e-6)
    one = distance(x[:1], y[:1])
    torch.testing.assert_close(
        one, 2 * (x[0] - y[0]).square().sum() if distance is chamfer else (x[0] - y[0]).norm(), **close
    )


def test_far_from_the_origin_small_distances_survive():
    x = 1000 * torch.ones(4, 3) + torch.arange(12.0).reshape(4, 3)
    assert float(emd(x, x + 0.25)) == pytest.approx(0.25 * 3**0.5, rel=1e-4)


def test_stacks_are_done_one_by_one():
    x, y = normal(4, 5, 3), normal(4, 5, 3, seed=1)
    for distance in (chamfer, emd):
        torch.testing.assert_close(distance(x, y), torch.stack([distance(a, b) for a, b in zip(x, y, strict=True)]))
    assert chamfer(x, normal(4, 9, 3)).shape == (4,)


def test_chamfer_is_blind_to_how_often_and_emd_is_not():
    """Nine points in one place and one in the other, against one and nine: the known weakness of Chamfer."""
    x = torch.tensor([[0.0]] * 9 + [[1.0]])
    assert float(chamfer(x, 1 - x)) == 0 and float(emd(x, 1 - x)) == pytest.approx(0.8)


# -- sets of clouds --------------------------------------------------------------------------------------------------


def ragged(*sizes, seed=0):
    x = normal(sum(sizes), 3, seed=seed)
    return Batch(x, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), len(sizes))


@pytest.mark.parametrize("entries", [1, 100, 2**23])
def test_pairwise_is_pair_by_pair(monkeypatch, entries):
    monkeypatch.setattr(clouds, "ENTRIES", entries)
    a, b = ragged(3, 8, 3, 1), ragged(5, 3, 1, 5, 5, seed=1)
    expected = torch.stack([torch.stack([chamfer(x, y) for y in b.split()]) for x in a.split()])
    torch.testing.assert_close(pairwise(a, b), expected)
    own = torch.stack([torch.stack([chamfer(x, y) for y in a.split()]) for x in a.split()])
    torch.testing.assert_close(pairwise(a, a), own)
    dense = Batch(normal(4, 6, 2))
    same = torch.stack([emd(x.expand(4, 6, 2), dense.x) for x in dense.x])
    torch.testing.assert_close(pairwise(dense, dense, emd), same)


def brute(s, r):
    """1-NNA of numbers on a line by the words of the paper, ties by shares."""
    whole = [(v, 0) for v in s] + [(v, 1) for v in r]
    right = 0.0
    for k, (v, side) in enumerate(whole):
        rest = [(abs(v - w), other) for m, (w, other) in enumerate(whole) if m != k]
        nearest = [other for d, other in rest if d == min(d for d, _ in rest)]
        right += nearest.count(side) / len(nearest)
    return right / len(whole)


def on_line(values):
    return Batch(torch.tensor(values, dtype=torch.float64)[:, None, None])


@pytest.mark.parametrize(
    ("s", "r"),
    [([0.0, 1.0, 5.0], [0.5, 4.0]), ([0.0, 2.0], [1.0, 3.0]), ([0.0], [1.0]), ([1.0, 1.0, 1.0], [1.0, 1.0]),
     ([0.0, 1.0, 2.0, 3.0], [9.0])],
)  # fmt: skip
def test_accuracy_is_brute_force(s, r):
    a, b = on_line(s), on_line(r)
    assert accuracy(pairwise(a, a, emd), pairwise(a, b, emd), pairwise(b, b, emd)) == pytest.approx(brute(s, r))


def test_sets_far_apart_score_one_and_copies_zero():
    a = Batch(normal(20, 8, 3))
    far = cloud_scores(a, a.replace(a.x + 100))
    assert far.accuracy == 1.0 and far.mmd > 1e4
    assert far.coverage < 0.5  # all are nearest to the few references that lie towards them
    copies = cloud_scores(a, Batch(a.x.clone()))
    assert copies.accuracy == 0.0 and copies.coverage == 1.0 and copies.mmd == 0.0


def test_clouds_that_are_all_alike_score_chance():
    same = Batch(torch.zeros(10, 4, 3))
    assert cloud_scores(same, Batch(torch.zeros(10, 4, 3))).accuracy == pytest.approx(9 / 19)


@pytest.mark.parametrize("distance", [chamfer, emd])
def test_sets_of_one_law_score_a_half(distance):
    # 400 clouds, whose answers are only weakly dependent: a standard error of about 0.03
    a, b = (Batch(normal(200, 4, 2, seed=k)) for k in (1, 2))
    assert cloud_scores(a, b, distance).accuracy == pytest.approx(0.5, abs=0.1)


def test_a_collapsed_set_has_little_coverage_and_high_accuracy():
    reference, one = Batch(normal(60, 16, 3, seed=1)), normal(1, 16, 3, seed=2)
    collapsed = Batch(one + 1e-3 * normal(60, 16, 3, seed=3))
    scores = cloud_scores(collapsed, reference)
    assert scores.coverage <= 2 / 60 and scores.accuracy > 0.75
    good = cloud_scores(Batch(normal(60, 16, 3, seed=4)), reference)
    assert good.coverage > 0.3 and good.accuracy < scores.accuracy


def test_one_good_cloud_among_bad_ones_hides_from_mmd():
    reference = Batch(normal(20, 8, 3, seed=1))
    mixed = Batch(torch.cat([reference.x.clone(), 50 + normal(20, 8, 3, seed=2)]))
    scores = cloud_scores(mixed, reference)
    assert scores.mmd == 0 and scores.coverage == 1.0 and scores.accuracy == pytest.approx(1 / 3)  # 20 right of 60


def test_matrices_by_their_formulas():
    d = torch.tensor([[1.0, 5.0, 3.0], [2.0, 4.0, 9.0]])  # two generated, three references
    assert minimum_matching_distance(d) == pytest.approx((1 + 4 + 3) / 3)
    assert coverage(d) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chamfer(torch.zeros(3), torch.zeros(3)), "expected clouds"),
        (lambda: chamfer(torch.zeros(3, 2), torch.zeros(3, 3)), "expected clouds"),
        (lambda: chamfer(torch.zeros(0, 2), torch.zeros(3, 2)), "expected clouds"),
        (lambda: emd(torch.zeros(3, 2), torch.zeros(4, 2)), "equal sizes, got 3 and 4 points"),
        (lambda: emd(torch.full((2, 2), torch.nan), torch.zeros(2, 2)), "expected finite points"),
        (lambda: pairwise(Batch(torch.zeros(2, 2), torch.tensor([0, 0]), 2), ragged(1)), "cloud 1 is without points"),
        (lambda: coverage(torch.zeros(0, 2)), "matrix of distances"),
        (lambda: minimum_matching_distance(torch.full((2, 2), torch.nan)), "without NaN"),
        (lambda: accuracy(torch.zeros(2, 2), torch.zeros(3, 2), torch.zeros(2, 2)), "expected distances .S, S."),
    ],
)
def test_clouds_that_cannot_be_compared_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("distance", [chamfer, emd])
def test_points_that_coincide_do_not_spoil_a_gradient(distance):
    x = normal(5, 3).requires_grad_()
    y = x.detach().flip(0).clone()
    y[0] += 1.0
    gradient = torch.autograd.grad(distance(x, y), x)[0]
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_the_same_points_in_other_clouds_are_not_the_same_set():
    x = normal(6, 3)
    a, b = (Batch(x, torch.tensor(index), 2) for index in ([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]))
    expected = torch.stack([torch.stack([chamfer(u, v) for v in b.split()]) for u in a.split()])
    assert torch.allclose(pairwise(a, b), expected)
