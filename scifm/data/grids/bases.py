"""A base for any grid: of those in closed form that a laptop can hold, the one that suits the data best.

    whole grid          `SpectralGaussian`: a variance per mode, or per wavenumber
      longitude closed  and `ZonalGaussian`: a covariance of all rows per zonal wavenumber, with more or less shrinkage
    mask                `RowGaussian`: each row given the rows before; and white noise, `Masked`

Which one that is depends on how many fields there are, and is found by the likelihood of the last fifth of them
(`scifm.priors.best`).  What would take long or much memory is no candidate, and of very many fields some are taken.
"""

from __future__ import annotations

import math

import torch

from scifm.batch import Batch
from scifm.data.grids.spec import GridSpec
from scifm.priors import Masked, Prior, RowGaussian, SpectralGaussian, ZonalGaussian, best, spectra

__all__ = ["base", "candidates"]

ZONAL = 5e6  # complex numbers in its matrices, which a checkpoint holds: 80 MB
ROWS = 1e7  # numbers in its matrices: 80 MB
DATA = 2e7  # numbers that are fitted to, in double precision and in several copies: 160 MB each
NUGGET = 1e-6  # poles, where all longitudes are one point, would have no density; elsewhere it costs nothing


def base(spec: GridSpec, anomalies: Batch) -> Prior:
    """The base of a grid, fitted.

    Args:
        anomalies: training data in model units, x (B, C, *grid); inside a mask what is outside may be NaN.

    Raises:
        ValueError: for fewer than two samples, and where none can be fitted.

    Example:
        >>> import xarray as xr
        >>> from scifm.data import grids
        >>> box = xr.DataArray(torch.randn(40, 6, 8).cumsum(-1).numpy(), dims=("time", "y", "x"), name="t")
        >>> batch, spec = grids.from_xarray(box)
        >>> type(grids.base(spec, batch)).__name__
        'SpectralGaussian'
    """
    if len(anomalies) < 2:
        every = " × ".join(f"{spec.sizes[d]} along {d}" for d in spec.samples)
        raise ValueError(
            f"base: too few samples: {len(anomalies)} for training, expected at least 2, of {every} in the file. Read "
            "more times, or name a dim with more entries for the samples (sample_dim, --samples)."
        )
    most = max(64, int(DATA // math.prod(spec.event)))
    if len(anomalies) > most:  # evenly spaced, from one end to the other
        anomalies = anomalies.select(torch.linspace(0, len(anomalies) - 1, most, dtype=torch.float64).round().long())
    return best(candidates(spec, len(anomalies)), anomalies)


def candidates(spec: GridSpec, n: int) -> list[Prior]:
    """What there is to choose from for n fields of a grid, unfitted; the first is the most modest."""
    shape, closed = spec.event, spec.periodic
    found: list[Prior]
    if spec.mask is None:
        found = [SpectralGaussian(shape, closed, s) for s in (spectra.Isotropic(), spectra.PerMode())]
        if closed[-1] and (shape[-1] // 2 + 1) * math.prod(shape[:-1]) ** 2 <= ZONAL:
            # what shrinks little needs several fields per row, or a lucky last fifth lets it win and lose later
            many = n >= 4 * math.prod(shape[:-1])
            found += [ZonalGaussian(shape, shrink, NUGGET) for shrink in ((0.02, 0.1) if many else (0.3, 0.5))]
        return found
    mask = torch.from_numpy(spec.mask)
    found = [Masked(mask)]
    if len(shape) == 3 and 3 * int(mask.sum((0, 2)).square().sum()) <= ROWS:
        found += [RowGaussian(shape, mask, closed, order=order) for order in (1, 2)]
    return found
