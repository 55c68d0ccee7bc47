"""scifm: generative models of scientific data with a density you can trust.

A flow is a **velocity** network, a **prior**, a **coupling** and a **path**; it is trained, sampled and scored.

Names are imported when they are first used (PEP 562), so that `import scifm` and `scifm --help` cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scifm import couplings, data, metrics, networks, paths, priors, testing, times, trace
    from scifm.batch import Batch
    from scifm.flow import Flow
    from scifm.likelihood import BitsPerDim
    from scifm.objective import Objective
    from scifm.priors import Prior
    from scifm.recipe import Recipe
    from scifm.sde import Stochastic
    from scifm.solve import Solution, Solver, SolverError, integrate

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "BitsPerDim",
    "Flow",
    "Objective",
    "Prior",
    "Recipe",
    "Solution",
    "Solver",
    "SolverError",
    "Stochastic",
    "couplings",
    "data",
    "integrate",
    "metrics",
    "networks",
    "paths",
    "priors",
    "testing",
    "times",
    "trace",
]

_HOME = {
    "Batch": "batch",
    "BitsPerDim": "likelihood",
    "Flow": "flow",
    "Objective": "objective",
    "Prior": "priors",
    "Recipe": "recipe",
    "Solution": "solve",
    "Solver": "solve",
    "SolverError": "solve",
    "Stochastic": "sde",
    "integrate": "solve",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"scifm.{_HOME[name]}"), name)
    if name in __all__:
        return import_module(f"scifm.{name}")
    raise AttributeError(f"module 'scifm' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
