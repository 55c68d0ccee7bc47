"""Find a dataset by name: `datasets/<name>/dataset.py`, in a checkout or inside an installed package.

The folder has no `__init__.py`: as a package it would shadow a well-known one of that name.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["available", "folder", "load_dataset"]


def folder() -> Path:
    """Where the datasets lie: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "_bundled" / "datasets", package.parent / "datasets"):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"scifm's datasets are missing from {package}; install scifm again.")


def available() -> list[str]:
    """Names of the datasets that come with scifm."""
    return sorted(path.parent.name for path in folder().glob("*/dataset.py"))


def load_dataset(name: str) -> ModuleType:
    """The module of a dataset; call the function of the same name in it to get `Data`.

    Example:
        >>> load_dataset("terrain").terrain().unit
        'm'
    """
    path = folder() / name / "dataset.py"
    if name not in available():
        near = difflib.get_close_matches(name, available(), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(available())}."
        raise FileNotFoundError(f"There is no dataset {name!r}; {hint}")
    qualified = f"scifm_datasets_{name}"
    if qualified in sys.modules:
        return sys.modules[qualified]
    spec = importlib.util.spec_from_file_location(qualified, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[qualified]
        raise
    return module
