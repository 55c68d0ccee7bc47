"""Points in space: pure functions of clouds (..., n, d), with weights (..., n) that leave padded points out.

Tuples of points (bonds, angles, torsions) are columns of row numbers, and serve ragged batches as they are.  All is
batched, follows the device and dtype of x, and needs no compiled extension.
"""

from scifm.geometry.box import Box
from scifm.geometry.centre import centre, centred
from scifm.geometry.distances import differences, distances, norm, pair_mask, squared_distances
from scifm.geometry.inertia import principal_axes, signs, widths
from scifm.geometry.internal import angles, bond_lengths, from_internal, log_det_internal, place, torsions, volumes
from scifm.geometry.neighbours import nearest, nearest_graph, radius_graph, within
from scifm.geometry.rotation import nearest_rotation, overlap, random_rotation
from scifm.geometry.runs import alpha_carbons, by_sample, joined, runs
from scifm.geometry.superposition import align, covariance, kabsch, rmsd

__all__ = [
    "Box",
    "align",
    "alpha_carbons",
    "angles",
    "bond_lengths",
    "by_sample",
    "centre",
    "centred",
    "covariance",
    "differences",
    "distances",
    "from_internal",
    "joined",
    "kabsch",
    "log_det_internal",
    "nearest",
    "nearest_graph",
    "nearest_rotation",
    "norm",
    "overlap",
    "pair_mask",
    "place",
    "principal_axes",
    "radius_graph",
    "random_rotation",
    "rmsd",
    "runs",
    "signs",
    "squared_distances",
    "torsions",
    "volumes",
    "widths",
    "within",
]
