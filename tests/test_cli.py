"""The command line: one run's whole life, resuming after kill -9 byte for byte, and errors of one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scifm import checkpoint
from scifm.cli import main
from scifm.run import Run

HEAD = '''"""Two blobs.

A toy.
"""
from __future__ import annotations
import os, signal
from pathlib import Path
from typing import Literal
import torch
from scifm import Batch, Flow, Recipe, networks, priors
from scifm.data import Data

'''

BLOBS = (
    HEAD
    + '''
class Dying(torch.nn.Module):
    """A network that drops out, and gets the process a signal at its n-th call in training, if a file asks for it."""
    def __init__(self, width):
        super().__init__()
        self.net, self.drop, self.calls = networks.MLP(2, hidden=(width,)), torch.nn.Dropout(0.1), 0
    def forward(self, t, x, batch):
        if next(self.parameters()).requires_grad and self.training:  # not the averaged copy
            self.calls += 1
            if os.environ.get("DIE") and self.calls == int(os.environ["DIE"].split()[1]):
                os.kill(os.getpid(), getattr(signal, os.environ["DIE"].split()[0]))
        return self.drop(self.net(t, x, batch))

def recipe(*, steps: int = 24, width: int = 8, rate: float = 1e-3, kind: Literal["two", "one"] = "two"):
    """Blobs.

    width: of the network
    """
    g = torch.Generator().manual_seed(0)
    data = [Batch(torch.randn(40, 2, generator=g) + 2 * (kind == "two")) for _ in range(3)]
    return Recipe(
        Flow(Dying(width), priors.Gaussian()), Data("blobs", *data, unit="m", summary="blobs: 40 points"), steps=steps,
        batch_size=16, warmup=2, learning_rate=rate, log_every=5, valid_every=10, checkpoint_every=10, valid_samples=8,
        test_samples=12,
    )
'''
)


@pytest.fixture
def blobs(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("SCIFM_DEBUG", raising=False)
    (tmp_path / "blobs.py").write_text(BLOBS)
    return tmp_path


def scifm(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scifm", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), **environment},
    )


def wrong(capsys, *words: str) -> str:
    """The one line of an error, with exit status 2."""
    capsys.readouterr()
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("scifm: ")
    return captured.err


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- a run's life ------------------------------------------------------------------------------------------


def test_train_sample_score_report(blobs: Path, capsys) -> None:
    assert main(["train", "blobs.py", "--width", "6", "--seed", "3", "--threads", "1", "--track", "none"]) == 0
    out = capsys.readouterr().out
    assert "blobs: 40 points" in out and "NLL " in out and "± " in out and "prior" in out and "best Gaussian" in out
    run = Run.open("runs/blobs-1")
    assert run.status == "finished" and run.record["flags"] == {"width": 6} and run.record["seed"] == 3
    assert run.record["keywords"] == {"steps": 24, "width": 6, "rate": 1e-3, "kind": "two"}
    held = set(files(run.folder))
    assert held >= {"run.json", "recipe.py", "metrics.jsonl", "samples.npz", "score.json", "report.md"}
    assert held >= {f"figures/{name}.png" for name in ("loss", "samples", "bits_per_dim")}

    # from the folder alone, elsewhere, without the recipe
    (blobs / "blobs.py").unlink()
    moved = blobs / "moved"
    run.folder.rename(moved)
    before = files(moved)
    assert main(["sample", "moved", "--number", "12", "--output", "some"]) == 0
    assert main(["sample", "moved", "-n", "20", "--chunk", "7", "-o", "more.npz"]) == 0
    with np.load("some.npz") as some, np.load("more.npz") as more, np.load(moved / "samples.npz") as first:
        # sample k depends on neither the number nor the chunk, nor on the process that drew it
        assert np.allclose(some["x"], more["x"][:12], atol=1e-5) and more["x"].shape == (20, 2)
        assert np.allclose(some["x"], first["x"], atol=1e-5)
        assert len(np.unique(more["x"], axis=0)) == 20
    assert main(["score", "moved", "--output", "again.json"]) == 0
    again = json.loads((blobs / "again.json").read_text())
    first_score = json.loads((moved / "score.json").read_text())
    assert again["value"] == pytest.approx(first_score["value"], abs=1e-6)
    assert {"value", "stderr", "delta", "draws", "trace", "solver", "nfe", "baselines", "per_sample"} <= again.keys()
    assert files(moved) == before  # nothing in the run was touched

    assert main(["report", "moved", "--overwrite"]) == 0
    capsys.readouterr()
    assert main(["info", "moved"]) == 0
    assert "finished" in capsys.readouterr().out
    assert main(["list", "runs", "--runs", str(blobs)]) == 0
    line = capsys.readouterr().out
    assert "moved" in line and "finished" in line and "bits/dim" in line


def test_settings_of_sampling_and_scoring_count(blobs: Path) -> None:
    assert main(["train", "blobs.py", "--track", "none", "--out", "a"]) == 0
    for name, words in {
        "base": [],
        "seed": ["--seed", "5"],
        "model": ["--weights", "model"],
        "euler": ["--method", "euler", "--steps", "3"],
    }.items():
        assert main(["sample", "a", "-n", "5", "-o", name, *words]) == 0
    drawn = {name: np.load(f"{name}.npz")["x"] for name in ("base", "seed", "model", "euler")}
    assert all(not np.allclose(drawn["base"], drawn[name], atol=1e-4) for name in ("seed", "model", "euler"))
    assert main(["score", "a", "--split", "train", "-n", "7", "--probes", "3", "-o", "train.json"]) == 0
    score = json.loads(Path("train.json").read_text())
    assert score["samples"] == 7 and score["split"] == "train" and "3 probe" in score["trace"]


def test_nothing_is_overwritten_without_being_asked(blobs: Path, capsys) -> None:
    assert main(["train", "blobs.py", "--track", "none", "--out", "a"]) == 0
    assert main(["sample", "a", "-n", "4"]) == 0
    before = files(blobs)
    assert "already holds a run" in wrong(capsys, "train", "blobs.py", "--out", "a")
    assert "--overwrite" in wrong(capsys, "sample", "a", "-n", "4")
    assert "--overwrite" in wrong(capsys, "sample", "a", "-n", "4", "--output", "a/samples.npz")
    assert "--overwrite" in wrong(capsys, "score", "a")
    assert "--overwrite" in wrong(capsys, "report", "a")
    assert "nothing to resume" in wrong(capsys, "train", "--resume", "a")
    assert "a cannot be written: it is a folder" in wrong(capsys, "score", "a", "--output", "a", "--overwrite")
    for command in ("score", "sample"):
        assert "blobs.py/x.npz cannot be" in wrong(capsys, command, "a", "--output", "blobs.py/x.npz")
    assert "is not empty" in wrong(capsys, "train", "blobs.py", "--out", ".")
    assert files(blobs) == before
    assert main(["sample", "a", "-n", "4", "--overwrite", "--seed", "9", "-o", "a/samples.npz"]) == 0
    assert files(blobs) != before


def test_an_mlflow_run_holds_parameters_metrics_and_artifacts(blobs: Path) -> None:
    assert main(["train", "blobs.py", "--seed", "2"]) == 0
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{blobs}/runs/mlflow.db")
    run = client.get_run(json.loads(Path("runs/blobs-1/mlflow.json").read_text())["run_id"])
    assert run.info.status == "FINISHED" and run.info.run_name == "blobs-2"
    assert run.data.params["width"] == "8" and run.data.params["seed"] == "2"
    assert {"parameters", "git.commit", "version.torch", "score.solver", "score.draws"} <= run.data.params.keys()
    score = json.loads(Path("runs/blobs-1/score.json").read_text())
    assert run.data.metrics["test/bits_per_dim"] == score["value"]
    assert run.data.metrics["test/bits_per_dim_stderr"] == score["stderr"]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "valid/loss")] == [10, 20, 24]
    held = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert held >= {"recipe.py", "score.json", "samples.npz", "report.md", "loss.png"}


def test_a_missing_tracking_server_costs_tracking_only(blobs: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # discard: nobody listens
    assert main(["train", "blobs.py"]) == 0
    assert capfd.readouterr().err.count("warning: MLflow") == 1
    assert Run.open("runs/blobs-1").status == "finished"


# -- interruptions -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "blobs.py").write_text(BLOBS)
    words = ["train", str(folder / "blobs.py"), "--track", "none", "--threads", "1", "--out", str(folder / "run")]
    done = scifm(*words)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def same(folder: str, uninterrupted: Path) -> None:
    """Weights, averages, optimiser and random states are those of the run that was left alone."""
    (found, _, step), (whole, _, last) = (checkpoint.load(Path(f) / "checkpoints") for f in (folder, uninterrupted))
    assert step == last == 24 and found.keys() == whole.keys()
    assert [k for k in whole if not torch.equal(found[k], whole[k])] == []


@pytest.mark.parametrize("calls", [4, 17], ids=["before the first checkpoint", "after it"])
def test_a_killed_run_resumes_byte_for_byte(blobs: Path, uninterrupted: Path, capsys, calls: int) -> None:
    done = scifm("train", "blobs.py", "--track", "none", "--threads", "1", "--out", "cut", DIE=f"SIGKILL {calls}")
    assert done.returncode == -9
    assert Run.open("cut").status == "stopped"
    assert main(["info", "cut"]) == 0
    assert "scifm train --resume cut" in capsys.readouterr().out
    assert scifm("train", "--resume", "cut", "--track", "none").returncode == 0
    assert Run.open("cut").status == "finished"
    same("cut", uninterrupted)
    # the course of the training reads as if nothing had happened
    assert Run.open("cut").metrics == Run.open(uninterrupted).metrics


def test_an_interrupted_run_says_how_to_go_on(blobs: Path, uninterrupted: Path) -> None:
    done = scifm("train", "blobs.py", "--track", "none", "--threads", "1", "--out", "cut", DIE="SIGINT 13")
    assert done.returncode == 130 and "scifm train --resume cut" in done.stderr and "Traceback" not in done.stderr
    assert Run.open("cut").status == "interrupted" and checkpoint.steps("cut/checkpoints")[-1] == 13
    done = scifm("train", "--resume", "cut", "--track", "none")
    assert done.returncode == 0, done.stderr
    same("cut", uninterrupted)


def test_a_run_that_diverges_fails_in_one_line_and_keeps_its_checkpoints(blobs: Path, capsys) -> None:
    (blobs / "blobs.py").write_text(
        BLOBS.replace("return self.drop(", "return (1 if self.calls < 15 else 1e38) ** 2 * (")
    )
    assert main(["train", "blobs.py", "--track", "none", "--out", "a"]) == 1
    said = capsys.readouterr().err
    assert "step 15" in said and said.count("\n") == 1
    assert Run.open("a").status == "failed" and checkpoint.steps("a/checkpoints") == [10]


def test_a_run_whose_end_was_cut_off_makes_only_what_is_missing(blobs: Path) -> None:
    assert main(["train", "blobs.py", "--track", "none", "--out", "a"]) == 0
    before = files(blobs / "a")
    (blobs / "a" / "score.json").unlink()
    Run.open("a").update(status="trained")
    assert Run.open("a").record["track"] == "none"
    assert main(["train", "--resume", "a", "--track", "none"]) == 0
    after = files(blobs / "a")
    for name in ("samples.npz", "recipe.py", "metrics.jsonl"):
        assert after[name] == before[name]
    assert json.loads(after["score.json"])["value"] == pytest.approx(json.loads(before["score.json"])["value"])


def test_a_score_and_samples_of_an_unfinished_run_are_never_the_final_ones(blobs: Path, uninterrupted: Path) -> None:
    done = scifm("train", "blobs.py", "--track", "none", "--threads", "1", "--out", "cut", DIE="SIGINT 13")
    assert done.returncode == 130
    few = ["--method", "rk4", "--steps", "2"]
    assert main(["score", "cut", "--split", "train", "-n", "3", *few]) == 0
    assert main(["sample", "cut", "-n", "3", *few]) == 0
    early = json.loads(Path("cut/score-step-13.json").read_text())
    assert early["step"] == 13 and early["split"] == "train" and Run.open("cut").score is None
    assert Path("cut/samples-step-13-3-seed-0.npz").exists() and Run.open("cut").samples is None
    # nor those that were put there by name, before the end and once it is trained
    stale = {}
    for name, command in {"score.json": "score", "samples.npz": "sample"}.items():
        assert main([command, "cut", "-n", "3", *few, "--output", f"cut/{name}"]) == 0
        stale[name] = Path("cut", name).read_bytes()
        Path("cut", name.replace(".", "-before.")).write_text("another, of before")
    assert scifm("train", "--resume", "cut").returncode == 0
    run, whole = Run.open("cut"), json.loads((uninterrupted / "score.json").read_text())
    assert run.status == "finished" and not Path("runs").exists() and not Path("mlflow.db").exists()
    assert run.score is not None and run.score["step"] == 24 and run.score["samples"] == 12
    assert run.score["value"] == pytest.approx(whole["value"], abs=1e-6)
    with np.load("cut/samples.npz") as found, np.load(uninterrupted / "samples.npz") as expected:
        assert np.allclose(found["x"], expected["x"], atol=1e-5) and "step=24" in found["about"]
    for name, content in stale.items():
        assert Path("cut", name.replace(".", "-before-2.")).read_bytes() == content
        assert Path("cut", name.replace(".", "-before.")).read_text() == "another, of before"
    assert "24" in Path("cut/report.md").read_text()


def test_a_score_that_took_the_name_after_the_end_was_cut_off_is_set_aside(blobs: Path) -> None:
    assert main(["train", "blobs.py", "--track", "none", "--out", "a"]) == 0
    Run.open("a").update(status="trained")
    final = Run.open("a").score
    assert main(["score", "a", "-n", "3", "--output", "a/score.json", "--overwrite"]) == 0
    assert main(["train", "--resume", "a"]) == 0
    found = Run.open("a").score
    assert found is not None and final is not None and found["per_sample"] == pytest.approx(final["per_sample"])
    assert json.loads(Path("a/score-before.json").read_text())["samples"] == 3


def test_a_refused_resume_changes_nothing_of_the_run(blobs: Path, capsys) -> None:
    assert scifm("train", "blobs.py", "--track", "none", "--out", "a", DIE="SIGINT 13").returncode == 130
    with Run.open("a").lock():
        before = files(blobs)
        assert "being trained by another" in scifm("train", "--resume", "a").stderr
        assert files(blobs) == before
    Run.open("a").update(status="finished")
    again = wrong(capsys, "train", "--resume", "a")
    assert "`scifm score a --output again.json` scores it again" in again


def test_track_none_is_remembered_and_can_be_changed(blobs: Path) -> None:
    assert scifm("train", "blobs.py", "--track", "none", "--out", "a", DIE="SIGINT 13").returncode == 130
    assert scifm("train", "--resume", "a", "--track", "mlflow").returncode == 0
    assert Run.open("a").record["track"] == "mlflow" and Path("a/mlflow.json").exists()


@pytest.mark.parametrize("how", ["| head -n 1", "2>&1 | head -n 1", "| true", ">&-", ">&- 2>&-"])
def test_a_reader_that_goes_away_does_not_stop_the_training(blobs: Path, how: str) -> None:
    words = f"'{sys.executable}' -u -m scifm train blobs.py --steps 300 --track none --threads 1 --out a"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    script = f"{{ {words}; echo $? > status; }} {how}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert Path("status").read_text() == "0\n" and done.stderr == ""
    run = Run.open("a")
    assert run.status == "finished" and checkpoint.steps("a/checkpoints")[-1] == 300
    if "head" in how:
        assert done.stdout.count("\n") == 1


# -- data ------------------------------------------------------------------------------------------------


def test_changed_data_are_refused_by_every_command(blobs: Path, capsys) -> None:
    (blobs / "fixed.py").write_text(
        BLOBS.replace("g = torch", "Path('d.txt').read_text(); g = torch").replace(
            'unit="m"', 'unit="m", files=(Path("d.txt"),)'
        )
    )
    (blobs / "d.txt").write_text("1")
    assert main(["train", "fixed.py", "--track", "none", "--out", "a", "--steps", "4"]) == 0
    Run.open("a").update(status="trained")
    (blobs / "d.txt").write_text("2")
    before = files(blobs)
    for words in (["score", "a"], ["sample", "a"], ["train", "--resume", "a"]):
        assert "d.txt is not what a was trained on" in wrong(capsys, *words)
    assert files(blobs) == before | {"a/.lock": b""}


# -- wrong words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("trian blobs.py", "'train'"),
        ("--hlep", "no flag '--hlep'"),
        ("train", "expected a recipe"),
        ("train blob.py", "'blobs.py'"),
        ("train quikstart", "'quickstart'"),
        ("train blobs.py --stpes 3", "'--steps'"),
        ("train blobs.py --widht=3", "'--width'"),
        ("train --sed 3 blobs.py", "'--seed'"),
        ("train --width 3 blobs.py", "The recipe comes before its own flags"),
        ("train blobs.py --step 3", "'--steps'"),  # no abbreviations: a new flag would change their meaning
        ("train blobs.py --steps many", "expected a whole number, got 'many'"),
        ("train blobs.py --steps", "expected one argument"),
        ("train blobs.py --kind too", "expected one of two, one, got 'too'"),
        ("train blobs.py --steps 0", "steps must be a whole number of at least 1"),
        ("train blobs.py --rate -1e-3", "learning_rate must be positive"),
        ("train blobs.py --seed -1", "at least 0, got '-1'"),
        ("train blobs.py --seed 9223372036854775808", "whole number below 2"),
        ("sample a --seed 9223372036854775808", "whole number below 2"),
        ("train blobs.py --out text.txt/a", "text.txt/a cannot be written"),
        ("train blobs.py --out /proc/a", "/proc/a cannot be written"),
        ("train blobs.py --threads 0", "at least 1, got '0'"),
        ("train blobs.py --device gpu", "no device 'gpu'; this machine has cpu"),
        ("train blobs.py --track wandb", "wandb"),
        ("train blobs.py more", "'more'"),
        ("train .", "is a folder"),
        ("train text.txt", "text.txt"),
        ("train reserved.py", "'seed' is a flag of `scifm train`; rename it"),
        ("train missing.py", "no_such_package"),
        ("train raises.py", "raises.py, line 14: radius must be positive"),
        ("train nothing.py", "must return a scifm.Recipe, got NoneType"),
        ("train --resume nowhere", "nowhere is no run"),
        ("train --resume a --seed 3", "leave them out"),
        ("train blobs.py --resume a", "leave them out"),
        ("sample", "RUN"),
        ("sample nowhere", "no such folder"),
        ("sample .", "holds no run"),
        ("sample a", "no checkpoint"),
        ("sample a -n 0", "at least 1"),
        ("sample a --method rk5", "'rk4'"),
        ("sample a --rtol x", "invalid float"),
        ("score a --split tset", "tset"),
        ("score a --probes 2 --exact", "not allowed with"),
        ("report aa", "'a'"),
        ("info nowhere", "no such folder"),
        ("list recipe", "'recipes'"),
        ("info --verbose", "no flag '--verbose'"),
    ],
)
def test_wrong_words_give_one_line_and_change_nothing(blobs: Path, capsys, words: str, named: str) -> None:
    (blobs / "text.txt").write_text("not Python at all")
    (blobs / "reserved.py").write_text("def recipe(*, seed: int = 0): ...")
    (blobs / "missing.py").write_text("import no_such_package\ndef recipe(): ...")
    (blobs / "raises.py").write_text(HEAD + "def recipe():\n    raise ValueError('radius must be positive')\n")
    (blobs / "nothing.py").write_text("def recipe(): ...")
    (blobs / "a").mkdir()
    (blobs / "a" / "recipe.py").write_text(BLOBS)
    (blobs / "a" / "run.json").write_text('{"format": 1, "status": "running", "flags": {}, "seed": 0, "recipe": "a"}')
    before = files(blobs)
    assert named in wrong(capsys, *words.split())
    assert files(blobs) == before


def test_a_fault_that_nobody_expected_shows_its_traceback(blobs: Path, capsys) -> None:
    (blobs / "bug.py").write_text(HEAD + "def recipe():\n    return 1 / 0\n")
    assert main(["train", "bug.py"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "bug.py" in said and "ZeroDivisionError" in said


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("--help", 0), ("--version", 0), ("train --help", 0), ("train moons --help", 0), ("sample --help", 0),
        ("list", 0), ("list runs", 0),
        ("train quikstart", 2), ("train moons --stpes 3", 2), ("trian", 2), ("score nowhere", 2), ("info nowhere", 2),
    ],
)  # fmt: skip
def test_help_and_misspelt_words_do_not_import_torch(blobs: Path, words: str, status: int) -> None:
    code = (
        "import sys\nfrom scifm.cli import main\n"
        f"try:\n    status = main({words.split()!r})\nexcept SystemExit as e:\n    status = e.code or 0\n"
        "heavy = {'torch', 'numpy', 'mlflow', 'xarray', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        f"assert not heavy, heavy\nassert status == {status}, status\n"
    )
    path = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr


def test_list_and_info_show_what_there_is(blobs: Path, capsys) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("recipes:", "quickstart", "moons", "datasets:", "terrain", "runs:", "none"))
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("torch", "devices", "cpu", "SCIFM_DATA", "mlflow.db"))


def test_a_flag_with_a_negative_number(blobs: Path, capsys) -> None:
    (blobs / "shift.py").write_text(HEAD + "def recipe(*, shift: float = 0.0):\n    raise ValueError(f'got {shift}')\n")
    assert "got -0.001" in wrong(capsys, "train", "shift.py", "--shift", "-1e-3")


def test_grids_come_back_as_netcdf(blobs: Path, capsys) -> None:
    xr: Any = pytest.importorskip("xarray")
    (blobs / "grid.py").write_text(
        HEAD
        + """
def export(batch):
    import xarray as xr
    return xr.Dataset({"height": (("realization", "y", "x"), batch.x[:, 0].numpy(), {"units": "m"})})

def recipe(*, steps: int = 2):
    g = torch.Generator().manual_seed(0)
    data = [Batch(torch.randn(8, 1, 6, 5, generator=g)) for _ in range(3)]
    data = Data("grid", *data, unit="m", export=export)
    return Recipe(Flow(networks.MLP((1, 6, 5), hidden=(8,)), priors.Gaussian()), data, steps=steps, test_samples=4)
"""
    )
    assert main(["train", "grid.py", "--track", "none", "--out", "a"]) == 0
    with xr.open_dataset("a/samples.nc") as found:
        assert found["height"].shape == (4, 6, 5) and found["height"].attrs["units"] == "m"
        assert "scifm" in found.attrs["history"] and found.attrs["scifm_seed"] == 0
    assert {p.name for p in Path("a/figures").iterdir()} >= {"samples.png", "spectrum.png"}
    assert main(["sample", "a", "-n", "2", "-o", "raw.npz"]) == 0
    with np.load("raw.npz") as raw:
        assert raw["x"].shape == (2, 1, 6, 5)
    assert ".nc, .zarr or .npz files, got 'x.csv'" in wrong(capsys, "sample", "a", "-o", "x.csv")
