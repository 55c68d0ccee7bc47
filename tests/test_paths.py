"""Every path: the public check, its own formulas, its ends, and what it refuses."""

import math

import pytest
import torch

from scifm import Batch, paths
from scifm.paths import Affine, Bridge, Linear, Polynomial, Trigonometric, VarianceExploding, VariancePreserving
from scifm.testing import check_path

AFFINE = {
    "linear": Linear(),
    "linear with σ_min": Linear(0.1),
    "trigonometric": Trigonometric(),
    "polynomial 1": Polynomial(1.0),
    "polynomial 3": Polynomial(3.0),
    "VP": VariancePreserving(),
    "VP, constant rate": VariancePreserving(10.0, 10.0),
    "VE": VarianceExploding(),
    "own": Affine(lambda t: (0.5 * math.pi * t).sin() ** 2, lambda t: (0.5 * math.pi * t).cos() ** 2),
}
ALL = {**AFFINE, "bridge": Bridge(0.7)}
INDEX = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3, 3])
LIKES = {
    "ragged": Batch(torch.zeros(9, 3), INDEX, 4),
    "B == D": Batch(torch.zeros(3, 3)),
    "one": Batch(torch.zeros(1, 2, 3, 3)),
    "float64": Batch(torch.zeros(5, 2, dtype=torch.float64)),
}
TIMES = torch.linspace(0, 1, 201, dtype=torch.float64)


@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("name", ALL)
def test_every_path_passes_the_public_check(name, like):
    check_path(ALL[name], LIKES[like])


def test_every_path_of_the_package_is_tried():
    assert {type(p).__name__ for p in ALL.values()} == set(paths.__all__) - {"Path"}


@pytest.mark.parametrize("name", ALL)
def test_slopes_are_the_derivatives(name):
    t = TIMES[1:-1].clone().requires_grad_()
    alpha, sigma, alpha_dot, sigma_dot = ALL[name].coefficients(t)
    pairs = [(alpha, alpha_dot), (sigma, sigma_dot)]
    noise = ALL[name].noise(t)
    pairs += [] if noise is None else [noise]
    for value, slope in pairs:
        if value.requires_grad:  # constant coefficients have no graph
            (exact,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
        else:
            exact = torch.zeros_like(t)
        assert torch.allclose(slope.detach(), exact, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coefficients_are_finite_and_in_order_up_to_both_ends(name, dtype):
    alpha, sigma, alpha_dot, sigma_dot = coefficients = ALL[name].coefficients(TIMES.to(dtype))
    assert all(c.shape == TIMES.shape and c.dtype == dtype and c.isfinite().all() for c in coefficients)
    assert (alpha_dot * sigma - alpha * sigma_dot >= -1e-6).all(), "data take over from the prior"
    start, end = ALL[name].ends
    assert start > 0.99 and abs(end - 1) < 1e-4


def test_variance_preserving_solves_its_diffusion_equation():
    """dα/ds = −½ β α, and σ² fills up to one (Song et al. 2021), with s running backward in t."""
    path = VariancePreserving(0.1, 20.0)
    alpha, sigma, alpha_dot, _ = path.coefficients(TIMES)
    s = path.least + (1 - path.least) * (1 - TIMES)
    assert torch.allclose(alpha.square() + sigma.square(), torch.ones_like(s), atol=1e-14)
    assert torch.allclose(alpha_dot, (1 - path.least) * 0.5 * (0.1 + 19.9 * s) * alpha)
    assert float(alpha[0]) == pytest.approx(math.exp(-0.25 * 19.9 - 0.05), rel=1e-12)  # the published constant
    assert float(sigma[-1]) == pytest.approx(math.sqrt(0.1 * 1e-5), rel=1e-3)


def test_trigonometric_keeps_the_variance_and_ends_without_noise():
    alpha, sigma, _, _ = Trigonometric().coefficients(TIMES)
    assert torch.allclose(alpha.square() + sigma.square(), torch.ones_like(TIMES), atol=1e-14)
    assert float(sigma[-1]) == 0 and float(alpha[0]) == 0


def test_variance_exploding_falls_geometrically_and_never_moves_the_data():
    alpha, sigma, alpha_dot, _ = VarianceExploding(0.01, 10.0).coefficients(TIMES)
    assert (alpha == 1).all() and (alpha_dot == 0).all()
    assert torch.allclose(sigma[1:] / sigma[:-1], torch.full_like(sigma[1:], 1e-3 ** (1 / 200)))
    assert float(sigma[0]) == 10 and float(sigma[-1]) == pytest.approx(0.01)


def test_a_path_in_five_lines_is_the_one_written_out():
    like, t = Batch(torch.randn(6, 3, dtype=torch.float64)), torch.rand(6, dtype=torch.float64)
    x0 = torch.randn(6, 3, dtype=torch.float64)
    own = Affine(alpha=lambda t: t, sigma=lambda t: 1 - 0.9 * t)
    for mine, written in zip(own(x0, like.x, t, like), Linear(0.1)(x0, like.x, t, like), strict=True):
        assert torch.allclose(mine, written, atol=1e-14)


def test_powers_share_their_lines_with_the_linear_path():
    like, t = Batch(torch.randn(6, 3, dtype=torch.float64)), torch.rand(6, dtype=torch.float64)
    x0 = torch.randn(6, 3, dtype=torch.float64)
    assert torch.allclose(Polynomial(3.0)(x0, like.x, t, like)[0], Linear()(x0, like.x, t**3, like)[0])


def test_a_bridge_is_pinned_and_has_the_variance_of_brownian_motion_between():
    n, scale = 200_000, 0.7
    like = Batch(torch.zeros(n, 1, dtype=torch.float64))
    x0, x1 = torch.full_like(like.x, 2.0), torch.full_like(like.x, -1.0)
    for t in (0.0, 0.25, 0.5, 1.0):
        x_t, _ = Bridge(scale)(x0, x1, torch.full((n,), t, dtype=torch.float64), like, torch.Generator().manual_seed(0))
        assert abs(float(x_t.mean()) - (2 - 3 * t)) < 0.01
        assert abs(float(x_t.var()) - scale**2 * t * (1 - t)) < 0.01


def test_the_weighted_loss_of_a_bridge_has_a_finite_variance():
    """Unweighted, E‖u‖² grows without bound towards the ends (499 at t = 1e-6 in a library that did not weight)."""
    path = Bridge(1.0)
    t = torch.tensor([1e-9, 1e-6, 1e-3, 0.1], dtype=torch.float64)
    for at in (t, 1 - t):
        squared = path.weight(at) * path.noise(at)[1].square()
        assert (squared <= 1 + 1e-9).all()
    assert float(path.noise(t)[1][0]) > 40, "the slope itself is steep there"
    assert all(p.weight(t) is None for p in AFFINE.values())


def test_the_noise_of_a_bridge_is_seeded_and_leaves_the_global_state():
    like = Batch(torch.zeros(4, 3))
    state = torch.get_rng_state()
    half = torch.full((4,), 0.5)
    a, b, c = (Bridge()(like.x, like.x, half, like, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and not torch.equal(a[0], c[0])
    assert torch.equal(state, torch.get_rng_state())


def test_affine_paths_take_the_x0_that_is_handed_in():
    """A library's "target" path ignored it and drew white noise instead."""
    like = Batch(torch.zeros(3, 3))
    for path in AFFINE.values():
        x_0, _ = path(100 + torch.zeros(3, 3), like.x, torch.zeros(3), like)
        assert torch.allclose(x_0, 100 * path.ends[0] * torch.ones(3, 3))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Linear(1.0), "sigma_min"),
        (lambda: Polynomial(0.5), "power"),
        (lambda: Polynomial(math.inf), "power"),
        (lambda: VariancePreserving(0.1, 1.0), "more than a tenth of the data"),
        (lambda: VariancePreserving(4.0, 5.0), "more than a tenth of the data"),
        (lambda: VariancePreserving(20.0, 0.1), "beta_min <= beta_max"),
        (lambda: VariancePreserving(least=0.0), "least"),
        (lambda: VarianceExploding(0.0), "sigma_min"),
        (lambda: VarianceExploding(sigma_max=0.5), "sigma_max"),
        (lambda: Bridge(0.0), "scale"),
        (lambda: Affine(lambda t: t.sqrt(), lambda t: 1 - t), "infinite slope"),
        (lambda: Affine(lambda t: 1 - t, lambda t: t), "exchanged"),
        (lambda: Affine(lambda t: t.sum(), lambda t: 1 - t), "shape"),
        (lambda: Affine(lambda t: 0.5 + 0.5 * t, lambda t: 1 - t), r"at t=0 α/σ is 0.5/1"),
        (lambda: Affine(lambda t: 0.1 * t, lambda t: 1 - 0.5 * t), r"at t=1 0.1/0.5"),
    ],
)
def test_what_is_no_path_is_refused_when_it_is_made(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("bad", [(0.5, lambda t: 1 - t), (lambda t: t, 1.0), (torch.ones(3), torch.ones(3))])
def test_coefficients_that_are_no_functions_are_refused(bad):
    with pytest.raises(TypeError, match="alpha and sigma must be functions of t"):
        Affine(*bad)
