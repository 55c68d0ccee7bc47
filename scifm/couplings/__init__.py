"""Joint laws of (x0, x1): how draws of the prior are paired with data, one idea per file.

A coupling is a callable `(x0, batch, generator) -> x0`: it re-pairs the draws x0 with `batch.x` and keeps the order of
the data, so that labels stay with their samples.  It sees all that does not flow and never pairs across it.

All of them use each sample once and leave x0 the law of the prior, on average over batches; otherwise sampling would
start from another law than training did.  Permutations (`OptimalTransport`, `Partial`, `ConditionalTransport`) use each
draw exactly once as well; `Aligned` and `EquivariantTransport` also turn and relabel it; `Sinkhorn` and `Unbalanced`
draw from a plan, and may repeat one draw and leave out another.  `Hybrid` mixes fresh draws into any of them.
`superset` pairs large clouds beforehand.

What a coupling uses of prior and velocity stands in its attribute `symmetries`, of the words "rotation", "reflection",
"permutation" and "automorphism" (`scifm.couplings.legal`): a permutation exchanges any points, an automorphism those
that nothing in the batch tells apart.
"""

from scifm.couplings.aligned import Aligned
from scifm.couplings.assignment import assign, assign_many
from scifm.couplings.conditional import ConditionalTransport
from scifm.couplings.crossing import crossed_by
from scifm.couplings.equivariant import EquivariantTransport
from scifm.couplings.hybrid import Hybrid
from scifm.couplings.independent import independent
from scifm.couplings.optimal_transport import OptimalTransport
from scifm.couplings.paired import Paired, read_pairs, reflow, write_pairs
from scifm.couplings.partial import Partial
from scifm.couplings.sinkhorn import Sinkhorn
from scifm.couplings.superset import superset, transport_map
from scifm.couplings.unbalanced import Unbalanced

__all__ = [
    "Aligned",
    "ConditionalTransport",
    "EquivariantTransport",
    "Hybrid",
    "OptimalTransport",
    "Paired",
    "Partial",
    "Sinkhorn",
    "Unbalanced",
    "assign",
    "assign_many",
    "crossed_by",
    "independent",
    "read_pairs",
    "reflow",
    "superset",
    "transport_map",
    "write_pairs",
]
