"""What README.md, docs/extending.md and docs/points.md show is run: every Python block, and of the README every shell
command, cut down to two steps.

A shell command that no rule below covers fails the test, so that none can be added to the README unchecked.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from scifm import Batch, cli
from scifm.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
POINTS = (ROOT / "docs" / "points.md").read_text(encoding="utf-8")
SHORT = ["--threads", "1"]


def blocks(text, language):
    """(the heading above, the code) of every fenced block in a language."""
    found, heading = [], ""
    for match in re.finditer(r"^#+ ([^\n]+)$|^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        if match[1] is not None:
            heading = match[1]
        elif match[2] == language:
            found.append((heading, match[3]))
    return found


def commands():
    lines = [line for _, code in blocks(README, "sh") for line in code.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def python_of(heading):
    return [code for where, code in blocks(README, "python") if where == heading]


COMMANDS = commands()
RECIPE = python_of("A prior of your own")[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with the README's recipe file in it."""
    folder = tmp_path_factory.mktemp("readme")
    name = RECIPE.splitlines()[0].removeprefix("# ")
    assert name == "my_recipe.py"
    (folder / name).write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(place):
    """The quickstart as a user runs it, after two steps: (folder of the run, what was printed)."""
    words = [sys.executable, "-m", "scifm", "train", str(ROOT / "recipes/quickstart.py")]
    done = subprocess.run(
        [*words, "--steps", "2", "--track", "none", *SHORT], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return place / "runs" / "quickstart-1", done.stdout


def run(words, place, monkeypatch):
    """`scifm` with these words, in the working folder."""
    monkeypatch.chdir(place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # a tester's own server is none of our business
    with torch.random.fork_rng():
        assert cli.main(words) == 0


# -- one rule per kind of command ----------------------------------------------------------------------


def train(words, place, monkeypatch, request):
    recipe = words[1]
    if recipe.removeprefix("recipes/").removesuffix(".py") == "quickstart" and len(words) == 2:
        assert load_recipe(recipe).path.samefile(ROOT / "recipes" / "quickstart.py")  # a name finds the same file
        request.getfixturevalue("trained")
        return
    if recipe == "recipes/dw4.py" and not os.environ.get("SCIFM_DATA"):
        pytest.skip("SCIFM_DATA is not set; without the published files DW4 is sampled first, which takes minutes")
    if recipe == "recipes/grid.py":
        gridded(place)
        words = [
            *words,
            "--width",
            "4",
            "--test-samples",
            "2",
            *([] if "--file" in words else ["--file", "my_file.nc"]),
        ]
    track = [] if recipe == "recipes/moons.py" else ["--track", "none"]  # one of them is tracked, as by default
    run([*words, "--steps", "2", *track, *SHORT], place, monkeypatch)


def on_a_run(words, place, monkeypatch, request):
    name = words[1].removeprefix("runs/").removesuffix("-1")
    if name == "quickstart":
        request.getfixturevalue("trained")
    elif not (place / words[1]).exists():
        train(["train", f"recipes/{name}.py"], place, monkeypatch, request)
    more = [] if words[0] == "info" else ["--steps", "2", "--method", "rk4", *SHORT]
    more += ["--number", "8"] if words[0] == "reweight" else []  # the last one counts
    run([*words, *more], place, monkeypatch)


def gridded(place):
    """A file of fields, some of its days, and the same with gaps."""
    import xarray as xr

    if (place / "gaps.nc").exists():
        return
    write_file(place / "my_file.nc", True)
    with xr.open_dataset(place / "my_file.nc") as found:
        days = found.isel(time=slice(0, 2)).load()
    days.to_netcdf(place / "days.nc")
    days.where(days.lat > 30).to_netcdf(place / "gaps.nc")


def show(words, place, monkeypatch, request):
    run(words, place, monkeypatch)


def collect(words, place, monkeypatch, request):
    options = ["--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def install(words, place, monkeypatch, request):
    """Not run; the name and the extras must be the project's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, extras = re.fullmatch(r"(\.|[\w-]+)(?:\[([\w,]+)\])?", words[-1]).groups()
    assert name in (".", project["name"])
    assert set(extras.split(",") if extras else ()) <= set(project["optional-dependencies"])
    assert (name == ".") == ("-e" in words)


def activate(words, place, monkeypatch, request):
    assert words == [".", ".venv/bin/activate"] and "venv=$home/.venv" in (ROOT / "scifm.sh").read_text()


def mlflow_ui(words, place, monkeypatch, request):
    from mlflow import MlflowClient

    if not (place / "runs" / "mlflow.db").exists():
        train(["train", "recipes/moons.py"], place, monkeypatch, request)
    done = subprocess.run([sys.executable, "-m", "mlflow", "ui", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and words[2] in done.stdout
    monkeypatch.chdir(place)
    client = MlflowClient(tracking_uri=words[3])
    found = client.search_runs([client.get_experiment_by_name("moons").experiment_id])
    assert "test/bits_per_dim" in found[0].data.metrics


def table(words, place, monkeypatch, request):
    """The words must be right; the work, minutes per cell, is done once, for one cell of two steps."""
    script, recipe, *priors = words[1:]
    priors = priors[: priors.index("--steps")] if "--steps" in priors else priors
    choices = next(flag for flag in load_recipe(recipe).flags if flag.name == "prior").choices
    assert (ROOT / script).exists() and set(priors) <= set(choices)
    if recipe != "quickstart":
        return
    few = ["--seeds", "0", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, str(ROOT / script), recipe, priors[0], *few], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    header, _, row = done.stdout.splitlines()
    assert row.startswith("| spectral | ") and row.count("|") == header.count("|")


def benchmark(words, place, monkeypatch, request):
    """The words must be right; the work takes up to hours, and their own tests do a little of it."""
    done = subprocess.run([sys.executable, str(ROOT / words[1]), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = [word for word in words[2:] if not word.isdecimal()]
    assert all(re.search(rf"[\s\[{{,|]{re.escape(word)}[\s\]}},|]", done.stdout) for word in asked), done.stdout


RULES = {
    r"python benchmarks/(particles|protein_\w+|fields_flow|forecast)\.py.*": benchmark,
    r"python benchmarks/prior_table\.py \S+ .*": table,
    r"(\./scifm\.sh|scifm) train \S+\.py.*|scifm train \w+": train,
    r"\./scifm\.sh (sample|score|fill|reweight|report|info) runs/.*": on_a_run,
    r"\./scifm\.sh list": show,
    r"\./scifm\.sh test": collect,
    r"(uv )?pip install .*": install,
    r"\. \.venv/bin/activate": activate,
    r"mlflow ui --backend-store-uri \S+": mlflow_ui,
}


@pytest.mark.parametrize("words", COMMANDS, ids=map(" ".join, COMMANDS))
def test_every_command_of_the_readme(words, place, monkeypatch, request):
    line = " ".join(words)
    rule = next((rule for pattern, rule in RULES.items() if re.fullmatch(pattern, line)), None)
    assert rule is not None, f"the README shows {line!r}, which no rule of this test covers: add one"
    if words[0] in ("./scifm.sh", "scifm"):
        words = words[1:]
    rule(words, place, monkeypatch, request)


def test_a_command_without_a_rule_is_noticed():
    for line in ("./scifm.sh frobnicate", "rm -rf .venv", "./scifm.sh train", "conda install scifm"):
        assert not any(re.fullmatch(pattern, line) for pattern in RULES), line


def test_the_two_commands_stand_first():
    assert COMMANDS[:2] == [["./scifm.sh", "train", "recipes/quickstart.py"], ["./scifm.sh", "test"]]


def test_quickstart_leaves_what_the_readme_lists(trained):
    folder, printed = trained
    rows = re.findall(r"^\| (`[^|]+) \|", README[README.index("It leaves a folder") :], re.M)[:4]
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) == 9
    missing = [name for name in names if not (folder / name).exists()]
    assert not missing
    for line in ("NLL ", "  prior ", "  white ", "  best Gaussian ("):
        assert any(row.startswith(line) for row in printed.splitlines()), line


# -- Python --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_every_python_block_of_the_readme(packed, tmp_path, monkeypatch):
    """In order and in one namespace, as a reader would type them, with shorter loops."""
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path / "my_file.nc", packed)
    names = {"__name__": "readme"}
    shown = blocks(README, "python")
    assert len(shown) == 5
    with torch.random.fork_rng():
        for heading, code in shown:
            code = code.replace("range(1000)", "range(3)").replace("range(100)", "range(5)")
            execute(code, f"README.md: {heading}", names)
        flow, mine, spec = names["flow"], names["mine"], names["spec"]
        assert spec.delta == (pytest.approx(0.01) if packed else None) and spec.periodic == (False, True)
        assert flow.loss(mine.train.select(range(4))).isfinite().all()
        back = mine.export(flow.sample(mine.test))
    assert back["t2m"].dims == ("realization", "lat", "lon") and back["t2m"].attrs["units"] == "K"


def test_the_prior_is_fifteen_lines():
    body = re.search(r"^class .*?(?=^def recipe)", RECIPE, re.M | re.S)[0]
    recipe = RECIPE[RECIPE.index("def recipe") :]
    assert len((body.strip() + "\n" + recipe.strip()).splitlines()) <= 15


def execute(code, where, names):
    exec(compile(code, where, "exec", dont_inherit=True), names)  # without this file's own __future__


def write_file(path, packed):
    import xarray as xr

    generator = np.random.default_rng(0)
    values = 280 + generator.normal(size=(30, 8, 12))
    coords = {
        "time": np.arange("2020-01-01", "2020-01-31", dtype="datetime64[D]").astype("datetime64[ns]"),
        "lat": ("lat", np.linspace(70.0, 0.0, 8), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(0.0, 360.0, 30.0), {"units": "degrees_east"}),
    }
    dataset = xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"})}, coords)
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"t2m": packing if packed else {}})


EXAMPLES = blocks(EXTENDING, "python")


@pytest.mark.parametrize("heading, code", EXAMPLES, ids=[heading for heading, _ in EXAMPLES])
def test_every_example_of_extending(heading, code, tmp_path, monkeypatch):
    """Each stands alone."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        execute(code, f"docs/extending.md: {heading}", {"__name__": "extending"})


SNIPPETS = blocks(POINTS, "python")


@pytest.mark.parametrize("heading, code", SNIPPETS, ids=[f"{k} {heading}" for k, (heading, _) in enumerate(SNIPPETS)])
def test_every_example_of_points(heading, code, tmp_path, monkeypatch):
    """Each stands alone; and a recipe among them trains."""
    if "ase" in code:
        pytest.importorskip("ase")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "points"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        execute(code, f"docs/points.md: {heading}", names)
        if callable(names.get("recipe")):
            recipe_of_molecules(names["recipe"])
        elif "recipe" in names:
            batch = names["data"].train.select(range(4))
            loss = names["flow"].loss(batch).mean()
            loss.backward()
            assert loss.isfinite() and any(p.grad is not None for p in names["flow"].parameters())


def recipe_of_molecules(recipe):
    """A recipe with --file takes a set of molecules, and the trajectory of one."""
    import ase.io
    from ase.build import molecule

    for trajectory in (False, True):
        frames = [molecule("CH3OH" if trajectory or k % 2 else "C2H6") for k in range(60)]
        for k, atoms in enumerate(frames):
            atoms.rattle(0.02, seed=k)
        ase.io.write("my.xyz", frames)
        made = recipe(file=Path("my.xyz"), trajectory=trajectory)
        assert made.flow.loss(made.data.train.select(range(4))).isfinite().all()
        made.data.writers[".xyz"](Path("eight.xyz"), made.data.test, None, None)
        assert len(ase.io.read("eight.xyz", ":")) == len(made.data.test)


def test_the_doors_of_points_are_shown():
    text = "\n".join(code for _, code in SNIPPETS)
    for name in ("from_ase", "to_ase", "from_pyg", "to_pyg", "from_arrays", "to_arrays", "superset"):
        assert name in text, name


def test_the_examples_are_checked_where_a_check_exists():
    text = "\n".join(code for _, code in EXAMPLES)
    for check in ("check_prior", "check_coupling", "check_path", "check_velocity"):
        assert re.search(rf"^{check}\(", text, re.M), check
    for noun in ("prior", "coupling", "path", "network", "trace", "transform", "data"):
        assert any(noun in heading.lower() for heading, _ in EXAMPLES), noun


def test_the_prior_of_the_readme_fails_the_check_when_it_is_wrong():
    """The README promises that the check names a constant that is off: it does, on the README's own prior."""
    from scifm.testing import check_prior

    names = {"__name__": "readme"}
    execute(RECIPE.replace("math.log(2 * self.scale)", "math.log(3 * self.scale)"), "README.md", names)
    with pytest.raises(AssertionError, match="does not integrate to one"):
        check_prior(names["Laplace"](0.7), Batch(torch.zeros(2, 3)))
