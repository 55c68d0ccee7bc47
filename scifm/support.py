"""Where a prior lives: on all of space, on a subspace, or nowhere that has a density.

A density on a subspace (centred sets, fields with a mask) is a density per volume of that subspace.  Off it there is
none, so data that lie beside it are refused rather than moved without a word.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors import Prior

__all__ = ["check_density", "on_subspace"]


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
    """x (rows, *event) itself, or its projection if that is the same to rounding.

    Raises:
        ValueError: naming the first sample that lies beside the subspace.
    """
    projected = prior.project(x, like)
    if projected is x:
        return x
    off = like.total((projected - x).square().double()).sqrt().nan_to_num(nan=math.inf)
    size = like.total(x.square().double()).sqrt()
    bad = ~(off <= 100 * torch.finfo(x.dtype).eps ** 0.75 * (1 + size))
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"Flow: {type(prior).__name__} lives on a subspace, and sample {first} is {float(off[first]):.3g} away "
            "from it, where its density is zero; project the data first, batch.replace(prior.project(...)) in model "
            "units (centre sets, put zeros on the mask)."
        )
    return projected
