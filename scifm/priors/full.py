"""Gaussian with a full covariance matrix, shrunk towards a spectral model.

    C = (1 - a) Ĉ + a C_S,     log p(x) = -½ (x - m)ᵀ C⁻¹ (x - m) - ½ log det C - (D/2) log 2π

Ĉ is the empirical covariance and C_S the spectral one (or a diagonal one where the event is no grid).  The shrinkage a
makes C positive definite with fewer samples than dimensions; it is chosen on held-out *blocks* of the data, since
neighbouring fields are correlated.  Up to some 8000 dimensions this is the strongest closed-form Gaussian and the
honest baseline of every likelihood.

On part of a grid (the sea without the land) the law lives on the D points of a mask, with zeros elsewhere.  A spectrum
is diagonal on the whole rectangle only; the density of the points inside is a *marginal*, and that of a Gaussian is the
Gaussian of the sub-block of its covariance, exactly: `FullGaussian.marginal`.

Reference: Ledoit and Wolf 2004, for shrinkage towards a structured target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.covariance import covariance_inside
from scifm.priors.subspace import inside

__all__ = ["FullGaussian"]

_NOT_DEFINITE = (
    "FullGaussian: the covariance is not positive definite; more samples, more shrinkage or fewer "
    "constant values cure this."
)


class FullGaussian(Prior):
    """Gaussian N(mean, covariance) over flattened events, dense batches only.

    Args:
        event: shape of one sample, D numbers.
        mean: (*event) or number.
        covariance: (D, D), positive definite; None means "to be fitted".
        target: spectral prior whose covariance `fit` shrinks to; the diagonal when None.
        shrink: weights a to choose from by held-out likelihood.
        mask: bool (*event), True where values flow; then D counts these, and samples are zero elsewhere.
    """

    metric = "prior"
    gaussian = True

    def __init__(
        self,
        event: Sequence[int],
        mean: float | Tensor = 0.0,
        covariance: Tensor | None = None,
        target: Prior | None = None,
        shrink: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4),
        mask: Tensor | None = None,
    ):
        super().__init__()
        self.event, self.shrink, self.target = tuple(event), tuple(shrink), target
        if mask is not None and (mask.dtype != torch.bool or mask.shape != self.event or not mask.any()):
            raise ValueError(
                f"FullGaussian: mask must be bool {self.event} with at least one True (True where values flow), got "
                f"{mask.dtype} {tuple(mask.shape)} with {int(mask.count_nonzero())}."
            )
        self.mask: Tensor | None
        self.register_buffer("mask", None if mask is None else mask.clone())
        size = math.prod(self.event) if mask is None else int(mask.sum())
        self.mean: Tensor
        self.modes: Tensor
        self.variance: Tensor
        mean = torch.as_tensor(mean, dtype=torch.float64).expand(self.event)
        self.register_buffer("mean", mean.clone() if mask is None else torch.where(mask, mean, 0.0))
        self.register_buffer("modes", torch.full((size, size), torch.nan, dtype=torch.float64))
        self.register_buffer("variance", torch.full((size,), torch.nan, dtype=torch.float64))
        self.chosen: float | None = None
        if covariance is not None:
            if covariance.shape != (size, size):
                raise ValueError(
                    f"FullGaussian: covariance must be ({size}, {size}) for events of shape {self.event}"
                    f"{'' if mask is None else ' inside the mask'}, got {tuple(covariance.shape)}."
                )
            self._set(covariance.double())

    @classmethod
    def marginal(cls, field: Prior, mask: Tensor) -> FullGaussian:
        """The exact law of a Gaussian field on the points of a mask (*event), the others integrated out.

        Args:
            field: Gaussian that whitens, of events of the mask's shape, with its parameters.

        Example:
            >>> from scifm.priors import SpectralGaussian, spectra
            >>> sea = torch.ones(1, 6, 8, dtype=torch.bool).tril(3)
            >>> prior = FullGaussian.marginal(SpectralGaussian((1, 6, 8), spectrum=spectra.Matern(3.0)), sea)
            >>> like = Batch(torch.zeros(2, 1, 6, 8))
            >>> prior.dims(like).tolist(), bool(prior.sample(like)[:, ~sea].any())
            ([38.0, 38.0], False)
        """
        zero = Batch(torch.zeros(1, *mask.shape, dtype=torch.float64, device=mask.device))
        return cls(mask.shape, field.colour(zero.x, zero)[0], covariance_inside(field, mask), mask=mask)

    def fit(self, batch: Batch) -> FullGaussian:
        """Mean and covariance of `batch` (B, *event); the shrinkage from its last fifth, held out as a block.

        Outside of the mask anything may stand, NaN too.  A target needs whole grids and is given zeros there, so its
        variance is then scaled to that of the data.
        """
        x = self._points(self._check(batch.x, batch)).double()
        if len(x) < 10 or not x.isfinite().all():
            raise ValueError(f"FullGaussian.fit: expected at least 10 finite samples, got {len(x)}.")
        cut = len(x) - len(x) // 5
        head, tail = x[:cut], x[cut:]
        mean, empirical, structured = self._parts(head)
        scores = {}
        for a in self.shrink:
            L = _cholesky((1 - a) * empirical + a * structured)
            z = torch.linalg.solve_triangular(L, (tail - mean).T, upper=False)
            scores[a] = float(0.5 * z.square().sum(0).mean() + L.diagonal().log().sum())
        a = self.chosen = min(scores, key=lambda a: scores[a])
        mean, empirical, structured = self._parts(x)
        self.mean = self._field(mean[None])[0].to(self.mean)
        self._set((1 - a) * empirical + a * structured)
        return self

    def _set(self, covariance: Tensor) -> None:
        # Eigenvectors rather than a Cholesky factor: the symmetric root keeps a whitened field a field, with
        # every value in its own place, which a convolutional network can use.
        variance, modes = torch.linalg.eigh(covariance)
        if not (variance > variance[-1] * 1e-14).all():
            raise ValueError(_NOT_DEFINITE)
        # Laid out as a checkpoint will hold it, so that one read back gives the same bytes.
        self.variance, self.modes = variance.to(self.mean), modes.contiguous().to(self.mean)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(0)
        y = x - mean
        empirical = y.T @ y / len(x)
        if self.target is None:
            return mean, empirical, empirical.diagonal().diag()
        self.target.fit(Batch(self._field(x)))
        everywhere = torch.ones(self.event, dtype=torch.bool, device=x.device)
        structured = covariance_inside(self.target, everywhere if self.mask is None else self.mask)
        if self.mask is not None:
            structured = structured * (empirical.trace() / structured.trace())
        return mean, empirical, structured

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        z = self.whiten(x, like)
        constant = 0.5 * (self._variance().log() + math.log(2 * math.pi)).sum()
        return -0.5 * like.total(z.square()) - constant.to(x)

    def score(self, x: Tensor, like: Batch) -> Tensor:
        return -self._scale(self.project(x, like) - self.mean.to(x), -1.0)

    def dims(self, like: Batch) -> Tensor:
        return like.dims if self.mask is None else torch.full_like(like.dims, len(self.variance))

    def project(self, x: Tensor, like: Batch) -> Tensor:
        """Zeros outside the mask, whatever was there, NaN too."""
        x = self._check(x, like)
        return x if self.mask is None else torch.where(self.mask, x, 0.0)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        inside("FullGaussian", "values outside the mask must be zero", x, self.project(x, like), like)
        return self._scale(x - self.mean.to(x), -0.5)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        return self.mean.to(z) + self._scale(self._check(z, like), 0.5)

    def _scale(self, y: Tensor, power: float) -> Tensor:
        """Covariance to the given power, applied to fields y (B, *event); what is outside the mask plays no part."""
        modes, scale = self.modes.to(y), self._variance().pow(power).to(y)
        return self._field((self._points(y) @ modes * scale) @ modes.T)

    def _variance(self) -> Tensor:
        if self.variance[0].isnan():
            raise ValueError("FullGaussian: no covariance yet; call .fit(batch) or give covariance=.")
        return self.variance

    def _points(self, x: Tensor) -> Tensor:
        """(B, *event) -> (B, D), those inside the mask."""
        return x.flatten(1) if self.mask is None else x[:, self.mask]

    def _field(self, rows: Tensor) -> Tensor:
        """(B, D) -> (B, *event), zeros outside the mask."""
        if self.mask is None:
            return rows.reshape(-1, *self.event)
        where = self.mask.flatten().nonzero()[:, 0]
        return rows.new_zeros(len(rows), self.mask.numel()).index_copy(1, where, rows).reshape(-1, *self.event)

    def _check(self, x: Tensor, like: Batch) -> Tensor:
        if like.grid("FullGaussian") != self.event or x.shape[1:] != self.event:
            raise ValueError(f"FullGaussian: made for samples of shape {self.event}, got {tuple(x.shape[1:])}.")
        return x


def _cholesky(covariance: Tensor) -> Tensor:
    L, info = torch.linalg.cholesky_ex(covariance)
    if info.any():
        raise ValueError(_NOT_DEFINITE)
    return L
