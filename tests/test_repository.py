"""Promises of the repository as a whole: versions agree, imports are light, the layout is known in one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import scifm

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "scifm").rglob("*.py"))
HEAVY = ("mlflow", "ot", "lap", "e3nn", "torch_geometric", "matplotlib", "xarray", "scipy", "pandas", "sklearn")


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after `statement`."""
    code = f"import sys; {statement}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_version_in_pyproject_and_package_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == scifm.__version__


def test_import_scifm_waits_with_torch_until_a_name_is_used():
    assert not {"torch", *HEAVY} & loaded_by("import scifm")
    assert "torch" in loaded_by("import scifm; scifm.Batch")


def test_the_core_loads_no_heavy_package():
    modules = "batch, flow, paths, times, solve, trace, likelihood, train, networks, priors, couplings, data, recipe"
    assert not set(HEAVY) & loaded_by(f"from scifm import {modules}")


def test_only_batch_tells_dense_from_ragged():
    asks = re.compile(r"\.index is (not )?None")
    assert [p.name for p in SOURCES if p.name != "batch.py" and asks.search(p.read_text())] == []


def test_the_core_stays_readable_in_an_hour():
    core = ("batch", "flow", "paths/base", "times", "solve/solver", "trace/base", "likelihood", "train")
    assert sum(len((ROOT / "scifm" / f"{name}.py").read_text().splitlines()) for name in core) < 1600


def test_datasets_is_no_package():
    """With an __init__.py it would shadow, when run from the root, a well-known package that MLflow imports."""
    assert not (ROOT / "datasets" / "__init__.py").exists()


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(ROOT)) for p in SOURCES])
def test_no_pickle_and_no_hidden_randomness(path):
    text = path.read_text()
    assert not re.search(r"^\s*(import|from) (pickle|dill|joblib)\b", text, re.M)
    assert all("weights_only=True" in call for call in re.findall(r"torch\.load\(.*", text))
    assert all("allow_pickle=False" in call for call in re.findall(r"np\.load\(.*", text))
    assert not re.search(r"np\.random\.(seed|rand|normal|uniform|choice|permutation)\(", text)
    assert text.lstrip().startswith('"""'), "the module's docstring states its idea"


# -- one of each ---------------------------------------------------------------------------------------------------


@cache
def calls(source: str) -> set[str]:
    """What a module calls, as it is written: "optimiser.step", "flow.loss"."""
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}


@cache
def definitions(source: str) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, functions)}


def steps(source: str) -> bool:
    """Whether a module moves weights: by an optimiser's step."""
    return any(re.search(r"(optimi[sz]er|adam|sgd)\w*\.step$", name, re.I) for name in calls(source))


def where(asks) -> set[str]:
    """Modules of the package, recipes and data sets of which something holds."""
    files = [*SOURCES, *sorted((ROOT / "recipes").rglob("*.py")), *sorted((ROOT / "datasets").rglob("*.py"))]
    return {str(p.relative_to(ROOT)) for p in files if asks(p.read_text(encoding="utf-8"))}


def test_one_training_loop_serves_grids_and_points():
    # The other optimiser fits the few numbers of a spectrum by L-BFGS, which is no training of a flow.
    assert where(steps) == {"scifm/step.py", "scifm/priors/spectra.py"}
    assert where(lambda s: "update(state" in s and "update" in calls(s)) == {"scifm/train.py"}
    assert where(lambda s: any(name.endswith("flow.loss") for name in calls(s))) == {"scifm/step.py"}
    assert steps("self.optimizer.step()") and steps("optimiser.step(closure)") and not steps("walk.step(h)")


def test_one_integrate_and_one_likelihood():
    assert where(lambda s: "integrate" in definitions(s)) == {"scifm/solve/entry.py"}
    assert all(p.startswith("scifm/solve/") for p in where(lambda s: "Walk" in calls(s)))
    # The flow's method passes on to the function; nobody else sums a log-determinant to a density of samples.
    assert where(lambda s: "bits_per_dim" in definitions(s)) == {"scifm/likelihood.py", "scifm/flow.py"}
    densities = where(lambda s: "log_prob" in definitions(s))
    priors = ("scifm/priors/", "scifm/testing/", "recipes/custom_prior")
    assert {p for p in densities if not p.startswith(priors)} == {"scifm/flow.py"}
