"""Figures outside of pyplot, in one style: no window, no state, the same on a machine without a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scifm.disk import atomic

__all__ = ["DATA", "FLOW", "OTHER", "canvas", "save"]

DATA, FLOW, OTHER = "#4d4d4d", "#1f6fb4", "#b9c6d2"  # colours of data, of a flow's samples, and of what is beside them


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Any, Any]:
    """A matplotlib figure of a size in inches, and its axes; settings are those of `Figure.subplots`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, columns, **settings)
    for ax in np.ravel(axes):
        ax.spines[["top", "right"]].set_visible(False)
    return made, axes


def save(made: Any, path: Path) -> Path:
    """Write a figure, the whole of it or nothing."""
    with atomic(path) as temporary:
        made.savefig(temporary, dpi=130)
    return path
