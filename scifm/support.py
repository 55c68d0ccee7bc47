"""Where a prior lives: on all of space, on a subspace, or nowhere that has a density.

A density on a subspace (centred sets, fields with a mask) is a density per volume of that subspace.  Off it there is
none, so data that lie beside it are refused rather than moved without a word.

A change of units, x -> s x, changes volumes by as many factors s as the subspace has dimensions, not by as many as a
sample has numbers: (n − 1) d of a centred set.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.transforms import Identity, Transform
from scifm.priors import Prior
from scifm.priors.subspace import tolerance

__all__ = ["check_density", "log_det", "on_subspace"]


def check_density(prior: Prior, like: Batch) -> None:
    """Refuse, before the work, a likelihood that does not exist.

    Raises:
        NotImplementedError: where the prior has draws only.
        ValueError: where it has fewer degrees of freedom than the batch has numbers, but no projection.
    """
    who = type(prior).__name__
    if not prior.has_density:
        raise NotImplementedError(
            f"Flow: {who} has no density, so the flow has no likelihood either; for one, start from a prior that is "
            "fitted to the same data, such as FullGaussian."
        )
    if type(prior).project is Prior.project and bool((prior.dims(like) != like.dims).any()):
        raise ValueError(
            f"Flow: {who} lives on a subspace, prior.dims(batch) is less than batch.dims, but has no project(x, like); "
            "without it divergences would be wrong. Define the projection."
        )


def on_subspace(prior: Prior, x: Tensor, like: Batch) -> Tensor:
    """x (rows, *event) itself, or its projection if that is the same to the rounding of single precision.

    In double precision too, since data are often centred or masked before they are converted. What is measured is the
    distance from the subspace, relative to the length of the sample. One that has no length, a single point or several
    in one place, may be off by 1e-6 of the model's unit in each number, the rounding of coordinates near 10.

    Raises:
        ValueError: naming the first sample that lies beside the subspace.
    """
    projected = prior.project(x, like)
    if projected is x:
        return x
    off = like.total((projected - x).square().double()).sqrt().nan_to_num(nan=math.inf, posinf=math.inf)
    size = like.total(x.square().double()).sqrt()
    bad = ~(off.isfinite() & (off <= tolerance(x.dtype) * size + 1e-6 * like.dims.double().sqrt()))
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"Flow: {type(prior).__name__} lives on a subspace, and sample {first} is {float(off[first]):.3g} away "
            "from it, where its density is zero; project the data first, batch.replace(prior.project(...)) in model "
            "units (centre sets, put zeros on the mask)."
        )
    return projected


def log_det(transform: Transform, batch: Batch, prior: Prior) -> Tensor:
    """log |det ∂y/∂x| of a transform y of the samples (user's units), on the space where the prior lives, (B,) float64.

    Raises:
        ValueError: where that is a subspace from which the transform leads out, or a transform that mixes values.
    """
    whole, free = transform.log_det(batch).double(), prior.dims(batch).double()
    if isinstance(transform, Identity) or torch.equal(free, batch.dims.double()):
        return whole

    def change(along: Tensor) -> Tensor:
        return torch.func.jvp(lambda x: transform(batch.replace(x)).x, (batch.x,), (along,))[1]

    def alike(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.detach().abs().max()), equal_nan=True)

    one, generator = torch.ones_like(batch.x), torch.Generator().manual_seed(0)
    slope, probe = change(one), batch.randn(generator)
    kept, inner = prior.project(one, batch), prior.project(probe, batch)
    if not alike(change(probe), slope * probe):
        raise ValueError(
            f"Flow: {type(transform).__name__} mixes the values of a sample, and {type(prior).__name__} lives on a "
            "subspace: what it does to volumes there is not known. Transform the data beforehand."
        )
    if alike(inner, kept * probe):  # a mask: each value by itself, those outside play no part
        return batch.total(torch.where(kept > 0.5, slope.abs().log(), 0.0)).double()
    # Centred sets: a scale for each coordinate, the same for all points, keeps them centred.
    if not alike(prior.project(slope * inner, batch), slope * inner):
        raise ValueError(
            f"Flow: {type(transform).__name__} leads out of the subspace on which {type(prior).__name__} lives; give "
            "all points the same scale."
        )
    return whole * free / batch.dims.double()
