"""`scifm sample` and `scifm score` in chunks: killed or interrupted, the same command ends in the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scifm import checkpoint
from scifm.cli import main
from scifm.recipe import load_recipe
from scifm.report import read_samples
from scifm.run import Run

RECIPE = '''"""A bend."""
from __future__ import annotations
import os, signal
import torch
from scifm import Batch, Flow, Recipe, couplings, priors
from scifm.data import Data

class Bend(torch.nn.Module):
    """Gets the process a signal at its n-th call, if the environment asks for it; notes its calls and its batches."""
    def __init__(self):
        super().__init__()
        self.strength, self.calls = torch.nn.Parameter(torch.tensor(0.5)), 0
    def forward(self, t, x, batch):
        self.calls += 1
        if "CALLS" in os.environ:
            with open(os.environ["CALLS"], "a") as file:
                print(len(batch), file=file)
        if os.environ.get("DIE") and self.calls == int(os.environ["DIE"].split()[1]):
            os.kill(os.getpid(), getattr(signal, os.environ["DIE"].split()[0]))
        return self.strength * torch.tanh(x + 0.5 * x.roll(1, -1))

def export(batch):
    import xarray as xr
    return xr.Dataset({"height": (("realization", "y", "x"), batch.x[:, 0].numpy(), {"units": "m"})})

def recipe(*, ot: bool = False):
    g = torch.Generator().manual_seed(0)
    data = [Batch(torch.randn(14, 1, 4, 4, generator=g)) for _ in range(3)]
    flow = Flow(Bend(), priors.Gaussian(), coupling=couplings.OptimalTransport() if ot else couplings.independent)
    return Recipe(flow, Data("bends", *data, unit="m", export=export), test_samples=14)
'''

FEW = ["--method", "rk4", "--steps", "2", "--chunk", "4", "--threads", "1"]  # 8 calls a chunk
SAMPLE = ["sample", "a", "-n", "14", "-o", "x.npz", "--log-prob", "--probes", "2", *FEW]
SCORE = ["score", "a", "-o", "s.json", "--probes", "2", *FEW]


def made(where: str, **given: Any) -> None:
    """A finished run with a checkpoint, and no training."""
    file = load_recipe("bend.py")
    recipe = file.build(given)
    run = Run.create(Path(where), file, given, (), seed=5, status="finished")
    state = recipe.flow.state_dict()
    tensors = {f"ema.{k}": v for k, v in state.items()} | {f"model.{k}": v * 0.5 for k, v in state.items()}
    checkpoint.save(run.folder / "checkpoints", 10, tensors, {})


@pytest.fixture
def bend(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCIFM_DEBUG", raising=False)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (tmp_path / "bend.py").write_text(RECIPE)
    made("a")
    return tmp_path


def scifm(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = str(Path(__file__).resolve().parents[1])
    return subprocess.run(
        [sys.executable, "-m", "scifm", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def interrupted(monkeypatch, words: list[str], when: int) -> None:
    """Ctrl-C at the n-th call of the network, in this process."""
    with monkeypatch.context() as patch:
        patch.setenv("DIE", f"SIGINT {when}")
        assert main(words) == 130


def calls() -> list[int]:
    """How many samples came at once at each call of the network since the last question."""
    path = Path("calls")
    found = [int(line) for line in path.read_text().split()] if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def one_line(capsys, *words: str) -> str:
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("scifm: ")
    return said.err


def entries(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"calls"}


# -- sampling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGKILL 17", "SIGTERM 10"])
def test_samples_that_were_cut_off_go_on_to_the_same_bytes(bend: Path, capsys, how: str) -> None:
    before = entries(bend)
    assert main(SAMPLE) == 0
    assert calls() == [4] * 24 + [2] * 8 and entries(bend) == before | {"x.npz"}
    whole = Path("x.npz").read_bytes()
    Path("x.npz").unlink()
    cut = scifm(*SAMPLE, DIE=how)
    assert not Path("x.npz").exists() and len(list(Path(".x.npz.parts").glob("*.safetensors"))) == 2
    if how.startswith("SIGKILL"):
        assert cut.returncode == -9
    else:  # the chunk in hand is finished
        assert cut.returncode == 130 and "Traceback" not in cut.stderr and len(calls()) == 16
        again = "scifm sample a -n 14 -o x.npz --log-prob --probes 2 --method rk4 --steps 2 --chunk 4 --threads 1"
        assert f"interrupted after 8 of 14 samples; go on with: {again}\n" in cut.stderr
    calls()
    capsys.readouterr()
    assert main(SAMPLE) == 0
    assert "going on after 8 of 14 samples\n" in capsys.readouterr().err
    assert calls() == [4] * 8 + [2] * 8  # what was there is not made again, and nothing larger than a chunk is
    assert Path("x.npz").read_bytes() == whole and entries(bend) == before | {"x.npz"}


def test_other_settings_are_refused_in_one_line_and_overwrite_starts_anew(bend: Path, capsys, monkeypatch) -> None:
    interrupted(monkeypatch, SAMPLE, 10)
    parts = {p.name: p.read_bytes() for p in Path(".x.npz.parts").iterdir()}
    calls()
    for words, named in {
        ("--seed", "6"): "seed 5 (now 6)",
        ("--chunk", "5"): "chunk 4 (now 5)",
        ("-n", "15"): "number 14 (now 15)",
        ("--weights", "model"): "weights ema (now model)",
        ("--steps", "3"): "steps=2",
        ("--probes", "3"): "probes=2",
    }.items():
        said = one_line(capsys, *SAMPLE, *words)
        assert named in said and "8 finished samples of other settings" in said and "--overwrite to start anew" in said
    assert calls() == [] and {p.name: p.read_bytes() for p in Path(".x.npz.parts").iterdir()} == parts

    recipe = Path("a/recipe.py").read_text()
    Path("a/recipe.py").write_text(recipe.replace("0.5 * x.roll", "0.6 * x.roll"))  # the network is another
    assert "recipe " in one_line(capsys, *SAMPLE)
    Path("a/recipe.py").write_text(recipe)
    tensors, meta, step = checkpoint.load("a/checkpoints")
    checkpoint.save("a/checkpoints", step, {k: v + 1e-3 for k, v in tensors.items()}, meta)
    assert "flow " in one_line(capsys, *SAMPLE)
    checkpoint.save("a/checkpoints", step, tensors, meta)

    assert main([*SAMPLE, "--seed", "6", "--overwrite"]) == 0
    assert len(calls()) == 32 and not Path(".x.npz.parts").exists()
    found = Path("x.npz").read_bytes()
    assert main([*SAMPLE, "--seed", "6", "-o", "y.npz"]) == 0
    assert Path("y.npz").read_bytes() == found


def test_a_damaged_chunk_is_drawn_again(bend: Path, capsys, monkeypatch) -> None:
    assert main([*SAMPLE, "-o", "y.npz"]) == 0
    interrupted(monkeypatch, SAMPLE, 10)
    path = sorted(Path(".x.npz.parts").glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-10])
    calls()
    capsys.readouterr()
    assert main(SAMPLE) == 0
    assert f"warning: {path} is cut short or changed" in capsys.readouterr().err
    assert len(calls()) == 24 and Path("x.npz").read_bytes() == Path("y.npz").read_bytes()


def test_log_densities_in_both_kinds_of_file_and_the_report_reads_them(bend: Path) -> None:
    xr: Any = pytest.importorskip("xarray")
    assert main([*SAMPLE, "-o", "x.nc"]) == 0 and main(SAMPLE) == 0
    assert main(["sample", "a", "-n", "5", "-o", "exact", "--log-prob", *FEW]) == 0  # 16 numbers: exact by default
    assert main(["sample", "a", "-n", "5", "-o", "plain", *FEW]) == 0
    with xr.open_dataset("x.nc") as file, np.load("x.npz") as arrays:
        assert file["log_prob"].dims == ("realization",) and file["log_prob"].attrs["units"] == "1"
        assert file["log_prob"].attrs["trace"] == "hutchinson" and file["log_prob"].attrs["probes"] == 2
        assert np.array_equal(file["log_prob"], arrays["log_prob"])
        assert np.array_equal(file["log_prob_stderr"], arrays["log_prob_stderr"])
        assert file.attrs["scifm_trace"] == "hutchinson" and "trace=hutchinson" in arrays["about"]
        with xr.open_dataset("exact.nc") as exact, xr.open_dataset("plain.nc") as plain:
            assert "log_prob_stderr" not in exact and exact["log_prob"].attrs["trace"] == "exact"
            assert "log_prob" not in plain
            off = (exact["log_prob"].values - arrays["log_prob"][:5]) / arrays["log_prob_stderr"][:5]
            assert np.abs(off).max() < 40 and np.abs(off).max() > 0  # two probes tell their error badly
            assert np.allclose(exact["height"], plain["height"], atol=1e-6)
            assert np.allclose(exact["height"], file["height"][:5], atol=1e-6)
    Path("x.nc").rename("a/samples.nc")
    run = Run.open("a")
    assert run.samples is not None and read_samples(run.samples, (1, 4, 4)).shape == (14, 1, 4, 4)
    assert main(["report", "a"]) == 0
    assert {p.name for p in Path("a/figures").iterdir()} >= {"samples.png", "spectrum.png"}


def test_stochastic_samples_are_others_and_the_same_in_chunks(bend: Path, capsys) -> None:
    words = ["sample", "a", "-n", "6", "--stochastic", "3"]
    assert main([*words, "-o", "heun.npz"]) == 0 and main([*words, "-o", "chunks.npz", "--chunk", "2"]) == 0
    assert main([*words, "-o", "euler.npz", "--method", "euler"]) == 0
    assert main([*words, "-o", "loud.npz", "--strength", "4"]) == 0
    assert main(["sample", "a", "-n", "6", "-o", "plain.npz", *FEW]) == 0
    x = {name: np.load(f"{name}.npz")["x"] for name in ("heun", "chunks", "euler", "plain", "loud")}
    assert np.allclose(x["heun"], x["chunks"], atol=1e-5)
    assert all(not np.allclose(x["heun"], x[name], atol=0.01) for name in ("euler", "plain", "loud"))
    assert "solver=heun SDE 3 steps strength 1" in np.load("heun.npz")["about"]
    made("ot", ot=True)
    before = entries(bend)
    assert "needs pairs that are drawn independently" in one_line(capsys, "sample", "ot", "--stochastic", "3")
    assert entries(bend) == before and not any(p.name.endswith(".parts") for p in Path("ot").iterdir())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--exact", "give --log-prob too"),
        ("--probes 2", "give --log-prob too"),
        ("--log-prob --probes 2 --exact", "not allowed with"),
        ("--stochastic 10 --log-prob", "leave --log-prob out"),
        ("--stochastic 10 --steps 10", "leave out --steps"),
        ("--stochastic 10 --rtol 1e-3", "leave out --steps"),
        ("--stochastic 10 --method dopri5", "--method euler or heun, got 'dopri5'"),
        ("--strength 4", "give --stochastic STEPS too"),
        ("--stochastic 10 --strength -1", "invalid float '-1'"),
        ("--stochastic 1", "at least 2 steps, got 1"),
        ("--stochastic 0", "at least 1, got '0'"),
        ("--log-prob --method euler --steps 1", "a single step gives no usable log-density"),
        ("-o bend.py/x.npz", "bend.py/x.npz cannot be written"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_before_the_work(bend: Path, capsys, words: str, named: str) -> None:
    before = {str(p) for p in bend.rglob("*")}
    assert named in one_line(capsys, "sample", "a", *words.split())
    assert {str(p) for p in bend.rglob("*")} == before


# -- scoring ---------------------------------------------------------------------------------------------


def test_a_score_that_was_cut_off_goes_on_to_the_same_value(bend: Path, capsys) -> None:
    assert main(SCORE) == 0
    count = len(calls())
    whole = json.loads(Path("s.json").read_text())
    Path("s.json").unlink()
    assert scifm(*SCORE, DIE="SIGKILL 17").returncode == -9 and not Path("s.json").exists()
    calls()
    for words, named in {("--seed", "6"): "seed", ("--split", "train"): "split", ("-n", "9"): "samples"}.items():
        assert f"{named} " in one_line(capsys, *SCORE, *words)
    assert "draws 1 (now 2)" in one_line(capsys, *SCORE, "--draws", "2")
    capsys.readouterr()
    assert main(SCORE) == 0
    said = capsys.readouterr()
    assert "going on after 8 of 14 samples\n" in said.err and "bits/dim" in said.out
    assert len(calls()) == count - 16
    assert json.loads(Path("s.json").read_text()) == whole and not Path(".s.json.parts").exists()
    assert whole["trace"] == "2 probe(s)"


def test_ctrl_c_finishes_the_chunk_and_says_how_to_go_on(bend: Path, capsys, monkeypatch) -> None:
    for words in (SCORE, SAMPLE):
        interrupted(monkeypatch, words, 3)
        said = capsys.readouterr().err
        assert f"interrupted after 4 of 14 samples; go on with: scifm {words[0]} a " in said and len(calls()) == 8
        assert said.count("\n") == 2 and said.startswith("\n")


LABELLED = RECIPE.replace(
    "data = [Batch(torch.randn(14, 1, 4, 4, generator=g)) for _ in range(3)]",
    "data = [Batch(torch.randn(14, 1, 4, 4, generator=g), context={'label': torch.arange(14) + 100 * k})"
    " for k in range(3)]",
)


def test_conditions_of_training_samples_are_drawn_from_the_seed(bend: Path) -> None:
    Path("bend.py").write_text(LABELLED)
    made("b")

    def labels(*more: str) -> list[int]:
        assert main(["sample", "b", "-o", "l.npz", "--overwrite", *FEW, *more]) == 0
        return np.load("l.npz")["context.label"].tolist()

    assert labels("-n", "5") == [200, 201, 202, 203, 204]
    drawn = labels("-n", "20", "--conditions", "train")
    assert max(drawn) < 14 and drawn != sorted(drawn)
    assert labels("-n", "5", "--conditions", "train") == drawn[:5]  # a sample does not depend on how many there are
    assert labels("-n", "20", "--conditions", "train", "--seed", "6") != drawn
