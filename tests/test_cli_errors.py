"""Plausible mistakes at the command line give one line, and an exit status that a script can trust."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scifm import history
from scifm.cli import main
from scifm.data import catalogue
from scifm.disk import write_json
from scifm.history import History
from scifm.run import Run

TOY = """
import torch, scifm
from scifm import Batch, Flow, Recipe, networks, priors
from scifm.data import Data, load_dataset

def recipe(*, steps: int = 1, patch: int = 0, mistake: str = ""):
    if patch:
        load_dataset("terrain").terrain(patch=patch)
    eval(mistake or "0")
    data = Data("toy", *[Batch(torch.randn(4, 2)) for _ in range(3)])
    return Recipe(Flow(networks.MLP(2, hidden=(64, 64)), priors.Gaussian()), data, steps=steps, checkpoint_every=2)
"""


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCIFM_DEBUG", raising=False)
    (tmp_path / "toy.py").write_text(TOY)
    return tmp_path


def one_line(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> str:
    capsys.readouterr()
    assert main(words) == status
    said = capsys.readouterr().err
    assert said.startswith("scifm: ") and said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("Recipe()", "TypeError: Recipe.__init__() missing"),
        ("torch.nothing", "AttributeError: module 'torch' has no attribute 'nothing'"),
        ("scifm.Flwo", "AttributeError: module 'scifm' has no attribute 'Flwo'"),
        ("{}['missing']", "KeyError: 'missing'"),
        ("misspelt", "NameError: name 'misspelt' is not defined"),
        ("float('x')", "could not convert"),
    ],
)
def test_a_slip_in_a_recipe_names_its_line(toy: Path, capsys, line: str, error: str) -> None:
    (toy / "slip.py").write_text(TOY.replace('eval(mistake or "0")', line))
    said = one_line(capsys, 2, "train", "slip.py", "--track", "none")
    assert f"slip.py, line 9: {error}" in said


def test_other_faults_show_their_traceback(toy: Path, capsys) -> None:
    (toy / "slip.py").write_text(TOY.replace('eval(mistake or "0")', "1 / 0"))
    assert main(["train", "slip.py", "--track", "none"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_data_set_s_complaint_is_one_line(capsys) -> None:
    said = one_line(capsys, 2, "train", "toy.py", "--patch", "5000")
    assert "terrain: expected 2 <= patch" in said and str(catalogue.folder() / "terrain" / "dataset.py") in said


def test_a_full_disk_is_one_line_and_the_run_can_go_on(capsys) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        said = one_line(capsys, 1, "train", "toy.py", "--steps", "2", "--track", "none", "--out", "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "step-00000002 cannot be written" in said and "disk full?" in said
    assert Run.open("a").status == "failed" and list(Path("a/checkpoints").iterdir()) == []
    assert main(["train", "--resume", "a", "--track", "none"]) == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", ""], "'' is no recipe"),
        (["train", "a\0b.py"], "is no recipe"),
        (["train", "toy.py", "--seed", str(2**63)], "below 2^63"),
        (["train", "toy.py", "--threads", str(2**31)], "below 2^31"),
        (["sample", "a", "--seed", "9" * 5000], "whole number"),
        (["sample", "a", "--rtol", "inf"], "positive, finite number"),
        (["score", "a", "--atol", "nan"], "positive, finite number"),
        (["score", "a", "--rtol", "0"], "positive, finite number"),
    ],
)
def test_values_that_no_run_can_have_are_refused(capsys, words: list[str], named: str) -> None:
    assert named in one_line(capsys, 2, *words)


@pytest.mark.parametrize(
    "record",
    [
        {"format": 1},
        {"format": 1, "status": "running", "numbers": None, "versions": None, "git": None},
        {"format": 1, "recipe": "r", "numbers": {}},
    ],
)
@pytest.mark.parametrize("score", [{}, [1], {"value": None, "stderr": 1.0}])
def test_a_run_with_missing_keys_is_still_shown(toy: Path, capsys, record: dict, score: object) -> None:
    write_json(toy / "runs" / "odd" / "run.json", record)
    write_json(toy / "runs" / "odd" / "score.json", score)
    (toy / "runs" / "odd" / "metrics.jsonl").write_text('{"step": 5}\n3\n{"loss": 1.0}\n')
    try:
        Run.open("runs/odd")
    except ValueError:  # refused in words
        one_line(capsys, 2, "info", "runs/odd")
    else:
        assert main(["info", "runs/odd"]) == 0
        assert "5 of ?" in capsys.readouterr().out
    assert main(["list", "runs"]) == 0


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise on Windows")
@pytest.mark.parametrize(
    ("words", "status"), [("list", 0), ("--help", 0), ("train x", 141), ("score x", 141), ("sample x", 141)]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])  # met when Python ends, or at the first line
def test_a_reader_that_goes_away_is_no_fault_but_unfinished_work_is_told(
    words: str, status: int, unbuffered: str
) -> None:
    code = (
        "import sys, types\nfrom scifm.cli import main\n"
        "for name in ('train', 'score', 'sample'):\n"  # work that breaks off at its first words
        "    stub = types.SimpleNamespace(command=lambda words: print('a line'))\n"
        "    sys.modules['scifm.commands.' + name] = stub\n"
        f"sys.exit(main({words.split()!r}))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    path = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writing)
    assert done.returncode == status and done.stderr == ""


def test_a_kill_while_resuming_loses_no_line_of_the_history(toy: Path, monkeypatch) -> None:
    path = toy / "metrics.jsonl"
    before = "".join(json.dumps({"step": s}) + "\n" for s in (1, 2, 3)) + '{"step": 4'
    path.write_text(before)
    with monkeypatch.context() as patch:  # the process ends where the new file would take the old one's place
        patch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            history.History(path, None, 2)
    assert path.read_text() == before
    History(path, None, 2).write(3, {"x": 1.0})
    assert [json.loads(row)["step"] for row in path.read_text().splitlines()] == [1, 2, 3]
