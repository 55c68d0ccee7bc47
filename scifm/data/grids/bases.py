"""A base for any grid: of those in closed form that a laptop can hold, the one that suits the data best.

    whole grid          `SpectralGaussian`: a variance per mode, or per wavenumber
      longitude closed  and `ZonalGaussian`: a covariance of all rows per zonal wavenumber, with more or less shrinkage
    mask                `RowGaussian`: each row given the rows before; and white noise, `Masked`

Which one that is depends on how many fields there are, and is found by the likelihood of the last fifth of them
(`scifm.priors.best`).
"""

from __future__ import annotations

import math

import torch

from scifm.batch import Batch
from scifm.data.grids.spec import GridSpec
from scifm.priors import Masked, Prior, RowGaussian, SpectralGaussian, ZonalGaussian, best, spectra

__all__ = ["base"]

ZONAL = 5e6  # numbers in its matrices, which a checkpoint holds: 80 MB
ROWS = 1e7


def base(spec: GridSpec, anomalies: Batch) -> Prior:
    """The base of a grid, fitted.

    Args:
        anomalies: training data in model units, x (B, C, *grid).

    Raises:
        ValueError: where none can be fitted.
    """
    shape, closed = spec.event, spec.periodic
    candidates: list[Prior]
    if spec.mask is None:
        candidates = [SpectralGaussian(shape, closed, s) for s in (spectra.Isotropic(), spectra.PerMode())]
        if closed[-1] and (shape[-1] // 2 + 1) * math.prod(shape[:-1]) ** 2 <= ZONAL:
            # what shrinks little needs several fields per row, or a lucky last fifth lets it win and lose later
            many = len(anomalies) >= 4 * math.prod(shape[:-1])
            candidates += [ZonalGaussian(shape, shrink) for shrink in ((0.02, 0.1) if many else (0.3, 0.5))]
        return best(candidates, anomalies)
    mask = torch.from_numpy(spec.mask)
    candidates = [Masked(mask)]
    if len(shape) == 3:
        rows = mask.sum((0, 2))
        if 3 * int(rows.square().sum()) <= ROWS:
            candidates += [RowGaussian(shape, mask, closed, order=order) for order in (1, 2)]
    return best(candidates, anomalies)
