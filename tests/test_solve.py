"""Order, direction, landing, independence of batch mates, and errors of the integrator."""

import importlib
import math
from dataclasses import replace

import pytest
import torch

from scifm.batch import Batch
from scifm.solve import Solver, SolverError, Warp, cosine, integrate
from scifm.tableaus import METHODS, Tableau
from scifm.testing import check_solver
from scifm.trace import Exact

A = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
EXACT = X @ torch.linalg.matrix_exp(A).T
ADAPTIVE = [m for m, tableau in METHODS.items() if tableau.error is not None]
TABLEAUS = {m: t for m, t in METHODS.items() if isinstance(t, Tableau)}


def linear(t, x, batch=None, probes=None):
    return x @ A.T, (A.trace() * torch.ones(len(x), 1, dtype=x.dtype))


@pytest.mark.parametrize("method", TABLEAUS)
def test_tableaus_are_consistent(method):
    tableau = TABLEAUS[method]
    assert math.isclose(sum(tableau.b), 1)
    for c, row in zip(tableau.c, tableau.a, strict=True):
        assert math.isclose(sum(row), c, abs_tol=1e-12)
    if tableau.error is not None:
        assert abs(sum(tableau.error)) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_fixed_steps_converge_at_the_methods_order(method):
    n = 20 if isinstance(METHODS[method], Tableau) else 80  # the start of a multistep method has other errors
    error = [
        float((integrate(linear, X, 0, 1, Batch(X), Solver(method, steps=n)).x - EXACT).abs().max()) for n in (n, 2 * n)
    ]
    assert math.log2(error[0] / error[1]) > METHODS[method].order - 0.2


@pytest.mark.parametrize(
    ("method", "tolerance"), [("heun", 1e-4), ("bosh3", 1e-6), ("dopri5", 1e-9), ("tsit5", 1e-9), ("bosh5", 1e-9)]
)
def test_adaptive_steps_keep_the_tolerance_and_go_back(method, tolerance):
    solver = Solver(method, rtol=tolerance, atol=tolerance)
    there = integrate(linear, X, 0, 1, Batch(X), solver)
    assert (there.x - EXACT).abs().max() < 100 * tolerance
    assert torch.allclose(there.logdet[:, 0], A.trace().expand(7), atol=1e-9)
    back = integrate(linear, there.x, 1, 0, Batch(X), solver)
    assert (back.x - X).abs().max() < 1000 * tolerance
    assert torch.allclose(back.logdet[:, 0], -A.trace().expand(7), atol=1e-9)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_start_other_than_zero_and_time_dependence(method):
    solver = Solver(method, rtol=1e-6, atol=1e-6, max_steps=20000)
    x = torch.ones(2, 1, dtype=torch.float64)
    answer = integrate(lambda t, x, *_: (2 * t[:, None] * torch.ones_like(x), None), x, 0.5, 1.0, Batch(x), solver).x
    assert torch.allclose(answer, x + 0.75, atol=1e-6)


def test_counts_are_what_was_evaluated():
    calls = []

    def field(t, x, *_):
        calls.append(len(x))
        return linear(t, x)[0], None

    for method, per_step in (("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)):
        calls.clear()
        solution = integrate(field, X, 0, 1, Batch(X), Solver(method, steps=10))
        assert len(calls) == 10 * per_step == int(solution.nfe[0])
        assert (solution.accepted == 10).all() and (solution.rejected == 0).all()
    calls.clear()
    solution = integrate(field, X, 0, 1, Batch(X), Solver("dopri5", rtol=1e-6, atol=1e-6))
    assert int(solution.nfe.max()) == len(calls)
    # one evaluation to start, six per step since the last stage is used again
    assert torch.equal(solution.nfe, 1 + 6 * (solution.accepted + solution.rejected))


def stiff(t, x, *_):
    """Each row decays at the rate in its own last column, so a neighbour can be as stiff as it likes."""
    rate = x[:, -1:]
    v = torch.cat([-rate * (x[:, :-1] - torch.cos(5 * t)[:, None]), torch.zeros_like(rate)], 1)
    return v, (-rate * (x.shape[1] - 1))


@pytest.mark.parametrize("method", ["heun", "bosh3", "dopri5", "tsit5", "bosh5"])
def test_a_sample_does_not_notice_its_batch_mates(method):
    mild = torch.cat([X[:1], torch.ones(1, 1, dtype=torch.float64)], 1)
    harsh = torch.cat([50 * X[1:], torch.full((6, 1), 300.0, dtype=torch.float64)], 1)
    both = torch.cat([mild, harsh])
    tolerance = 1e-3 if method == "heun" else 1e-5
    solver = Solver(method, rtol=tolerance, atol=tolerance, max_steps=20000)
    alone = integrate(stiff, mild, 0, 1, Batch(mild), solver)
    beside = integrate(stiff, both, 0, 1, Batch(both), solver)
    assert int(alone.accepted[0]) == int(beside.accepted[0]) < int(beside.accepted[1])
    assert int(alone.nfe[0]) == int(beside.nfe[0])
    assert torch.allclose(alone.x[0], beside.x[0], rtol=0, atol=1e-14)
    assert torch.allclose(alone.logdet[0], beside.logdet[0], rtol=0, atol=1e-12)


def test_ragged_samples_have_their_own_clocks():
    index = torch.tensor([0, 0, 0, 1, 3])
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rate = torch.tensor([1.0, 200.0, 5.0, 20.0], dtype=torch.float64)
    batch = Batch(x, index, 4, {"rate": rate})

    def field(t, y, batch, probes):
        rate = batch.context["rate"]
        return -batch.spread(rate) * y, -(rate * batch.dims)[:, None]

    together = integrate(field, x, 0, 1, batch, Solver(rtol=1e-8, atol=1e-8))
    assert torch.allclose(together.x, x * torch.exp(-batch.spread(rate)), atol=1e-7)
    assert torch.allclose(together.logdet[:, 0], -(rate * batch.dims).double(), atol=1e-4)
    part = batch.select([0])
    alone = integrate(lambda t, y, *_: (-y, -6.0 * torch.ones(1, 1)), part.x, 0, 1, part, Solver(rtol=1e-8, atol=1e-8))
    assert int(alone.accepted[0]) == int(together.accepted[0])
    assert torch.allclose(alone.x, together.x[:3], rtol=0, atol=1e-14)


def test_the_error_of_the_log_density_is_controlled_too():
    # x stands still while the divergence oscillates: without control of logdet one step would do.
    x = torch.zeros(1, 4, dtype=torch.float64)

    def field(t, y, *_):
        return torch.zeros_like(y), (40 * torch.cos(40 * t.double()))[:, None]

    solution = integrate(field, x, 0, 1, Batch(x), Solver(rtol=1e-6, atol=1e-6))
    assert abs(float(solution.logdet) - math.sin(40)) < 1e-4
    assert int(solution.accepted) > 5


def test_float32_lands_on_the_end_and_keeps_its_dtype():
    x = X.float()
    solution = integrate(lambda t, y, *_: (y @ A.T.float(), None), x, 0, 1, Batch(x), Solver(rtol=1e-5, atol=1e-5))
    assert solution.x.dtype == torch.float32
    assert (solution.x - EXACT).abs().max() < 1e-3


def test_an_empty_interval_and_an_empty_batch_change_nothing():
    assert torch.equal(integrate(linear, X, 0.3, 0.3, Batch(X)).x, X)
    assert integrate(linear, X[:0], 0, 1, Batch(X[:0])).x.shape == (0, 5)


def test_the_step_cap_says_where_it_stopped_and_what_to_do():
    with pytest.raises(SolverError, match=r"5 steps were not enough.*t=.*raise max_steps"):
        integrate(
            stiff, torch.full((2, 3), 500.0, dtype=torch.float64), 0, 1, Batch(torch.zeros(2, 3)), Solver(max_steps=5)
        )


def test_a_velocity_that_blows_up_ends_in_an_error_not_in_a_loop():
    x = torch.ones(1, 1, dtype=torch.float64)  # dx/dt = x² leaves every bound at t = 1
    with pytest.raises(SolverError):
        integrate(lambda t, y, *_: (2 * y**2, None), x, 0, 1, Batch(x), Solver(max_steps=100_000))


@pytest.mark.parametrize("solver", [Solver(), Solver("rk4", steps=4)])
def test_nan_names_the_sample(solver):
    x = torch.zeros(3, 2, dtype=torch.float64)
    x[1] = torch.nan
    with pytest.raises(SolverError, match=r"not finite near t=0.* sample\(s\) 1\."):
        integrate(lambda t, y, *_: (y, None), x, 0, 1, Batch(x), solver)


CHECKED = [
    *(Solver(m, rtol=1e-3, atol=1e-3) for m in ADAPTIVE),
    *(Solver(m, steps=6, spacing=s) for m, s in zip(METHODS, [None, Warp(1.5), cosine] * len(METHODS), strict=False)),
]


@pytest.mark.parametrize("solver", CHECKED, ids=str)
def test_every_method_passes_the_public_check(solver):
    check_solver(solver)


@pytest.mark.parametrize(
    ("method", "changes", "solver", "says"),
    [
        ("rk4", {"b": (1 / 4, 1 / 4, 1 / 4, 1 / 4)}, Solver("rk4", steps=8), "a method of order 4 leaves"),
        ("kutta3", {"c": (0, 1 / 2, 1 / 2)}, Solver("kutta3", steps=8), "a nonlinear field"),  # wrong times only
    ],
)
def test_wrong_methods_are_caught(method, changes, solver, says, monkeypatch):
    monkeypatch.setitem(METHODS, method, replace(METHODS[method], **changes))
    with pytest.raises(AssertionError, match=says):
        check_solver(solver)


def test_a_step_that_is_shared_is_caught(monkeypatch):
    control = importlib.import_module("scifm.solve.adaptive")
    own = control._error
    monkeypatch.setattr(control, "_error", lambda *args: own(*args).max().expand(len(args[2])))
    with pytest.raises(AssertionError, match="is not solved as it is alone"):
        check_solver(Solver())


def test_trace_and_solver_together_give_the_jacobian():
    field = Exact()
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def velocity(t, y, batch):
        return torch.sin(2 * y) @ torch.tensor([[1.0, 0.5], [-0.3, 0.8]], dtype=y.dtype) * (1 + t[:, None])

    def carry(y):
        batch = Batch(y)
        return integrate(
            lambda t, z, batch, _: (velocity(t, z, batch), None), y, 0, 1, batch, Solver("rk4", steps=50)
        ).x

    batch = Batch(x)
    solution = integrate(
        lambda t, z, batch, _: field(velocity, t, z, batch, None), x, 0, 1, batch, Solver(rtol=1e-9, atol=1e-9)
    )
    for b in range(3):
        jacobian = torch.autograd.functional.jacobian(carry, x[b : b + 1]).reshape(2, 2)
        assert abs(float(torch.linalg.slogdet(jacobian)[1]) - float(solution.logdet[b])) < 1e-5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "dopri8"}, "unknown method 'dopri8'"),
        ({"method": "rk4"}, "no error estimate; give steps="),
        ({"steps": 0}, "at least 1"),
        ({"rtol": 0.0}, "positive"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(ValueError, match=says):
        Solver(**settings)


def test_a_tolerance_below_the_dtype_is_refused():
    with pytest.raises(ValueError, match="below what torch.float32 resolves"):
        integrate(lambda t, y, *_: (y, None), X.float(), 0, 1, Batch(X.float()), Solver(rtol=1e-9, atol=1e-9))
