"""The recipe for any file: what it understands, splits, takes out and puts back; and a run without its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from test_grids import air

from scifm import Batch, Solver, priors
from scifm.cli import main
from scifm.data import grids
from scifm.data.grids import from_xarray
from scifm.data.transforms import Affine, BoxCox, Climatology
from scifm.recipe import load_recipe
from scifm.trace import Hutchinson

RECIPE = load_recipe("grid")
SMALL = "--steps 2 --width 4 --batch-size 2 --test-samples 2 --track none --out r".split()


def build(file, variable=(), **flags):
    variable = tuple(variable.split()) if variable else ()
    return RECIPE.build({"file": Path(file), "variable": variable, "width": 4, "batch_size": 2, **flags})


FILES = [
    ("ncep_z500_djf_atlantic", "sst_ndjfm_anom.nc", "", {}, priors.RowGaussian, 450),
    ("cru_absolute_climatology", "absolute.nc", "tem", {}, priors.ZonalGaussian, 36 * 72),
    ("era5_ensemble_members_3deg", "era5_members_zt_3deg.nc", "z t", {}, priors.SpectralGaussian, 4 * 61 * 120),
    ("csm_trefht_t42_global", "b003_TS_200-299.nc", "TS", {}, priors.ZonalGaussian, 64 * 128),
]


@pytest.mark.parametrize(("folder", "file", "variable", "flags", "prior", "dims"), FILES, ids=[f[1] for f in FILES])
def test_it_works_unchanged_on_real_files(scifm_data, folder, file, variable, flags, prior, dims):
    recipe = build(scifm_data(folder) / file, variable, **flags)
    flow, data = recipe.flow, recipe.data
    assert file in data.summary and isinstance(flow.prior, prior)
    assert flow.prior.dims(data.test).tolist() == [dims] * len(data.test)
    assert flow.loss(data.train.select([0, 1]), torch.Generator().manual_seed(0)).isfinite().all()
    one = data.test.select([0])
    drawn = flow.sample(one, torch.Generator().manual_seed(0), Solver("euler", steps=2))
    generator = torch.Generator().manual_seed(0)
    assert flow.log_prob(one, Hutchinson(1), Solver("heun", steps=2), generator).isfinite().all()
    out = data.export(drawn)
    source = grids.open_file(scifm_data(folder) / file)
    for name in [v.name for v in data.spec.variables]:
        field, theirs = out[name], source[name]
        assert field.dtype == theirs.dtype and field.attrs.get("units") == theirs.attrs.get("units")
        levels = [d for d in theirs.dims if d not in ("number", "time")]
        assert list(field.dims) == ["realization", *levels]
        spread = float(np.nanstd(field.values) / np.nanstd(theirs.values))
        assert 0.5 < spread < 2, "drawn fields have the size of the data"


def test_a_run_samples_without_its_file(scifm_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.nc"
    file.write_bytes((scifm_data("ncep_z500_djf_atlantic") / "sst_ndjfm_anom.nc").read_bytes())
    words = [
        "--steps",
        "2",
        "--width",
        "4",
        "--batch-size",
        "2",
        "--test-samples",
        "2",
        "--track",
        "none",
        "--out",
        "r",
    ]
    assert main(["train", "grid", "--file", "mine.nc", *words]) == 0
    assert "longitude: 30, periodic: no, 117.5 .. 262.5; time: 1 year, standard calendar, 50" in capsys.readouterr().out
    file.unlink()
    method = ["--method", "heun", "--steps", "2", "--probes", "1"]
    assert main(["sample", "r", "-n", "2", "--log-prob", *method, "-o", "s.nc"]) == 0
    with xr.open_dataset("s.nc") as found:
        assert found.sst.dims == ("realization", "latitude", "longitude")
        assert int(np.isnan(found.sst.values).sum()) == 2 * 90
        assert found.log_prob.attrs["degrees_of_freedom"] == 450
        assert "NFE 4 per sample" in found.attrs["history"] and "heun 2 steps" in found.attrs["history"]
        assert found.sst.attrs["coordinates" if "coordinates" in found.sst.attrs else "long_name"] is not None


def test_zarr_trains_and_its_store_travels(tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    air(n=40).to_zarr("mine.zarr", zarr_format=3, consolidated=False)
    words = [
        "--steps",
        "1",
        "--width",
        "4",
        "--batch-size",
        "2",
        "--test-samples",
        "2",
        "--track",
        "none",
        "--out",
        "r",
    ]
    assert main(["train", "grid", "--file", "mine.zarr", *words]) == 0
    import shutil

    shutil.rmtree("mine.zarr")
    assert main(["sample", "r", "-n", "1", "--method", "euler", "--steps", "2", "-o", "s.zarr"]) == 0
    assert grids.open_file("s.zarr").air.sizes == {"realization": 1, "lat": 3, "lon": 5}


# -- its choices -----------------------------------------------------------------------------------------------


def years(tmp_path, n=1095, **extra):
    """Three years of days with an annual cycle, in a calendar of 365 days."""
    pytest.importorskip("cftime")
    time = xr.date_range("2001-01-01T12", periods=n, calendar="noleap", use_cftime=True)
    cycle = 10 * np.cos(2 * np.pi * np.arange(n) / 365)[:, None, None]
    noise = np.random.default_rng(0).normal(size=(n, 4, 6))
    coords = {"time": ("time", time), "lat": [10.0, 20, 30, 40], "lon": 60.0 * np.arange(6)}
    ds = xr.Dataset({"t": (("time", "lat", "lon"), (cycle + noise).astype("f4"), {"units": "K"})}, coords)
    ds = ds.assign({k: (("time", "lat", "lon"), v, {}) for k, v in extra.items()})
    ds.to_netcdf(tmp_path / "y.nc")
    return tmp_path / "y.nc"


def test_the_annual_cycle_is_taken_out_in_the_calendar_of_the_file(tmp_path):
    recipe = build(years(tmp_path))
    (cycle,) = recipe.flow.transform.transforms
    assert isinstance(cycle, Climatology) and cycle.year == 365 and cycle.hours == (12.0,)
    assert float(cycle.std) == pytest.approx(1, rel=0.05)
    assert isinstance(recipe.flow.prior, priors.ZonalGaussian)  # a candidate only where longitude closes the circle
    assert recipe.flow.velocity.padding == (
        "replicate",
        "circular",
    )
    short = build(years(tmp_path, n=365)).flow.transform.transforms[0]
    assert isinstance(short, Affine)


def test_channels_on_other_lattices_get_their_noise_once(tmp_path):
    whole = np.random.default_rng(1).integers(0, 9, (1095, 4, 6)).astype("i4")
    recipe = build(years(tmp_path, counts=whole), "t counts")
    assert recipe.data.delta is None and "noise of a step per channel" in recipe.data.summary
    x = recipe.data.train.x[:, 1]
    assert 0 < float((x - x.round()).abs().max()) <= 0.5
    again = build(tmp_path / "y.nc", "t counts")
    assert torch.equal(again.data.train.x, recipe.data.train.x)
    assert recipe.data.export(recipe.data.test).counts.dtype == "i4"
    alone = build(tmp_path / "y.nc", "counts")
    assert alone.data.delta == 1 and torch.equal(alone.data.train.x, alone.data.train.x.round())


def test_what_cannot_be_learnt_from_is_refused_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    air(n=1).to_netcdf("one.nc")
    assert main(["train", "grid", "--file", "one.nc", "--track", "none"]) == 2
    assert "1 different time(s) cannot be cut" in capsys.readouterr().err
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


# -- amounts -------------------------------------------------------------------------------------------------


def rain(tmp_path, land=False):
    """Rain of 60 days, a third of it zero."""
    x = np.maximum(np.exp(np.random.default_rng(1).normal(size=(60, 4, 6))) - 0.6, 0)
    if land:
        x[:, 1, 2] = np.nan
    time = np.arange("2001-01-01", "2001-03-02", dtype="datetime64[D]").astype("datetime64[ns]")
    coords = {"time": time, "lat": [10.0, 20, 30, 40], "lon": [5.0, 6, 7, 8, 9, 10]}
    ds = xr.Dataset({"pr": (("time", "lat", "lon"), x.astype("f4"), {"units": "mm"})}, coords)
    ds.to_netcdf(tmp_path / "rain.nc")
    return tmp_path / "rain.nc"


@pytest.mark.parametrize("land", [False, True])
def test_amounts_go_through_a_power(tmp_path, land):
    """Their density has the power's Jacobian in it, zeros included, and draws are no less than minus the shift."""
    recipe = build(rain(tmp_path, land), "pr", amounts=("pr",))
    flow, one = recipe.flow, recipe.data.test.select([0])
    (power, rest) = flow.transform.transforms[0].transforms
    train = recipe.data.train.x
    assert isinstance(power, BoxCox) and isinstance(rest, Affine)
    assert float(power.shift) == pytest.approx(float(train[train > 0].quantile(0.05)), rel=0.1)
    assert 0 <= float(power.power) <= 2, "a negative power would make draws without bound"
    model = flow.transform(one)
    torch.testing.assert_close(flow.transform.inverse(model).x, one.x, rtol=1e-4, atol=1e-5)
    inside = torch.ones(one.event, dtype=torch.bool) if flow.transform.mask is None else flow.transform.mask
    u = (one.x[0][inside] + power.shift).double()
    scale = (rest.scale.double().log() * torch.ones(len(u))).sum()
    expected = (float(power.power) - 1) * u.log().sum() + scale
    assert float(flow.transform.log_det(one)) == pytest.approx(float(expected), rel=1e-4)
    plain = build(rain(tmp_path, land), "pr").flow
    skew = [
        float((y := f.transform(recipe.data.train).x[:, inside]).pow(3).mean() / y.var() ** 1.5) for f in (flow, plain)
    ]
    assert abs(skew[0]) < 0.5 < skew[1]


def test_amounts_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no variable 'rain'; there are pr"):
        build(rain(tmp_path), "pr", amounts=("rain",))
    with pytest.raises(ValueError, match="'t' is said to be an amount, but .* of its values are negative"):
        build(years(tmp_path), amounts=("t",))
    with xr.open_dataset(rain(tmp_path)) as found:
        debts = found.load()
    days = build(rain(tmp_path), "pr").data.test.context["time"]
    debts.pr[int(days[0] - from_xarray(debts.pr)[0].context["time"][0]), 0, 0] = -5.0
    debts.to_netcdf(tmp_path / "debts.nc")
    with pytest.raises(ValueError, match="data must be above"):  # of the test block, before the training
        build(tmp_path / "debts.nc", "pr", amounts=("pr",))


def test_amounts_on_a_lattice_of_their_own(tmp_path):
    """Variables with different steps have noise added when they are read: amounts may be below zero by half a step."""
    with xr.open_dataset(rain(tmp_path)) as found:
        both = found.load()
    both["t"] = both.pr * 0 + np.random.default_rng(0).normal(size=both.pr.shape)
    both.pr.encoding = {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -32768}
    both.to_netcdf(tmp_path / "both.nc")
    recipe = build(tmp_path / "both.nc", "pr t", amounts=("pr",))
    assert float(recipe.data.train.x[:, 0].min()) < 0
    assert float(recipe.flow.transform.transforms[0].transforms[0].shift) == pytest.approx(0.1)
    y = torch.randn(50, *recipe.data.train.event, generator=torch.Generator().manual_seed(0))
    drawn = recipe.flow.transform.inverse(Batch(y)).x[:, 0]
    assert drawn.isfinite().all() and drawn.min() >= -0.1001 and drawn.max() < 1e3


def test_a_run_of_amounts_samples_without_its_file(tmp_path, monkeypatch):
    """What was fitted, the shift too, is in the checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scifm.provenance.LARGEST", 0)
    file = rain(tmp_path)
    assert main(["train", "grid", "--file", str(file), "--amounts", "pr", *SMALL]) == 0
    draw = ["sample", "r", "-n", "2", "--method", "euler", "--steps", "2"]
    assert main([*draw, "-o", "before.nc"]) == 0
    file.unlink()
    assert main([*draw, "-o", "after.nc"]) == 0
    with xr.open_dataset("before.nc") as before, xr.open_dataset("after.nc") as after:
        np.testing.assert_array_equal(before.pr.values, after.pr.values)


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ("lat", "lat=NAME,lon=NAME, got 'lat'"),
        ("lat=", "got 'lat='"),
        ("lat=a=b", "got 'lat=a=b'"),
        ("lat=lat,lat=lon", "expected each role once"),
    ],
)
def test_roles_without_names_are_refused_in_one_line(tmp_path, monkeypatch, capsys, dims, says):
    monkeypatch.chdir(tmp_path)
    air(n=30).to_netcdf("a.nc")
    assert main(["train", "grid", "--file", "a.nc", "--dims", dims, *SMALL]) != 0
    assert says in (said := capsys.readouterr().err) and "Traceback" not in said
    with pytest.raises(ValueError, match="time"):
        build("a.nc", dims=("time=month",))
