"""Recipes: a Python file with a function `recipe(*, ...)` whose keywords are the command line's flags.

    # my_recipe.py                                  scifm train my_recipe.py --radius 1.2
    def recipe(*, radius: float = 1.0, steps: int = 2000):
        '''A flow from a shell.

        radius: of the shell, in metres
        '''
        return Recipe(Flow(networks.MLP(2), Shell(radius)), data=rings(), steps=steps)

The flags are read from the source, not by running it: `scifm train my_recipe.py --help` and a misspelt flag need
no torch.  Their types come from the annotation (int, float, bool, str, Path, Literal, Optional, tuple[int, ...])
or, where there is none, from the default; a line `name: text` of the docstring explains one.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scifm.data import Data
    from scifm.flow import Flow

__all__ = ["Flag", "Recipe", "RecipeFile", "bundled", "load_recipe", "nearest"]


@dataclass(frozen=True)
class Recipe:
    """What training needs: a flow, data, and plain numbers.

    Args:
        flow: its transform is fitted on `data.train`.
        data: train, valid and test splits in the user's units.
        steps: optimiser steps.
        batch_size: samples per step.
        pool: batches that the coupling pairs together. More than one gives optimal transport more to choose from, at
            the cost of a longer pairing, which a thread prepares while the steps run.
        learning_rate: AdamW's peak, after `warmup` steps; a cosine takes it to zero at `steps`.
        weight_decay: AdamW's.
        warmup: steps of linear warm-up.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights per step; 0 for none.
        log_every, valid_every, checkpoint_every: steps.
        valid_samples: size of the fixed validation subset.
        test_samples: test samples that are scored, evenly spaced over the split.
        draws: dequantisation samples of the score.
        name: shown in reports; the file's name if empty.

    Raises:
        TypeError, ValueError: for values of the wrong kind or out of range; the message names the value.
    """

    flow: Flow
    data: Data
    steps: int = 2000
    batch_size: int = 64
    pool: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.999
    log_every: int = 10
    valid_every: int = 250
    checkpoint_every: int = 250
    valid_samples: int = 64
    test_samples: int = 64
    draws: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        from scifm.data import Data
        from scifm.flow import Flow

        for name, kind in (("flow", Flow), ("data", Data)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"Recipe: {name} must be a {kind.__name__}, got {type(value).__name__}.")
        for name in _COUNTS:
            self._check(name, int, lambda v: v >= 1, "a whole number of at least 1")
        self._check("warmup", int, lambda v: v >= 0, "a whole number of at least 0")
        for name in ("learning_rate", "clip"):
            self._check(name, float, lambda v: v > 0 and math.isfinite(v), "positive and finite")
        self._check("weight_decay", float, lambda v: v >= 0 and math.isfinite(v), "at least 0 and finite")
        self._check("ema", float, lambda v: 0 <= v < 1, "in [0, 1)")
        if not isinstance(self.name, str):
            raise TypeError(f"Recipe: name must be text, got {self.name!r}.")

    def _check(self, name: str, kind: type, valid: Callable[[Any], bool], wanted: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
            raise TypeError(f"Recipe: {name} must be {wanted}, got {value!r} ({type(value).__name__}).")
        if not valid(value):
            raise ValueError(f"Recipe: {name} must be {wanted}, got {value!r}.")

    def numbers(self) -> dict[str, Any]:
        """The plain values, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("flow", "data")}


_EVERY = ("log_every", "valid_every", "checkpoint_every")
_COUNTS = ("steps", "batch_size", "pool", *_EVERY, "valid_samples", "test_samples", "draws")


# -- finding a recipe ----------------------------------------------------------------------------------


def nearest(word: str, options: Iterable[str]) -> str:
    """A sentence that names the option nearest to a misspelt word, or a few of them; "" if there are none."""
    options = list(dict.fromkeys(options))
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    if not options:
        return ""
    listed = ", ".join(options[:8]) + (", ..." if len(options) > 8 else "")
    return f" There is: {listed}."


def bundled() -> dict[str, Path]:
    """The recipes that come with scifm, by name: the checkout's, or those packed into the wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "recipes", here / "_bundled" / "recipes"):
        if folder.is_dir():
            return {p.stem: p for p in sorted(folder.glob("*.py")) if not p.name.startswith("_")}
    return {}


def load_recipe(where: str | Path) -> RecipeFile:
    """Read a recipe's flags, without running it.

    Args:
        where: path of a Python file, or the name of a recipe that comes with scifm.

    Raises:
        FileNotFoundError: where there is no such file; the message names the nearest that exists.
        ValueError: where the file is no recipe, or a flag has a type that no command line can carry.
    """
    path = _find(str(where))
    try:
        source = path.read_text(encoding="utf-8")
        if "\0" in source:
            raise ValueError(f"{path} is no recipe: it is not a text file.")
        tree = ast.parse(source, filename=str(path))
        compile(tree, str(path), "exec", dont_inherit=True)  # finds a `return` outside of a function, for one
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no recipe: it is not a text file.") from error
    except SyntaxError as error:
        message = f"{path}, line {error.lineno}: {error.msg}; the recipe is not valid Python."
        raise ValueError(message) from error
    function = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "recipe"), None)
    if function is None:
        names = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
        hint = _instead(tree) or (f"; it defines {', '.join(names)}" if names else "")
        raise ValueError(f"{path} is no recipe: expected a function recipe(*, ...) -> Recipe{hint}.")
    doc = ast.get_docstring(tree) or ast.get_docstring(function) or ""
    return RecipeFile(path, source, doc.strip(), tuple(_flags(function, path)))


def _instead(tree: ast.Module) -> str:
    """What `recipe` is, where it is something else than a function: its flags could not be read from the source."""
    for node in tree.body:
        match node:
            case ast.AsyncFunctionDef(name="recipe"):
                what = "an `async def`"
            case ast.ClassDef(name="recipe"):
                what = "a class"
            case ast.Assign(targets=[ast.Name(id="recipe")], value=ast.Lambda()):
                what = "a lambda"
            case ast.Assign(targets=[ast.Name(id="recipe")]) | ast.AnnAssign(target=ast.Name(id="recipe")):
                what = "assigned"
            case ast.ImportFrom(names=names) if any("recipe" == (a.asname or a.name) for a in names):
                what = "imported"
            case _:
                continue
        return f"; here recipe is {what}, write `def recipe(*, ...):`"
    return ""


def _find(where: str) -> Path:
    if not where.strip() or "\0" in where:
        raise FileNotFoundError(f"{where!r} is no recipe; expected a Python file.{nearest(where, bundled())}")
    path = Path(where).expanduser()
    if path.is_file():
        return path
    known = bundled()
    # `recipes/quickstart.py` also works outside a checkout, where no such file lies.
    if path.parent in (Path("."), Path("recipes")) and path.name.removesuffix(".py") in known:
        return known[path.name.removesuffix(".py")]
    if path.is_dir():
        raise FileNotFoundError(f"{where} is a folder; expected a recipe, a Python file.")
    beside = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
    options = beside if difflib.get_close_matches(where, beside, n=1, cutoff=0.7) else list(known)
    word = where if options is beside else path.name.removesuffix(".py")
    raise FileNotFoundError(f"no recipe {where!r}.{nearest(word, options)}")


# -- its flags -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flag:
    """A keyword of a recipe as a flag.

    Attributes:
        name: the keyword.
        kind: what one value is: int, float, str, Path, or bool for an on/off switch.
        default: source text of the default; None where the keyword must be given.
        choices: the values allowed, if they are listed (Literal).
        optional: "none" stands for None.
        several: comma-separated values make a tuple.
        text: what the docstring says of it.
    """

    name: str
    kind: type
    default: str | None = None
    choices: tuple[Any, ...] = ()
    optional: bool = False
    several: bool = False
    text: str = ""

    @property
    def option(self) -> str:
        """As it is written on the command line: --batch-size."""
        return "--" + self.name.replace("_", "-")

    def add_to(self, parser: Any) -> None:
        """Declare it; a flag that is not given stays absent, so that the recipe's own default holds."""
        text = self.text.replace("%", "%%")
        shown = self._shown().replace("%", "%%")
        settings: dict[str, Any] = {"dest": self.name, "default": argparse.SUPPRESS}
        settings |= {"required": self.default is None, "help": f"{text} ({shown})" if text and shown else text or shown}
        names = dict.fromkeys((self.option, "--" + self.name))
        if self.kind is bool and not self.optional:
            parser.add_argument(*names, action=argparse.BooleanOptionalAction, **settings)
            return
        metavar = "{" + ",".join(map(str, self.choices)) + "}" if self.choices else self.kind.__name__.upper()
        if self.several:
            metavar += ",..."
        parser.add_argument(*names, type=self.parse, metavar=metavar, **settings)

    def _shown(self) -> str:
        """What help says of the default: as it would be typed. None and "" are no words; the text must explain them."""
        if self.default is None:
            return "required"
        if self.default in ("", "None", "()"):
            return "" if self.text else "default: none"
        plain = re.sub(r"[()'\" ]", "", self.default).rstrip(",") if self.several else self.default
        return f"default {plain}"

    def parse(self, text: str) -> Any:
        """One word of the command line as a value."""
        if self.optional and text.lower() == "none":
            return None
        if self.several:
            return tuple(self._one(part) for part in text.split(",") if part.strip())
        return self._one(text.strip())

    def _one(self, text: str) -> Any:
        try:
            value = _switch(text) if self.kind is bool else self.kind(text)
            if isinstance(value, Path):  # a run must find it again from any folder
                return value.expanduser().resolve()
        except ValueError:
            wanted = {int: "a whole number", float: "a number", bool: "true or false"}[self.kind]
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}.") from None
        if self.choices and value not in self.choices:
            listed = ", ".join(map(str, self.choices))
            raise argparse.ArgumentTypeError(f"expected one of {listed}, got {text!r}.")
        return value


def _switch(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError(text)


def _flags(function: ast.FunctionDef, path: Path) -> Iterable[Flag]:
    arguments = function.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        raise ValueError(f"{path}: recipe(...) takes *args, **kwargs or positional-only ones; flags need names.")
    texts = dict(re.findall(r"^\s*(\w+):\s+(\S.*)$", ast.get_docstring(function) or "", re.MULTILINE))
    plain = len(arguments.args) - len(arguments.defaults)
    defaults = [None] * plain + list(arguments.defaults) + list(arguments.kw_defaults)
    for argument, default in zip([*arguments.args, *arguments.kwonlyargs], defaults, strict=True):
        kind = _kind(argument.annotation, default)
        if kind is None:
            what = ast.unparse(argument.annotation or default)  # type: ignore[arg-type]
            raise ValueError(
                f"{path}: recipe's keyword {argument.arg!r} ({what}) cannot be a flag; "
                "use int, float, bool, str, Path, Literal[...], tuple[int, ...] or one of them | None."
            )
        shown = None if default is None else ast.unparse(default).strip("'\"")
        yield Flag(argument.arg, default=shown, text=texts.get(argument.arg, ""), **kind)


_KINDS: dict[str, type] = {k.__name__: k for k in (int, float, bool, str, Path)}


def _kind(annotation: ast.expr | None, default: ast.expr | None) -> dict[str, Any] | None:
    """A keyword's type from its annotation, else from its default; None if no command line can carry it."""
    if annotation is None:
        return _kind_of_value(default)
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):  # a quoted annotation
        try:
            return _kind(ast.parse(annotation.value, mode="eval").body, default)
        except (SyntaxError, ValueError):  # words for a reader: "in metres"; ValueError: a null byte
            return _kind_of_value(default)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        sides = [s for s in (annotation.left, annotation.right) if ast.unparse(s) != "None"]
        inner = _kind(sides[0], default) if len(sides) == 1 else None
        return inner and {**inner, "optional": True}
    outer = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    name = ast.unparse(outer).split(".")[-1]
    if not isinstance(annotation, ast.Subscript):
        return {"kind": _KINDS[name]} if name in _KINDS else None
    inside = annotation.slice
    parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if name == "Optional":
        inner = _kind(inside, default)
        return inner and {**inner, "optional": True}
    if name == "Literal" and all(isinstance(p, ast.Constant) for p in parts):
        values = tuple(p.value for p in parts if isinstance(p, ast.Constant))
        kinds = {type(v) for v in values if v is not None}
        if len(kinds) != 1 or not kinds <= set(_KINDS.values()):
            return None
        choices = tuple(v for v in values if v is not None)
        return {"kind": kinds.pop(), "choices": choices, "optional": None in values}
    if name in ("tuple", "Tuple"):
        inner = {ast.unparse(p) for p in parts} - {"..."}
        if len(inner) == 1 and (only := inner.pop()) in _KINDS and only != "bool":
            return {"kind": _KINDS[only], "several": True}
    return None


def _kind_of_value(default: ast.expr | None) -> dict[str, Any] | None:
    if default is None:
        return {"kind": str}
    try:
        value = ast.literal_eval(default)
    except (ValueError, TypeError):  # TypeError: {[]: 1}
        return None
    if isinstance(value, tuple) and value and {type(v) for v in value} <= {int, float, str}:
        kinds = {type(v) for v in value}
        if kinds == {int, float}:
            kinds = {float}
        return {"kind": kinds.pop(), "several": True} if len(kinds) == 1 else None
    return {"kind": type(value)} if type(value) in _KINDS.values() else None


# -- running it ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that has been read and not yet run.

    Attributes:
        path, source: the file and its text.
        doc: docstring of the module, else of the function.
        flags: its keywords.
    """

    path: Path
    source: str
    doc: str
    flags: tuple[Flag, ...]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    def function(self) -> Callable[..., Recipe]:
        """Run the file and give its function. A recipe is one file: its folder is not importable."""
        module = ModuleType(f"scifm_recipe_{self.name}")
        module.__file__ = str(self.path)
        sys.modules[module.__name__] = module  # dataclasses and typing look classes up by their module
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)
        return module.__dict__["recipe"]

    def keywords(self, function: Callable[..., Recipe], given: Mapping[str, Any]) -> dict[str, Any]:
        """Every keyword with its value, given or default, as JSON can hold it: for the record."""
        defaults = {k: p.default for k, p in inspect.signature(function).parameters.items()}
        return {k: _plain(v) for k, v in (defaults | dict(given)).items()}

    def build(self, given: Mapping[str, Any], function: Callable[..., Recipe] | None = None) -> Recipe:
        """Call the function with the flags given.

        Raises:
            TypeError: where it returns something else than a Recipe.
        """
        recipe = (function or self.function())(**given)
        if not isinstance(recipe, Recipe):
            what = type(recipe).__name__
            raise TypeError(f"{self.path}: recipe(...) must return a scifm.Recipe, got {what}.")
        return recipe


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
