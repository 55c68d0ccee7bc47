"""A run's folder holds all that is needed, is never overwritten and never half written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from scifm import checkpoint
from scifm.disk import atomic, check_output, write_json
from scifm.provenance import git_state, versions
from scifm.recipe import load_recipe
from scifm.run import Run

RECIPE = '''
"""A line."""
from __future__ import annotations
from pathlib import Path
import torch
from scifm import Batch, Flow, Recipe, networks, priors
from scifm.data import Data

def recipe(*, width: int = 4, widths: tuple[int, ...] = (4,), file: Path | None = None):
    x = torch.arange(16.0).reshape(8, 2) if file is None else torch.tensor(eval(file.read_text()))
    data = Data("points", Batch(x), Batch(x), Batch(x), files=() if file is None else (file,))
    return Recipe(Flow(networks.MLP(2, hidden=(width, *widths)), priors.Gaussian()), data)
'''


CONTENT = hashlib.sha256(b"[[1.0, 2.0], [3.0, 4.0]]").hexdigest()


@pytest.fixture
def file(tmp_path: Path, monkeypatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "line.py").write_text(RECIPE)
    return load_recipe("line.py")


def trained(file: Any, given: dict[str, Any], **settings: Any) -> tuple[Run, dict[str, torch.Tensor]]:
    """A run with a checkpoint of changed weights."""
    recipe = file.build(given)
    run = Run.create(None, file, given, recipe.data.files, seed=0, **settings)
    state = {k: v + 1 for k, v in recipe.flow.state_dict().items()}
    tensors = {f"ema.{k}": v for k, v in state.items()} | {f"model.{k}": v + 1 for k, v in state.items()}
    checkpoint.save(run.folder / "checkpoints", 10, tensors, {})
    return run, state


def test_what_is_created_is_opened(file) -> None:
    run = Run.create(None, file, {"width": 3}, seed=4, device="cpu")
    assert run.folder == Path("runs/line-1") and Run.create(None, file, {}).folder == Path("runs/line-2")
    record = Run.open("runs/line-1").record
    assert record == json.loads(json.dumps(run.record))
    assert record["flags"] == {"width": 3} and record["seed"] == 4 and record["recipe"] == "line"
    assert record["versions"]["torch"] == torch.__version__
    assert (run.folder / "recipe.py").read_text() == RECIPE
    assert [r.folder for r in Run.all(Path("runs"))] == [Path("runs/line-1"), Path("runs/line-2")]


def test_nothing_is_overwritten(file, tmp_path: Path) -> None:
    Run.create(Path("a"), file, {})
    with pytest.raises(FileExistsError, match="already holds a run.*--resume a"):
        Run.create(Path("a"), file, {})
    (tmp_path / "b").mkdir()
    Run.create(Path("b"), file, {})  # an empty folder is fine
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="c is not empty, and nothing is overwritten"):
        Run.create(Path("c"), file, {})
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["thesis.tex"]
    with pytest.raises(FileExistsError, match="line.py is a file"):
        Run.create(Path("line.py"), file, {})
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        Run.create(Path("broken"), file, {})


def test_a_folder_that_is_no_run_names_the_nearest(file, tmp_path: Path) -> None:
    Run.create(None, file, {})
    with pytest.raises(FileNotFoundError, match="no such folder. Did you mean 'runs/line-1'"):
        Run.open("runs/lin-1")
    with pytest.raises(FileNotFoundError, match="Did you mean 'runs/line-1'"):
        Run.open("line-1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no run \(no run.json\)"):
        Run.open("empty")
    with pytest.raises(FileNotFoundError, match="scifm list runs"):
        Run.open(tmp_path / "empty" / "x" / "y" if shutil.rmtree("runs") is None else "")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "damaged"), ("[]", "damaged"), ("{}", "damaged"), ('{"format": 9}', "format 9.*reads format 1")],
)
def test_a_damaged_or_newer_run_is_refused(file, content: str, message: str) -> None:
    run = Run.create(None, file, {})
    (run.folder / "run.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Run.open(run.folder)
    assert Run.all(Path("runs")) == []  # and does not hide the others from `scifm list`


def test_a_run_that_was_killed_is_stopped_and_a_living_one_is_running(file) -> None:
    run = Run.create(None, file, {})
    assert run.status == "stopped"  # says running, but nobody holds it
    with run.lock():
        assert run.status == "running" == Run.open(run.folder).status
        with pytest.raises(RuntimeError, match="another process"), Run.open(run.folder).lock():
            pass
    assert run.status == "stopped"
    assert run.update(status="finished").status == "finished" == Run.open(run.folder).status


def test_a_torn_last_line_of_the_metrics_is_left_out(file) -> None:
    run = Run.create(None, file, {})
    assert run.metrics == [] and run.score is None and run.samples is None
    (run.folder / "metrics.jsonl").write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a')
    assert run.metrics == [{"step": 1, "a": 2.0}]


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_a_run_is_rebuilt_from_its_folder_alone(file, tmp_path: Path, monkeypatch, weights: Any) -> None:
    run, state = trained(file, {"width": 3, "widths": (5, 6)})
    moved = tmp_path / "elsewhere"
    shutil.move(run.folder, moved)
    (tmp_path / "line.py").unlink()
    monkeypatch.chdir("/")
    recipe = Run.open(moved).rebuild(weights)
    found = recipe.flow.state_dict()
    more = 1 if weights == "model" else 0
    assert found.keys() == state.keys() and all(torch.equal(found[k], state[k] + more) for k in state)
    assert not recipe.flow.training


def test_building_again_gives_the_same_weights(file) -> None:
    run = Run.create(None, file, {}, seed=5)
    first = run.build().flow.state_dict()
    torch.rand(3)
    assert all(torch.equal(v, first[k]) for k, v in run.build().flow.state_dict().items())


def test_data_are_copied_and_found_again(file, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("[[1.0, 2.0], [3.0, 4.0]]")
    run, _ = trained(file, {"file": data})
    data.unlink()
    recipe = Run.open(run.folder).rebuild()
    assert recipe.data.test.x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    copy = f"data/1/{tmp_path.name}/data.txt"
    assert run.record["data"] == [{"file": str(data), "bytes": 24, "sha256": CONTENT, "copy": copy}]


def test_large_data_stay_where_they_are(file, tmp_path: Path) -> None:
    with open(tmp_path / "large.nc", "wb") as large:
        large.truncate(65 * 2**20)  # sparse: takes no room
    run = Run.create(None, file, {}, [tmp_path / "large.nc"])
    assert not (run.folder / "data").exists() and run.record["data"][0]["copy"] is None


PAIR = '''
"""A line."""
from __future__ import annotations
from pathlib import Path
import torch
from scifm import Batch, Flow, Recipe, networks, priors
from scifm.data import Data, fetch

def recipe(*, low: Path = Path("low/d.txt"), high: Path = Path(__file__).parent / "high" / "d.txt",
           more: tuple[Path, ...] = ()):
    files = (low, high, *more, fetch.find("set", "d.txt"))
    x = torch.tensor([[float(f.read_text()) for f in files[:2]]] * 3)
    data = Data("points", Batch(x), Batch(x), Batch(x), files=files, summary=files[-1].read_text())
    return Recipe(Flow(networks.MLP(2, hidden=(4,)), priors.Gaussian()), data)
'''


@pytest.fixture
def pair(tmp_path: Path, monkeypatch) -> Run:
    """A run that read four files of one name: a relative default, one beside the recipe, a flag's, a data set's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIFM_DATA", str(tmp_path))
    for name, content in {"low": "1", "high": "2", "given": "3", "set": "4"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "d.txt").write_text(content)
    (tmp_path / "pair.py").write_text(PAIR)
    file = load_recipe(tmp_path / "pair.py")
    given = {"more": (tmp_path / "given" / "d.txt",)}
    function = file.function()
    recipe = file.build(given, function)
    run = Run.create(None, file, given, recipe.data.files, seed=0, keywords=file.keywords(function, given))
    return Run.open(run.folder.resolve())


def content(recipe: Any) -> list[float]:
    return [*recipe.data.test.x[0].tolist(), *(float(f.read_text()) for f in recipe.data.files[2:])]


def test_files_of_one_name_and_paths_that_are_defaults_are_the_run_s_copies(pair, tmp_path: Path, monkeypatch) -> None:
    for name in ("low", "high", "given", "set"):
        (tmp_path / name / "d.txt").write_text("9")
    assert content(pair.build()) == [1, 2, 3, 4]
    for name in ("low", "high", "given", "set"):
        shutil.rmtree(tmp_path / name)
    monkeypatch.chdir("/")
    assert content(pair.build()) == [1, 2, 3, 4]


def test_originals_are_found_from_another_folder_and_refused_where_they_changed(pair, tmp_path, monkeypatch) -> None:
    shutil.rmtree(pair.folder / "data")
    monkeypatch.chdir("/")
    (pair.folder / "high").mkdir()  # where the default points to from the run's copy of the recipe
    assert content(pair.build()) == [1, 2, 3, 4]
    (tmp_path / "high" / "d.txt").write_text("9")
    with pytest.raises(ValueError, match=r"high/d.txt is not what .*pair-1 was trained on \(sha256 \w{12} instead"):
        pair.build()


def test_a_changed_copy_and_a_changed_hard_coded_file_are_refused(pair, file, tmp_path: Path) -> None:
    (pair.folder / "data/2/high/d.txt").write_text("2.0")
    with pytest.raises(ValueError, match="data/2/high/d.txt is not what"):
        pair.build()
    (tmp_path / "fixed.txt").write_text("[[1.0, 2.0]]")
    (tmp_path / "fixed.py").write_text(RECIPE.replace("x = torch", "file = Path('fixed.txt'); x = torch"))
    run, _ = trained(load_recipe("fixed.py"), {})
    assert Run.open(run.folder).rebuild().data.test.x.tolist() == [[1.0, 2.0]]
    (tmp_path / "fixed.txt").write_text("[[1.0, 3.0]]")
    with pytest.raises(ValueError, match=r"fixed.txt is not what runs/fixed-1 was trained on"):
        Run.open(run.folder).rebuild()
    with pytest.raises(ValueError, match="reads 1 data files now, and 0"):
        run.update(data=[]).rebuild()


def test_weights_of_another_network_are_refused(file) -> None:
    run, _ = trained(file, {})
    Run.open(run.folder).update(flags={"width": 9})
    with pytest.raises(ValueError, match="checkpoint of step 10 does not fit .*size mismatch") as error:
        Run.open(run.folder).rebuild()
    assert "\n" not in str(error.value)


def test_a_run_without_checkpoint_cannot_be_rebuilt(file) -> None:
    run = Run.create(None, file, {})
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        run.rebuild()


# -- writing ---------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"x": 1} and list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask  # as readable as any other file


def test_a_place_that_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    check_output(tmp_path / "new" / "folder" / "a.json")
    check_output(tmp_path / "file")
    for path, reason in {
        tmp_path: "it is a folder",
        tmp_path / "file" / "a.json": "file is not a folder",
        tmp_path / "file" / "b" / "a.json": "file is not a folder",
        Path("/proc/none/a.json"): "",
    }.items():
        with pytest.raises(ValueError, match=f"^{path} cannot be written: .*{reason}"):
            check_output(path)
    with pytest.raises(ValueError, match="cannot be written"):
        Run.check_free(tmp_path / "file" / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_git_state(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    assert git_state(tmp_path / "nowhere") is None
    git("init")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "x")
    clean = git_state(tmp_path)
    assert clean is not None and len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {**clean, "dirty": True}
    (tmp_path / "inner").mkdir()
    assert git_state(tmp_path / "inner") == {**clean, "dirty": True}
    assert git_state(tmp_path / "inner", exact=True) is None  # a site-packages inside someone's project


def test_versions() -> None:
    assert versions()["torch"] == torch.__version__ and {"python", "scifm", "numpy"} <= versions().keys()
