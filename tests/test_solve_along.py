"""The log-determinant summed along the curve, inside each step: against the joint integration and closed forms."""

import math

import pytest
import torch
from torch import nn

from scifm import Batch, Solver, SolverError
from scifm.solve import integrate
from scifm.solve.along import LOBATTO, NODES, PER_STEP, SIMPSON, along
from scifm.solve.walk import Walk
from scifm.tableaus import METHODS
from scifm.trace import Exact, Hutchinson

DIRECTIONS = [(1.0, 0.0), (0.0, 1.0), (0.2, 0.7)]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def tight(tolerance=1e-9, method="bosh5"):
    return Solver(method, rtol=tolerance, atol=tolerance)


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
    return Batch(torch.randn(3, 3, generator=rng(2), dtype=torch.float64).to(dtype))  # B == D on purpose


def joint(net, trace, batch, t0, t1, solver, probes=None):
    return integrate(lambda *at: trace(net, *at), batch.x, t0, t1, batch, solver, probes)


def summed(net, trace, batch, t0, t1, solver=Solver(), probes=None, **settings):
    def field(t, x, b, p):
        return net(t, x, b), None

    def divergence(t, x, b, p):
        return trace(net, t, x, b, p)[1]

    return integrate(field, batch.x, t0, t1, batch, solver, probes, divergence=divergence, **settings)


# -- the rule ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "degree"), [(LOBATTO, 7), (SIMPSON, 3)], ids=["Lobatto", "Simpson"])
def test_the_weights_are_exact_to_their_degree_and_no_further(weights, degree):
    nodes = (0.0, *NODES)

    def off(k):
        return abs(sum(w * u**k for w, u in zip(weights, nodes, strict=True)) - 1 / (k + 1))

    assert all(off(k) < 1e-15 for k in range(degree + 1)) and off(degree + 1) > 1e-5
    assert len(NODES) == PER_STEP and nodes[-1] == 1
    assert all(abs(a + b - 1) < 1e-15 for a, b in zip(nodes, reversed(nodes), strict=True))


@pytest.mark.parametrize("method", ["bosh5", "dopri5", "tsit5"])
def test_one_step_is_of_sixth_order_and_its_error_of_fifth(method):
    """The continuous extension is off by h⁵ inside the step and the rule sums it, h⁶; δ is that of Simpson's rule."""
    batch, net, trace = dense(), Net(), Exact()
    off, claimed = [], []
    with torch.no_grad():
        for size in (0.1, 0.05, 0.01, 0.005):
            h = torch.full((3,), size, dtype=torch.float64)
            walk = Walk(
                lambda t, x, b, p: (net(t, x, b), None),
                batch.x,
                0.3,
                1.0,
                batch,
                None,
                METHODS[method],
                lambda t, x, b, p: trace(net, t, x, b)[1],
            )
            step = walk.step(h)
            gain, error, rate = along(walk, step, step.v, h)
            truth = joint(net, trace, batch, 0.3, 0.3 + size, tight(1e-12)).logdet
            off.append(float((gain - truth).abs().max()))
            claimed.append(float(error.max()))
            assert torch.equal(rate, trace(net, walk.t + h, step.x, batch)[1].double())
    assert off[0] / off[1] > 2**5.4 and 2**4.8 < claimed[2] / claimed[3] < 2**5.2


# -- the integral --------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("batch", [dense(), ragged()], ids=["dense, B == D", "ragged"])
@pytest.mark.parametrize("trace", [Exact(), Hutchinson(3)], ids=str)
def test_it_is_the_integral_that_stages_would_sum(trace, batch, direction):
    net, probes = Net(), trace.draw(batch, rng(3))
    with torch.no_grad():
        truth = joint(net, trace, batch, *direction, tight(1e-11), probes)
        for tolerance in (1e-3, 1e-5, 1e-8):
            found = summed(net, trace, batch, *direction, tight(tolerance), probes)
            bound = 10 * tolerance * (batch.dims[:, None] + truth.logdet.abs())
            assert found.logdet.shape == truth.logdet.shape and found.logdet.dtype == torch.float64
            assert ((found.logdet - truth.logdet).abs() <= bound).all()
            assert (found.x - truth.x).abs().max() <= 10 * tolerance


def test_the_error_follows_the_tolerance():
    """A hundredth of the tolerance is at least a thirtieth of the error, down to 1e-9."""
    net, batch = Net(), dense()
    with torch.no_grad():
        truth = joint(net, Exact(), batch, 1.0, 0.0, tight(1e-12)).logdet
        off = [float((summed(net, Exact(), batch, 1.0, 0.0, tight(r)).logdet - truth).abs().max()) for r in TOLERANCES]
    assert off[0] / off[-1] > 30**3 and off[-1] < 1e-8


TOLERANCES = (1e-3, 1e-5, 1e-7, 1e-9)


@pytest.mark.parametrize("method", ["bosh5", "dopri5", "tsit5", "bosh3", "heun"])
@pytest.mark.parametrize(("t0", "t1"), DIRECTIONS)
def test_a_linear_flow_has_the_trace_of_its_matrix(method, t0, t1):
    A = torch.randn(3, 3, generator=rng(4), dtype=torch.float64)
    batch = dense()
    with torch.no_grad():
        found = summed(lambda t, x, b: x @ A.T * b.spread(1 + t), Exact(), batch, t0, t1, tight(1e-4, method))
    wanted = (t1 - t0 + (t1**2 - t0**2) / 2) * A.trace()
    assert torch.allclose(found.logdet[:, 0], wanted.expand(3), atol=1e-10)  # of degree 1, whatever the steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [dense, ragged])
def test_both_dtypes(dtype, batch):
    with torch.no_grad():
        found = summed(Net(dtype), Exact(), batch(dtype), 1.0, 0.0)
        truth = joint(Net(), Exact(), batch(), 1.0, 0.0, tight())
    assert found.x.dtype == dtype and found.logdet.dtype == torch.float64
    assert torch.allclose(found.logdet, truth.logdet, atol=1e-3)


def test_edges():
    net, batch = Net(), ragged()
    with torch.no_grad():
        assert summed(net, Exact(), batch, 1.0, 0.0).logdet[2] == 0  # the empty sample
        still = summed(net, Exact(), batch, 0.5, 0.5)
        assert torch.equal(still.x, batch.x) and (still.logdet == 0).all() and still.logdet.shape == (4, 1)
        assert (still.nfe == 2).all()
        none = Batch(torch.zeros(0, 3, dtype=torch.float64))
        nothing = summed(net, Hutchinson(2), none, 1.0, 0.0, probes=torch.zeros(2, 0, 3, dtype=torch.float64))
        assert nothing.x.shape == (0, 3) and nothing.logdet.shape == (0, 2)


@pytest.mark.parametrize(("t0", "t1"), DIRECTIONS[:2])
def test_log_determinants_at_times_in_between(t0, t1):
    net, batch, trace = Net(), ragged(), Hutchinson(2)
    probes, times = trace.draw(batch, rng()), [t0, 0.7 * t0 + 0.3 * t1, 0.5, t1]
    with torch.no_grad():
        found = summed(net, trace, batch, t0, t1, tight(1e-8), probes, times=times)
        for i, t in enumerate(times):
            truth = joint(net, trace, batch, t0, t, tight(1e-10), probes)
            assert torch.allclose(found.path_logdet[i], truth.logdet, atol=1e-5)
            assert torch.allclose(found.path[i], truth.x, atol=1e-6)
        inner = summed(net, trace, batch, t0, t1, tight(1e-8), probes, times=times[1:3])
    assert torch.equal(found.path_logdet[-1], found.logdet) and (found.path_logdet[0] == 0).all()
    assert torch.equal(inner.path_logdet, found.path_logdet[1:3])


# -- the work ------------------------------------------------------------------------------------------


class Counts:
    """A field with a pole at x = 0.4 t, and its divergence, that count how often they are asked, and at which times."""

    def __init__(self):
        self.velocities, self.divergences = 0, []

    def velocity(self, t, x, b, p=None):
        self.velocities += 1
        return 1 / (0.02 + (x - b.spread(0.4 * t)).square()), None

    def divergence(self, t, x, b, p):
        self.divergences.append(t)
        off = x - b.spread(0.4 * t)
        return b.total(-2 * off / (0.02 + off.square()).square())[:, None]


@pytest.mark.parametrize("method", ["bosh5", "bosh3", "heun"])
@pytest.mark.parametrize(("t0", "t1"), DIRECTIONS[:2])
def test_evaluations_are_counted_and_refused_steps_take_no_divergence(method, t0, t1):
    field, one = Counts(), Batch(torch.full((1, 1), -0.3, dtype=torch.float64))
    solver = Solver(method, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        found = integrate(field.velocity, one.x, t0, t1, one, solver, divergence=field.divergence)
    assert int(found.nfe) == field.velocities + len(field.divergences)
    asked = (len(field.divergences) - 1) / PER_STEP
    assert int(found.accepted) <= asked <= int(found.accepted + found.rejected) and (t1 < t0 or int(found.rejected) > 0)
    assert asked == int(asked) and all(0 <= t <= 1 for t in field.divergences)


def test_it_takes_fewer_divergences_than_stages_and_no_more_steps():
    net, batch = Net(), dense()
    divergences = 0

    class Counting:
        def __call__(self, velocity, t, x, b, probes):
            nonlocal divergences
            divergences += len(b)
            return Exact()(net, t, x, b)

    with torch.no_grad():
        for tolerance in (1e-4, 1e-6, 1e-8):
            stages = joint(net, Exact(), batch, 1.0, 0.0, tight(tolerance))
            divergences = 0
            found = summed(net, Counting(), batch, 1.0, 0.0, tight(tolerance))
            assert divergences < 0.75 * float(stages.nfe.sum())
            assert float(found.accepted.sum()) <= 1.2 * float(stages.accepted.sum())


# -- samples of their own ------------------------------------------------------------------------------

RATES = torch.tensor([1.0, 60.0, 5.0, 20.0], dtype=torch.float64)


def stiff(t, x, batch):
    """Relaxation to a wave, each sample at its own rate, with rows that see each other."""
    rate, mean = batch.context["rate"], batch.total(x) / batch.dims.clamp(min=1)
    return -batch.spread(rate) * torch.sin(x - batch.spread(torch.cos(5 * t) + 0.1 * mean))


@pytest.mark.parametrize(
    "batch", [Batch(torch.randn(4, 3, generator=rng(5)).double()), ragged()], ids=["dense", "ragged"]
)
def test_no_sample_depends_on_its_batch_mates(batch):
    """Neither its answer, nor its steps, nor what it is said to cost; mates leave on the way, with their probes."""
    batch = Batch(batch.x, batch.index, 4, {"rate": RATES})
    trace, sizes, rejected = Hutchinson(2), [], 0
    probes = trace.draw(batch, rng())

    class Watched:
        def __call__(self, velocity, t, x, b, p):
            assert p.shape == (2, *x.shape) and len(b) == len(t)
            sizes.append(len(b))
            return trace(velocity, t, x, b, p)

    for tolerance in (1e-2, 1e-4, 1e-6):
        with torch.no_grad():
            together = summed(stiff, Watched(), batch, 0.0, 1.0, tight(tolerance), probes)
            for b in range(4):
                one = batch.select([b])
                own = torch.stack([batch.replace(p).select([b]).x for p in probes])
                alone = summed(stiff, trace, one, 0.0, 1.0, tight(tolerance), own)
                assert torch.allclose(alone.logdet[0], together.logdet[b], atol=1e-12)
                for what in ("nfe", "accepted", "rejected"):
                    assert int(getattr(alone, what)) == int(getattr(together, what)[b]), what
        rejected += int(together.rejected.sum())
        assert len(together.accepted.unique()) > 1
    assert min(sizes) < max(sizes) == 4 and rejected > 0


def test_a_refused_step_does_not_hear_of_a_divergence_that_only_a_mate_asked_for():
    """Refused for x, a sample would take another next step if its divergence were looked at because a mate is good."""

    def wave(t, b):
        return b.context["rate"] * torch.exp(-(((t - 0.53) / 0.03) ** 2))

    def field(t, x, b, p):
        return b.spread(wave(t, b)) * torch.cos(x), None

    def divergence(t, x, b, p):
        return (1e3 * wave(t, b))[:, None]

    batch = Batch(dense().x, context={"rate": torch.tensor([0.0, 1.0, 30.0], dtype=torch.float64)})
    for tolerance in (1e-3, 1e-4, 1e-5, 1e-6):
        with torch.no_grad():
            together = integrate(field, batch.x, 0, 1, batch, tight(tolerance), divergence=divergence)
            for b in range(3):
                one = batch.select([b])
                alone = integrate(field, one.x, 0, 1, one, tight(tolerance), divergence=divergence)
                for what in ("nfe", "accepted", "rejected"):
                    assert int(getattr(alone, what)) == int(getattr(together, what)[b]), what
                assert torch.allclose(alone.x[0], together.x[b], atol=1e-12)


# -- what must not be missed ---------------------------------------------------------------------------


def bump(centre, width, size):
    def velocity(t, x, b):
        return size * b.spread(torch.exp(-(((t - centre) / width) ** 2))) * x

    def integral(t0, t1):
        ends = (math.erf((t - centre) / width) for t in (t0, t1))
        return -size * width * math.sqrt(math.pi) / 2 * (next(ends) - next(ends))

    return velocity, integral


@pytest.mark.parametrize(("t0", "t1"), DIRECTIONS)
@pytest.mark.parametrize("size", [1.0, -5.0, 30.0])
def test_a_bump_in_time_is_not_missed(size, t0, t1):
    velocity, integral = bump(0.53, 0.03, size)
    batch = dense()
    with torch.no_grad():
        found = summed(velocity, Exact(), batch, t0, t1)
    assert torch.allclose(found.logdet[:, 0], torch.tensor(3 * integral(t0, t1)).double(), atol=1e-3)


@pytest.mark.parametrize(("width", "share"), [(0.1, 1.0), (0.03, 1.0), (0.01, 0.5)])
def test_what_the_curve_has_seen_the_log_determinant_has(width, share):
    """Wherever the bump is: a curve may jump over one that is narrower than its steps, the sum over none it took."""
    batch, seen = dense(), 0
    for i in range(19):
        velocity, integral = bump(0.0371 + 0.051 * i, width, 0.5 / width)
        with torch.no_grad():
            found = summed(velocity, Exact(), batch, 0.0, 1.0)
        took = ((found.x / batch.x).log() - integral(0.0, 1.0)).abs().amax(1) < 1e-3
        off = (found.logdet[:, 0] - 3 * integral(0.0, 1.0)).abs()
        assert (off[took] < 2e-3).all(), i
        seen += int(took.sum())
    assert seen >= share * 3 * 19


@pytest.mark.parametrize(("t0", "t1"), DIRECTIONS[:2])
def test_a_divergence_that_does_not_move_the_curve_chooses_the_steps_itself(t0, t1):
    velocity, integral = bump(0.53, 0.1, 3.0)
    batch = Batch(torch.zeros(2, 3, dtype=torch.float64))
    with torch.no_grad():
        found = summed(velocity, Exact(), batch, t0, t1)
    assert torch.equal(found.x, batch.x) and (found.rejected > 0).all()
    assert torch.allclose(found.logdet[:, 0], torch.tensor(3 * integral(t0, t1)).double(), atol=1e-4)


@pytest.mark.parametrize(("t0", "t1"), DIRECTIONS[:2])
def test_a_kink(t0, t1):
    def velocity(t, x, b):
        return x * b.spread((t - 0.4137).abs() * 5)

    with torch.no_grad():
        found = summed(velocity, Exact(), dense(), t0, t1, tight(1e-7))
    truth = (t1 - t0) * 3 * 5 * (0.4137**2 + 0.5863**2) / 2
    assert torch.allclose(found.logdet, torch.full((3, 1), truth).double(), atol=1e-4)


# -- gradients -----------------------------------------------------------------------------------------


def test_gradients_are_those_of_finite_differences():
    net, batch = Net(), dense()

    def total(w, x):
        with torch.no_grad():
            net.w.copy_(w)
        with torch.enable_grad():
            return summed(net, Exact(), batch.replace(x), 1.0, 0.0, tight(1e-8)).logdet[0].sum()

    x, w = batch.x.clone().requires_grad_(), net.w.detach().clone()
    slopes = torch.autograd.grad(total(w, x), (net.w, x))
    assert (slopes[1][1:] == 0).all()  # of the other samples
    for i, j in ((0, 0), (1, 2), (2, 1)):
        unit = torch.zeros(3, 3, dtype=torch.float64).index_put(
            (torch.tensor(i), torch.tensor(j)), torch.tensor(1e-4).double()
        )
        for slope, plus, minus in (
            (slopes[0], (w + unit, batch.x), (w - unit, batch.x)),
            (slopes[1], (w, batch.x + unit), (w, batch.x - unit)),
        ):
            assert abs(float((total(*plus) - total(*minus)).detach()) / 2e-4 - float(slope[i, j])) < 1e-5


def test_a_graph_is_kept_only_where_gradients_are_enabled():
    net, batch = Net(), ragged()
    kept = summed(net, Exact(), batch, 1.0, 0.0)
    with torch.no_grad():
        free = summed(net, Exact(), batch, 1.0, 0.0)
    assert kept.logdet.requires_grad and kept.x.requires_grad and not free.logdet.requires_grad
    assert torch.allclose(kept.logdet, free.logdet, atol=1e-12) and torch.equal(kept.nfe, free.nfe)


# -- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 1, 1), (1, 1)])
def test_a_divergence_of_another_shape_is_refused(shape):
    batch = dense()
    with pytest.raises(ValueError, match=r"divergence \(samples, probes\), here \(3, K\), got"):
        integrate(lambda t, x, b, p: (x, None), batch.x, 0, 1, batch, divergence=lambda *at: torch.ones(shape))


def test_fixed_steps_take_the_divergence_of_the_field():
    batch = dense()
    with pytest.raises(ValueError, match="fixed steps take the divergence of the field"):
        summed(Net(), Exact(), batch, 0.0, 1.0, Solver("rk4", steps=5))


@pytest.mark.parametrize(("start", "says"), [(0.0, "not finite near t=0 for"), (0.4, "the step shrank")])
def test_a_divergence_that_is_not_finite_is_an_error(start, says):
    batch = Batch(torch.zeros(2, 3, dtype=torch.float64), context={"from": torch.tensor([2.0, start]).double()})

    def divergence(t, x, b, p):
        return torch.where(t >= b.context["from"], torch.nan, 1.0)[:, None]

    with pytest.raises(SolverError, match=rf"{says}.* sample\(s\) 1 |{says}.*sample\(s\) 1\."):
        integrate(lambda t, x, b, p: (torch.ones_like(x), None), batch.x, 0, 1, batch, divergence=divergence)


# -- degrees of freedom --------------------------------------------------------------------------------


def test_zeros_outside_of_a_mask_do_not_dilute_the_tolerance():
    """Four live values among 1020 zeros are solved as four are."""
    live = torch.randn(1, 4, generator=rng(6), dtype=torch.float64)
    wide = torch.zeros(1, 1024, dtype=torch.float64)
    wide[:, :4] = live

    def field(t, x, b, p):
        return torch.sin(5 * x) * b.spread(torch.cos(9 * t)), None

    def divergence(t, x, b, p):
        alive = torch.cos(5 * x[:, :4]).sum(1) * 5 * torch.cos(9 * t)
        return alive[:, None]

    def solve(x, dims=None, tolerance=1e-5):
        return integrate(field, x, 0, 1, Batch(x), tight(tolerance), divergence=divergence, dims=dims)

    truth = solve(live, tolerance=1e-12)
    four, full = solve(live), solve(wide, torch.tensor([4.0]))
    assert torch.allclose(full.logdet, four.logdet, atol=1e-12) and torch.equal(full.nfe, four.nfe)
    assert torch.allclose(full.x[:, :4], four.x, atol=1e-12)
    diluted = solve(wide)
    off = [float((s.logdet - truth.logdet).abs()) for s in (four, full, diluted)]
    assert off[1] < 1e-4 and off[2] > 3 * off[1]
    assert int(diluted.accepted) < int(full.accepted)


def test_degrees_of_freedom_are_one_number_per_sample_and_follow_it():
    batch = Batch(dense().x, context={"rate": RATES[:3]})
    dims = torch.tensor([3.0, 1.0, 2.0])
    together = summed(stiff, Exact(), batch, 0.0, 1.0, dims=dims)
    for b in range(3):
        alone = summed(stiff, Exact(), batch.select([b]), 0.0, 1.0, dims=dims[b : b + 1])
        assert int(alone.nfe) == int(together.nfe[b])
    with pytest.raises(ValueError, match=r"dims must be one number per sample, \(3,\), got \(3, 1\)"):
        summed(stiff, Exact(), batch, 0.0, 1.0, dims=dims[:, None])
