"""Points in space: pure functions of clouds (..., n, d), with weights (..., n) that leave padded points out."""

from scifm.geometry.centre import centre, centred
from scifm.geometry.inertia import principal_axes, signs, widths
from scifm.geometry.rotation import nearest_rotation, overlap, random_rotation
from scifm.geometry.superposition import align, covariance, kabsch, rmsd

__all__ = [
    "align",
    "centre",
    "centred",
    "covariance",
    "kabsch",
    "nearest_rotation",
    "overlap",
    "principal_axes",
    "random_rotation",
    "rmsd",
    "signs",
    "widths",
]
