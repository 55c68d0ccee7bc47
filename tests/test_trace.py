"""Divergence estimators against the Jacobian itself, on every layout."""

import pytest
import torch

from scifm.batch import Batch
from scifm.trace import Exact, Hutchinson, default

W = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def velocity(t, x, batch):
    """Mixes rows within a sample and coordinates within a row; depends on t."""
    mean = batch.total(x) / batch.dims.clamp(min=1)
    w = W.to(x)
    return torch.sin(x @ w) * batch.spread(1 + t) + 0.3 * x * batch.spread(mean)


def layouts(dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    index = torch.tensor([0, 0, 0, 1, 3, 3])
    return {
        "vector": Batch(torch.randn(4, 3, generator=g, dtype=dtype)),
        "B == D": Batch(torch.randn(3, 3, generator=g, dtype=dtype)),
        "B == 1": Batch(torch.randn(1, 3, generator=g, dtype=dtype)),
        "grid": Batch(torch.randn(2, 1, 4, 3, generator=g, dtype=dtype)),
        "ragged": Batch(torch.randn(6, 3, generator=g, dtype=dtype), index, 4),
    }


def jacobian_trace(t, batch):
    traces = []
    for b in range(len(batch)):
        part = batch.select([b])
        n = part.x.numel()
        if n == 0:
            traces.append(torch.zeros((), dtype=part.x.dtype))
            continue
        jacobian = torch.autograd.functional.jacobian(lambda x, p=part, b=b: velocity(t[b : b + 1], x, p), part.x)
        traces.append(jacobian.reshape(n, n).trace())
    return torch.stack(traces)


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("block", [1, 5, 64])
def test_exact_is_the_trace_of_the_jacobian(name, block):
    batch = layouts()[name]
    t = torch.rand(len(batch), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    v, divergence = Exact(block)(velocity, t, batch.x, batch, None)
    assert torch.allclose(v, velocity(t, batch.x, batch))
    assert torch.allclose(divergence[:, 0], jacobian_trace(t, batch), atol=1e-12)


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_hutchinson_agrees_within_its_own_standard_error(name, kind):
    batch = layouts()[name]
    t = torch.rand(len(batch), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    trace = Hutchinson(2000, kind)
    divergence = trace(velocity, t, batch.x, batch, trace.draw(batch, torch.Generator().manual_seed(3)))[1]
    error = divergence.std(1) / 2000**0.5
    assert ((divergence.mean(1) - jacobian_trace(t, batch)).abs() < 4.5 * error + 1e-12).all()
    if name == "vector":
        assert (error > 0).all()  # a test that cannot fail would have no error to compare with


def test_rademacher_is_exact_for_a_diagonal_jacobian():
    batch = layouts()["ragged"]
    trace = Hutchinson(1)
    divergence = trace(lambda t, x, b: x**3, torch.zeros(4), batch.x, batch, trace.draw(batch))[1]
    assert torch.allclose(divergence[:, 0], batch.total(3 * batch.x**2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probes_take_the_dtype_of_the_data(dtype):
    batch = layouts(dtype)["grid"]
    for trace in (Exact(), Hutchinson(3)):
        v, divergence = trace(velocity, torch.zeros(2, dtype=dtype), batch.x, batch, trace.draw(batch))
        assert v.dtype == divergence.dtype == dtype and not v.requires_grad and not divergence.requires_grad


def test_works_without_gradients_around_it_and_for_constant_velocities():
    batch = layouts()["vector"]
    with torch.no_grad():
        assert Exact()(velocity, torch.zeros(4), batch.x, batch, None)[1].abs().sum() > 0
    for trace in (Exact(), Exact(1), Hutchinson(2)):
        still = trace(lambda t, x, b: torch.ones_like(x), torch.zeros(4), batch.x, batch, trace.draw(batch))[1]
        assert (still == 0).all()
        weight = torch.ones(3, dtype=torch.float64, requires_grad=True)  # a network that ignores x
        blind = lambda t, x, b, w=weight: w.expand_as(x) * 2  # noqa: E731
        still = trace(blind, torch.zeros(4), batch.x, batch, trace.draw(batch))[1]
        assert (still == 0).all()


def test_probes_are_seeded_and_must_be_drawn():
    batch = layouts()["vector"]
    trace = Hutchinson(2)
    a, b = (trace.draw(batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b) and set(a.unique().tolist()) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="once per solve"):
        trace(velocity, torch.zeros(4), batch.x, batch, None)


def test_default_and_bad_settings():
    assert isinstance(default(Batch(torch.zeros(1, 64))), Exact)
    assert isinstance(default(Batch(torch.zeros(1, 65))), Hutchinson)
    with pytest.raises(ValueError, match="block"):
        Exact(0)
    with pytest.raises(ValueError, match="probes >= 1"):
        Hutchinson(0)
