"""Residuals against known solutions and solved systems; PDEBench's and The Well's errors from their definitions."""

import math

import numpy as np
import pytest
import torch

from scifm.metrics import boundary_rmse, conserved_rmse, darcy_residual, fourier_rmse, residual_norm, vrmse

DOUBLE = torch.float64


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- Darcy ----------------------------------------------------------------------------------------------------------


def manufactured(n):
    """u = sin πx sin 2πy with a = 1 + x² + y on n + 1 points a side, and f of these."""
    s = torch.linspace(0, 1, n + 1, dtype=DOUBLE)
    x, y = torch.meshgrid(s, s, indexing="ij")
    p, q = math.pi * x, 2 * math.pi * y
    u, a = p.sin() * q.sin(), 1 + x.square() + y
    slope = 2 * x * math.pi * p.cos() * q.sin() + 2 * math.pi * p.sin() * q.cos()
    return a, u, (a * 5 * math.pi**2 * u - slope)[1:-1, 1:-1]


def test_it_converges_as_the_square_of_the_spacing():
    errors = []
    for n in (16, 32, 64):
        a, u, f = manufactured(n)
        errors.append(float((darcy_residual(a, u, 1 / n) - f).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1) and errors[1] / errors[2] == pytest.approx(4, rel=0.1)
    both = darcy_residual(torch.stack([a, a.T]), torch.stack([u, u.T]), 1 / n)
    torch.testing.assert_close(both[1], both[0].T)
    torch.testing.assert_close(darcy_residual(a.float(), u.float(), 1 / n).double(), both[0], rtol=1e-2, atol=0.1)


def test_a_solved_system_leaves_nothing():
    """The matrix of the operator from unit vectors, solved for a random two-material square with u = 0 around it."""
    n, f = 9, 3.0
    a = torch.where(normal(n, n) > 0, 12.0, 3.0).double()
    inner = torch.zeros(49, n, n, dtype=DOUBLE)
    inner[:, 1:-1, 1:-1] = torch.eye(49, dtype=DOUBLE).reshape(49, 7, 7)
    A = darcy_residual(a.expand(49, n, n), inner, 0.1).reshape(49, 49).T
    torch.testing.assert_close(A, A.T)
    assert float(torch.linalg.eigvalsh(A).min()) > 0
    u = torch.zeros(n, n, dtype=DOUBLE)
    u[1:-1, 1:-1] = torch.linalg.solve(A, torch.full((49,), f, dtype=DOUBLE)).reshape(7, 7)
    assert float(residual_norm(darcy_residual(a, u, 0.1) - f, f)) < 1e-12
    assert float(u.min()) >= 0  # the maximum principle


def test_a_flux_through_layers_is_kept():
    """Layers in a row: the harmonic mean at faces gives one constant flux, so no residual across jumps."""
    a = torch.tensor([1.0, 1.0, 18.0, 18.0, 2.0, 5.0], dtype=DOUBLE)
    steps = 0.5 / a[:-1] + 0.5 / a[1:]  # of u for a flux of 1
    u = torch.cat([torch.zeros(1, dtype=DOUBLE), steps.cumsum(0)])
    assert float(darcy_residual(a.expand(4, 6), u.expand(4, 6), 1.0).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("name", "everywhere", "apart"), [("train_16", 1.22, 0.24), ("test_16", 1.11, 0.25), ("test_32", 1.52, 0.19)]
)
def test_the_floor_of_the_published_set(scifm_data, name, everywhere, apart):
    with np.load(scifm_data("pde_neuralop_small") / f"darcy_{name}.npz", allow_pickle=False) as file:
        x, u = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    r = darcy_residual(torch.where(x, 18.0, 1.0), u) - 50
    here = x[:, 1:-1, 1:-1]
    same = (here == x[:, :-2, 1:-1]) & (here == x[:, 2:, 1:-1]) & (here == x[:, 1:-1, :-2]) & (here == x[:, 1:-1, 2:])
    assert float(residual_norm(r, 50).mean()) == pytest.approx(everywhere, abs=0.01)
    assert float(residual_norm(r, 50, same).mean()) == pytest.approx(apart, abs=0.01)
    for material in (x, ~x):  # both coefficients and f are right: no bias on either side
        assert abs(float(r[same & material[:, 1:-1, 1:-1]].mean()) / 50) < 0.011
    wrong = darcy_residual(torch.where(x, 12.0, 1.0), u) - 50
    assert abs(float(wrong[same & here].mean()) / 50) > 0.3


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 10), (3, 8, 9), (2, 4, 5, 6)])
def test_errors_of_predictions_are_their_definitions(shape):
    u, v = normal(*shape), normal(*shape, seed=1)
    gap, axes = (u - v).numpy(), tuple(range(1, len(shape)))
    assert float(conserved_rmse(u, v)) == pytest.approx(np.sqrt((gap.mean(axes) ** 2).mean()))
    faces = [np.take(gap**2, end, axis).reshape(shape[0], -1) for axis in axes for end in (0, -1)]
    wanted = np.sqrt(sum(f.sum(1) for f in faces) / sum(f.shape[1] for f in faces)).mean()
    assert float(boundary_rmse(u, v)) == pytest.approx(wanted)
    spread = ((v - v.mean(axes, keepdim=True)) ** 2).mean(axes)
    torch.testing.assert_close(vrmse(u, v), ((u - v).square().mean(axes) / (spread + 1e-7)).sqrt())
    alone = torch.stack([vrmse(u[b : b + 1], v[b : b + 1])[0] for b in range(len(u))])
    torch.testing.assert_close(vrmse(u, v), alone)
    assert float(vrmse(v.mean(axes, keepdim=True).expand(shape), v).mean()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(3, 40), (3, 30, 26)])
def test_bands_are_pdebench_s(shape):
    """Loops over modes, as it is published."""
    u, v = normal(*shape), normal(*shape, seed=1)
    F = np.fft.fftn((u - v).numpy(), axes=range(1, len(shape)))
    halves = [n // 2 + (len(shape) == 2) for n in shape[1:]]
    shells = np.zeros((3, min(halves)))
    for index in np.ndindex(*halves):
        at = int(math.floor(math.sqrt(sum(i * i for i in index))))
        if at < min(halves):
            shells[:, at] += abs(F[(slice(None), *index)]) ** 2
    each = np.sqrt(shells.mean(0)) / math.prod(shape[1:])
    wanted = [each[:4].mean(), each[4:12].mean(), each[12:].mean()]
    np.testing.assert_allclose([float(e) for e in fourier_rmse(u, v)], wanted, rtol=1e-10)


def test_a_short_grid_has_no_high_wavenumbers():
    low, middle, high = fourier_rmse(normal(2, 16, 16), normal(2, 16, 16, seed=1))
    assert float(low) > 0 and float(middle) > 0 and math.isnan(float(high))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: darcy_residual(torch.ones(4, 4), torch.ones(4, 5)), "from 3 x 3"),
        (lambda: darcy_residual(torch.ones(2, 4), torch.ones(2, 4)), "from 3 x 3"),
        (lambda: darcy_residual(torch.eye(4), torch.ones(4, 4)), "a flag of two materials"),
        (lambda: residual_norm(torch.ones(4, 4), 0.0), "positive scale"),
        (lambda: conserved_rmse(torch.ones(4), torch.ones(4)), r"\(B, \*grid\)"),
        (lambda: vrmse(torch.ones(4, 4), torch.ones(4, 5)), "one shape"),
        (lambda: fourier_rmse(torch.ones(0, 4), torch.ones(0, 4)), "one shape"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
