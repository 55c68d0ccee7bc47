"""Joint laws of (x0, x1): how draws of the prior are paired with data, one idea per file.

A coupling is a callable `(x0, batch, generator) -> x0`: it re-pairs the draws x0 with `batch.x` and keeps the order of
the data, so that labels stay with their samples.  It sees all that does not flow and never pairs across it.
"""

from scifm.couplings.independent import independent
from scifm.couplings.optimal_transport import OptimalTransport
from scifm.couplings.paired import Paired, read_pairs, reflow, write_pairs

__all__ = ["OptimalTransport", "Paired", "independent", "read_pairs", "reflow", "write_pairs"]
