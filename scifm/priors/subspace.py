"""What priors on a linear subspace share: a density at points outside of it is zero, and asking for it is a mistake.

How far outside is a mistake: further than single precision rounds, relative to the largest value of the sample.  In
double precision too, since data are often centred or masked before they are converted.  What is let through changes
log-densities in the second order of that, by less than 1e-9 of |x|²/2σ².
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["centred", "coordinates", "free_of_centre", "inside", "tolerance"]


def tolerance(dtype: torch.dtype) -> float:
    """How far beside a subspace still counts as on it, relative to the length of a sample."""
    return {torch.float64: 1e-5, torch.float32: 1e-4}.get(dtype, 3e-2)


def inside(who: str, what: str, x: Tensor, projected: Tensor, like: Batch) -> Tensor:
    """x; a ValueError that names the first sample that is not (nearly) equal to its projection, `what` says why."""
    # Sums over a sample rather than maxima: `total` is the layout operation there is.
    off, size = like.total((x - projected).square()), like.total(x.square())
    wrong = ~(off <= tolerance(x.dtype) ** 2 * size)
    if wrong.any():
        b = int(wrong.nonzero()[0])
        if not like.total(projected.square())[b].isfinite():  # which no projection cures
            raise ValueError(
                f"{who}: {what}; sample {b} is not finite: NaN, infinity, or numbers whose squares overflow."
            )
        share = float((off[b] / size[b]).sqrt())
        raise ValueError(
            f"{who}: {what}; sample {b} is off by {share:.2g} of its length. Apply prior.project(x, batch), after any "
            "transform of the data."
        )
    return x


def coordinates(who: str, like: Batch) -> int:
    """Coordinates d of a point: ragged rows (d,), or dense events (..., d) with an axis of points before.

    Raises:
        ValueError: naming `who`, where there is no such axis.
    """
    if like.dense and len(like.event) < 2:
        raise ValueError(
            f"{who}: expected dense events (points, coordinates) or a ragged batch of points, got "
            f"dense events {like.event}; n numbers are a set of n points as (n, 1)."
        )
    if not like.event:
        raise ValueError(f"{who}: rows must have a coordinate axis, (rows, d); got (rows,).")
    return like.event[-1]


def free_of_centre(who: str, like: Batch) -> Tensor:
    """(B,) degrees of freedom (n − 1) d of each set whose centre is fixed; none for a set of one point or of none."""
    return (like.dims - coordinates(who, like)).clamp(min=0)


def centred(who: str, x: Tensor, like: Batch) -> Tensor:
    """x minus the centre of each sample, its mean over everything but the last axis."""
    points = (like.dims / coordinates(who, like)).to(x).clamp(min=1)
    # One coordinate at a time, since `total` and `spread` deal in numbers per sample.
    centre = [like.spread(like.total(c) / points) for c in x.unbind(-1)]
    return x - torch.cat(centre, -1)
