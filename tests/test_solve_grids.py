"""Fixed steps: where they lie, what they cost, and methods that remember."""

import math

import pytest
import torch

from scifm.batch import Batch
from scifm.solve import Solver, SolverError, Warp, cosine, integrate
from scifm.tableaus import METHODS

X = torch.linspace(0.3, 1.2, 6, dtype=torch.float64).reshape(3, 2)
ADAMS = ["ab2", "ab3", "ab4"]
# evaluations of N = 10 steps: stages times steps; FSAL methods one more; Adams one per step after its start
EVALUATIONS = {"euler": 10, "midpoint": 20, "heun": 20, "kutta3": 30, "rk4": 40, "bosh3": 31, "dopri5": 61,
               "tsit5": 61, "bosh5": 71, "ab2": 11, "ab3": 14, "ab4": 19}  # fmt: skip


def cubic(t, x, batch, probes):
    """dx/dt = −2t x³: x = x0/√(1 + 2t² x0²), log-determinant −3/2 Σ log(1 + 2t² x0²)."""
    rate = batch.spread(2 * t)
    return -rate * x**3, batch.total(-3 * rate * x**2)[:, None]


def exact(x, t=1.0):
    growth = 1 + 2 * t**2 * x**2
    return x / growth.sqrt(), -1.5 * growth.log().sum(1)


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_evaluations_is_known_beforehand(method):
    times = []

    def field(t, x, batch, probes):
        assert (t == t[0]).all() and len(t) == 3
        times.append(float(t[0]))
        return cubic(t, x, batch, probes)

    solution = integrate(field, X, 0, 1, Batch(X), Solver(method, steps=10))
    assert len(times) == EVALUATIONS[method]
    assert (solution.nfe == EVALUATIONS[method]).all() and (solution.accepted == 10).all()
    assert min(times) >= 0 and max(times) <= 1


@pytest.mark.parametrize("spacing", [None, Warp(1.5), cosine, lambda u: u**2, (0, 0.1, 0.35, 0.4, 0.7, 0.9, 1)])
@pytest.mark.parametrize("method", ADAMS + ["rk4", "kutta3"])
def test_order_on_even_and_uneven_grids(method, spacing):
    solver = Solver(method, steps=None if isinstance(spacing, tuple) else 6, spacing=spacing)
    for _ in range(4 if method in ADAMS else 2):
        solver = solver.tighter(X.dtype)[0]
    errors, logdets = [], []
    for s in (solver, solver.tighter(X.dtype)[0]):
        solution = integrate(cubic, X, 0, 1, Batch(X), s)
        errors.append(float((solution.x - exact(X)[0]).abs().max()))
        logdets.append(float((solution.logdet[:, 0] - exact(X)[1]).abs().max()))
    for error in (errors, logdets):
        assert math.log2(error[0] / error[1]) > METHODS[method].order - 0.35


@pytest.mark.parametrize("method", ADAMS)
def test_adams_is_exact_for_polynomials_of_time_on_any_grid(method):
    """Below its order: the polynomial through the past is the velocity. So the weights are those of the grid."""
    power = METHODS[method].order - 1
    solver = Solver(method, spacing=(0, 0.05, 0.3, 0.35, 0.6, 0.62, 0.9, 1))

    def field(t, x, *_):
        return ((power + 1) * t**power)[:, None].expand_as(x), t[:, None] ** power

    there = integrate(field, X, 0, 1, Batch(X), solver)
    assert torch.allclose(there.x, X + 1, atol=1e-13)
    assert torch.allclose(there.logdet, torch.full_like(there.logdet, 1 / (power + 1)), atol=1e-13)
    assert torch.allclose(integrate(field, X, 1, 0, Batch(X), solver).x, X - 1, atol=1e-13)


@pytest.mark.parametrize("method", ADAMS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_fewer_steps_than_the_method_remembers(method, steps):
    solution = integrate(cubic, X, 0, 1, Batch(X), Solver(method, steps=steps))
    assert solution.x.isfinite().all()
    start = METHODS[METHODS[method].start]
    if steps < METHODS[method].order:
        same = integrate(cubic, X, 0, 1, Batch(X), Solver(METHODS[method].start, steps=steps))
        assert torch.equal(solution.x, same.x) and int(solution.nfe[0]) == steps * len(start.c)


def test_both_directions_walk_the_same_times():
    seen = {}
    for t0, t1 in ((0, 1), (1, 0)):
        seen[t0] = []

        def field(t, x, batch, probes, here=seen[t0]):
            here.append(float(t[0]))
            return -x, None

        integrate(field, X, t0, t1, Batch(X), Solver("euler", steps=4, spacing=Warp(2)))
    assert seen[0] == pytest.approx([0, 7 / 16, 3 / 4, 15 / 16]) and seen[1] == pytest.approx(
        [1, 15 / 16, 3 / 4, 7 / 16]
    )


def test_a_part_of_the_way_has_the_same_spacing():
    solver = Solver("euler", steps=2, spacing=(0, 0.25, 1))
    assert solver.grid(0.2, 0.6) == pytest.approx([0.2, 0.3, 0.6])
    assert solver.grid(0.6, 0.2) == pytest.approx([0.6, 0.3, 0.2])
    assert Solver("euler", steps=3).grid(0.1, 0.7)[-1] == 0.7


@pytest.mark.parametrize("method", METHODS)
def test_forward_and_backward_is_the_identity_up_to_the_error(method):
    solver = Solver(method, steps=60, spacing=Warp(1.3))
    there = integrate(cubic, X, 0.1, 0.9, Batch(X), solver)
    back = integrate(cubic, there.x, 0.9, 0.1, Batch(X), solver)
    limit = {1: 0.5, 2: 2e-2, 3: 2e-3, 4: 1e-4, 5: 1e-6}[METHODS[method].order]
    assert (back.x - X).abs().max() < limit
    assert (back.logdet + there.logdet).abs().max() < 10 * limit


def test_tighter_halves_the_steps_of_every_grid():
    finer, factor = Solver("rk4", steps=4, spacing=Warp(2)).tighter(torch.float32)
    assert finer.grid(0, 1)[::2] == pytest.approx(Solver("rk4", steps=4, spacing=Warp(2)).grid(0, 1))
    assert factor == pytest.approx(16 / 15)
    finer, factor = Solver("ab2", spacing=(0, 0.5, 0.6, 1)).tighter(torch.float32)
    assert finer.spacing == pytest.approx((0, 0.25, 0.5, 0.55, 0.6, 0.8, 1)) and finer.steps == 6
    assert factor == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("solver", "text"),
    [
        (Solver(), "bosh5 rtol 1e-05"),
        (Solver("dopri5", 1e-4, 1e-6, max_steps=50), "dopri5 rtol 0.0001 atol 1e-06 at most 50 steps"),
        (Solver("rk4", steps=8), "rk4 8 steps"),
        (Solver("ab3", steps=8, spacing=Warp()), "ab3 8 steps spacing warp(1.5)"),
        (Solver("rk4", steps=8, spacing=cosine), "rk4 8 steps spacing cosine"),
        (Solver("euler", spacing=(0, 0.5, 1)), "euler 2 steps at 0, 0.5, 1"),
    ],
)
def test_a_solver_says_what_it_is(solver, text):
    assert str(solver) == text


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"method": "ab2"}, ValueError, "no error estimate; give steps="),
        ({"spacing": Warp()}, ValueError, "spacing places fixed steps"),
        ({"method": "rk4", "steps": 4, "spacing": lambda u: 1 - u}, ValueError, "must rise from 0"),
        ({"method": "rk4", "steps": 4, "spacing": lambda u: u / 2}, ValueError, "must rise from 0"),
        ({"method": "rk4", "steps": 4, "spacing": lambda u: float(u > 0.4)}, ValueError, "must rise from 0"),
        (
            {"method": "rk4", "spacing": (0, 0.6, 0.5, 1)},
            ValueError,
            "must rise from 0 .* times 0, 0.6, 0.5, 1",
        ),
        ({"method": "rk4", "spacing": (0, float("nan"), 1)}, ValueError, "must rise from 0"),
        ({"method": "rk4", "spacing": ()}, ValueError, "at least 1"),
        ({"method": "rk4", "steps": 5, "spacing": (0, 0.5, 1)}, ValueError, "leave steps out"),
        ({"method": "rk4", "steps": 5, "spacing": Warp}, TypeError, r"such as Warp\(1.5\)"),
        ({"method": "rk4", "steps": 5, "spacing": "cosine"}, TypeError, "such as Warp"),
        ({"max_steps": 0}, ValueError, "positive"),
        ({"atol": float("nan")}, ValueError, "positive"),
    ],
)
def test_settings_that_do_not_fit(settings, error, says):
    with pytest.raises(error, match=says):
        Solver(**settings)


def test_a_warp_needs_a_positive_power():
    with pytest.raises(ValueError, match="power must be positive"):
        Warp(0)


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5", "ab3"])
def test_fixed_steps_that_explode_say_where_they_were(method):
    """x doubles its exponent until it overflows; only the answer is looked at, and then the place is found."""
    x = torch.tensor([[1.0], [1.0], [-1e-9]], dtype=torch.float32)

    def field(t, x, *_):
        return torch.where(t > 0.5, 1e30, 1.0)[:, None] * x, None

    with pytest.raises(SolverError, match=r"not finite near t=(0\.5|0\.6|0\.7|0\.8|0\.9)\d* for sample\(s\) 0, 1"):
        integrate(field, x, 0, 1, Batch(x), Solver(method, steps=10))


def test_what_comes_in_is_checked():
    batch, solver = Batch(X), Solver("rk4", steps=2)
    with pytest.raises(ValueError, match=r"t0 and t1 must lie in \[0, 1\]"):
        integrate(cubic, X, 0, 1.5, batch, solver)
    with pytest.raises(ValueError, match=r"t0 and t1 must lie in \[0, 1\]"):
        integrate(cubic, X, float("nan"), 1, batch, solver)
    with pytest.raises(ValueError, match="with the 3 rows of like"):
        integrate(cubic, X[:2], 0, 1, batch, solver)
    with pytest.raises(ValueError, match="must be floating point"):
        integrate(cubic, X.long(), 0, 1, batch, solver)
    with pytest.raises(ValueError, match=r"probes must be \(K, \*\(3, 2\)\)"):
        integrate(cubic, X, 0, 1, batch, solver, X)
    with pytest.raises(ValueError, match=r"a velocity like x, torch.float64 \(3, 2\), got torch.float64 \(3, 1\)"):
        integrate(lambda t, x, *_: (x[:, :1], None), X, 0, 1, batch, solver)  # (B, 1) would broadcast silently
    with pytest.raises(ValueError, match="a velocity like x, torch.float64"):
        integrate(lambda t, x, *_: (x.float(), None), X, 0, 1, batch, solver)
    with pytest.raises(ValueError, match=r"a divergence \(samples, probes\), here \(3, K\), got \(3,\)"):
        integrate(lambda t, x, *_: (x, x[:, 0]), X, 0, 1, batch, solver)
