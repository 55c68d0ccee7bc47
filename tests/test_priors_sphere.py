"""Isotropic Gaussians on the sphere: harmonics of SciPy, dense normals on many grids, fits in closed form."""

import math

import numpy as np
import pytest
import torch

from scifm.batch import Batch
from scifm.priors import Prior, SphericalGaussian
from scifm.priors.harmonics import legendre, quadrature
from scifm.testing import check_prior

DOUBLE = torch.float64


def degrees(sin):
    return torch.rad2deg(torch.asin(torch.as_tensor(sin, dtype=DOUBLE)))


def gauss(H):
    return degrees(np.polynomial.legendre.leggauss(H)[0])


GRIDS = {  # latitudes, longitudes
    "Gauss-Legendre": (gauss(6), 12),
    "Gauss-Legendre, odd, descending": (gauss(5).flip(0), 9),
    "poles": (torch.linspace(90, -90, 7, dtype=DOUBLE), 12),
    "poles, odd": (torch.linspace(-90, 90, 4, dtype=DOUBLE), 7),
    "no poles": (torch.linspace(-82.5, 82.5, 12, dtype=DOUBLE), 5),
    "uneven": (torch.tensor([-80.0, -20, -5, 0, 33, 71], dtype=DOUBLE), 8),
    "one parallel": (torch.tensor([30.0], dtype=DOUBLE), 6),
}
EVERY = pytest.mark.parametrize("grid", GRIDS)


def basis(φ, W, lmax):
    """Real orthonormal harmonics at all points, (N, lmax²), and the degree of each; SciPy's, not ours."""
    special = pytest.importorskip("scipy.special")
    θ = np.deg2rad(90 - φ.numpy())[:, None]
    λ = (2 * np.pi * np.arange(W) / W)[None]
    columns, degree = [], []
    for l in range(lmax):
        for m in range(-l, l + 1):
            Y = special.sph_harm_y(l, abs(m), θ, λ)
            columns.append((Y.real + 0 * λ if m == 0 else math.sqrt(2) * (Y.real if m > 0 else Y.imag)).ravel())
            degree.append(l)
    return torch.from_numpy(np.stack(columns, 1)), torch.tensor(degree)


def falling(lmax):
    return 3.0 / (1 + torch.arange(lmax, dtype=DOUBLE)) ** 2


def dense(prior, φ, W, channel=0):
    Y, degree = basis(φ, W, prior.lmax)
    areas = quadrature(φ, W).repeat_interleave(W)
    return (Y * prior.spectrum[channel][degree]) @ Y.T + torch.diag(prior.noise[channel] / areas)


def draws(prior, n, seed=0):
    like = Batch(torch.zeros(n, *prior.shape, dtype=DOUBLE))
    return like.replace(prior.sample(like, torch.Generator().manual_seed(seed)))


def given(grid, channels=1, lmax=None, nugget=0.05, **more):
    φ, W = GRIDS[grid]
    lmax = min(len(φ), (W + 1) // 2) if lmax is None else lmax
    scale = torch.arange(1.0, channels + 1, dtype=DOUBLE)[:, None]
    return SphericalGaussian((channels, len(φ), W), φ, lmax, scale * falling(lmax), nugget, **more)


def test_legendre_functions_are_those_of_scipy():
    special = pytest.importorskip("scipy.special")
    φ = torch.tensor([-90.0, -77.3, -10, 0, 33.3, 89.9, 90], dtype=DOUBLE)
    P, θ = legendre(40, φ), np.deg2rad(90 - φ.numpy())
    for l in (0, 1, 2, 17, 39):
        for m in range(l + 1):
            wanted = (-1) ** m * special.sph_harm_y(l, m, θ, 0.0).real  # ours lack the sign
            assert np.allclose(P[m, l].numpy(), wanted, rtol=1e-9, atol=1e-12), (l, m)
        assert not P[l + 1 :, l].any()


def test_harmonics_are_orthonormal_on_gauss_legendre_grids_to_high_degree():
    φ = gauss(96)
    P, w = legendre(96, φ), quadrature(φ, 1)
    for m in (0, 1, 50, 95):
        G = (P[m] * w) @ P[m].T
        assert torch.allclose(G[m:, m:], torch.eye(96 - m, dtype=DOUBLE), atol=1e-11)


@EVERY
def test_areas_fill_the_sphere(grid):
    φ, W = GRIDS[grid]
    areas = quadrature(φ, W)
    assert bool((areas > 0).all()) and abs(float(areas.sum()) * W - 4 * math.pi) < 1e-12
    assert torch.allclose(quadrature(φ.flip(0), W), areas.flip(0))


def test_a_row_at_a_pole_has_the_area_of_its_cap():
    areas = quadrature(torch.tensor([90.0, 60, 30, 0, -30, -60, -90]), 4)
    assert float(areas[0]) == pytest.approx(2 * math.pi * (1 - math.sin(math.radians(75))) / 4)
    assert float(areas[3]) == pytest.approx(2 * math.pi * 2 * math.sin(math.radians(15)) / 4)


@EVERY
def test_it_is_a_dense_normal(grid):
    φ, W = GRIDS[grid]
    prior = given(grid, mean=2.0)
    normal = torch.distributions.MultivariateNormal(torch.full((len(φ) * W,), 2.0, dtype=DOUBLE), dense(prior, φ, W))
    data = draws(prior, 8)
    wanted = normal.log_prob(data.x.flatten(1))
    assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-10, atol=1e-10)
    assert torch.allclose(prior.score(data.x, data), Prior.score(prior, data.x, data), rtol=1e-9, atol=1e-9)
    z = prior.whiten(data.x, data)
    assert torch.allclose(prior.colour(z, data), data.x, rtol=1e-10, atol=1e-10)
    one = data.select([5])
    assert torch.allclose(prior.log_prob(one.x, one), wanted[5:6], rtol=1e-10, atol=1e-10)
    single = data.to(torch.float32)
    assert torch.allclose(prior.log_prob(single.x, single).double(), wanted, rtol=1e-4, atol=1e-3)


def test_channels_are_independent_each_with_its_spectrum():
    φ, W = GRIDS["poles"]
    prior = given("poles", channels=2)
    data = draws(prior, 5)
    parts = [
        torch.distributions.MultivariateNormal(torch.zeros(84, dtype=DOUBLE), dense(prior, φ, W, c)) for c in (0, 1)
    ]
    wanted = sum(p.log_prob(data.x[:, c].flatten(1)) for c, p in enumerate(parts))
    assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-10)


def test_the_formula_with_the_quadrature_weights():
    """The closed form on a Gauss-Legendre grid: one analysis, sums over degrees."""
    φ, W = GRIDS["Gauss-Legendre"]
    prior = given("Gauss-Legendre")
    data = draws(prior, 6)
    Y, degree = basis(φ, W, 6)
    w = quadrature(φ, W).repeat_interleave(W)
    y, s2, C = data.x.flatten(1), prior.noise[0], prior.spectrum[0][degree]
    a = (y * w) @ Y
    N, K = 72, 36
    logdet = w.log().sum() - (N - K) * s2.log() - (C + s2).log().sum()
    quadratic = ((y.square() * w).sum(1) - a.square().sum(1)) / s2 + (a.square() / (C + s2)).sum(1)
    wanted = 0.5 * (logdet - quadratic - N * math.log(2 * math.pi))
    assert torch.allclose(prior.log_prob(data.x, data), wanted, rtol=1e-11)


@EVERY
def test_covariance_depends_on_the_angle_alone_and_variance_is_the_power_over_4π(grid):
    φ, W = GRIDS[grid]
    prior = given(grid, nugget=1e-4)
    size = len(φ) * W
    like = Batch(torch.eye(size, dtype=DOUBLE).reshape(size, *prior.shape))
    root = prior.colour(like.x, like).flatten(1)
    noise = torch.diag(prior.noise[0] / quadrature(φ, W).repeat_interleave(W))
    lat, lon = torch.deg2rad(φ).repeat_interleave(W), (2 * math.pi * torch.arange(W) / W).repeat(len(φ))
    points = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], 1)
    C = prior.spectrum[0].numpy() * (2 * np.arange(prior.lmax) + 1) / (4 * math.pi)
    wanted = np.polynomial.legendre.legval((points @ points.T).numpy(), C)  # the addition theorem
    assert torch.allclose(root @ root.T - noise, torch.from_numpy(wanted), atol=1e-10)


@EVERY
def test_turned_about_its_axis_a_field_is_as_likely(grid):
    prior = given(grid)
    data = draws(prior, 4)
    assert torch.allclose(prior.log_prob(data.x.roll(2, -1), data), prior.log_prob(data.x, data), rtol=1e-11)


@pytest.mark.parametrize("grid", ["Gauss-Legendre", "poles", "no poles", "uneven"])
def test_fit_finds_the_spectrum_and_the_nugget(grid):
    φ, W = GRIDS[grid]
    truth = given(grid, channels=2, nugget=0.3, lmax=3, mean=1.0)
    fitted = SphericalGaussian(truth.shape, φ, 3).fit(draws(truth, 6000))
    assert torch.allclose(fitted.spectrum, truth.spectrum, rtol=0.1)
    assert torch.allclose(fitted.noise, truth.noise, rtol=0.03)
    assert fitted.mean.flatten().sub(1).abs().max() < 0.05
    data = draws(truth, 500, seed=1)
    gap = float((truth.log_prob(data.x, data) - fitted.log_prob(data.x, data)).mean()) / math.prod(truth.shape)
    assert -0.001 < gap < 0.002  # nats per value


def test_fit_is_the_closed_form_and_the_most_likely_on_a_gauss_legendre_grid():
    φ, W = GRIDS["Gauss-Legendre"]
    data = draws(given("Gauss-Legendre", nugget=0.3, lmax=4), 200)
    prior = SphericalGaussian((1, 6, 12), φ, 4).fit(data)
    Y, degree = basis(φ, W, 4)
    w = quadrature(φ, W).repeat_interleave(W)
    y = (data.x - prior.mean).flatten(1)
    e = torch.zeros(4, dtype=DOUBLE).index_add(0, degree, ((y * w) @ Y).square().mean(0))
    s2 = ((y.square() * w).sum(1).mean() - e.sum()) / (72 - 16)
    assert torch.allclose(prior.noise, s2[None], rtol=1e-10)
    assert torch.allclose(prior.spectrum[0], e / (2 * torch.arange(4) + 1) - s2, rtol=1e-10)
    best = float(prior.log_prob(data.x, data).sum())
    for change in torch.eye(4, dtype=DOUBLE) * 0.02:
        other = SphericalGaussian((1, 6, 12), φ, 4)
        other.mean.copy_(prior.mean)
        for sign in (1, -1):
            other._make(prior.spectrum * (1 + sign * change), prior.noise)
            assert float(other.log_prob(data.x, data).sum()) < best


def test_white_noise_of_the_sphere_has_no_spectrum_to_speak_of():
    φ, W = GRIDS["poles"]
    std = (2.0 / quadrature(φ, W)).sqrt()[:, None]
    x = std * torch.randn(4000, 1, 7, 12, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    prior = SphericalGaussian((1, 7, 12), φ, 4).fit(Batch(x))
    assert float(prior.noise) == pytest.approx(2.0, rel=0.02) and float(prior.spectrum.max()) < 0.1


def test_it_passes_the_public_check_and_its_draws_whiten():
    φ, W = GRIDS["poles, odd"]
    prior = given("poles, odd")
    check_prior(prior, Batch(torch.zeros(3, *prior.shape, dtype=DOUBLE)), samples=2048)
    L = torch.linalg.cholesky(dense(prior, φ, W))
    z = torch.linalg.solve_triangular(L, draws(prior, 20000).x.flatten(1).T, upper=False)
    assert z.mean(1).abs().max() < 0.04 and (z.cov() - torch.eye(28, dtype=DOUBLE)).abs().max() < 0.05


def test_a_checkpoint_loads_into_a_fresh_one():
    φ, _ = GRIDS["poles"]
    prior = given("poles")
    fresh = SphericalGaussian(prior.shape, φ)
    fresh.load_state_dict(prior.state_dict())
    data = draws(prior, 3)
    assert torch.equal(fresh.log_prob(data.x, data), prior.log_prob(data.x, data))
    assert torch.equal(fresh.spectrum, prior.spectrum)


PHI = torch.tensor([-60.0, 0, 60])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: SphericalGaussian((3, 8), PHI), "one latitude per row"),
        (lambda: SphericalGaussian((1, 4, 8), PHI), "one latitude per row"),
        (lambda: SphericalGaussian((1, 3, 8), PHI, 4), r"lmax must be in 1\.\.3"),
        (lambda: SphericalGaussian((1, 3, 4), PHI, 3), r"lmax must be in 1\.\.2"),
        (lambda: SphericalGaussian((1, 3, 8), PHI, nugget=0.0), "no density"),
        (lambda: SphericalGaussian((1, 3, 8), PHI, spectrum=-torch.ones(3)), "must be finite, not negative"),
        (lambda: SphericalGaussian((1, 3, 8), torch.tensor([0.0, 60, 30])), "ascend or descend"),
        (lambda: SphericalGaussian((1, 3, 8), torch.tensor([0.0, 60, 120])), "within -90 to 90"),
        (lambda: SphericalGaussian((1, 3, 8), PHI, mean=torch.zeros(1, 3, 8)), "same at all longitudes"),
        (lambda: SphericalGaussian((1, 3, 8), PHI).sample(Batch(torch.zeros(2, 1, 3, 8))), "call .fit"),
        (lambda: SphericalGaussian((1, 3, 8), PHI).fit(Batch(torch.ones(5, 1, 3, 8))), "never varies"),
        (lambda: SphericalGaussian((1, 3, 8), PHI).fit(Batch(torch.full((5, 1, 3, 8), math.nan))), "with NaN"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
