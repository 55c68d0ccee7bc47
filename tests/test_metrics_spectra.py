"""Spectra: Parseval for every kind, single modes where they belong, the power of known laws, and SciPy's harmonics."""

import math

import numpy as np
import pytest
import torch

from scifm.areas import cell_areas
from scifm.batch import Batch
from scifm.metrics import (
    Spectrum,
    degree_power,
    degree_spectrum,
    ffm_spectrum,
    radial_spectrum,
    spectrum_error,
    zonal_spectrum,
)
from scifm.priors import SpectralGaussian, spectra
from scifm.priors.harmonics import legendre

DOUBLE = torch.float64


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gaussian(n):
    return torch.from_numpy(np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(n)[0])))


# -- radial ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(8,), (9,), (8, 9), (5, 12), (1, 6), (4, 5, 6)])
@pytest.mark.parametrize("periodic", [True, False, "mixed"])
def test_parseval(grid, periodic):
    x = 3 + normal(4, 2, *grid)
    flags = [a % 2 == 0 for a in range(len(grid))] if periodic == "mixed" else periodic
    found = radial_spectrum(x, flags)
    torch.testing.assert_close(found.mean_square, x.square().mean())
    assert float(found.modes.sum()) == math.prod(grid) == found.size
    assert float(found.modes[0]) == 1 and float(found.k[0]) == 0 and (found.k.diff() > 0).all()
    torch.testing.assert_close(found.power[0], x.flatten(2).mean(-1).square().mean() * math.prod(grid))
    single = radial_spectrum(x.float(), flags)
    torch.testing.assert_close(single.power, found.power, rtol=1e-4, atol=1e-4)


def test_white_noise_is_one_everywhere_and_a_law_has_its_own_spectrum():
    white = radial_spectrum(normal(400, 1, 12, 15))
    assert float((white.power[1:] - 1).abs().max()) < 0.12
    prior = SpectralGaussian((1, 24, 30), (False, True), spectra.Matern(length=5.0))
    x = prior.sample(Batch(torch.zeros(300, 1, 24, 30, dtype=DOUBLE)), torch.Generator().manual_seed(0))
    found = radial_spectrum(x, (False, True))
    S = spectra.Matern(length=5.0)(prior.basis.k, None)
    width = 1 / 30
    ring = (prior.basis.k / width).round().clamp(min=1)
    for k, power in list(zip(found.k.tolist(), found.power.tolist(), strict=True))[1:]:
        inside = (ring == max(1, round(k / width))) & (prior.basis.k > 0)
        assert power == pytest.approx(float(S[inside].mean()), rel=0.25)


@pytest.mark.parametrize(("periodic", "k"), [(True, 5 / 16), (False, 5 / 16)])
def test_a_single_mode_is_in_its_ring(periodic, k):
    i = torch.arange(16, dtype=DOUBLE)
    wave = torch.cos(2 * math.pi * k * (i + (0 if periodic else 0.5)))
    found = radial_spectrum(wave.expand(1, 1, 16, 16), periodic)
    at = int(found.power.argmax())
    assert float(found.k[at]) == pytest.approx(k, abs=0.02)
    assert float(found.power[at] * found.modes[at] / found.size) == pytest.approx(0.5)


def test_rings_are_those_of_scipy_s_cosines():
    from scipy.fft import dctn

    x = normal(5, 1, 12, 12).cumsum(-1).cumsum(-2)
    power = (dctn(x[:, 0].numpy(), axes=(1, 2), norm="ortho") ** 2).mean(0).ravel()
    k = np.hypot(np.arange(12)[:, None] / 24, np.arange(12) / 24).ravel()
    found = radial_spectrum(x)
    for n in range(1, 12):
        ring = (k >= (n - 0.5) / 24) & (k < (n + 0.5) / 24)
        assert float(found.k[n]) == pytest.approx(k[ring].mean())
        assert float(found.power[n]) == pytest.approx(power[ring].mean())


def test_errors_of_spectra():
    x = normal(6, 1, 10, 12)
    base = radial_spectrum(x)
    error = spectrum_error(
        Spectrum(base.k, base.power * torch.tensor(10.0) ** (base.k / base.k.max()), base.modes, 1), base
    )
    assert error.max == pytest.approx(1) and error.mean == pytest.approx(float((base.k[1:] / base.k.max()).mean()))
    offset = spectrum_error(radial_spectrum(x + 100), base)  # the mean of a field does not count
    assert offset.max == pytest.approx(0, abs=1e-9)
    assert "mean 0.000" in str(offset)


# -- zonal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [12, 15])
def test_zonal_parseval_per_band(width):
    phi = torch.linspace(75, -75, 11, dtype=DOUBLE)
    x = normal(3, 2, 11, width)
    found = zonal_spectrum(x, phi, [(30, 60), (-90, 90)])
    areas = cell_areas(phi, torch.arange(width) * 360 / width)
    north = (phi >= 30) & (phi <= 60)
    for band, rows in enumerate((north, north | ~north)):
        mean = (x.square().mean((0, 1)) * areas)[rows].sum() / areas[rows].sum()
        torch.testing.assert_close(found.mean_square[band], mean)
    shifted = zonal_spectrum(x.roll(4, -1), phi, [(30, 60), (-90, 90)])
    torch.testing.assert_close(shifted.power, found.power)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(zonal_spectrum(x[..., order, :], phi[order], [(30, 60), (-90, 90)]).power, found.power)


# -- the sphere -----------------------------------------------------------------------------------------------------


GRIDS = {
    "gaussian": (gaussian(16), 32, 15),
    "poles": (torch.linspace(90, -90, 19, dtype=DOUBLE), 37, 14),
    "no poles": (torch.linspace(-85, 85, 18, dtype=DOUBLE), 36, 11),
}


@pytest.mark.parametrize("name", GRIDS)
def test_coefficients_are_found_again(name):
    """Fields made of harmonics with known coefficients: the powers come back exactly, as does the mean square."""
    phi, width, top = GRIDS[name]
    P, lam = legendre(top + 1, phi), torch.arange(width, dtype=DOUBLE) * 2 * math.pi / width + 0.3
    x, a, degree = torch.zeros(3, len(phi), width, dtype=DOUBLE), [], []
    for l in range(top + 1):
        for m in range(-l, l + 1):
            c = normal(3, seed=len(a)) / (1 + l)
            wave = torch.cos(m * lam) if m >= 0 else torch.sin(-m * lam)
            x += c[:, None, None] * (P[abs(m), l] * (1 if m == 0 else math.sqrt(2)))[:, None] * wave
            a.append(c)
            degree.append(l)
    wanted = degree_power(torch.stack(a, -1), torch.tensor(degree))
    found = degree_spectrum(x, phi, top)
    torch.testing.assert_close(found.power, wanted.power, rtol=1e-8, atol=1e-12)
    assert found.modes.tolist() == [2 * l + 1 for l in range(top + 1)]
    nodes, quadrature = np.polynomial.legendre.leggauss(40)  # mean square over the sphere, by another grid
    fine = legendre(top + 1, torch.from_numpy(np.rad2deg(np.arcsin(nodes))))
    one = torch.stack([(torch.stack(a, -1)[0, i] * fine[0, l]) for i, l in enumerate(degree) if i == l * l + l]).sum(0)
    zonal = degree_power(torch.stack([a[l * l + l][:1] for l in range(top + 1)], -1), torch.arange(top + 1))
    assert float(zonal.mean_square) == pytest.approx(float((one.square() * torch.from_numpy(quadrature)).sum() / 2))


def test_white_on_the_grid_is_not_white_on_the_sphere():
    """Independent cells of variance 1/area have C_l = 1 at every degree; of one variance they have not."""
    phi = gaussian(24)
    areas = cell_areas(phi, torch.arange(48) * 7.5)
    noise = normal(300, 24, 48)
    even = degree_spectrum(noise / areas.sqrt(), phi, 16)
    assert float((even.power - 1).abs().max()) < 0.12
    plain = degree_spectrum(noise, phi, 16)
    assert not torch.allclose(plain.power / plain.power.mean(), torch.ones_like(plain.power), atol=0.05)


# -- FFM's ----------------------------------------------------------------------------------------------------------


def test_ffm_s_spectrum_is_a_sum_over_a_diamond():
    x = normal(3, 8, 8)
    c = np.fft.fft2(x.numpy())
    wanted = [np.abs(sum(c[:, i, j - i] for i in range(j + 1))).mean() for j in range(1, 5)]
    np.testing.assert_allclose(ffm_spectrum(x).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: radial_spectrum(torch.zeros(3, 4)), r"\(B, C, \*grid\)"),
        (lambda: radial_spectrum(torch.full((1, 1, 4), math.nan)), "finite"),
        (lambda: radial_spectrum(torch.zeros(1, 1, 4, 4), (True,)), "one periodic flag per axis"),
        (lambda: zonal_spectrum(torch.zeros(4, 8), torch.zeros(5)), "latitude"),
        (lambda: zonal_spectrum(torch.zeros(2, 8), torch.tensor([0.0, 10.0]), [(40, 50)]), r"band \(40, 50\)"),
        (lambda: degree_spectrum(torch.zeros(4, 8), torch.linspace(-60, 60, 4), 4), "degrees up to 3, got 4"),
        (lambda: degree_power(torch.zeros(3), torch.tensor([0, 2, 2])), "without a gap"),
        (lambda: ffm_spectrum(torch.zeros(1, 5, 5)), "even n"),
        (lambda: spectrum_error(radial_spectrum(normal(1, 1, 8)), radial_spectrum(normal(1, 1, 9))), "one grid"),
        (lambda: spectrum_error(radial_spectrum(normal(1, 1, 8)), radial_spectrum(torch.zeros(1, 1, 8))), "no power"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
