"""Figures of data beside samples, in one style: sets of points, fields on grids, and their scores.

Each function gives a matplotlib figure; `scifm report` draws some that fit a run's data, and `scifm.figure.save`
writes one.  Data are grey, samples blue.  What is measured is in `scifm.metrics`.
"""

from scifm.pictures.coasts import coastlines
from scifm.pictures.fields import curves, panels
from scifm.pictures.points import bonds, chain, clouds, energies, gyration, pair_functions, torsion_plane
from scifm.pictures.scores import ladder, rank_histogram, spectra, spread_skill

__all__ = [
    "bonds",
    "chain",
    "clouds",
    "coastlines",
    "curves",
    "energies",
    "gyration",
    "ladder",
    "pair_functions",
    "panels",
    "rank_histogram",
    "spectra",
    "spread_skill",
    "torsion_plane",
]
