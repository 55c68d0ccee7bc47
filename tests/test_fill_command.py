"""`scifm fill` and `scifm score --file`: from a file of the user's to a file like it, after a kill too."""

from __future__ import annotations

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from scifm import checkpoint, verbs
from scifm.cli import main
from scifm.data import grids
from scifm.data.source import Data
from scifm.parts import Parts
from scifm.recipe import Recipe, load_recipe
from scifm.run import Run
from scifm.unusual import p_values

SUFFIXES = [".nc", pytest.param(".zarr", marks=pytest.mark.skipif(find_spec("zarr") is None, reason="needs zarr"))]
TINY = "--steps 2 --width 2 --batch-size 4 --test-samples 4 --track none --threads 1".split()
PACKED = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
FEW = "--method rk4 --steps 4 --threads 1".split()
SCORE = ["--probes", "1", *FEW]
LAND = (slice(None), 0, slice(2))


def days(first=0, n=800) -> xr.Dataset:
    """Two years with a cycle, smooth along longitude, with land in a corner, in steps of 0.01 K."""
    g = np.random.default_rng(first)
    time = np.datetime64("2001-01-01", "ns") + (first + np.arange(n)) * np.timedelta64(24, "h")
    cycle = 280 + 10 * np.cos(2 * np.pi * (first + np.arange(n)) / 365.25)[:, None, None]
    waves = np.cos(np.pi / 3 * np.arange(6) + 2 * np.pi * g.random((n, 1, 1)))
    values = np.round(cycle + 3 * waves + 0.5 * g.normal(size=(n, 4, 6)), 2)
    values[LAND] = np.nan
    coords = {
        "time": ("time", time),
        "lat": ("lat", [40.0, 30.0, 20.0, 10.0], {"units": "degrees_north"}),
        "lon": ("lon", 60.0 * np.arange(6), {"units": "degrees_east"}),
    }
    made = xr.Dataset({"t": (("time", "lat", "lon"), values, {"units": "K"})}, coords, {"history": "by hand"})
    made.t.encoding = dict(PACKED)
    return made


def gaps(path: Path, share=0.4, n=3, **changes) -> xr.Dataset:
    """New days with gaps, written to a file."""
    made = days(900, n).assign(changes)
    gone = np.random.default_rng(5).random(made.t.shape) < share
    made["t"] = made.t.where(~gone)
    made.t.encoding = dict(PACKED)
    made.to_netcdf(path)
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A run of `scifm train grid`, trained for two steps: nearly its Gaussian base."""
    folder = tmp_path_factory.mktemp("runs")
    days().to_netcdf(folder / "mine.nc")
    words = ["--file", str(folder / "mine.nc"), *TINY, "--out", str(folder / "r")]
    assert main(["train", "grid", *words]) == 0
    return str(folder / "r")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCIFM_DEBUG", raising=False)


@pytest.fixture
def still(monkeypatch):
    """A clock that stands: `history` begins with the time at which a file was finished."""
    monkeypatch.setattr("scifm.labelled.time.strftime", lambda form: "2030-01-01 00:00:00+0000")


def made(where: str, name: str, given: dict) -> Recipe:
    """A run that counts as finished, without any training."""
    file = load_recipe(name)
    recipe = file.build(given)
    run = Run.create(Path(where), file, given, recipe.data.files, seed=0, status="finished")
    state = recipe.flow.state_dict()
    checkpoint.save(run.folder / "checkpoints", 1, {f"ema.{k}": v for k, v in state.items()}, {})
    return recipe


def opened(path: str | Path) -> xr.Dataset:
    how = {"engine": "zarr", "consolidated": False} if str(path).endswith(".zarr") else {"engine": "h5netcdf"}
    with xr.open_dataset(path, **how) as file:
        return file.load()


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def killed_at(words: list[str], chunk: int) -> int:
    """The signal that ended the command in the midst of a chunk, in a process of its own."""
    child = os.fork()
    if child == 0:
        keep, count = Parts.__call__, [0]

        def call(self, samples, make):
            count[0] += 1
            if count[0] == chunk:
                make()
                os.kill(os.getpid(), signal.SIGKILL)
            return keep(self, samples, make)

        Parts.__call__ = call
        main(words)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def one_line(capsys, *words: str) -> str:
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("scifm: "), said
    return said.err


# -- fill ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_filled_fields_are_the_file_s_own(run, capsys, suffix):
    source = gaps(Path("gaps.nc"))
    out = f"filled{suffix}"
    assert main(["fill", run, "gaps.nc", "-n", "4", "--threads", "1", "-o", out]) == 0
    said = capsys.readouterr().out
    seen = source.t.notnull().sum(("lat", "lon")).values
    assert f"3 fields x 4 members; {seen.min()} .. {seen.max()} of 22 values observed, noise 0.00289 K" in said
    assert said.splitlines()[-1] == out and list(Path().glob(".*")) == []
    found = opened(out)
    assert found.t.dims == ("realization", "time", "lat", "lon") and found.sizes["realization"] == 4
    assert found.realization.attrs["standard_name"] == "realization" and found.t.attrs["units"] == "K"
    assert found.t.encoding["dtype"] == np.dtype("i2") and found.t.encoding["scale_factor"] == 0.01
    for name in ("time", "lat", "lon"):
        np.testing.assert_array_equal(found[name], source[name])
    assert np.isnan(found.t.values[(slice(None), *LAND)]).all() and int(found.t.isnull().sum()) == 4 * 3 * 2
    off = (found.t - source.t).values
    observed = np.broadcast_to(source.t.notnull().values, off.shape)
    assert np.nanmax(np.abs(off)) < 0.03  # what was there is met, to rounding
    truth = days(900, 3).t.values
    error = (found.t.mean("realization").values - truth)[~observed[0]]
    cycle = 280 + 10 * np.cos(2 * np.pi * (900 + np.arange(3)) / 365.25)[:, None, None] + 0 * truth
    assert np.nanstd(error) < 0.6 * np.nanstd((cycle - truth)[~observed[0]])  # the waves are seen
    assert found.t.std("realization").values[~observed[0] & ~np.isnan(truth)].min() > 0.05
    line, before = found.attrs["history"].splitlines()
    assert " fill: run r, seed 0, solver" in line and "tolerances rtol 1e-06 atol 1e-06" in line and "NFE" in line
    assert before == "by hand" and found.attrs["scifm_noise"] == pytest.approx(0.01 / 12**0.5, rel=1e-4)
    assert found.attrs["Conventions"] == "CF-1.11" and found.attrs["scifm_nfe"] > 10


def test_by_default_it_goes_into_the_run_and_is_not_replaced_unasked(run, capsys):
    gaps(Path("mine.gaps.nc"), n=1)
    words = ["fill", run, "mine.gaps.nc", "-n", "1", "--method", "heun", "--steps", "4"]
    assert main(words) == 0
    out = Path(run) / "filled-mine.gaps.nc"
    first = out.read_bytes()
    assert f"{out} exists" in one_line(capsys, *words, "--seed", "5") and out.read_bytes() == first
    assert main([*words, "--seed", "5", "--overwrite"]) == 0 and out.read_bytes() != first
    out.unlink()


def test_noise_and_weights_are_what_was_asked_for(run):
    source = gaps(Path("gaps.nc"), n=2)
    words = ["fill", run, "gaps.nc", "-n", "4", "--noise", "1.0", "--log-weight", "--exact"]
    assert main([*words, "-o", "w.nc", *FEW]) == 0
    found = opened("w.nc")
    assert found.attrs["scifm_noise"] == 1.0
    off = (found.t - source.t).values
    assert 0.3 < np.sqrt(np.nanmean(off**2)) < 1.5
    assert found.log_weight.dims == ("realization", "time") and found.log_weight.attrs["units"] == "1"
    assert "Exact" in found.log_weight.attrs["trace"]
    assert 0 < float(found.log_weight.std("realization").max()) < 5  # of a flow that has learnt nothing yet


def test_another_unit_and_order_come_back_as_they_were(run):
    warm = gaps(Path("k.nc"), n=2).transpose("lon", "time", "lat")
    warm["t"] = warm.t - 273.15
    warm.t.attrs["units"], warm.t.encoding = "degC", {}
    warm.to_netcdf("c.nc")
    words = ["-n", "2", "--seed", "3"]
    assert main(["fill", run, "k.nc", *words, "-o", "k-out.nc"]) == 0
    assert main(["fill", run, "c.nc", *words, "--noise", "0.0028867513", "-o", "c-out.nc"]) == 0
    one, two = opened("k-out.nc"), opened("c-out.nc")
    assert two.t.dims == ("realization", "lon", "time", "lat") and two.t.attrs["units"] == "degC"
    np.testing.assert_allclose(two.t.transpose(*one.t.dims) + 273.15, one.t, atol=0.02)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_fill_ends_in_the_same_bytes(run, still, capsys, suffix):
    gaps(Path("gaps.nc"))
    words = ["fill", run, "gaps.nc", "-n", "5", "--chunk", "3", "--log-weight", "--probes", "1"]
    words += ["--method", "heun", "--steps", "2", "--threads", "1"]
    assert main([*words, "-o", f"straight{suffix}"]) == 0
    assert killed_at([*words, "-o", f"x{suffix}"], 4) == -9  # in the second field
    out, parts = Path(f"x{suffix}"), Path(f".x{suffix}.parts")
    assert not out.exists() and len(list(parts.glob("*.safetensors"))) == 3
    for more, said in ((["--seed", "6"], "seed 0 (now 6)"), (["--noise", "1"], "noise none (now 1.0)")):
        assert said in one_line(capsys, *words, *more, "-o", f"x{suffix}")
    assert main([*words, "-o", f"x{suffix}"]) == 0
    assert "going on after 8 of 15 samples\n" in capsys.readouterr().err and not parts.exists()
    assert contents(out) == contents(Path(f"straight{suffix}"))


def test_other_gaps_are_another_job(run, capsys):
    gaps(Path("gaps.nc"))
    words = ["fill", run, "gaps.nc", "-n", "2", "--chunk", "2", "--method", "rk4", "--steps", "4", "-o", "x.nc"]
    assert killed_at(words, 3) == -9
    gaps(Path("gaps.nc"), share=0.5)
    assert "data " in one_line(capsys, *words) and not Path("x.nc").exists()


# -- score -----------------------------------------------------------------------------------------------


def held_out(run: str) -> xr.Dataset:
    """The days of the file that `scifm score` scores."""
    batch = verbs.held_out(Run.open(run).rebuild())
    rows = (batch.context["time"] - 11323).round().long().tolist()  # since 2001-01-01
    return days().isel(time=rows)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_scores_of_a_file_are_those_of_the_run(run, capsys, suffix):
    source = held_out(run)
    source.to_netcdf("days.nc")
    out = f"scores{suffix}"
    assert main(["score", run, "--file", "days.nc", *SCORE, "-o", out]) == 0
    said = capsys.readouterr()
    found = opened(out)
    assert said.out.splitlines()[-1] == out and "4 samples of days.nc; the least likely:" in said.out
    assert said.err.count("warning") == 0 and list(Path().glob(".*")) == []
    if suffix == ".nc":
        assert main(["score", run, "-o", "s.json", *SCORE]) == 0
        per_sample = json.loads(Path("s.json").read_text())["per_sample"]
        np.testing.assert_allclose(found.bits_per_dim, per_sample, rtol=1e-6)
    assert all(v.dims == ("time",) for v in found.data_vars.values())
    np.testing.assert_array_equal(found.time, source.time)
    volume = 22 * np.log(0.01)
    np.testing.assert_allclose(found.log_prob + volume, -found.bits_per_dim * 22 * np.log(2), rtol=1e-6)
    assert abs(found.log_prob_prior - found.log_prob).max() < 5  # two steps of training
    assert found.log_prob.attrs["units"] == "1" and "Per (K)^D" in found.log_prob.attrs["comment"]
    assert "bin of width 0.01" in found.log_prob.attrs["comment"]
    assert found.p_value.attrs["held_out"] == 4 and ((found.p_value > 0.1) & (found.p_value <= 1)).all()
    assert main(["score", run, "--file", "days.nc", *SCORE, "--samples", "2", "-o", f"few{suffix}"]) == 0
    assert opened(f"few{suffix}").p_value.attrs["held_out"] == 2
    assert " score: run r, seed 0, solver" in found.attrs["history"] and "1 probe(s)" in found.attrs["scifm_trace"]


def test_an_unusual_day_is_found(run, capsys):
    strange = days(900, 4)
    strange["t"] = strange.t.where(strange.time != strange.time[2], strange.t + 8 * (-1) ** np.arange(6))
    strange.t.encoding = dict(PACKED)
    strange.to_netcdf("strange.nc")
    assert main(["score", run, "--file", "strange.nc", *SCORE]) == 0
    out = Path(run) / "scores-strange.nc"
    said = capsys.readouterr().out.splitlines()
    assert str(strange.time.values[2])[:10] in said[1] and "p-value 0.2" in said[1]  # 1 / (1 + 4)
    found = opened(out)
    assert int(found.log_prob.values.argmin()) == 2 and float(found.p_value[2]) == pytest.approx(1 / 5)
    assert float(found.p_value[[0, 1, 3]].min()) > 0.3
    out.unlink()


def test_p_values_are_those_of_the_definition(run):
    """With the scores of the held-out days as the file's own, each stands among the others."""
    held_out(run).to_netcdf("days.nc")
    assert main(["score", run, "--file", "days.nc", "-o", "s.nc", *SCORE]) == 0
    found = opened("s.nc")
    log_prob = torch.from_numpy(found.log_prob.values)
    ranks = p_values(log_prob, log_prob).numpy()
    assert np.abs(found.p_value.values - ranks).max() <= 2 / 5 + 1e-9  # noise within a bin exchanges neighbours


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_score_ends_in_the_same_bytes(run, still, capsys, suffix):
    days(900, 5).to_netcdf("days.nc")
    words = ["score", run, "--file", "days.nc", "--chunk", "3", *SCORE]
    assert main([*words, "-o", f"straight{suffix}"]) == 0
    assert killed_at([*words, "-o", f"x{suffix}"], 4) == -9  # two chunks of held-out days, then the file's
    assert len(list(Path(f".x{suffix}.parts").glob("*.safetensors"))) == 3
    assert "seed 0 (now 6)" in one_line(capsys, *words, "--seed", "6", "-o", f"x{suffix}")
    assert main([*words, "-o", f"x{suffix}"]) == 0
    assert "going on after 7 of 9 samples\n" in capsys.readouterr().err
    assert contents(Path(f"x{suffix}")) == contents(Path(f"straight{suffix}"))


def test_other_steps_of_rounding_are_told(run, capsys):
    coarse = days(900, 2)
    coarse.t.encoding = {**PACKED, "scale_factor": 0.5}
    coarse.to_netcdf("coarse.nc")
    assert main(["score", run, "--file", "coarse.nc", "-o", "s.nc", *SCORE]) == 0
    said = capsys.readouterr().err
    assert "warning: values of coarse.nc lie in steps of 0.5, those of the run in steps of 0.01" in said


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("fill {run}", "the following arguments are required: FILE"),
        ("fill {run} gone.nc", "There is no file gone.nc"),
        ("fill nowhere gaps.nc", "nowhere"),
        ("fill {run} whole.nc", "fill: nothing is missing in whole.nc; gaps are NaN."),
        ("fill {run} empty.nc", "fill: nothing is observed in empty.nc; `scifm sample` draws from nothing."),
        ("fill {run} upside.nc", "upside.nc: 'lat' is 10.0 .. 40.0, that of the run is 40.0 .. 10.0"),
        ("fill {run} gaps.nc --exact", "give --log-weight too"),
        ("fill {run} gaps.nc --probes 2", "give --log-weight too"),
        ("fill {run} gaps.nc --log-weight --probes 2 --exact", "not allowed with"),
        ("fill {run} gaps.nc --noise 0", "expected a positive, finite number"),
        ("fill {run} gaps.nc --noise -1", "expected a positive, finite number"),
        ("fill {run} gaps.nc -n 0", "at least 1, got '0'"),
        ("fill {run} gaps.nc --nois 1", "no flag '--nois'. Did you mean '--noise'?"),
        ("fill {run} gaps.nc --steps 9 --rtol 1e-3", "give one or the other"),
        ("fill {run} gaps.nc --method bosh6", "no method 'bosh6'"),
        ("fill {run} gaps.nc -o maps.npz", "fields with their labels go to .nc or .zarr files, got 'maps.npz'"),
        ("fill {run} gaps.nc -o whole.nc", "whole.nc exists"),
        ("score {run} --file gaps.nc", "values are missing (NaN) in 3 of 3 samples"),
        ("score {run} --file gone.nc", "There is no file gone.nc"),
        ("score {run} --file upside.nc", "'lat' is 10.0 .. 40.0"),
        ("score {run} --file whole.nc --split valid", "--split is about the run's own data"),
        ("score {run} --file whole.nc --precision 0.1", "--precision is about the run's own data"),
        ("score {run} --file whole.nc -o s.json", "fields with their labels go to .nc or .zarr files, got 's.json'"),
        ("score {run} --file whole.nc -o gaps.nc", "gaps.nc exists"),
    ],
)
def test_mistakes_are_one_line_before_the_work(run, capsys, words, says):
    gaps(Path("gaps.nc"))
    whole = days(900, 2)
    whole.to_netcdf("whole.nc")
    whole.isel(lat=slice(None, None, -1)).to_netcdf("upside.nc")
    land = whole.copy()
    land["t"] = land.t.where(land.t.isnull(), np.nan).where(land.t.notnull(), 0.0)  # values on land only
    land.to_netcdf("empty.nc")
    before = {str(p) for folder in (Path(), Path(run)) for p in folder.rglob("*")}
    said = one_line(capsys, *words.format(run=run).split())
    assert says in said
    if "(NaN)" in says:
        assert "`scifm fill`" in said
    assert {str(p) for folder in (Path(), Path(run)) for p in folder.rglob("*")} == before


def test_data_that_do_not_read_other_files_say_so():
    from scifm.commands.score_file import fields_of

    batch, _ = grids.from_xarray(days(0, 4).drop_encoding().fillna(280.0), "t")
    with pytest.raises(ValueError, match="mine: this run's data do not say how another file is read"):
        fields_of(Data("mine", batch, batch, batch), Path("gaps.nc"))


def test_a_flow_of_powers_is_refused(capsys):
    rain = days(0, 800)
    rain["t"] = np.exp((rain.t - 280) / 5)
    rain.to_netcdf("rain.nc")
    made("wet", "grid", {"file": Path("rain.nc"), "amounts": ("t",), "width": 4, "test_samples": 2})
    rain.isel(time=[0]).where(rain.lon > 60).to_netcdf("gaps.nc")
    said = one_line(capsys, "fill", "wet", "gaps.nc", "-o", "x.nc")
    assert "not affine" in said and "--amounts" in said and not Path("x.nc").exists()


# -- real data -------------------------------------------------------------------------------------------


def test_weather_maps_are_filled_better_than_by_climatology(scifm_data):
    """An untrained flow of air temperature is the Gaussian field of its prior: four days with a third removed."""
    scifm_data("ncep_air_temperature")
    recipe = made("a", "ncep_air", {"width": 4, "test_samples": 2})
    rows = [0, 80, 160, 240]
    truth = grids.to_xarray(recipe.data.test.select(rows), recipe.data.spec, "time")
    gone = np.random.default_rng(0).random(truth.air.shape) < 0.3
    truth.air.where(~gone).drop_encoding().to_dataset().to_netcdf("gaps.nc")
    words = ["fill", "a", "gaps.nc", "-n", "2", "--rtol", "1e-4", "--atol", "1e-4", "--noise", "0.05"]
    assert main([*words, "--threads", "1", "-o", "filled.nc"]) == 0
    found = opened("filled.nc")
    zero = recipe.flow.transform(recipe.data.test.select(rows))
    climate = recipe.flow.transform.inverse(zero.replace(torch.zeros_like(zero.x))).x[:, 0].numpy()
    error = float(np.sqrt(np.mean((found.air.mean("realization").values - truth.air.values)[gone] ** 2)))
    usual = float(np.sqrt(np.mean((climate - truth.air.values)[gone] ** 2)))
    assert error < 0.25 * usual, (error, usual)
    assert float(abs(found.air - truth.air).values[:, ~gone].max()) < 0.5
