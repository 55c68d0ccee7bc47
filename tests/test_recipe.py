"""Recipes: keywords are flags, read without running the file; errors name the nearest right word."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from scifm import Batch, Flow, Recipe, networks, priors
from scifm.data import Data
from scifm.recipe import bundled, load_recipe, nearest

EVERYTHING = '''
"""One line.

More."""
from __future__ import annotations
import no_such_package  # flags are known without running the file

def recipe(
    *, name: str, steps: int = 2_000, rate: float = 1e-3, deep: bool = False, where: Path = Path("x"),
    kind: Literal["a", "b"] = "a", order: Literal[1, 2] = 1, length: float | None = None, maybe: Optional[int] = 3,
    widths: tuple[int, ...] = (32, 64), scales: "tuple[float, ...]" = (1.0,), plain=0.5, word="x", pair=(1, 2.5),
    computed: int = 2 * 3, choice: Literal["x", None] = None, switch: bool | None = None,
):
    """Function's.

    steps: of the optimiser, 100% of them
    not_a_flag: is left out
    """
'''


@pytest.fixture
def everything(tmp_path: Path) -> Any:
    path = tmp_path / "my_recipe.py"
    path.write_text(EVERYTHING)
    return load_recipe(path)


def parse(file: Any, *words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    for flag in file.flags:
        flag.add_to(parser)
    parser.format_help()  # argparse meets a bad % only here
    return vars(parser.parse_args(["--name", "n", *words]))


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("--steps 30", 30),
        ("--rate 3", 3.0),
        ("--rate=-1e-3", -1e-3),
        ("--deep", True),
        ("--no-deep", False),
        ("--kind b", "b"),
        ("--order 2", 2),
        ("--length none", None),
        ("--length 2.5", 2.5),
        ("--maybe None", None),
        ("--maybe 4", 4),
        ("--widths 8,16,32", (8, 16, 32)),
        ("--widths 8", (8,)),
        ("--scales 1,2", (1.0, 2.0)),
        ("--plain 2", 2.0),
        ("--word none", "none"),
        ("--pair 1,2", (1.0, 2.0)),
        ("--computed 7", 7),
        ("--choice none", None),
        ("--choice x", "x"),
        ("--switch true", True),
        ("--switch none", None),
    ],
)
def test_words_become_values(everything, words: str, value: Any) -> None:
    given = parse(everything, *words.split())
    name = words.split()[0].removeprefix("--").removeprefix("no-").split("=")[0]
    assert given == {"name": "n", name: value} and type(given[name]) is type(value)


def test_a_path_is_found_from_any_folder(everything, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(everything, "--where", "data.nc")["where"] == tmp_path / "data.nc"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--steps x", "expected a whole number, got 'x'"),
        ("--steps 1.5", "expected a whole number, got '1.5'"),
        ("--rate fast", "expected a number, got 'fast'"),
        ("--kind c", "expected one of a, b, got 'c'"),
        ("--order 3", "expected one of 1, 2, got '3'"),
        ("--widths 8,x", "expected a whole number, got 'x'"),
        ("--switch perhaps", "expected true or false, got 'perhaps'"),
    ],
)
def test_wrong_values_are_refused(everything, words: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=message):
        parse(everything, *words.split())


def test_documentation_comes_from_the_docstrings(everything) -> None:
    flags = {f.name: f for f in everything.flags}
    assert everything.doc.splitlines()[0] == "One line." and everything.name == "my_recipe"
    assert flags["steps"].text == "of the optimiser, 100% of them" and flags["rate"].text == ""
    assert flags["name"].default is None and flags["steps"].default == "2000" and flags["computed"].default == "2 * 3"


@pytest.mark.parametrize(
    ("keyword", "text", "shown"),
    [
        ("k: Path | None = None", "without it, shapes", "without it, shapes"),
        ("k: Path | None = None", "", "default: none"),
        ('k: str = ""', "all without it", "all without it"),
        ("k: tuple[int, ...] = (64,)", "of a cloud", "of a cloud (default 64)"),
        ("k: tuple[int, ...] = (48, 64)", "of a cloud", "of a cloud (default 48,64)"),
        ("k=('a', 'b')", "", "default a,b"),
        ("k: int = 3", "of the optimiser", "of the optimiser (default 3)"),
        ("k: int", "of the optimiser", "of the optimiser (required)"),
    ],
)
def test_help_shows_a_default_as_it_is_typed(tmp_path, keyword: str, text: str, shown: str) -> None:
    told = f'"""R.\n\n    k: {text}\n    """' if text else '"""R."""'
    (tmp_path / "r.py").write_text(f"def recipe(*, {keyword}):\n    {told}\n")
    parser = argparse.ArgumentParser(prog="p", formatter_class=lambda prog: argparse.HelpFormatter(prog, width=200))
    load_recipe(tmp_path / "r.py").flags[0].add_to(parser)
    assert parser.format_help().rstrip().endswith(shown)
    assert ("default" in shown) == ("default" in parser.format_help())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def recip(): ...", r"no recipe: expected a function recipe\(\*, ...\) -> Recipe; it defines recip"),
        ("x = 1", "no recipe: expected a function"),
        ("recipe = lambda *, a=1: None", "here recipe is a lambda, write `def recipe"),
        ("async def recipe(*, a=1): ...", "here recipe is an `async def`, write `def recipe"),
        ("def make(): ...\nrecipe = make", "here recipe is assigned, write `def recipe"),
        ("from x import make as recipe", "here recipe is imported, write `def recipe"),
        ("class recipe: ...", "here recipe is a class, write `def recipe"),
        ("def recipe(): ...\nreturn 3", "line 2: .* not valid Python"),
        ("def recipe(): ...\0", "not a text file"),
        ("def recipe(*, x={[]: 1}): ...", "keyword 'x'"),
        ("def recipe(:", "line 1: .* not valid Python"),
        ("def recipe(**flags): ...", "flags need names"),
        ("def recipe(*, net: Network = None): ...", r"keyword 'net' \(Network\) cannot be a flag; use int, float"),
        ("def recipe(*, x=[1, 2]): ...", "keyword 'x'"),
        ("def recipe(*, x: int | float = 1): ...", "keyword 'x'"),
        ("def recipe(*, x: Literal['a', 1] = 1): ...", "keyword 'x'"),
        ("def recipe(*, x: tuple[int, str] = (1, 'a')): ...", "keyword 'x'"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "r.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=message) as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


def test_words_for_an_annotation_are_no_type(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text("def recipe(*, radius: 'in metres' = 1.5, name: 'of the \\0 place'): ...")
    assert [f.kind for f in load_recipe(tmp_path / "r.py").flags] == [float, str]


@pytest.mark.parametrize("where", ["", "  ", "a\0b.py", "moons\0"])
def test_no_path_at_all_is_refused(where: str) -> None:
    with pytest.raises(FileNotFoundError, match="expected a Python file.*(custom_prior|moons)"):
        load_recipe(where)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        load_recipe(tmp_path / "r.py")


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("quikstart", "'quickstart'"),
        ("recipes/quikstart.py", "'quickstart'"),
        ("my_recip.py", "'my_recipe.py'"),
        ("ncep-air", "'ncep_air'"),
        ("zzz", ", ".join([*sorted(bundled())[:8], "..."])),
    ],
)
def test_a_misspelt_recipe_names_the_nearest(tmp_path: Path, monkeypatch, where: str, named: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_recipe.py").write_text(EVERYTHING)
    with pytest.raises(FileNotFoundError) as error:
        load_recipe(where)
    assert repr(where) in str(error.value) and named in str(error.value)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("where", ["moons", "moons.py", "recipes/moons.py"])
def test_bundled_recipes_are_found_from_anywhere(tmp_path: Path, monkeypatch, where: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(where).path == bundled()["moons"]
    (tmp_path / "moons.py").write_text("def recipe(): ...")  # an own file comes first
    own = where == "moons.py"
    assert (load_recipe(where).path == Path("moons.py")) is own


@pytest.mark.parametrize("name", sorted(bundled()))
def test_bundled_recipes_are_short_and_explained(name: str) -> None:
    file = load_recipe(name)
    assert len(file.source.splitlines()) <= 80
    assert file.doc and all(f.text and f.default is not None for f in file.flags)


def test_the_custom_prior_is_right() -> None:
    from scifm.testing import check_prior

    shell = load_recipe("custom_prior").function().__globals__["Shell"](1.0, 0.5)
    check_prior(shell, Batch(torch.zeros(5, 2)))
    line = torch.linspace(-6, 6, 1200, dtype=torch.float64)  # an even number of points: none on the singular origin
    grid = Batch(torch.cartesian_prod(line, line))
    volume = float((line[1] - line[0]) ** 2)
    # the density grows like 1/r at the origin, where a grid sum errs by about (points' distance) x f(0)
    assert shell.log_prob(grid.x, grid).exp().sum() * volume == pytest.approx(1.0, abs=2e-3)


def test_nearest() -> None:
    assert nearest("trian", ["train", "score"]) == " Did you mean 'train'?"
    assert nearest("zzz", ["train", "score"]) == " There is: train, score."
    assert nearest("x", []) == ""


# -- the Recipe ------------------------------------------------------------------------------------------


def points(n: int = 8) -> Batch:
    return Batch(torch.arange(2.0 * n).reshape(n, 2))


FLOW = Flow(networks.MLP(2, hidden=(4,)), priors.Gaussian())
DATA = Data("points", points(), points(), points())


def test_a_file_is_run_with_the_flags_given(tmp_path: Path) -> None:
    path = tmp_path / "r.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\n"  # looks its own module up, so that must be findable
        "class A:\n    x: 'int' = 1\n"
        "def recipe(*, a: int = 2 * 3, b: tuple[int, ...] = (1,)):\n    return a, b, A()\n"
    )
    file = load_recipe(path)
    assert file.keywords(file.function(), {"b": (4, 5)}) == {"a": 6, "b": [4, 5]}
    with pytest.raises(TypeError, match="must return a scifm.Recipe, got tuple"):
        file.build({"a": 1})
    assert not list(tmp_path.glob("__pycache__"))


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 1.5}, TypeError, "steps must be a whole number of at least 1, got 1.5"),
        ({"steps": True}, TypeError, "steps .*got True .bool"),
        ({"batch_size": "8"}, TypeError, "batch_size .* got '8'"),
        ({"warmup": -1}, ValueError, "warmup must be a whole number of at least 0"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be positive and finite"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be positive"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0"),
        ({"clip": float("inf")}, ValueError, "clip must be positive and finite"),
        ({"ema": 1.0}, ValueError, r"ema must be in \[0, 1\), got 1.0"),
        ({"draws": 0}, ValueError, "draws"),
        ({"name": 3}, TypeError, "name must be text"),
        ({"flow": DATA}, TypeError, "flow must be a Flow, got Data"),
        ({"data": points()}, TypeError, "data must be a Data, got Batch"),
    ],
)
def test_wrong_numbers_are_refused(settings: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Recipe(**{"flow": FLOW, "data": DATA, **settings})


def test_numbers_are_plain() -> None:
    numbers = Recipe(FLOW, DATA, steps=5, learning_rate=1).numbers()
    assert numbers["steps"] == 5 and "flow" not in numbers and "data" not in numbers
    assert all(isinstance(v, int | float | str) for v in numbers.values())
