"""`scifm reweight`: weights to a known law, refusals before the work, and going on after an interruption."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scifm import checkpoint
from scifm.cli import main
from scifm.energies import HarmonicCluster
from scifm.recipe import load_recipe
from scifm.run import Run

RECIPE = '''"""Three points on springs, by a flow that widens its prior."""
from __future__ import annotations
import os, signal
import torch
from scifm import Batch, Flow, Recipe, priors
from scifm.data import Data
from scifm.energies import HarmonicCluster

class Widen(torch.nn.Module):
    """dx/dt = a x; gets the process a signal at its n-th call, if the environment asks for it; notes its calls."""
    def __init__(self):
        super().__init__()
        self.a, self.calls = torch.nn.Parameter(torch.tensor(0.0)), 0
    def forward(self, t, x, batch):
        self.calls += 1
        with open(os.environ["CALLS"], "a") as file:
            print(len(batch), file=file)
        if os.environ.get("DIE") == str(self.calls):
            os.kill(os.getpid(), signal.SIGINT)
        return self.a * x

def recipe(*, energy: bool = True, ragged: bool = False, points: int = 3):
    like = Batch(torch.zeros(12, points, 2))
    if ragged:
        like = Batch(torch.zeros(9, 2), torch.tensor([0] * 4 + [1] * 5), 2)
    data = [like.replace(priors.MeanFreeGaussian().sample(like, torch.Generator().manual_seed(k))) for k in range(3)]
    law = HarmonicCluster() if energy else None
    return Recipe(Flow(Widen(), priors.MeanFreeGaussian()), Data("springs", *data, energy=law))
'''

FEW = ["--method", "rk4", "--steps", "4", "--threads", "1"]
LOG_Z = 2 * np.log(2 * np.pi)  # three points of the plane without their centre: four numbers of variance 1


def made(where: str, a: float = 0.0, **given: Any) -> None:
    """A finished run with a checkpoint, and no training."""
    file = load_recipe("springs.py")
    recipe = file.build(given)
    run = Run.create(Path(where), file, given, (), seed=5, status="finished")
    state = recipe.flow.state_dict() | {"velocity.a": torch.tensor(a)}
    tensors = {f"{kind}.{k}": v for kind in ("ema", "model") for k, v in state.items()}
    checkpoint.save(run.folder / "checkpoints", 10, tensors, {})


@pytest.fixture(autouse=True)
def springs(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCIFM_DEBUG", raising=False)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (tmp_path / "springs.py").write_text(RECIPE)
    return tmp_path


def wrong(capsys, *words: str) -> str:
    """The one line of an error; the network was not called."""
    capsys.readouterr()
    Path("calls").unlink(missing_ok=True)
    assert main(["reweight", *words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and not Path("calls").exists()
    return said.err


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_a_flow_that_has_the_law_has_equal_weights(capsys) -> None:
    made("a")
    assert main(["reweight", "a", "-n", "50", "--chunk", "16", *FEW]) == 0
    line, path = capsys.readouterr().out.splitlines()
    assert path == "a/weights-50-seed-5.npz" and "ESS 100.0 % of 50 samples" in line and f"log Z {LOG_Z:.3f}" in line
    found = arrays(path)
    assert set(found) == {"x", "count", "energy", "log_prob", "log_weight", "about"}
    assert found["x"].shape == (50, 3, 2) and found["log_weight"].dtype == np.float64
    assert np.allclose(found["log_weight"], LOG_Z, atol=1e-4)
    assert {"run=a", "seed=5", "step=10", "weights=ema"} < set(found["about"].tolist())


def test_another_law_is_weighted_to_the_right_one(capsys) -> None:
    made("a", 0.2)
    assert main(["reweight", "a", "-n", "2000", "--seed", "1", "-o", "w.npz", "--chunk", "500", *FEW]) == 0
    out = capsys.readouterr().out
    found = arrays("w.npz")
    assert np.allclose(found["energy"], HarmonicCluster().of(_batch(found["x"])), atol=1e-5)
    assert np.allclose(found["log_weight"], -found["energy"] - found["log_prob"], atol=1e-6)
    wide = float(np.exp(0.2))
    efficiency = (np.sqrt(2 - 1 / wide**2) / wide) ** 4  # of a Gaussian for a narrower one in four dimensions
    weight = np.exp(found["log_weight"] - found["log_weight"].max())
    assert abs(weight.sum() ** 2 / (weight**2).sum() / 2000 - efficiency) < 0.03
    assert f"ESS {100 * weight.sum() ** 2 / (weight**2).sum() / 2000:.1f} %" in out
    assert abs((weight * found["energy"]).sum() / weight.sum() - 2) < 0.15  # D/2, where the samples have wide² times it
    assert found["energy"].mean() > 2.6


def _batch(x: np.ndarray):
    from scifm import Batch

    return Batch(torch.from_numpy(x))


def test_the_samples_are_those_of_scifm_sample_whatever_the_chunk() -> None:
    made("a", 0.2)
    assert main(["sample", "a", "-n", "14", "-o", "s.npz", "--log-prob", "--exact", *FEW]) == 0
    assert main(["reweight", "a", "-n", "14", "-o", "w.npz", "--chunk", "3", *FEW]) == 0
    samples, weights = arrays("s.npz"), arrays("w.npz")
    assert np.allclose(samples["x"], weights["x"], atol=1e-6)
    assert np.allclose(samples["log_prob"], weights["log_prob"], atol=1e-5)


def test_random_probes_are_refused_with_the_reason_and_corrected_when_asked_for(capsys) -> None:
    """Before: no flag '--probes'. Did you mean '--threads'?"""
    made("a", 0.2)
    said = wrong(capsys, "a", "--probes", "4")
    assert "biased by exp(s²/2)" in said and "Leave --probes out; or give --allow-stochastic" in said
    assert "give --probes too" in wrong(capsys, "a", "--allow-stochastic")
    for probes in ("4", "1"):
        words = ["-n", "200", "--probes", probes, "--allow-stochastic", "-o", f"{probes}.npz", *FEW]
        assert main(["reweight", "a", *words]) == 0
        found = arrays(f"{probes}.npz")
        half = found["log_prob_stderr"] ** 2 / 2 if probes == "4" else 0.0  # of one probe nobody knows it
        assert np.allclose(found["log_weight"], -found["energy"] - found["log_prob"] - half, atol=1e-6)
        assert ("corrected" in capsys.readouterr().out) == (probes == "4")
    assert main(["reweight", "a", "-n", "200", "-o", "exact.npz", "--exact", *FEW]) == 0
    exact, noisy = arrays("exact.npz"), arrays("4.npz")
    assert np.array_equal(exact["x"], noisy["x"]) and np.ptp(exact["log_prob"] - noisy["log_prob"]) > 0.01


def test_a_handful_of_effective_samples_is_called_one(capsys) -> None:
    made("a", 0.2)
    assert main(["reweight", "a", "-n", "3", *FEW]) == 0
    assert "warning: these samples are worth" in capsys.readouterr().err
    assert main(["reweight", "a", "-n", "100", *FEW]) == 0
    assert "warning" not in capsys.readouterr().err


def test_interrupted_it_goes_on_to_the_same_bytes(capsys, monkeypatch) -> None:
    made("a", 0.2)
    words = ["a", "-n", "20", "--chunk", "4", *FEW]
    assert main(["reweight", *words, "-o", "whole.npz"]) == 0
    calls = len(Path("calls").read_text().split())
    with monkeypatch.context() as patch:
        patch.setenv("DIE", str(calls // 2))  # in the third of five chunks
        assert main(["reweight", *words, "-o", "w.npz"]) == 130
    err = capsys.readouterr().err
    done = int(err.split("interrupted after ")[1].split()[0])
    assert done == 12 and "scifm reweight a -n 20" in err and not Path("w.npz").exists()
    Path("calls").unlink()
    assert "other settings: seed 5 (now 6)" in wrong(capsys, *words, "-o", "w.npz", "--seed", "6")
    assert main(["reweight", *words, "-o", "w.npz"]) == 0
    assert f"going on after {done} of 20" in capsys.readouterr().err
    assert len(Path("calls").read_text().split()) == calls * 8 // 20
    assert Path("w.npz").read_bytes() == Path("whole.npz").read_bytes() and not Path(".w.npz.parts").exists()


def test_what_is_there_is_kept_unless_given_up(capsys) -> None:
    made("a")
    words = ["a", "-n", "4", *FEW]
    assert main(["reweight", *words]) == 0
    before = Path("a/weights-4-seed-5.npz").read_bytes()
    assert "weights-4-seed-5.npz exists; give --overwrite" in wrong(capsys, *words)
    assert main(["reweight", *words, "--overwrite", "--weights", "model"]) == 0
    after = Path("a/weights-4-seed-5.npz").read_bytes()
    assert after != before and "weights=model" in arrays("a/weights-4-seed-5.npz")["about"]


def test_refusals(capsys) -> None:
    made("none", energy=False)
    assert "reweight: springs knows no energy, so there is no law" in wrong(capsys, "none")
    made("sizes", ragged=True)
    assert "differ in size, and each size has a log Z of its own" in wrong(capsys, "sizes")
    made("a")
    assert "written to .npz files, got 'w.nc'" in wrong(capsys, "a", "-o", "w.nc")
    assert "--probes" in wrong(capsys, "a", "--probes", "2")  # a random trace would bias the weights
    assert "number" in wrong(capsys, "a", "-n", "0")


def test_one_chunk_is_held_at_a_time(monkeypatch) -> None:
    """However many samples there are. Broken: all chunks in a list, joined."""
    from scifm import Batch
    from scifm.samples import Drawn

    alive, most = weakref.WeakSet(), []
    plain = Drawn.__init__

    def noted(self, *given) -> None:
        plain(self, *given)
        alive.add(self.batch)
        most.append(len(alive))

    made("a", 0.2)
    monkeypatch.setattr(Drawn, "__init__", noted)
    monkeypatch.setattr(Batch, "join", None)
    assert main(["reweight", "a", "-n", "30", "-o", "w.npz", "--chunk", "3", *FEW]) == 0
    assert len(most) >= 3 * 10 and max(most) <= 2  # drawn, weighed and written, ten chunks each
    assert len(arrays("w.npz")["log_weight"]) == 30
