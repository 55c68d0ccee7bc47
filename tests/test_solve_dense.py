"""The path at times that were asked for: order, ends, directions, layouts."""

import math

import pytest
import torch

from scifm.batch import Batch
from scifm.solve import Solver, integrate
from scifm.tableaus import METHODS, Tableau

X = torch.linspace(0.3, 1.2, 6, dtype=torch.float64).reshape(3, 2)
TIMES = torch.linspace(0, 1, 41, dtype=torch.float64)


def cubic(t, x, batch, probes):
    rate = batch.spread(2 * t)
    return -rate * x**3, batch.total(-3 * rate * x**2)[:, None]


def exact(x, t):
    growth = 1 + 2 * t**2 * x**2
    return x / growth.sqrt(), -1.5 * growth.log().sum(1)


def gaps(solution, times=TIMES):
    pairs = [exact(X, t) for t in times]
    x = (solution.path - torch.stack([p[0] for p in pairs])).abs().max()
    return float(x), float((solution.path_logdet[:, :, 0] - torch.stack([p[1] for p in pairs])).abs().max())


@pytest.mark.parametrize("method", METHODS)
def test_order_of_the_path_between_steps(method):
    """Fourth for the pairs of fifth order, that is h^4 or better for the error of the path; else at most cubic."""
    found = [gaps(integrate(cubic, X, 0, 1, Batch(X), Solver(method, steps=n), times=TIMES)) for n in (23, 46)]
    tableau = METHODS[method]
    dense = isinstance(tableau, Tableau) and tableau.dense is not None
    order = min(tableau.order, 5 if dense else 4)  # a cubic errs by h^4, a quartic by h^5
    for error in zip(*found, strict=True):
        assert math.log2(error[0] / error[1]) > order - 0.6


def test_the_quartic_term_is_what_makes_fourth_order():
    """One step: its error in the middle falls by 2^5 with the quartic and by 2^4 with the cubic alone."""
    for method, order in (("dopri5", 5), ("tsit5", 5), ("bosh5", 5), ("rk4", 4)):
        errors = []
        for h in (0.05, 0.025):
            middle = 0.5 + h / 2
            start = exact(X, 0.5)[0]
            solution = integrate(cubic, start, 0.5, 0.5 + h, Batch(X), Solver(method, steps=1), times=[middle])
            errors.append(float((solution.path[0] - exact(X, middle)[0]).abs().max()))
        assert abs(math.log2(errors[0] / errors[1]) - order) < 0.6, method


@pytest.mark.parametrize(
    "solver", [Solver(rtol=1e-8, atol=1e-8), Solver("dopri5", 1e-8, 1e-8), Solver("bosh3", 1e-7, 1e-7)]
)
@pytest.mark.parametrize("backward", [False, True])
def test_adaptive_paths_in_both_directions(solver, backward):
    if backward:
        end, logdet = exact(X, 1.0)
        solution = integrate(cubic, end, 1, 0, Batch(X), solver, times=TIMES.flip(0))
        assert torch.equal(solution.path[0], end) and torch.equal(solution.path[-1], solution.x)
        states = torch.stack([exact(X, t)[0] for t in TIMES.flip(0)])
        assert (solution.path - states).abs().max() < 1e-5
        expected = torch.stack([exact(X, t)[1] - logdet for t in TIMES.flip(0)])
        assert (solution.path_logdet[:, :, 0] - expected).abs().max() < 1e-5
        return
    solution = integrate(cubic, X, 0, 1, Batch(X), solver, times=TIMES)
    assert max(gaps(solution)) < 1e-5
    assert torch.equal(solution.path[0], X) and torch.equal(solution.path[-1], solution.x)
    assert torch.equal(solution.path_logdet[-1], solution.logdet)
    plain = integrate(cubic, X, 0, 1, Batch(X), solver)
    assert torch.equal(plain.x, solution.x) and torch.equal(plain.nfe, solution.nfe) and plain.path is None


def test_each_sample_is_looked_up_in_its_own_steps_also_after_others_have_left():
    rate = torch.tensor([1.0, 200.0, 5.0, 40.0], dtype=torch.float64)
    index = torch.tensor([0, 0, 1, 3, 3, 3])
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def field(t, x, batch, probes):
        rate = batch.context["rate"]
        return -batch.spread(rate) * x, -(rate * batch.dims)[:, None]

    times = [0.0, 0.01, 0.2, 0.2, 0.55, 1.0]
    for batch in (Batch(x, index, 4, {"rate": rate}), Batch(x[:4], context={"rate": rate})):
        solution = integrate(field, batch.x, 0, 1, batch, Solver(rtol=1e-8, atol=1e-8), times=times)
        assert solution.path.shape == (6, *batch.x.shape) and solution.path_logdet.shape == (6, 4, 1)
        for t, state, logdet in zip(times, solution.path, solution.path_logdet, strict=True):
            assert torch.allclose(state, batch.x * torch.exp(-t * batch.spread(rate)), atol=1e-6)
            assert torch.allclose(logdet[:, 0], -t * rate * batch.dims, atol=1e-5)
        assert torch.equal(solution.path[2], solution.path[3])


def test_times_of_a_part_of_the_way_and_none_at_all():
    solution = integrate(cubic, exact(X, 0.3)[0], 0.3, 0.7, Batch(X), Solver(rtol=1e-9, atol=1e-9), times=[0.4, 0.5])
    assert torch.allclose(solution.path[1], exact(X, 0.5)[0], atol=1e-6)
    nothing = integrate(cubic, X, 0, 1, Batch(X), times=[])
    assert nothing.path.shape == (0, 3, 2)
    still = integrate(cubic, X, 0.3, 0.3, Batch(X), times=[0.3, 0.3])
    assert torch.equal(still.path, torch.stack([X, X])) and not still.path_logdet.any()
    empty = integrate(cubic, X[:0], 0, 1, Batch(X[:0]), times=[0.0, 0.5, 1.0])
    assert empty.path.shape == (3, 0, 2)


def test_float32_paths_stay_float32_and_without_divergence_there_is_no_log_determinant():
    x = X.float()
    solution = integrate(lambda t, x, *_: (-x, None), x, 0, 1, Batch(x), times=[0.25])
    assert solution.path.dtype == torch.float32 and solution.path_logdet is None
    assert torch.allclose(solution.path[0], x * math.exp(-0.25), atol=1e-4)


@pytest.mark.parametrize("times", [[0.5, 0.2], [0.1, 1.1], [-0.1], [0.1, float("nan")]])
def test_times_out_of_order_or_range_are_refused(times):
    with pytest.raises(ValueError, match="times must run from t0=0 to t1=1"):
        integrate(cubic, X, 0, 1, Batch(X), times=times)
    with pytest.raises(ValueError, match="times must run from t0=1 to t1=0"):
        integrate(cubic, X, 1, 0, Batch(X), times=[0.2, 0.5])
