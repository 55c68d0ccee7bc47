"""A run of a grid samples without its file, or says which file it needs and why."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from test_grids import air

from scifm import priors
from scifm.cli import main
from scifm.data import grids
from scifm.data.grids.standing import Standing, stand_in, standing
from scifm.data.stored import Stored
from scifm.run import Run

TINY = "--steps 2 --width 4 --batch-size 2 --test-samples 2 --track none --threads 1 --out r".split()
FEW = "-n 3 --log-prob --probes 1 --method heun --steps 2 --threads 1".split()


def days(n=800, calendar="noleap") -> xr.Dataset:
    """Two years and more with a cycle, packed, with land, in a calendar of 365 days."""
    pytest.importorskip("cftime")
    time = xr.date_range("2001-01-01T12", periods=n, calendar=calendar, use_cftime=True)
    cycle = 280 + 10 * np.cos(2 * np.pi * np.arange(n) / 365)[:, None, None]
    values = (cycle + np.random.default_rng(0).normal(size=(n, 4, 6))).astype("f4")
    values[:, 0, :2] = np.nan
    coords = {"time": time, "lat": [10.0, 20, 30, 40], "lon": 60.0 * np.arange(6)}
    return xr.Dataset({"t": (("time", "lat", "lon"), values, {"units": "K"})}, coords)


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Every file is too large to be copied into a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scifm.provenance.LARGEST", 0)
    return tmp_path


@pytest.mark.parametrize("kind", ["netcdf", "stream"])
def test_samples_without_the_file_are_those_with_it(large, capsys, kind):
    packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
    path = Path("mine.nc" if kind == "netcdf" else "mine.zarr")
    if kind == "netcdf":
        days().to_netcdf(path, encoding={"t": packing})
    else:
        pytest.importorskip("zarr")
        days().to_zarr(path, encoding={"t": {"chunks": (100, 4, 6), **packing}}, consolidated=False)
    assert main(["train", "grid", "--file", str(path), *TINY, *(["--stream"] if kind == "stream" else [])]) == 0
    run = Run.open("r")
    assert run.record["data"][0]["copy"] is None and not Path("r/data").exists()
    assert run.spec == grids.from_xarray(path, "t")[1] and run.spec.calendar == "noleap"
    assert main(["sample", "r", *FEW, "-o", "with.nc"]) == 0
    path.rename("elsewhere")
    assert main(["sample", "r", *FEW, "-o", "without.nc"]) == 0
    with xr.open_dataset("with.nc") as one, xr.open_dataset("without.nc") as two:
        xr.testing.assert_equal(one, two)
        assert two.t.attrs["units"] == "K" and int(np.isnan(two.t.values).sum()) == 3 * 2
        assert two.time.values[0].calendar == "noleap"
    capsys.readouterr()
    assert main(["score", "r", "-o", "s.json"]) == 2
    said = capsys.readouterr().err
    assert path.name in said and "Put it back, or a link to it in its place" in said
    Path(path).symlink_to("elsewhere")
    assert main(["score", "r", "-n", "1", "--probes", "1", "--method", "heun", "--steps", "2", "-o", "s.json"]) == 0


def sea(n=60) -> xr.Dataset:
    """Smooth fields with land: rows are better than white noise, which made-up values are."""
    x = np.random.default_rng(0).normal(size=(n, 6, 8))
    x = (x + np.roll(x, 1, -1) + np.roll(x, 1, -2) + np.roll(x, 2, -1)).astype("f4")
    x[:, 1, 2:5] = np.nan
    coords = {
        "time": np.datetime64("2001-01-01") + 30 * np.arange(n),
        "lat": 10.0 * np.arange(6),
        "lon": 5.0 * np.arange(8),
    }
    return xr.Dataset({"sst": (("time", "lat", "lon"), x)}, coords)


def test_the_base_that_the_data_chose_stays_chosen(large, capsys):
    sea().to_netcdf("mine.nc")
    assert main(["train", "grid", "--file", "mine.nc", *TINY]) == 0
    ((number, name),) = Run.open("r").record["choices"]
    assert name == "RowGaussian" and number > 0
    prior = Run.open("r").rebuild().flow.prior
    assert main(["sample", "r", *FEW, "-o", "with.nc"]) == 0
    # With the file too what is recorded counts: on another machine a near tie could fall otherwise.
    run = Run.open("r").update(choices=[[0, "Masked"]])
    assert isinstance(run.build().flow.prior, priors.Masked)
    with pytest.raises(ValueError, match="does not fit"):
        run.rebuild()
    run.update(choices=[[number, name]])
    Path("mine.nc").unlink()
    flow = Run.open("r").restore_to_sample()[0].flow
    assert isinstance(flow.prior, priors.RowGaussian) and flow.prior.order == prior.order
    for key, value in prior.state_dict().items():
        assert torch.equal(value, flow.prior.state_dict()[key]), key
    assert main(["sample", "r", *FEW, "-o", "without.nc"]) == 0
    with xr.open_dataset("with.nc") as one, xr.open_dataset("without.nc") as two:
        xr.testing.assert_equal(one, two)
    # A run from before choices were written down: made-up values choose what they will, and that is refused.
    run = Run.open("r")
    run.update(choices=None)
    capsys.readouterr()
    assert main(["sample", "r", *FEW, "-o", "again.nc"]) == 2
    said = capsys.readouterr().err
    assert "mine.nc" in said and "its recipe needs it" in said and not Path("again.nc").exists()
    # And one whose recipe offers other bases than it did.
    run.update(choices=[[number, "Masked"]])
    assert main(["sample", "r", *FEW, "-o", "again.nc"]) == 2
    assert "was trained with candidate" in capsys.readouterr().err


RECIPE = '''"""Fields over their spread, which is kept in a plain number."""
from pathlib import Path
import torch
from scifm import Flow, Recipe, networks, priors
from scifm.data import grids
from scifm.data.transforms import Affine

class Wide(torch.nn.Module):
    def __init__(self, unet, factor):
        super().__init__()
        self.unet, self.factor = unet, factor
    def forward(self, t, x, batch):
        return self.unet(t, x, batch) + self.factor * x

def recipe(*, file: Path, steps: int = 2):
    data, spec = grids.read(file)
    shift, spread = float(data.train.x.mean()), float(data.train.x.std())
    flow = Flow(Wide(networks.UNet(1, (4,)), shift / 1e3), priors.Gaussian(), transform=Affine(-shift, 1 / spread))
    return Recipe(flow, data, steps=steps, batch_size=2, test_samples=2)
'''


def test_a_recipe_that_keeps_numbers_of_the_data_elsewhere_is_refused(large, capsys):
    air(n=40).to_netcdf("mine.nc")
    Path("wide.py").write_text(RECIPE)
    assert main(["train", "wide.py", "--file", "mine.nc", "--track", "none", "--threads", "1", "--out", "r"]) == 0
    assert main(["sample", "r", *FEW, "-o", "with.nc"]) == 0
    Path("mine.nc").unlink()
    capsys.readouterr()
    assert main(["sample", "r", *FEW, "-o", "without.nc"]) == 2
    said = capsys.readouterr().err
    assert "mine.nc" in said and "its recipe needs it" in said and "plain number" in said
    assert not Path("without.nc").exists()


def test_an_unfinished_run_says_which_file_is_gone(large, capsys):
    air(n=40).to_netcdf("mine.nc")
    assert main(["train", "grid", "--file", "mine.nc", *TINY]) == 0
    run = Run.open("r")
    run.update(proof=None)
    Path("mine.nc").unlink()
    capsys.readouterr()
    assert main(["sample", "r", *FEW, "-o", "without.nc"]) == 2
    assert "mine.nc, on which r was trained, is not there any more" in capsys.readouterr().err
    Path("r/spec.json").write_text("{")
    with pytest.raises(ValueError, match="expected what to_json wrote"):
        Run.open("r").spec  # noqa: B018
    shutil.rmtree("r")


def test_what_stands_in_has_the_form_of_the_file(tmp_path):
    days().to_netcdf(tmp_path / "d.nc")
    data, spec = grids.read(tmp_path / "d.nc")
    gone = tmp_path / "gone.nc"
    assert stand_in(gone) is None  # nothing is known
    token = standing.set(Standing(spec, torch.float32))
    try:
        assert stand_in(tmp_path / "d.nc") is None  # the file is there
        here, same = stand_in(gone)
        there, _ = stand_in(gone, (5, 2**20))
    finally:
        standing.reset(token)
    assert same == spec and here.delta == data.delta and here.unit == data.unit
    for split in ("train", "valid", "test"):
        one, two = getattr(here, split), getattr(data, split)
        assert one.x.shape == two.x.shape and torch.equal(one.context["time"], two.context["time"])
        assert torch.equal(one.x == 0, two.x == 0)  # the mask, and nothing else
    assert isinstance(there.train, Stored) and len(there.train) == len(data.train) and len(there.test) == 5
    assert float(there.train.some(20).x[:, 0, 1].std()) > 0.1
