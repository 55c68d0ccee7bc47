"""Geometry of sets of points: pure functions of tensors, batched, differentiable, on any device.

Padded sets are x (..., n, d) beside weights or a mask (..., n), zero where there is no point; ragged ones are the rows
of a `Batch` and tuples of row numbers.  Nothing here draws a random number, and no compiled extension is on the path.
"""

from scifm.geometry.box import Box
from scifm.geometry.distances import differences, distances, norm, pair_mask, squared_distances
from scifm.geometry.internal import angles, bond_lengths, from_internal, log_det_internal, place, torsions, volumes
from scifm.geometry.neighbours import nearest, nearest_graph, radius_graph, within
from scifm.geometry.runs import joined, runs

__all__ = [
    "Box",
    "angles",
    "bond_lengths",
    "differences",
    "distances",
    "from_internal",
    "joined",
    "log_det_internal",
    "nearest",
    "nearest_graph",
    "norm",
    "pair_mask",
    "place",
    "radius_graph",
    "runs",
    "squared_distances",
    "torsions",
    "volumes",
    "within",
]
