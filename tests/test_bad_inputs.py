"""Bad inputs, each with an error of its own that names what came and what cures it, and nothing lost or overwritten.

The table is the promise of the README; `test_the_promise` counts it.
"""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from scifm import Batch, Flow, Objective, Recipe, Solver, couplings, integrate, networks, paths, priors, times
from scifm.data import Data, grids, load_dataset, transforms
from scifm.priors import spectra
from scifm.trace import Hutchinson
from scifm.train import train

NAN = float("nan")
PLANE = Batch(torch.zeros(4, 2))
FIELDS = Batch(torch.randn(20, 1, 4, 5, generator=torch.Generator().manual_seed(0)))
RAGGED = Batch(torch.zeros(5, 2), torch.tensor([0, 0, 0, 1, 1]), 2)
FLOW = Flow(networks.MLP(2, hidden=(8,)), priors.Gaussian())


def splits(**other):
    parts = {
        name: Batch(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
        for name in ("train", "valid", "test")
    }
    return Data("made", **{**parts, **other})


class Careless(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, t, x, batch):
        return self.weight * x / 0


def train_on_nan(folder):
    recipe = Recipe(Flow(Careless(), priors.Gaussian()), splits(), steps=3, batch_size=4)
    train(recipe, folder, progress=False)


def stack(x, **kwargs):
    return Batch(torch.full((4, 1, 3, 3), x), **kwargs)


LIBRARY = {
    "a number as data": (lambda: Batch(torch.tensor(1.0)), "at least one axis"),
    "rows of a sample scattered": (lambda: Batch(torch.zeros(3, 2), torch.tensor([0, 1, 0]), 2), "sort the rows"),
    "number of ragged samples missing": (lambda: Batch(torch.zeros(2, 2), torch.tensor([0, 1])), "needs size"),
    "sample number out of range": (lambda: Batch(torch.zeros(2, 2), torch.tensor([0, 5]), 2), "outside 0..1"),
    "labels of another length": (lambda: Batch(torch.zeros(3, 2), context={"y": torch.zeros(2)}), "per sample"),
    "species on a dense batch": (lambda: Batch(torch.zeros(3, 2), nodes={"z": torch.zeros(3)}), "ragged batch"),
    "no batches to join": (lambda: Batch.join([]), "at least one batch"),
    "grid as graph": (lambda: PLANE.to_pyg(), "no nodes to give to PyG"),
    "prior of no width": (lambda: priors.Gaussian(std=0.0), "std positive"),
    "covariance not positive": (lambda: priors.FullGaussian((2,), covariance=-torch.eye(2)), "not positive definite"),
    "covariance of another size": (lambda: priors.FullGaussian((2,), covariance=torch.eye(3)), r"must be \(2, 2\)"),
    "spectral prior not fitted": (lambda: priors.SpectralGaussian((1, 4, 5)).sample(FIELDS), "call .fit"),
    "fields of another shape": (lambda: priors.SpectralGaussian((1, 5, 5)).fit(FIELDS), "made for samples"),
    "field prior on ragged sets": (lambda: priors.FullGaussian((2,)).fit(RAGGED), "this batch is ragged"),
    "power law without a floor": (lambda: spectra.PowerLaw(5.0, 0.0)(torch.ones(3, 3)), "10\\^6 bits"),
    "fields that never vary": (lambda: priors.SpectralGaussian((1, 4, 5)).fit(Batch(torch.ones(9, 1, 4, 5))), "nugget"),
    "fields with NaN": (lambda: priors.SpectralGaussian((1, 3, 3)).fit(stack(NAN)), "2 finite fields"),
    "periodic flags of another number": (lambda: priors.SpectralGaussian((1, 4, 5), (True,)), "flag per axis"),
    "blur beyond the path": (lambda: paths.Linear(sigma_min=1.5), "sigma_min must be"),
    "times without spread": (lambda: times.logit_normal(0.0, -1.0), "std must be positive"),
    "unknown method": (lambda: Solver("rk45"), "there are euler"),
    "fixed method without steps": (lambda: Solver("rk4"), "give steps="),
    "tolerance of zero": (lambda: Solver(rtol=0.0), "must be positive"),
    "tolerance below float32": (
        lambda: integrate(lambda t, x, *_: (x, None), PLANE.x, 0, 1, PLANE, Solver(rtol=1e-9)),
        "resolves",
    ),
    "state with NaN": (lambda: integrate(lambda t, x, *_: (x, None), PLANE.x * NAN, 0, 1, PLANE), "not finite near"),
    "too few steps allowed": (
        lambda: integrate(lambda t, x, *_: (-900 * (x - 1), None), PLANE.x, 0, 1, PLANE, Solver(max_steps=3)),
        "raise max_steps",
    ),
    "no probes": (lambda: Hutchinson(0), "probes >= 1"),
    "likelihood in one step": (lambda: FLOW.log_prob(PLANE, solver=Solver("euler", steps=1)), "single step"),
    "a torch distribution as prior": (
        lambda: Flow(nn.Identity(), torch.distributions.Normal(0, 1)),
        "derive from Prior",
    ),
    "data finer than the network": (lambda: FLOW.loss(PLANE.to(torch.float64)), "convert one of them"),
    "sample without points": (lambda: FLOW.bits_per_dim(_hollow()), "without any"),
    "unknown metric": (lambda: Objective(metric="L2"), 'must be "plain"'),
    "metric the prior lacks": (
        lambda: Flow(networks.PointNet(2), _NoWhitening(), objective=Objective(metric="prior")).sample(PLANE),
        'metric="plain"',
    ),
    "nothing to score": (lambda: FLOW.bits_per_dim(Batch(torch.zeros(0, 2))), "at least one sample"),
    "missing values to score": (lambda: FLOW.bits_per_dim(Batch(torch.full((3, 2), NAN))), "sample 0 holds NaN"),
    "bins of no width": (lambda: FLOW.bits_per_dim(PLANE, delta=0.0), "bin width delta"),
    "misspelt setting": (lambda: FLOW.bits_per_dim(PLANE, probse=2), "probse"),
    "empty split": (lambda: splits(test=Batch(torch.zeros(0, 2))), "test split is empty"),
    "integers as data": (lambda: splits(train=Batch(torch.zeros(3, 2, dtype=torch.long))), "delta=1 for integers"),
    "splits of mixed dtypes": (lambda: splits(valid=Batch(torch.zeros(3, 2).double())), "train is torch.float32"),
    "splits of other shapes": (lambda: splits(test=Batch(torch.zeros(3, 3))), "per row"),
    "data with NaN": (lambda: splits(train=Batch(torch.full((3, 2), NAN))), "fill or drop"),
    "a channel that never varies": (lambda: transforms.Standardise("channel").fit(PLANE), "do not vary"),
    "transform not fitted": (lambda: transforms.Standardise()(PLANE), "call .fit"),
    "climatology without a calendar": (lambda: transforms.Climatology().fit(stack(1.0)), r'context\["time"\]'),
    "hours the climatology has not seen": (
        lambda: transforms.Climatology().fit(stack(1.0, context={"time": torch.full((4,), 0.1)})),
        "name them in hours",
    ),
    "values beyond the bounds": (
        lambda: transforms.Logit(0.0, 1.0)(Batch(torch.full((2, 2), 3.0))),
        "Widen the bounds",
    ),
    "logarithm of zero": (lambda: transforms.Log()(PLANE), "must be positive"),
    "draws of another shape": (lambda: couplings.OptimalTransport()(torch.zeros(4, 3), PLANE), "shaped like the data"),
    "data with NaN to pair": (
        lambda: couplings.OptimalTransport()(torch.zeros(4, 2), Batch(PLANE.x * NAN)),
        "not finite",
    ),
    "recipe without data": (lambda: Recipe(FLOW, PLANE), "data must be a Data"),
    "recipe that trains backward": (lambda: Recipe(FLOW, splits(), steps=-5), "steps must be"),
    "unknown dataset": (lambda: load_dataset("terain"), "did you mean 'terrain'"),
    "patch larger than the map": (lambda: load_dataset("terrain").terrain(patch=200), "narrowest strip"),
}


def _hollow():
    return Batch(torch.zeros(2, 2), torch.tensor([0, 0]), 2)


class _NoWhitening(priors.Prior):
    def sample(self, like, generator=None):
        return like.randn(generator)

    def log_prob(self, x, like):
        return priors.Gaussian().log_prob(x, like)


@pytest.mark.parametrize("name", LIBRARY)
def test_library(name):
    call, says = LIBRARY[name]
    with pytest.raises(
        (ValueError, TypeError, RuntimeError, FileNotFoundError, NotImplementedError), match=says
    ) as caught:
        call()
    assert len(str(caught.value)) < 500


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A short finished run, and a netCDF file, to be mistreated."""
    folder = tmp_path_factory.mktemp("bad")
    words = [
        "train",
        "moons",
        "--steps",
        "2",
        "--width",
        "8",
        "--batch-size",
        "16",
        "--track",
        "none",
        "--out",
        "runs/good",
    ]
    done = scifm(words, folder)
    assert done.returncode == 0, done.stderr
    ds = xr.Dataset({"t2m": (("time", "y", "x"), np.random.default_rng(0).normal(size=(5, 3, 4)))})
    ds.to_netcdf(folder / "good.nc", engine="h5netcdf")
    whole = (folder / "good.nc").read_bytes()
    (folder / "cut.nc").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("keep me")
    return folder


def scifm(words, cwd):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "SCIFM_DEBUG": ""}
    return subprocess.run(
        [sys.executable, "-m", "scifm", *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )


def fingerprint(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith(".lock")
    }


COMMANDS = {
    "unknown command": (["trian"], "train"),
    "unknown flag": (["train", "moons", "--step", "3"], "--steps"),
    "value of the wrong kind": (["train", "moons", "--steps", "many"], "many"),
    "choice that is not there": (["train", "moons", "--coupling", "otto"], "otto"),
    "misspelt recipe": (["train", "quikstart"], "quickstart"),
    "recipe file that is not there": (["train", "recipes/nothing.py"], "nothing.py"),
    "folder that is no run": (["sample", "runs/god"], "runs/good"),
    "folder that holds a run": (["train", "moons", "--out", "runs/good"], "--resume"),
    "folder that is not empty": (["train", "moons", "--out", "."], "--out"),
    "samples that exist": (["sample", "runs/good", "--output", "runs/good/samples.npz"], "--overwrite"),
    "resume of a finished run": (["train", "--resume", "runs/good"], "nothing to resume"),
    "number of samples": (["sample", "runs/good", "-n", "0", "--output", "x.npz"], "at least 1"),
    "unknown method": (["sample", "runs/good", "--method", "dopri6", "--output", "x.npz"], "dopri5"),
    "unknown device": (["train", "moons", "--device", "tpu"], "tpu"),
    "unknown split": (["score", "runs/good", "--split", "tset", "--output", "x.json"], "test"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_line(name, run_folder):
    words, says = COMMANDS[name]
    before = fingerprint(run_folder)
    done = scifm(words, run_folder)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert says in done.stderr
    assert fingerprint(run_folder) == before


def damaged(run_folder, tmp_path, harm):
    import shutil

    shutil.copytree(run_folder / "runs" / "good", tmp_path / "run")
    checkpoint = next((tmp_path / "run" / "checkpoints").glob("step-*"))
    harm(checkpoint, tmp_path / "run")
    return scifm(["score", "run", "--samples", "4", "--output", "x.json"], tmp_path)


def cut(checkpoint, run):
    path = checkpoint / "state.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def change(checkpoint, run):
    path = checkpoint / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 255
    path.write_bytes(bytes(data))


def future(checkpoint, run):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "format": 99}))


def remove(checkpoint, run):
    (run / "recipe.py").unlink()


FILES = {
    "checkpoint cut short": (cut, "state.safetensors"),
    "checkpoint with a flipped bit": (change, "state.safetensors"),
    "run of a later format": (future, "format 99"),
    "run without its recipe": (remove, "recipe"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name, run_folder, tmp_path):
    harm, says = FILES[name]
    done = damaged(run_folder, tmp_path, harm)
    assert done.returncode != 0 and says in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
    assert not (tmp_path / "x.json").exists()


GRIDS = {
    "missing variable": ("good.nc", {"variable": "t2n"}, "t2m"),
    "missing dimension": ("good.nc", {"sample_dim": "date"}, "date"),
    "truncated file": ("cut.nc", {}, "cannot be read"),
    "not a grid file": ("notes.txt", {}, "cannot be read"),
    "no file": ("none.nc", {}, "no file"),
}


@pytest.mark.parametrize("name", GRIDS)
def test_grids(name, run_folder):
    file, settings, says = GRIDS[name]
    before = fingerprint(run_folder)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        grids.from_xarray(run_folder / file, **settings)
    assert fingerprint(run_folder) == before


def test_training_on_nan_names_the_batch_and_writes_no_checkpoint(tmp_path):
    with pytest.raises(RuntimeError, match="at step 1, in the batch of training samples"):
        train_on_nan(tmp_path)
    assert not list(tmp_path.glob("checkpoints/step-*"))


def test_the_promise():
    assert len(LIBRARY) + len(COMMANDS) + len(FILES) + len(GRIDS) + 1 >= 40
    messages = [says for _, says in LIBRARY.values()]
    assert len(set(messages)) > 0.9 * len(messages)
