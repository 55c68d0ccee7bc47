"""Which conditions a coupling pairs across, so that a prior that depends on one of them can be told."""

from __future__ import annotations

from typing import Any

from scifm.couplings.aligned import Aligned
from scifm.couplings.conditional import ConditionalTransport
from scifm.couplings.equivariant import EquivariantTransport
from scifm.couplings.hybrid import Hybrid
from scifm.couplings.optimal_transport import OptimalTransport
from scifm.couplings.partial import Partial
from scifm.couplings.sinkhorn import Sinkhorn
from scifm.couplings.unbalanced import Unbalanced

__all__ = ["crossed_by"]


def crossed_by(coupling: Any) -> tuple[str, ...]:
    """Names of context, or of nodes, across which a coupling of this package pairs.

    Empty for one of your own, of which nobody knows it.

    Example:
        >>> crossed_by(OptimalTransport(ignore=("time",)))
        ('time',)
    """
    if isinstance(coupling, ConditionalTransport):
        return (*coupling.ignore, *coupling.on)
    if isinstance(coupling, Hybrid):
        return crossed_by(coupling.coupling)
    if isinstance(coupling, EquivariantTransport):
        return (*coupling.ignore, *coupling.within.ignore)
    if isinstance(coupling, Aligned | OptimalTransport | Partial | Sinkhorn | Unbalanced):
        return coupling.ignore
    return ()
