"""The doors: what users bring becomes a `Batch`, and goes back as what it was. Names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scifm.data import arrays, ase, bonds, clouds, fetch, grids, meshes, pyg, shapes, structures, toys, transforms
    from scifm.data.catalogue import load_dataset
    from scifm.data.source import Data
    from scifm.data.toys import checkerboard, eight_gaussians, moons, rings, scurve

__all__ = [
    "Data",
    "arrays",
    "ase",
    "bonds",
    "checkerboard",
    "clouds",
    "eight_gaussians",
    "fetch",
    "grids",
    "load_dataset",
    "meshes",
    "moons",
    "pyg",
    "rings",
    "scurve",
    "shapes",
    "structures",
    "toys",
    "transforms",
]

_HOME = {
    "Data": "source",
    "load_dataset": "catalogue",
    "checkerboard": "toys",
    "eight_gaussians": "toys",
    "moons": "toys",
    "rings": "toys",
    "scurve": "toys",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"scifm.data.{_HOME[name]}"), name)
    if name in __all__:
        return import_module(f"scifm.data.{name}")
    raise AttributeError(f"module 'scifm.data' has no attribute {name!r}; it offers {', '.join(__all__)}")
