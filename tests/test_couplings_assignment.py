"""The assignment is the best permutation, for every kind of matrix, and warm potentials never change the answer."""

import itertools
import threading

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from scifm.couplings import assignment, entropic
from scifm.couplings.assignment import assign, effective_dimension, finite, warm
from scifm.couplings.pairing import products


def cloud(n, d, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=dtype), torch.randn(n, d, generator=g, dtype=dtype)


def total(cost, columns):
    return float(cost.double()[torch.arange(len(cost)), columns].sum())


def best(cost):
    rows, columns = linear_sum_assignment(cost.double().numpy())
    return float(cost.double().numpy()[rows, columns].sum())


def permutation(columns):
    return torch.equal(columns.sort().values, torch.arange(len(columns)))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_it_is_the_best_of_all_permutations(n):
    cost = torch.randn(n, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    least = min(sum(float(cost[i, p]) for i, p in enumerate(order)) for order in itertools.permutations(range(n)))
    assert abs(total(cost, assign(cost)) - least) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(40, 3), (200, 1), (200, 2), (300, 2), (256, 64), (256, 1024), (500, 3)])
def test_excess_over_scipy_is_rounding(n, d, dtype):
    """The squared distances differ from the products by row and column terms, so the excess is measured on them."""
    x1, x0 = cloud(n, d, dtype=dtype)
    columns = assign(products(x1, x0))
    distance = torch.cdist(x1.double(), x0.double()).square()
    assert permutation(columns)
    assert total(distance, columns) <= best(distance) * (1 + (1e-6 if dtype == torch.float32 else 1e-12))


def eight_gaussians(n):
    x1, x0 = cloud(n, 2)
    angle = torch.randint(0, 8, (n,), generator=torch.Generator().manual_seed(1)) * torch.pi / 4
    return 5 * torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * x1, x0


def matrices(n=220):
    g = torch.Generator().manual_seed(2)
    x1, x0 = cloud(n, 2)
    outlier = x1.clone()
    outlier[3] = 1e6
    far = torch.cdist(x1.double() + 1e4, x0.double()).square()
    once, twice = x1[: n // 10].repeat(10, 1), x0[: n // 20].repeat(20, 1)
    yield "constant", torch.full((n, n), 3.0)
    yield "zero", torch.zeros(n, n)
    yield "row and column terms only", x1[:, :1] + x0[:, 0]
    yield "binary", torch.randint(0, 2, (n, n), generator=g).float()
    yield "small integers", torch.randint(0, 5, (n, n), generator=g).float()
    yield "duplicate points on both sides", products(once, twice)
    yield "equal rows", x1[:1, :1] * x0[:, 0].expand(n, n)
    yield "one outlier", products(outlier, x0)
    yield "clouds far apart, uncentred", far
    yield "one dimension, sorted", products(torch.arange(n).float()[:, None], torch.arange(n).float()[:, None])
    yield "huge", 1e30 * products(x1, x0)
    yield "tiny", 1e-30 * products(x1, x0)
    yield "clusters", products(*eight_gaussians(n))
    yield "an outlier entry", products(x1, x0).index_fill(0, torch.tensor([5]), 1e8)
    yield "identity is best", -torch.eye(n)


@pytest.mark.parametrize(("name", "cost"), [pytest.param(name, cost, id=name) for name, cost in matrices()])
def test_hard_matrices(name, cost):
    size = float(cost.double().abs().max())
    for columns in (assign(cost), assign(warm(cost))):  # whatever the dispatch decides
        assert permutation(columns)
        rounding = 1e-12 if cost.dtype == torch.float64 else 1e-6
        assert total(cost, columns) - best(cost) <= rounding * max(abs(best(cost)), size)


@pytest.mark.parametrize("d", [2, 64])
@pytest.mark.parametrize("big", [1e2, 1e4, 1e6])
def test_one_outlier_does_not_cost_the_others_their_digits(d, big):
    """In float32, centred by a mean that the outlier moves."""
    x1, x0 = cloud(256, d)
    x1[3] = big
    distance = torch.cdist(x1.double(), x0.double()).square()
    distance[3] = 0
    rows = torch.arange(256)
    found, true = assign(products(x1, x0)), assign(products(x1.double(), x0.double()))
    assert float(distance[rows, found].sum() / distance[rows, true].sum()) < 1 + 1e-3


def test_the_warm_start_is_taken_in_few_dimensions_and_reduces_the_cost(monkeypatch):
    taken = []
    monkeypatch.setattr(assignment, "warm", lambda cost: taken.append(len(cost)) or warm(cost))
    for n, d in [(300, 2), (300, 64), (100, 2)]:
        assign(products(*cloud(n, d)))
    assert taken == [300]
    reduced = warm(products(*cloud(300, 2)))
    assert (reduced >= 0).all() and torch.equal(reduced.amin(1), torch.zeros(300))
    assert best(reduced) < 0.05 * float(reduced.mean()) * 300  # its best pairs cost next to nothing


def test_wrong_potentials_cost_time_and_nothing_else(monkeypatch):
    def nonsense(cost, f, g, *args, **kwargs):
        return f, torch.randn(len(g), generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr(assignment, "level", nonsense)
    cost = products(*cloud(200, 2))
    assert abs(total(cost, assign(cost)) - best(cost)) < 1e-5 * abs(best(cost))


def test_potentials_that_are_not_finite_are_not_used(monkeypatch):
    monkeypatch.setattr(assignment, "level", lambda cost, f, g, *args, **kwargs: (f, g * torch.nan))
    cost = products(*cloud(200, 2))
    assert warm(cost) is cost
    assert abs(total(cost, assign(cost)) - best(cost)) < 1e-5 * abs(best(cost))


def test_terms_of_rows_and_columns_do_not_matter():
    x1, x0 = cloud(200, 2, dtype=torch.float64)
    cost = products(x1, x0)
    shifted = cost + 10 * x1[:, :1] - 7 * x0[:, 1]
    assert torch.equal(assign(cost), assign(shifted))
    assert torch.equal(assign(cost), assign(3 * cost))


def test_reordered_rows_give_the_reordered_answer():
    cost = products(*cloud(200, 2, dtype=torch.float64))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(assign(cost[order]), assign(cost)[order])


def test_it_is_deterministic_and_leaves_its_argument_and_the_random_state_alone():
    cost = products(*cloud(300, 2))
    before, state = cost.clone(), torch.get_rng_state()
    assert torch.equal(assign(cost), assign(cost))
    assert torch.equal(cost, before) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_views_are_welcome(dtype):
    cost = products(*cloud(30, 4))
    assert torch.equal(assign(cost.to(dtype)), assign(cost.to(dtype).float()))
    wide = torch.zeros(30, 60)
    wide[:, ::2] = cost
    assert torch.equal(assign(wide[:, ::2]), assign(cost))
    assert torch.equal(assign(cost.T), assign(cost).argsort())


def test_threads_get_the_same_answer():
    cost = products(*cloud(300, 2))
    found = [None] * 4

    def work(i):
        found[i] = assign(cost)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(f, assign(cost)) for f in found)


@pytest.mark.parametrize("n", [5, 300])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_is_refused(bad, n):
    cost = torch.zeros(n, n)
    cost[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        assign(cost)


@pytest.mark.parametrize("cost", [torch.zeros(3, 2), torch.zeros(3), torch.zeros(3, 3, dtype=torch.long)])
def test_other_shapes_and_types_are_refused(cost):
    with pytest.raises(ValueError, match="square floating-point matrix"):
        assign(cost)


def test_an_empty_matrix_has_an_empty_answer():
    assert assign(torch.zeros(0, 0)).shape == (0,)


def test_finite_is_not_fooled_by_sums_that_overflow():
    assert finite(torch.full((3,), 3e38)) and not finite(torch.tensor([torch.inf, -torch.inf]))
    assert not finite(torch.tensor([1.0, torch.nan]))


@pytest.mark.parametrize("d", [1, 2, 4, 8])
def test_effective_dimension_is_that_of_the_points(d):
    x1, x0 = cloud(600, d)
    assert 0.7 * d <= effective_dimension(products(x1, x0)) <= d * 1.05
    wide = torch.cat([x1, 1e-3 * torch.randn(600, 100, generator=torch.Generator().manual_seed(5))], 1)
    other = torch.cat([x0, 1e-3 * torch.randn(600, 100, generator=torch.Generator().manual_seed(6))], 1)
    assert effective_dimension(products(wide, other)) < d * 1.1  # a low-rank field is of few dimensions


def test_over_relaxation_has_the_same_fixed_point():
    cost = products(*cloud(50, 2, dtype=torch.float64))
    zero = torch.zeros(50, dtype=torch.float64)
    plans = []
    for over in (1.0, 1.5):
        f, g = entropic.level(cost, zero, zero, 1.0, 400, over=over)
        plans.append(entropic.plan_of(cost, f, g, 1.0))
    assert (plans[0] - plans[1]).abs().max() < 1e-10
    assert (plans[1].sum(0) - 1).abs().max() < 1e-10 and (plans[1].sum(1) - 1).abs().max() < 1e-9
