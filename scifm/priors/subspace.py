"""What priors on a linear subspace share: a density at points outside of it is zero, and asking for it is a mistake.

How far outside is a mistake: further than single precision rounds, relative to the largest value of the sample.  In
double precision too, since data are often centred or masked before they are converted.  What is let through changes
log-densities in the second order of that, by less than 1e-10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["inside"]

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


def inside(who: str, what: str, x: Tensor, projected: Tensor, like: Batch) -> Tensor:
    """x; a ValueError that names the first sample that is not (nearly) equal to its projection, `what` says why."""
    # Sums over a sample rather than maxima: `total` is the layout operation there is.
    off, size = like.total((x - projected).square()), like.total(x.square())
    wrong = ~(off <= _TOLERANCE.get(x.dtype, 3e-2) ** 2 * size)
    if wrong.any():
        b = int(wrong.nonzero()[0])
        share = float((off[b] / size[b]).sqrt())
        raise ValueError(
            f"{who}: {what}; sample {b} is off by {share:.2g} of its length. Apply prior.project(x, batch), after any "
            "transform of the data."
        )
    return x
