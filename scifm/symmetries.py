"""What priors, couplings and networks say of themselves: the attribute `symmetries`, in the same few words for all.

"translation", "rotation" and "reflection" move points in space.  Relabelling is of two kinds.  "permutation" exchanges
any points.  "automorphism" exchanges those that nothing in the batch tells apart, with equal nodes and, where there are
edges, equal bonds to the same neighbours; it is all that `couplings.Aligned` does.  A prior that looks at bonds alone,
such as one of springs on bonds, has the second and not the first; a chain, which looks at the order of points, has
neither; and whoever has the first has the second.
"""

from __future__ import annotations

from typing import Any

__all__ = ["symmetries_of"]


def symmetries_of(part: Any) -> frozenset[str]:
    """The attribute `symmetries`: of a coupling, what it uses; of a velocity or prior, what it has; none if it says
    nothing.  A permutation may be an automorphism.

    Example:
        >>> from scifm.priors import MeanFreeGaussian
        >>> sorted(symmetries_of(MeanFreeGaussian()))
        ['automorphism', 'permutation', 'reflection', 'rotation']
    """
    found = frozenset(getattr(part, "symmetries", frozenset()))
    return found | {"automorphism"} if "permutation" in found else found
