"""Log-determinants by quadrature: against step-by-step integration, closed forms, and the weights' own laws."""

import math

import pytest
import torch
from torch import nn

from scifm import Batch, Solver, SolverError
from scifm.quadrature import LEVELS, clenshaw_curtis, transport
from scifm.solve import integrate
from scifm.trace import Exact, Hutchinson


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """Mixes rows and coordinates; wiggles in t."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3, generator=rng(), dtype=torch.float64).to(dtype))

    def forward(self, t, x, batch):
        mean = batch.total(x) / batch.dims.clamp(min=1)
        return torch.sin(x @ self.w + batch.spread(3 * t)) + 0.3 * x * batch.spread(mean)


def ragged(dtype=torch.float64):
    x = torch.randn(9, 3, generator=rng(1), dtype=torch.float64).to(dtype)
    return Batch(x, torch.tensor([0, 0, 0, 1, 3, 3, 3, 3, 3]), 4)


def dense(dtype=torch.float64):
    return Batch(torch.randn(3, 3, generator=rng(2), dtype=torch.float64).to(dtype))


def step_by_step(net, trace, batch, t0, t1, solver, probes=None):
    return integrate(lambda t, x, b, p: trace(net, t, x, b, p), batch.x, t0, t1, batch, solver, probes)


@pytest.mark.parametrize("n", LEVELS)
def test_the_weights_integrate_polynomials_exactly(n):
    weights = clenshaw_curtis(n)
    nodes = [(1 - math.cos(k * math.pi / n)) / 2 for k in range(n + 1)]
    assert min(weights) > 0
    for degree in (0, 1, n // 2, n):
        assert abs(sum(w * t**degree for w, t in zip(weights, nodes, strict=True)) - 1 / (degree + 1)) < 1e-14


@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, 1.0), (0.2, 0.7)])
@pytest.mark.parametrize("batch", [dense(), ragged()], ids=["dense, B == D", "ragged"])
@pytest.mark.parametrize("trace", [Exact(), Hutchinson(3)], ids=str)
def test_it_is_the_integral_that_steps_would_sum(trace, batch, direction):
    net, probes = Net(), trace.draw(batch, rng(3))
    with torch.no_grad():
        truth = step_by_step(net, trace, batch, *direction, Solver(rtol=1e-11, atol=1e-11), probes)
        for tolerance in (1e-3, 1e-6, 1e-9):
            solver = Solver(rtol=tolerance, atol=tolerance)
            found = transport(net, trace, batch.x, *direction, batch, solver, probes)
            bound = 30 * tolerance * (batch.dims[:, None] + truth.logdet.abs()) + 1e-12
            assert ((found.logdet - truth.logdet).abs() <= bound).all()
            assert found.solver == solver and (found.x - truth.x).abs().max() <= 10 * tolerance


def test_a_linear_flow_has_the_trace_of_its_matrix():
    A = torch.randn(3, 3, generator=rng(4), dtype=torch.float64)
    batch = dense()
    with torch.no_grad():
        found = transport(lambda t, x, b: x @ A.T * b.spread(1 + t), Exact(), batch.x, 1.0, 0.0, batch)
    assert torch.allclose(found.logdet[:, 0], -1.5 * A.trace().expand(3), atol=1e-10)


def test_it_takes_fewer_divergences_and_counts_all_evaluations():
    calls = {"divergence": 0, "velocity": 0}
    net, batch = Net(), dense()

    class Counting:
        def draw(self, like, generator=None):
            return None

        def __call__(self, velocity, t, x, b, probes):
            calls["divergence"] += 1
            return Exact()(net, t, x, b)

    def velocity(t, x, b):
        calls["velocity"] += 1
        return net(t, x, b)

    one = batch.select([0])
    with torch.no_grad():
        found = transport(velocity, Counting(), one.x, 1.0, 0.0, one, Solver(rtol=1e-6, atol=1e-6))
        stepped = step_by_step(net, Exact(), one, 1.0, 0.0, Solver(rtol=1e-6, atol=1e-6))
    assert int(found.nfe) == calls["divergence"] + calls["velocity"]
    assert calls["divergence"] in (17, 33) and calls["divergence"] < int(stepped.nfe) / 2


def test_no_sample_depends_on_its_batch_mates():
    """A stiff neighbour takes finer rules by itself."""
    batch = ragged()
    stiff = torch.tensor([1.0, 1.0, 1.0, 40.0], dtype=torch.float64)

    def velocity(t, x, b):
        rate = b.context["rate"]
        return torch.sin(x * b.spread(1 + 0 * rate)) * b.spread(torch.cos(rate * t))

    batch = Batch(batch.x, batch.index, 4, {"rate": stiff})
    trace = Hutchinson(2)
    probes = trace.draw(batch, rng())
    with torch.no_grad():
        together = transport(velocity, trace, batch.x, 1.0, 0.0, batch, Solver(), probes)
        for b in range(4):
            one = batch.select([b])
            own = torch.stack([batch.replace(p).select([b]).x for p in probes])
            alone = transport(velocity, trace, one.x, 1.0, 0.0, one, Solver(), own)
            assert torch.allclose(alone.logdet[0], together.logdet[b], atol=1e-12)
            assert int(alone.nfe) == int(together.nfe[b])
    assert int(together.nfe[3]) > 2 * int(together.nfe[0])


def test_a_kink_is_summed_step_by_step():
    def velocity(t, x, b):
        return x * b.spread((t - 0.4137).abs() * 50)

    batch = dense()
    solver = Solver(rtol=1e-8, atol=1e-8)
    with torch.no_grad():
        found = transport(velocity, Exact(), batch.x, 0.0, 1.0, batch, solver)
    truth = 3 * 50 * (0.4137**2 + 0.5863**2) / 2
    assert torch.allclose(found.logdet, torch.full((3, 1), truth).double(), rtol=1e-5)
    assert (found.nfe > LEVELS[-1] + 1).all()


def test_fixed_steps_stay_what_they_are():
    net, batch, solver = Net(), dense(), Solver("rk4", steps=5)
    with torch.no_grad():
        found = transport(net, Exact(), batch.x, 1.0, 0.0, batch, solver)
        wanted = step_by_step(net, Exact(), batch, 1.0, 0.0, solver)
    assert torch.equal(found.logdet, wanted.logdet) and torch.equal(found.nfe, wanted.nfe)


def test_float32_and_edges():
    net, batch = Net(torch.float32), ragged(torch.float32)
    with torch.no_grad():
        found = transport(net, Exact(), batch.x, 1.0, 0.0, batch)
        wide = transport(Net(), Exact(), ragged().x, 1.0, 0.0, ragged())
        assert found.x.dtype == torch.float32 and found.logdet.dtype == torch.float64
        assert torch.allclose(found.logdet, wide.logdet, atol=1e-3)
        assert found.logdet[2] == 0  # the empty sample
        still = transport(net, Exact(), batch.x, 0.5, 0.5, batch)
        assert torch.equal(still.x, batch.x) and (still.logdet == 0).all()
        none = Batch(torch.zeros(0, 3))
        assert transport(net, Exact(), none.x, 1.0, 0.0, none).x.shape == (0, 3)


def test_gradients_reach_the_network_where_they_are_enabled():
    net, batch = Net(), dense()

    def total(net):
        solution = transport(net, Exact(), batch.x, 1.0, 0.0, batch, Solver(rtol=1e-7, atol=1e-7))
        return solution.logdet.sum()

    (slope,) = torch.autograd.grad(total(net), net.w)
    for i, j in ((0, 0), (1, 2)):
        shifted = []
        for sign in (1, -1):
            other = Net()
            with torch.no_grad():
                other.w[i, j] += sign * 1e-4
                shifted.append(float(total(other)))
        assert abs((shifted[0] - shifted[1]) / 2e-4 - float(slope[i, j])) < 1e-4
    with torch.no_grad():
        assert not total(net).requires_grad


def test_a_divergence_that_is_not_finite_is_named():
    batch = Batch(torch.zeros(2, 3, dtype=torch.float64))
    with torch.no_grad(), pytest.raises(SolverError, match=r"divergence .* not finite at t=1 .*sample\(s\) \[0, 1\]"):
        transport(lambda t, x, b: x.abs().sqrt(), Exact(), batch.x, 1.0, 0.0, batch)


def test_rules_that_agree_by_chance_are_not_believed():
    """The Chebyshev polynomial T_32 is one at all nodes of 8 and of 16 intervals; its integral is 1/(1 − 32²)."""

    def velocity(t, x, batch):
        return batch.spread(torch.cos(32 * torch.arccos((2 * t - 1).clamp(-1, 1)))) * x

    x = torch.ones(2, 3, dtype=torch.float64)
    solution = transport(velocity, Exact(), x, 0.0, 1.0, Batch(x))
    assert int(solution.accepted.min()) > 16
    assert (solution.logdet - 3 / (1 - 32**2)).abs().max() < 1e-3
