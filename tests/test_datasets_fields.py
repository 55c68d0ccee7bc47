"""Data sets of PDE fields and curves: the files hold what their equations say, and what is made is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scifm import Batch
from scifm.data import fetch, load_dataset
from scifm.data.grids import from_xarray
from scifm.recipe import load_recipe


@pytest.fixture
def pde(scifm_data):
    return scifm_data("pde_neuralop_small")


def laplacian(p):
    n = p.shape[-1]
    return n**2 * (p[:, 2:, 1:-1] + p[:, :-2, 1:-1] + p[:, 1:-1, 2:] + p[:, 1:-1, :-2] - 4 * p[:, 1:-1, 1:-1])


# -- Darcy --------------------------------------------------------------------------------------------------


def test_darcy_is_split_as_published_without_the_broken_sample(pde):
    data = load_dataset("darcy").darcy()
    assert [len(b) for b in (data.train, data.valid, data.test)] == [899, 100, 50]
    assert data.train.event == data.train.context["permeability"].shape[1:] == (1, 16, 16)
    assert set(data.test.context["permeability"].unique().tolist()) == {0.0, 1.0}
    every = Batch.join([data.train, data.valid])
    torch.testing.assert_close(from_xarray(data.export(data.test))[0].x, data.test.x)
    assert every.x.min() > -0.01  # no source is negative, so no pressure is
    assert int((data.test.x.flatten(1).amin(1) < -0.01).sum()) == 1  # published like that, and left alone
    assert every.x[..., 0, :].abs().mean() < 0.005 < 0.1 < every.x[..., -1, :].mean()  # one wall is on the grid


def test_where_the_medium_is_uniform_darcys_law_is_poissons_equation(pde):
    fine = load_dataset("darcy").fine()
    p, a = fine.x[:, 0].double(), fine.context["permeability"][:, 0]
    near = torch.nn.functional.avg_pool2d(a[:, None], 3, 1)[:, 0]
    for kind, source in ((0.0, 50.0), (1.0, 50 / 18)):
        assert float(-laplacian(p)[near == kind].median()) == pytest.approx(source, rel=0.01)


def test_the_coarse_test_samples_are_every_second_point_of_the_fine(pde):
    module = load_dataset("darcy")
    coarse, fine = module.darcy().test, module.fine()
    assert torch.equal(fine.x[..., ::2, ::2], coarse.x)
    assert torch.equal(fine.context["permeability"][..., ::2, ::2], coarse.context["permeability"])


# -- Burgers ------------------------------------------------------------------------------------------------


def solved(u0, viscosity, n=128, steps=800):
    """u at t = 1 of u_t + u u_x = ν u_xx on a ring of length 1, from 16 points; integrating factor and RK4."""
    few = u0.shape[-1]
    spectrum = np.zeros((len(u0), n // 2 + 1), complex)
    spectrum[:, : few // 2 + 1] = np.fft.rfft(u0) * n / few
    spectrum[:, few // 2] /= 2
    k, dt = 2 * np.pi * np.arange(n // 2 + 1), 1 / steps
    half = np.exp(-viscosity * k**2 * dt / 2)

    def rate(u):
        return -0.5j * k * (k < 2 / 3 * k[-1]) * np.fft.rfft(np.fft.irfft(u) ** 2)

    for _ in range(steps):
        a = rate(spectrum)
        b = rate(half * (spectrum + dt / 2 * a))
        c = rate(half * spectrum + dt / 2 * b)
        d = rate(half * half * spectrum + dt * half * c)
        spectrum = half * half * (spectrum + dt / 6 * a) + dt / 3 * half * (b + c) + dt / 6 * d
    return np.fft.irfft(spectrum)[:, :: n // few]


def test_burgers_waves_follow_their_equation(pde):
    module = load_dataset("burgers")
    data = module.burgers("final")
    u0, u1 = data.test.context["initial"][:20, 0].double().numpy(), data.test.x[:20, 0].double().numpy()
    error = np.sqrt(((solved(u0, module.VISCOSITY) - u1) ** 2).mean() / (u1**2).mean())
    assert error < 0.06 < np.sqrt(((u0 - u1) ** 2).mean() / (u1**2).mean())  # 16 points do not say all of u0


def test_burgers_waves_keep_their_mean_and_lose_energy(pde):
    course = load_dataset("burgers").burgers("course")
    u = torch.cat([course.train.context["initial"][:, :, None], course.train.x], 2).double()[:, 0]
    assert (u.mean(2) - u.mean(2)[:, :1]).abs().max() < 2e-3
    assert (u.square().mean(2).diff(dim=1) < 0).all()


def test_what_flows_and_what_is_given_of_burgers_waves(pde):
    module = load_dataset("burgers")
    initial, final, course = (module.burgers(what) for what in module.WHAT)
    assert [len(b) for b in (initial.train, initial.valid, initial.test)] == [700, 100, 400]
    assert torch.equal(initial.test.x, final.test.context["initial"])
    assert torch.equal(initial.test.context["final"], final.test.x)
    assert course.test.event == (1, 16, 16) and torch.equal(course.test.x[:, :, -1], final.test.x)
    assert course.export(course.test)["u"].dims == ("realization", "time", "x")
    written = final.export(final.test)
    assert written["u"].dims == written["initial"].dims == ("realization", "x")
    torch.testing.assert_close(from_xarray(written)[0].x, final.test.x)  # what is given is a coordinate, no variable


def test_burgers_refuses_another_word():
    with pytest.raises(ValueError, match="initial, final, course, got 'start'"):
        load_dataset("burgers").burgers("start")


@pytest.mark.parametrize(("name", "file"), [("darcy", "darcy_test_16.npz"), ("burgers", "burgers_test_16.npz")])
def test_files_of_another_content_are_refused(name, file, tmp_path):
    module, path = load_dataset(name), tmp_path / file
    np.savez(path, x=np.zeros((3, 16, 16), bool), y=np.zeros((3, 16, 16)))
    with pytest.raises(ValueError, match=f"{name}: {file} holds other values"):
        module.read(path)
    path.write_bytes(b"no zip file")
    with pytest.raises(ValueError, match=f"{name}: {file} .*fetch it again"):
        module.read(path)


# -- curves -------------------------------------------------------------------------------------------------


def test_aemet_is_split_by_station_or_not_at_all(scifm_data):
    scifm_data("ffm_functional_1d")
    module = load_dataset("aemet")
    held, whole = module.aemet(), module.aemet(held=False)
    parts = [held.train, held.valid, held.test]
    rows = torch.cat([b.x for b in parts]).flatten(1)
    assert len(rows) == 73 == len(torch.unique(rows, dim=0)) and min(map(len, parts)) >= 3
    assert torch.equal(rows.sort(0).values, whole.train.x.flatten(1).sort(0).values)
    scaled = module.rescaled(whole.train)(whole.train).x
    assert float(scaled.min()) == pytest.approx(-3, abs=1e-6) and float(scaled.max()) == pytest.approx(3, abs=1e-6)
    # a year closes on itself: 31 December is as near to 1 January as days in winter are to each other
    x = whole.train.x[:, 0]
    assert (x[:, 0] - x[:, -1]).abs().mean() < 2 * x.diff(dim=1).abs().mean()
    assert held.export(held.test)["temperature"].attrs["units"] == "degC"


def test_aemet_refuses_another_file(tmp_path):
    (tmp_path / "aemet.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="aemet: aemet.csv holds other values"):
        load_dataset("aemet").read(tmp_path / "aemet.csv")


def test_the_flow_of_curves_begins_as_its_prior_and_moves_in_a_few_modes(scifm_data):
    scifm_data("ffm_functional_1d")
    built = load_recipe("aemet").build({"modes": 3, "width": 8})
    flow, test = built.flow, built.data.test.to(torch.float64)
    model = flow.transform(test)
    alone = flow.prior.log_prob(model.x, model) + flow.transform.log_det(test)
    torch.testing.assert_close(flow.double().log_prob(test), alone, rtol=1e-6, atol=1e-6)
    torch.nn.init.normal_(flow.velocity.velocity.head.weight, generator=torch.Generator().manual_seed(0))
    v = flow.velocity(torch.full((len(test),), 0.5).double(), model.x, model).flatten(1)
    assert torch.linalg.matrix_rank(v, tol=1e-9) <= 3 and v.abs().max() > 0.01
    torch.testing.assert_close((v @ flow.velocity.modes) @ flow.velocity.modes.T, v)


# -- turbulence ---------------------------------------------------------------------------------------------


@pytest.fixture
def little(monkeypatch, tmp_path):
    """The set with few fields, few points and little time."""
    module = load_dataset("turbulence")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SCIFM_DATA", raising=False)
    for name, value in {"COUNTS": {"train": 5, "valid": 2, "test": 3}, "POINTS": 16, "TIME": 0.5, "CHUNK": 4}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_turbulence_is_made_once_and_kept(little, monkeypatch):
    data = little.turbulence()
    assert [len(b) for b in (data.train, data.valid, data.test)] == [5, 2, 3] and data.test.event == (1, 16, 16)
    every = torch.cat([data.train.x, data.valid.x, data.test.x])
    assert every.mean((2, 3)).abs().max() < 5 * little.NOISE / 16 and len(torch.unique(every.flatten(1), dim=0)) == 10
    monkeypatch.setattr(little, "make", lambda seed: pytest.fail("made twice"))
    again = little.turbulence()
    assert torch.equal(again.train.x, data.train.x) and again.files == data.files
    assert data.export(data.test)["vorticity"].dims == ("realization", "y", "x")


def test_every_mode_of_turbulence_has_variance(little):
    x = little.make(0)["train"]
    power = torch.fft.fft2(x, norm="ortho").abs().square().mean(0)
    assert power.min() > 0.05 * little.NOISE**2  # five draws of each, or else there were no density
    assert power[8].mean() < 3 * little.NOISE**2  # beyond the modes that the solver keeps there is nothing but noise


def test_turbulence_depends_on_its_seed_and_not_on_how_many_evolve_together(little, monkeypatch):
    one = little.make(0)
    monkeypatch.setattr(little, "CHUNK", 10)
    torch.testing.assert_close(little.make(0)["test"], one["test"], rtol=0, atol=1e-6)
    assert (little.make(1)["test"] - one["test"]).abs().max() > 0.1


def test_a_damaged_file_of_turbulence_is_refused(little):
    path = little.turbulence().files[0]
    np.save(path, np.zeros((5, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r"float32 \(5, 8, 8\).*delete it"):
        little.turbulence()


def test_arrays_that_cannot_be_kept_are_said_to_be_lost(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set: what was made cannot be kept in .*XDG_CACHE_HOME"):
        assert fetch.keep("set", {"a.npy": np.zeros(3)}) == []


# -- global temperature --------------------------------------------------------------------------------------


def test_deviations_of_members_have_the_variance_of_a_member():
    module = load_dataset("global_temperature")
    members = torch.randn(8, 20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shared = torch.linspace(0, 100, 20_000, dtype=torch.float64)[:, None]
    y = module.deviations(3 * members + shared)
    torch.testing.assert_close(y.double().std((1, 2)), torch.full((8,), 3.0, dtype=torch.float64), rtol=0.03, atol=0)
    assert y[:6].mean(0).abs().max() < 1e-4  # in the mean are the training members
    other = members.clone()
    other[6:] += 5
    assert torch.equal(module.deviations(3 * other + shared)[:6], y[:6])  # and no others


def test_global_temperature_is_split_by_member_and_goes_out_labelled(scifm_data):
    scifm_data("csm_trefht_t42_global")
    data = load_dataset("global_temperature").global_temperature()
    assert [len(b) for b in (data.train, data.valid, data.test)] == [660, 110, 110]
    assert data.unit == "K" and data.delta is None and len(data.files) == 8
    spreads = [float(b.x.std()) for b in (data.train, data.valid, data.test)]
    assert max(spreads) / min(spreads) < 1.03
    assert torch.equal(data.train.context["time"][:110], data.test.context["time"])
    back = data.export(data.test.select([0, 1, 2]))
    assert back.TREFHT.dims == ("realization", "lat", "lon") and back.TREFHT.attrs["units"] == "K"
    assert "less the mean" in back.TREFHT.attrs["long_name"] and (np.diff(back.lat) > 0).all()
    np.testing.assert_array_equal(back.TREFHT.values, data.test.x[:3, 0].numpy())


def test_global_temperature_refuses_another_file(scifm_data, tmp_path):
    import xarray as xr

    module = load_dataset("global_temperature")
    path = scifm_data("csm_trefht_t42_global") / next(iter(module.FILES))
    with xr.open_dataset(path) as file:
        file.load()
    cut = tmp_path / path.name
    for spoilt, message in ((file.isel(time=slice(5)), "expected .* values"), (file + 1, "other values")):
        spoilt.TREFHT.attrs.update(file.TREFHT.attrs)
        spoilt.to_netcdf(cut)
        with pytest.raises(ValueError, match=message):
            module.read([cut])
