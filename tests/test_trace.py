"""Divergence estimators against the Jacobian itself, on every layout, and the contract that all of them keep."""

import pytest
import torch
from torch import nn

from scifm import networks
from scifm.batch import Batch
from scifm.testing import check_trace
from scifm.testing.trace import full_trace
from scifm.trace import Colours, Exact, Hutchinson, HutchPlusPlus, default
from scifm.trace.hutchpp import orthonormal

W = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TRACES = [
    Exact(),
    Exact(1),
    Exact(5),
    Exact(mode="forward"),
    Exact(3, mode="forward"),
    Hutchinson(3),
    Hutchinson(2, "gaussian"),
    Hutchinson(2, mode="forward"),
    HutchPlusPlus(3),
    HutchPlusPlus(7),
    HutchPlusPlus(30),  # a wider sketch than most samples have numbers
]


def stencil(t, x, batch):
    """Each point sees its neighbours on all axes and the other channel there, around the seam."""
    near = x + 0.3 * x.flip(1)
    for axis in range(2, x.ndim):
        near = near + 0.4 * torch.sin(x.roll(1, axis)) - 0.7 * x.roll(-1, axis) * x
    return torch.tanh(near) * batch.spread(1 + t)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("trace", TRACES, ids=str)
def test_every_trace_keeps_its_contract(trace):
    check_trace(trace)


@pytest.mark.parametrize("signs", [0, 3])
@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("event", [(2, 7), (2, 4, 5)], ids=str)
def test_colours_keep_it_too(event, radius, signs):
    like = Batch(torch.randn(2, *event, generator=rng(1)))
    check_trace(Colours(radius, True, signs), stencil, like, draws=300)


# -- what the contract must notice ---------------------------------------------------------------------


class Wrong:
    def __init__(self, fault):
        self.fault = fault

    def draw(self, like, generator=None):
        if self.fault == "global":
            return torch.stack([like.randn(), like.randn()])
        if self.fault == "narrow":
            return Hutchinson(2).draw(like, generator).float()
        if self.fault == "scaled":
            return 1.1 * Hutchinson(2).draw(like, generator)
        if self.fault == "twins":
            return Hutchinson(1).draw(like, generator).repeat(2, *[1] * like.x.ndim)
        if self.fault == "mates":
            probe = Hutchinson(2).draw(like, generator)
            return probe
        return Hutchinson(2).draw(like, generator)

    def __call__(self, velocity, t, x, batch, probes):
        if self.fault == "fresh":
            probes = Hutchinson(2).draw(batch, torch.Generator().manual_seed(torch.seed() % 2**31))
        v, d = Hutchinson(2)(velocity, t, x, batch, probes)
        if self.fault == "summed":
            d = d.sum(1, keepdim=True)
        if self.fault == "lost":
            v, d = v.detach(), d.detach()
        if self.fault == "mates":
            d = d + d.mean(0)
        if self.fault == "flat":
            d = d.mean(1)
        if self.fault == "kept":
            d = d + torch.zeros((), dtype=d.dtype, requires_grad=True)
            with torch.enable_grad():
                d = d + torch.zeros((), dtype=d.dtype, requires_grad=True)
        return v, d


FAULTS = {
    "global": "equal generators give different draws",
    "narrow": "dtype of the data",
    "scaled": "covariance not one",
    "summed": "summed instead of averaged",
    "twins": "times the variance",
    "fresh": "once per solve",
    "lost": "create_graph",
    "mates": "depends on its batch mates",
    "flat": "a column per estimate",
    "kept": "although gradients are disabled",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_traces_are_caught(fault):
    with pytest.raises((AssertionError, RuntimeError), match=FAULTS[fault]):
        check_trace(Wrong(fault))


def test_a_sketch_that_is_not_orthonormal_would_be_caught(monkeypatch):
    """Hutch++ with QR left out."""
    monkeypatch.setattr("scifm.trace.hutchpp.orthonormal", lambda columns, batch: columns)
    with pytest.raises(AssertionError, match="mean divergence|must have itself"):
        check_trace(HutchPlusPlus(6), linear, Batch(torch.randn(2, 3, generator=rng())))


def linear(t, x, batch):
    return x @ W.to(x)


# -- exact ---------------------------------------------------------------------------------------------


def random(network, dtype=torch.float64):
    torch.manual_seed(0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    return network.to(dtype)


NETWORKS = {
    "mlp": (lambda: networks.MLP((2, 3), hidden=(8,)), lambda g: Batch(torch.randn(6, 2, 3, generator=g))),
    "unet": (
        lambda: networks.UNet(2, widths=(8, 8), padding=("reflect", "circular")),
        lambda g: Batch(torch.randn(2, 2, 4, 5, generator=g)),
    ),
    "unet pole": (
        lambda: networks.UNet(1, widths=(8, 8), padding=("pole", "circular")),
        lambda g: Batch(torch.randn(2, 1, 4, 6, generator=g)),
    ),
    "fno": (lambda: networks.FNO(1, 8, 3, 1), lambda g: Batch(torch.randn(2, 1, 4, 5, generator=g))),
    "dit": (lambda: networks.DiT(1, 2, 8, 1, 2), lambda g: Batch(torch.randn(2, 1, 4, 5, generator=g))),
    "pointnet": (
        lambda: networks.PointNet(3, hidden=(8,)),
        lambda g: Batch(torch.randn(7, 3, generator=g), torch.tensor([0, 0, 0, 1, 3, 3, 3]), 4),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_reverse_and_forward_agree_to_rounding_on_all_networks(name, dtype):
    make, data = NETWORKS[name]
    network, batch = random(make(), dtype), data(rng()).to(dtype)
    t = torch.rand(len(batch), generator=rng(2), dtype=dtype)

    def velocity(t, x, batch):
        return network(t, x, batch.replace(x))

    with torch.no_grad():
        found = [Exact(7, mode)(velocity, t, batch.x, batch) for mode in ("reverse", "forward")]
    for reverse, forward in zip(*found, strict=True):
        assert torch.allclose(reverse, forward, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=1e-6)
    if dtype == torch.float64:
        assert torch.allclose(found[0][1][:, 0], full_trace(velocity, t, batch), atol=1e-11)


def test_forward_mode_names_the_cure_where_a_network_does_not_allow_it():
    class OneWay(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    batch = Batch(torch.ones(2, 3))
    assert (Exact()(lambda t, x, b: OneWay.apply(x), torch.zeros(2), batch.x, batch)[1] == 6).all()
    with pytest.raises(RuntimeError, match='forward derivatives.*use mode="reverse"'):
        Exact(mode="forward")(lambda t, x, b: OneWay.apply(x), torch.zeros(2), batch.x, batch)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_second_derivatives_reach_what_comes_before(mode):
    """d/dx div(x³) = 6x, through x itself where it hangs in a graph."""
    start = torch.randn(2, 3, generator=rng(), dtype=torch.float64).requires_grad_()
    batch = Batch(start.detach())
    divergence = Exact(mode=mode)(lambda t, x, batch: x**3, torch.zeros(2), 2 * start, batch)[1]
    (slope,) = torch.autograd.grad(divergence.sum(), start)
    assert torch.allclose(slope, 2 * 6 * 2 * start)


def test_an_empty_batch_has_no_divergences():
    batch = Batch(torch.zeros(0, 3))
    for trace in (Exact(), Exact(mode="forward"), Hutchinson(2), HutchPlusPlus(4)):
        v, divergence = trace(lambda t, x, b: x, torch.zeros(0), batch.x, batch, trace.draw(batch))
        assert v.shape == (0, 3) and len(divergence) == 0


# -- subspaces -----------------------------------------------------------------------------------------


def mean_free(x, batch):
    """The orthogonal projection that takes the mean over its rows from each sample of points (N, 3)."""
    columns = [x[:, i] - batch.spread(batch.total(x[:, i]) / batch.counts.clamp(min=1))[:, 0] for i in range(3)]
    return torch.stack(columns, 1)


def masked(x, batch):
    return x * (torch.arange(x.shape[-1]) % 3 != 0).to(x)


POINTS = Batch(torch.randn(6, 3, generator=rng(3)).double(), torch.tensor([0] * 4 + [2] * 2), 3)
SUBSPACES = {
    "mean-free, ragged": (mean_free, POINTS),
    "mask, dense": (masked, Batch(torch.randn(3, 1, 2, 4, generator=rng(4)).double())),
}


@pytest.mark.parametrize("trace", [Exact(), Exact(mode="forward"), Hutchinson(800), HutchPlusPlus(4)], ids=str)
@pytest.mark.parametrize("name", SUBSPACES)
def test_projected_on_both_sides_the_trace_is_that_of_the_subspace(name, trace):
    """In an orthonormal basis E of the subspace the flow is y -> Eᵀ w(E y): its Jacobian has the same trace."""
    project, batch = SUBSPACES[name]

    def field(t, x, part):
        return project(torch.sin(project(x, part) @ W.new_tensor(0.7).expand(x.shape[-1], x.shape[-1]).tril()), part)

    t, copies = torch.zeros(len(batch), dtype=torch.float64), 1000 if trace == HutchPlusPlus(4) else 1
    many = batch.select([b for b in range(len(batch)) for _ in range(copies)])
    with torch.no_grad():
        found = trace(field, t.repeat_interleave(copies), many.x, many, trace.draw(many, rng(5)))[1]
    found = found.mean(1, keepdim=copies > 1).reshape(len(batch), -1) if copies > 1 else found
    for b in range(len(batch)):
        part, n = batch.select([b]), int(batch.dims[b])
        if not n:
            assert (found[b] == 0).all()
            continue
        unit = part.select([0] * n)
        every = torch.arange(n)
        P = unit.stack(project(unit.place(unit.x, every, torch.eye(n, dtype=torch.float64)), unit), every)
        values, vectors = torch.linalg.eigh(P)
        E = vectors[:, values > 0.5]
        assert E.shape[1] == (n - 3 if "ragged" in name else 4)
        J = torch.autograd.functional.jacobian(lambda x, p=part: field(t[:1], x, p), part.x).reshape(n, n)
        truth = (E.T @ J @ E).trace()
        error = found[b].std() / found.shape[1] ** 0.5 if found.shape[1] > 1 else 0.0
        assert abs(found[b].mean() - truth) < 5 * error + 1e-10
        # and the volume that a short step changes on the subspace is that trace
        step = 1e-6
        assert abs(torch.linalg.slogdet(torch.eye(E.shape[1]).double() + step * E.T @ J @ E)[1] / step - truth) < 1e-4


# -- probes --------------------------------------------------------------------------------------------


def test_rademacher_is_exact_for_a_diagonal_jacobian_and_gaussian_is_not():
    batch = Batch(torch.randn(6, 3, generator=rng(1)).double(), torch.tensor([0, 0, 0, 1, 3, 3]), 4)
    for kind, exact in (("rademacher", True), ("gaussian", False)):
        trace = Hutchinson(1, kind)
        divergence = trace(lambda t, x, b: x**3, torch.zeros(4), batch.x, batch, trace.draw(batch, rng()))[1]
        assert torch.allclose(divergence[:, 0], batch.total(3 * batch.x**2)) is exact


def test_works_without_gradients_around_it_and_for_constant_velocities():
    batch = Batch(torch.randn(4, 3, generator=rng(1)).double())
    with torch.no_grad():
        assert Exact()(lambda t, x, b: x**2, torch.zeros(4), batch.x, batch, None)[1].abs().sum() > 0
    for trace in (Exact(), Exact(1), Exact(mode="forward"), Hutchinson(2), HutchPlusPlus(4)):
        still = trace(lambda t, x, b: torch.ones_like(x), torch.zeros(4), batch.x, batch, trace.draw(batch))[1]
        assert (still == 0).all()
        weight = torch.ones(3, dtype=torch.float64, requires_grad=True)  # a network that ignores x
        blind = lambda t, x, b, w=weight: w.expand_as(x) * 2  # noqa: E731
        still = trace(blind, torch.zeros(4), batch.x, batch, trace.draw(batch))[1]
        assert (still == 0).all()


@pytest.mark.parametrize("trace", [Hutchinson(2), HutchPlusPlus(4), Colours(1, signs=2)], ids=str)
def test_probes_must_be_drawn_for_this_batch(trace):
    batch = Batch(torch.zeros(4, 1, 3))
    for probes in (None, trace.draw(Batch(torch.zeros(3, 1, 3)))):
        with pytest.raises(ValueError, match="once per solve"):
            trace(lambda t, x, b: x, torch.zeros(4), batch.x, batch, probes)


def test_inference_mode_is_refused():
    batch = Batch(torch.zeros(4, 3))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="no_grad"):
        Exact()(lambda t, x, b: x, torch.zeros(4), batch.x, batch, None)


# -- Hutch++ -------------------------------------------------------------------------------------------


def test_hutchpp_is_exact_where_the_sketch_holds_the_whole_range():
    """A Jacobian of rank 2 and a sketch of 2 columns: nothing is left to chance."""
    g = rng(2)
    a, b = (torch.randn(12, 2, generator=g, dtype=torch.float64) for _ in range(2))
    batch = Batch(torch.randn(5, 12, generator=g, dtype=torch.float64))
    trace = HutchPlusPlus(6)
    found = trace(lambda t, x, batch: x @ a @ b.T, torch.zeros(5), batch.x, batch, trace.draw(batch, rng()))[1]
    assert found.shape == (5, 2)
    assert torch.allclose(found, (a @ b.T).trace().expand(5, 2), atol=1e-10)


def test_hutchpp_beats_plain_probes_for_a_decaying_spectrum_at_equal_cost():
    g = rng(3)
    q, _ = torch.linalg.qr(torch.randn(60, 60, generator=g, dtype=torch.float64))
    J = (q * torch.arange(1, 61, dtype=torch.float64) ** -2.0) @ q.T
    batch = Batch(torch.zeros(300, 60, dtype=torch.float64))
    errors = {}
    for trace in (Hutchinson(12), HutchPlusPlus(12)):
        with torch.no_grad():
            found = trace(lambda t, x, b: x @ J.T, torch.zeros(300), batch.x, batch, trace.draw(batch, rng()))[1]
        errors[type(trace)] = float((found.mean(1) - J.trace()).square().mean().sqrt())
    assert errors[HutchPlusPlus] < 0.3 * errors[Hutchinson]


def test_columns_are_orthonormal_per_sample_and_dependent_ones_are_dropped():
    batch = Batch(torch.zeros(5, 1, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1]), 2)
    columns = [torch.randn(5, 1, generator=rng(s), dtype=torch.float64) for s in range(3)]
    basis = orthonormal([*columns[:2], columns[0] + 3 * columns[1], columns[2]], batch)
    Q = torch.stack(basis)[:, :, 0]
    first, second = Q[:, :3], Q[:, 3:]
    assert torch.allclose(first @ first.T, torch.diag(torch.tensor([1.0, 1.0, 0.0, 1.0])).double(), atol=1e-12)
    assert torch.allclose(second @ second.T, torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0])).double(), atol=1e-12)


# -- choice --------------------------------------------------------------------------------------------


def test_default_and_bad_settings():
    assert isinstance(default(Batch(torch.zeros(1, 64))), Exact)
    assert isinstance(default(Batch(torch.zeros(1, 65))), Hutchinson)
    assert isinstance(default(Batch(torch.zeros(0, 65))), Exact)
    for make, says in (
        (lambda: Exact(0), "block"),
        (lambda: Exact(mode="sideways"), "mode"),
        (lambda: Hutchinson(0), "probes >= 1"),
        (lambda: Hutchinson(2, "uniform"), "kind"),
        (lambda: HutchPlusPlus(2), "probes >= 3"),
        (lambda: Colours(-1), "radius"),
        (lambda: Colours(1, signs=-1), "signs"),
    ):
        with pytest.raises(ValueError, match=says):
            make()
