"""Which trace to take when nobody said: exact where it is affordable, two random probes where it is not."""

from __future__ import annotations

from scifm.batch import Batch
from scifm.trace.base import Trace
from scifm.trace.exact import Exact
from scifm.trace.hutchinson import Hutchinson

__all__ = ["default"]


def default(like: Batch, largest: int = 64) -> Trace:
    """Exact up to `largest` numbers per sample, above that Hutchinson with two probes.

    How many more probes a result needs is the data's affair: `bits_per_dim(precision=)` adds them until it is reached.
    """
    size = int(like.dims.max()) if len(like) else 0
    return Exact() if size <= largest else Hutchinson(2)
