"""Samples that have arrived leave the batch: only the cost changes, and all that belongs to a sample goes along."""

import pytest
import torch

from scifm.batch import Batch
from scifm.solve import Solver, SolverError, integrate
from scifm.trace import Hutchinson

G = torch.Generator().manual_seed(0)
RATES = torch.tensor([1.0, 60.0, 5.0, 20.0, 2.0, 30.0], dtype=torch.float64)
SOLVER = Solver(rtol=1e-5, atol=1e-5)


def relax(t, x, batch, probes):
    """dx/dt = −r (x − cos 5t), each sample at its own rate r."""
    rate = batch.context["rate"]
    return -batch.spread(rate) * (x - batch.spread(torch.cos(5 * t))), -(rate * batch.dims)[:, None]


def dense():
    return Batch(torch.randn(6, 2, generator=G, dtype=torch.float64), context={"rate": RATES})


def ragged():
    """Six samples with 2, 0, 3, 1, 4 and 2 rows, chained by edges that carry weights."""
    counts = torch.tensor([2, 0, 3, 1, 4, 2])
    index = torch.repeat_interleave(torch.arange(6), counts)
    x = torch.randn(12, 3, generator=G, dtype=torch.float64)
    tail = torch.arange(11)[index[:-1] == index[1:]]
    edges = {"weight": torch.rand(len(tail), generator=G, dtype=torch.float64)}
    nodes = {"mass": 1 + torch.rand(12, generator=G, dtype=torch.float64)}
    return Batch(x, index, 6, {"rate": RATES}, nodes, torch.stack([tail, tail + 1]), edges)


def graph(t, x, batch, probes):
    """Relaxation, masses of rows, and pulls along weighted edges: everything that a batch carries matters."""
    v, d = relax(t, x, batch, probes)
    tail, head = batch.edge_index
    pull = batch.edges["weight"][:, None] * (x[head] - x[tail])
    return v + torch.zeros_like(x).index_add(0, tail, pull) / batch.nodes["mass"][:, None], d


@pytest.mark.parametrize(("batch", "field"), [(dense(), relax), (ragged(), graph)], ids=["dense", "ragged"])
@pytest.mark.parametrize("method", ["bosh5", "bosh3"])
@pytest.mark.parametrize("ends", [(0, 1), (0.9, 0.2)])
def test_each_sample_is_solved_as_if_alone(batch, field, method, ends):
    field = field if ends == (0, 1) else lambda *a, f=field: tuple(-v for v in f(*a))  # stiff, but stable backward
    solver = Solver(method, rtol=1e-4, atol=1e-4)
    together = integrate(field, batch.x, *ends, batch, solver)
    parts = batch.replace(together.x)
    for b in range(6):
        one = batch.select([b])
        alone = integrate(field, one.x, *ends, one, solver)
        assert int(alone.nfe[0]) == int(together.nfe[b]) and int(alone.accepted[0]) == int(together.accepted[b])
        assert int(alone.rejected[0]) == int(together.rejected[b])
        assert torch.allclose(parts.select([b]).x, alone.x, rtol=0, atol=1e-12)
        assert torch.allclose(together.logdet[b], alone.logdet[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [dense, ragged])
def test_arrived_samples_are_not_evaluated(make):
    batch, sizes = make(), []

    def field(t, x, part, probes):
        assert len(t) == len(part) == len(part.context["rate"]) and part.x is x
        sizes.append(len(part))
        return relax(t, x, part, probes)

    solution = integrate(field, batch.x, 0, 1, batch, SOLVER)
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 6 and sizes[-1] <= 2
    assert len(sizes) == int(solution.nfe.max())
    assert sum(sizes) < 0.7 * 6 * len(sizes)
    assert int(solution.nfe.sum()) <= sum(sizes)


@pytest.mark.parametrize("make", [dense, ragged])
def test_probes_follow_their_samples(make):
    """The divergence of each column depends on the probe itself, which is told by its values."""
    batch = make()
    probes = Hutchinson(3, "gaussian").draw(batch, torch.Generator().manual_seed(1))

    def field(t, x, part, probes):
        v, _ = relax(t, x, part, None)
        return v, torch.stack([part.total(p**2) for p in probes], 1) * (1 + t)[:, None]

    solution = integrate(field, batch.x, 0, 1, batch, SOLVER, probes)
    expected = torch.stack([1.5 * batch.total(p**2) for p in probes], 1)
    assert solution.logdet.shape == (6, 3)
    assert torch.allclose(solution.logdet, expected, atol=1e-10)


def test_a_trace_with_probes_agrees_with_each_sample_alone():
    batch = dense()
    trace, solver = Hutchinson(2), Solver(rtol=1e-4, atol=1e-4)
    probes = trace.draw(batch, torch.Generator().manual_seed(1))

    def velocity(t, x, part):
        return torch.sin(x @ torch.ones(2, 2, dtype=x.dtype)) + relax(t, x, part, None)[0]

    def field(t, x, part, probes):
        return trace(velocity, t, x, part, probes)

    together = integrate(field, batch.x, 0, 1, batch, solver, probes)
    for b in range(6):
        one = batch.select([b])
        alone = integrate(field, one.x, 0, 1, one, solver, probes[:, b : b + 1])
        assert torch.allclose(together.logdet[b], alone.logdet[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2, 5])  # one sample; as many samples as dimensions; more
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_samples_in_any_precision(count, dtype):
    rate = torch.tensor([3.0, 60.0, 1.0, 9.0, 0.5])[:count].to(dtype)
    batch = Batch(torch.ones(count, 2, dtype=dtype), context={"rate": rate})

    def field(t, x, part, probes):
        return -part.spread(2 * t * part.context["rate"]) * x, None

    solution = integrate(field, batch.x, 0, 1, batch, Solver(rtol=1e-5, atol=1e-5))
    assert solution.x.dtype == dtype and solution.logdet is None
    assert torch.allclose(solution.x, torch.exp(-rate)[:, None].expand(-1, 2), atol=1e-4)


def test_who_fails_is_named_by_its_number_in_the_whole_batch():
    """Samples 0 to 4 arrive and leave; 5 is left, and its number must not be that in the rest."""
    batch = Batch(torch.ones(6, 1, dtype=torch.float64), context={"rate": torch.tensor([1.0] * 5 + [1e5]).double()})
    with pytest.raises(SolverError, match=r"50 steps were not enough; sample\(s\) 5 did not finish"):
        integrate(relax, batch.x, 0, 1, batch, Solver(max_steps=50))


def test_where_a_velocity_explodes_the_step_shrinks_to_an_error():
    x = torch.tensor([[0.1], [1.0]], dtype=torch.float64)
    with pytest.raises(SolverError, match=r"sample\(s\) 1 did not finish"):
        integrate(lambda t, x, *_: (2 * x**2, None), x, 0, 1, Batch(x), Solver())


def test_a_divergence_that_is_not_a_number_is_an_error_too():
    x = torch.ones(2, 2, dtype=torch.float64)

    def field(t, x, *_):
        return -x, torch.where(t > 0.5, torch.nan, 1.0)[:, None]

    for solver in (Solver(), Solver("rk4", steps=4)):
        with pytest.raises(SolverError, match=r"sample\(s\) 0, 1"):
            integrate(field, x, 0, 1, Batch(x), solver)


@pytest.mark.parametrize("solver", [Solver(), Solver("rk4", steps=1), Solver("bosh3", steps=3)], ids=str)
def test_the_field_is_never_asked_outside_the_way(solver):
    """Not even by rounding: at t = 1 + 2e-16 a square root of 1 − t is NaN."""
    x = torch.ones(4, 2, dtype=torch.float64)
    for k in range(1, 30):
        low, high = k / 100, (40 + 2 * k) / 100  # hundredths round: 0.08 − (0.08 − 0.01) is below 0.01
        for t0, t1 in ((low, high), (high, low), (low + 0.07, low)):

            def field(t, x, *_, ends=(min(t0, t1), max(t0, t1))):
                assert t.min() >= ends[0] and t.max() <= ends[1]
                return x * torch.cos(7 * t)[:, None], None

            integrate(field, x, t0, t1, Batch(x), solver)


def test_an_easy_way_takes_few_steps_and_none_for_a_sliver():
    x = torch.ones(1, 2, dtype=torch.float64)
    times = []

    def field(t, x, *_):
        times.append(float(t[0]))
        return torch.full_like(x, 0.5), None

    solution = integrate(field, x, 0, 1, Batch(x))
    assert int(solution.accepted) == 3 and int(solution.rejected) == 0  # the first, ten times as long, and the rest
    ends = times[7::7]
    assert ends[2] - ends[1] > 0.3
