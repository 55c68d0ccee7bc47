"""Two-dimensional flow against what is known: exact solutions, conserved quantities, order in time, symmetries."""

from __future__ import annotations

import math

import pytest
import torch

from scifm.data.vorticity import Fluid, eddies, energy, enstrophy, evolve, velocity

STILL = Fluid(viscosity=0.0)  # ideal: nothing is lost


def axes(n):
    """x along columns and y along rows."""
    x = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    return x, x[:, None]


def some(n=24, count=2, wavenumber=3.0):
    return 3 * eddies(count, n, torch.Generator().manual_seed(0), wavenumber)


def test_taylor_green_vortices_only_decay():
    x, y = axes(16)
    omega = 2 * torch.cos(x) * torch.cos(y)
    found = evolve(omega, 2.0, 0.25, Fluid(viscosity=0.1, friction=0.05))
    torch.testing.assert_close(found, omega * math.exp(-2 * (2 * 0.1 + 0.05)), rtol=1e-12, atol=1e-13)


def test_velocity_of_taylor_green_vortices():
    x, y = axes(16)
    u, v = velocity(2 * torch.cos(x) * torch.cos(y))
    torch.testing.assert_close(u, -torch.cos(x) * torch.sin(y))
    torch.testing.assert_close(v, torch.sin(x) * torch.cos(y))
    assert float(energy(2 * torch.cos(x) * torch.cos(y))) == pytest.approx(0.25)
    assert float(enstrophy(2 * torch.cos(x) * torch.cos(y))) == pytest.approx(0.5)


def test_velocity_has_no_divergence_and_its_curl_is_the_vorticity():
    omega = some(25 - 1)
    u, v = velocity(omega).unbind(-3)

    def slope(f, axis):
        n = f.shape[-1]
        k = torch.fft.fftfreq(n, 1 / n, dtype=f.dtype).reshape([-1, 1] if axis == -2 else [-1])
        return torch.fft.ifft(1j * k * torch.fft.fft(f, dim=axis), dim=axis).real

    assert (slope(u, -1) + slope(v, -2)).abs().max() < 1e-12
    torch.testing.assert_close(slope(v, -1) - slope(u, -2), omega, rtol=0, atol=1e-12)


def test_advection_moves_the_vorticity_as_worked_out_by_hand():
    # ψ = sin x + ¼ cos 2y, so u = −½ sin 2y, v = −cos x and u · ∇ω = 3/2 cos x sin 2y
    x, y = axes(16)
    omega, dt = torch.sin(x) + torch.cos(2 * y), 1e-5
    rate = (evolve(omega, dt, dt, STILL) - omega) / dt
    torch.testing.assert_close(rate, -1.5 * torch.cos(x) * torch.sin(2 * y), rtol=0, atol=1e-4)


def test_an_ideal_flow_keeps_energy_and_enstrophy():
    omega = some()
    drifts = []
    for dt in (0.1, 0.05):
        later = evolve(omega, 1.0, dt, STILL)
        assert (later - omega).abs().max() > 0.5  # it did move
        drifts.append([float((f(later) / f(omega) - 1).abs().max()) for f in (energy, enstrophy)])
    assert max(drifts[1]) < 1e-4
    assert all(fine < coarse / 10 for coarse, fine in zip(*drifts, strict=True))


def test_the_scheme_is_of_fourth_order():
    omega, fluid = some(), Fluid(viscosity=0.01, friction=0.1)
    exact = evolve(omega, 0.8, 0.0125, fluid)
    errors = [float((evolve(omega, 0.8, dt, fluid) - exact).norm()) for dt in (0.1, 0.05)]
    assert 3.5 < math.log2(errors[0] / errors[1]) < 4.8


def test_a_driven_shear_flow_stays_where_forcing_and_viscosity_balance():
    _, y = axes(16)
    omega = (torch.cos(3 * y)).expand(16, 16)
    fluid = Fluid(viscosity=0.05, friction=0.2, forcing=(9 * 0.05 + 0.2) * omega)
    torch.testing.assert_close(evolve(omega, 3.0, 0.1, fluid), omega, rtol=0, atol=1e-6)


def test_viscosity_takes_energy_and_the_mean_stays_zero():
    omega = some()
    later = evolve(omega, 1.0, 0.1, Fluid(viscosity=0.05))
    assert (energy(later) < energy(omega)).all() and (enstrophy(later) < enstrophy(omega)).all()
    assert later.mean((-2, -1)).abs().max() < 1e-14


def test_a_shifted_flow_is_the_flow_shifted_and_fields_do_not_see_each_other():
    omega = some(count=3)
    later = evolve(omega, 0.5, 0.1)
    shifted = evolve(omega.roll((5, -3), (-2, -1)), 0.5, 0.1)
    torch.testing.assert_close(shifted, later.roll((5, -3), (-2, -1)), rtol=0, atol=1e-12)
    torch.testing.assert_close(evolve(omega[1], 0.5, 0.1), later[1], rtol=0, atol=1e-12)


def test_single_precision_is_as_good_as_its_digits():
    omega = some()
    single = evolve(omega.float(), 0.5, 0.1)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), evolve(omega, 0.5, 0.1), rtol=0, atol=1e-4)


def test_eddies_have_the_enstrophy_and_the_size_that_is_asked_for():
    omega = eddies(200, 32, torch.Generator().manual_seed(1), wavenumber=4.0)
    assert float(omega.square().mean()) == pytest.approx(1, abs=0.02)
    assert omega.mean((-2, -1)).abs().max() < 1e-12
    power = torch.fft.rfft2(omega).abs().square().mean(0)[0]
    assert int(power.argmax()) in (3, 4, 5)
    assert power[11:].max() < 1e-20  # beyond a third of 32 there is nothing
    again = eddies(200, 32, torch.Generator().manual_seed(1), wavenumber=4.0, dtype=torch.float32)
    assert torch.equal(again, omega.float())


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: evolve(torch.zeros(7, 7), 1.0, 0.1), r"n even and at least 4, got torch.float32 \(7, 7\)"),
        (lambda: evolve(torch.zeros(8, 6), 1.0, 0.1), r"\(8, 6\)"),
        (lambda: evolve(torch.zeros(8), 1.0, 0.1), r"\(8,\)"),
        (lambda: evolve(torch.ones(8, 8).long(), 1.0, 0.1), "floats"),
        (lambda: evolve(torch.ones(8, 8), 1.0, 0.1), "mean over a periodic square must be zero, got 1"),
        (lambda: evolve(torch.full((8, 8), torch.nan), 1.0, 0.1), "must be zero, got nan"),
        (lambda: evolve(some(8), 1.0, 0.3), "whole number of steps, got time=1.0 and dt=0.3"),
        (lambda: evolve(some(8), 1.0, 0.0), "whole number of steps"),
        (lambda: evolve(1e4 * some(8, wavenumber=2.0), 30.0, 1.0, STILL), "became infinite; take smaller steps"),
        (lambda: Fluid(viscosity=-1.0), "not negative, got -1.0"),
        (lambda: eddies(1, 9), "n must be even"),
        (lambda: eddies(1, 8, wavenumber=0.0), "wavenumber positive"),
    ],
)
def test_refusals_say_what_is_wrong(act, message):
    with pytest.raises(ValueError, match=message):
        act()
