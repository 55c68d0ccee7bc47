"""Which Gaussians a flow is compared with: those that live where its prior does and know what its network knows.

A density is per volume of the space it lives on, so only Gaussians on the space of the flow's prior count: beside a
density of centred sets, (n − 1) d numbers, one of all n d numbers means nothing, and could be made as large as one
likes.

    grids         a variance per value, per mode, of EOFs, a covariance per zonal wavenumber, or a full one
    masks         a variance per value, rows given those before, or a full covariance of what is inside
    centred sets  one variance that grows with n, the modes of a chain and of the bonds, or a full covariance
    ragged sets   a variance per coordinate
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors import (
    EOFGaussian,
    FullGaussian,
    FullPoints,
    Gaussian,
    Masked,
    MeanFreeGaussian,
    Prior,
    RowGaussian,
    SpectralChain,
    SpectralGaussian,
    SpectralGraph,
    ZonalGaussian,
    spectra,
    variances,
)
from scifm.priors.subspace import coordinates, free_of_centre
from scifm.priors.zonal import Zonal

__all__ = ["candidates", "centres", "white"]

Maker = Callable[[], Prior]

WEAK = 0.01  # springs to the centre: graphs of several pieces have a density too


def white(prior: Prior, model: Batch) -> Prior | None:
    """White noise fitted to data in model units, where a prior lives; None where that is no space we know."""
    if bool((prior.dims(model) == model.dims).all()):
        return Gaussian().fit(model)
    if centres(prior, model):
        return MeanFreeGaussian().fit(model)
    mask = _mask(prior)
    return None if mask is None else Masked(mask.cpu()).to(mask.device).fit(model)


def candidates(prior: Prior, model: Batch, largest: int) -> dict[str, Maker]:
    """Gaussians by name, to be fitted to data in model units.

    Args:
        prior: of the flow; they live where it does.
        model: data in model units.
        largest: dimensions of a full covariance, dimensions or samples of EOFs.
    """
    if not bool((prior.dims(model) == model.dims).all()):
        mask = _mask(prior)
        if mask is not None:
            inside: dict[str, Maker] = {"per value": lambda: Masked(mask.clone(), per="value")}
            if int(mask.sum()) <= largest:
                inside["full covariance"] = lambda: FullGaussian(mask.shape, mask=mask.clone())
            return inside | _rows(prior)
        return _centred(model, largest) if centres(prior, model) else {}
    found: dict[str, Maker] = {"per channel": lambda: Gaussian(per="channel")}
    try:
        event = model.grid("baselines")
    except ValueError:  # ragged sets share no grid: nothing beyond a Gaussian per channel is defined on them
        return found
    found["per value"] = lambda: Gaussian(per="value")
    target: Callable[[], Prior | None] = lambda: None  # noqa: E731
    if len(event) > 1:
        # the boundary that the flow's own prior was told of, else walls
        own = prior.residual if isinstance(prior, EOFGaussian) else prior
        own = own.target if isinstance(own, RowGaussian) else own
        closed = (*[False] * (len(event) - 2), True)
        periodic = own.basis.periodic if isinstance(own, SpectralGaussian) else isinstance(own, Zonal) and closed
        target = lambda: SpectralGaussian(event, periodic, spectra.PerMode())  # noqa: E731
        found["spectral"] = target
        found["isotropic"] = lambda: SpectralGaussian(event, periodic, spectra.Isotropic())
        if periodic and periodic[-1] and math.prod(event[:-1]) <= largest:
            found["zonally stationary"] = lambda: ZonalGaussian(event)
        if min(len(model), math.prod(event)) <= largest:
            found["EOF + spectral residual"] = lambda: EOFGaussian(event, 32, periodic)
    if math.prod(event) <= largest:
        found["full covariance"] = lambda: FullGaussian(event, target=target())
    return found | _rows(prior)


def _rows(prior: Prior) -> dict[str, Maker]:
    if not isinstance(prior, RowGaussian):  # where it was fitted there is room for another
        return {}
    kind = partial(RowGaussian, prior.shape, prior.mask.cpu(), prior.target.basis.periodic, order=prior.order)
    return {"rows given those before": kind}


def _mask(prior: Prior) -> Tensor | None:
    return prior.mask if isinstance(prior, (Masked, FullGaussian, RowGaussian)) else None


def centres(prior: Prior, model: Batch) -> bool:
    """Whether a prior lives on centred sets: it takes out their shifts, and nothing else."""
    if not model.event or (model.dense and len(model.event) < 2):
        return False
    if not torch.equal(prior.dims(model).to(model.x), free_of_centre("baselines", model)):
        return False
    shift = torch.zeros_like(model.x)
    for k in range(coordinates("baselines", model)):
        shift.zero_()[..., k] = 1
        if bool((prior.project(shift, model).abs() > 1e-4).any()):
            return False
    return True


def _centred(model: Batch, largest: int) -> dict[str, Maker]:
    points = model.points if model.dense and len(model.event) == 2 else model
    if points.dense or len(points.event) != 1:
        return {}
    chain, position = (name if name in points.nodes else None for name in ("chain", "position"))
    target: Maker = partial(SpectralChain, chain=chain, position=position)
    found: dict[str, Maker] = {"isotropic": partial(SpectralChain, variances.Isotropic()), "chain": target}
    if points.edge_index is not None:
        found["bonds"] = target = partial(SpectralGraph, weak=WEAK)
    n, sizes = int(points.counts.max()), points.counts.unique()
    if len(sizes) == 1 and 1 < n <= largest:
        found["full covariance"] = lambda: FullPoints(n, target=target())
    return found
