"""Paths from prior to data, one idea per file.

`base` says what a path is, `affine` holds those that mix x1 and x0 by two functions of time, `bridge` the one that adds
noise of its own.
"""

from scifm.paths.affine import Affine, Linear, Polynomial, Trigonometric, VarianceExploding, VariancePreserving
from scifm.paths.base import Path
from scifm.paths.bridge import Bridge

__all__ = [
    "Affine",
    "Bridge",
    "Linear",
    "Path",
    "Polynomial",
    "Trigonometric",
    "VarianceExploding",
    "VariancePreserving",
]
