"""Gaussian with a full covariance matrix, shrunk towards a spectral model.

    C = (1 - a) Ĉ + a C_S,     log p(x) = -½ (x - m)ᵀ C⁻¹ (x - m) - ½ log det C - (D/2) log 2π

Ĉ is the empirical covariance and C_S the spectral one (or a diagonal one where the event is no grid).  The shrinkage a
makes C positive definite with fewer samples than dimensions; it is chosen on held-out *blocks* of the data, since
neighbouring fields are correlated.  Up to some 8000 dimensions this is the strongest closed-form Gaussian and the
honest baseline of every likelihood.  Reference: Ledoit and Wolf 2004, for shrinkage towards a structured target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior

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
    ):
        super().__init__()
        self.event, self.shrink, self.target = tuple(event), tuple(shrink), target
        size = math.prod(self.event)
        self.mean: Tensor
        self.modes: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64).expand(self.event).clone())
        self.register_buffer("modes", torch.full((size, size), torch.nan, dtype=torch.float64))
        self.register_buffer("variance", torch.full((size,), torch.nan, dtype=torch.float64))
        self.chosen: float | None = None
        if covariance is not None:
            if covariance.shape != (size, size):
                raise ValueError(
                    f"FullGaussian: covariance must be ({size}, {size}) for events of shape {self.event}, "
                    f"got {tuple(covariance.shape)}."
                )
            self._set(covariance.double())

    def fit(self, batch: Batch) -> FullGaussian:
        """Mean and covariance of `batch` (B, *event); the shrinkage from its last fifth, held out as a block."""
        x = self._flat(batch.x, batch).double()
        if len(x) < 10 or not x.isfinite().all():
            raise ValueError(f"FullGaussian.fit: expected at least 10 finite samples, got {len(x)}.")
        cut = len(x) - len(x) // 5
        head, tail = x[:cut], x[cut:]
        mean, empirical, structured = self._parts(head, batch)
        scores = {}
        for a in self.shrink:
            L = _cholesky((1 - a) * empirical + a * structured)
            z = torch.linalg.solve_triangular(L, (tail - mean).T, upper=False)
            scores[a] = float(0.5 * z.square().sum(0).mean() + L.diagonal().log().sum())
        a = self.chosen = min(scores, key=lambda a: scores[a])
        mean, empirical, structured = self._parts(x, batch)
        self.mean = mean.reshape(self.event)
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

    def _parts(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(0)
        y = x - mean
        empirical = y.T @ y / len(x)
        if self.target is None:
            return mean, empirical, empirical.diagonal().diag()
        like = Batch(x.reshape(-1, *self.event))
        self.target.fit(like)
        unit = Batch(torch.eye(x.shape[1], dtype=x.dtype, device=x.device).reshape(-1, *self.event))
        zero = Batch(torch.zeros_like(unit.x[:1]))
        # Colouring unit vectors gives the rows of the symmetric square root of the target's covariance.
        root = (self.target.colour(unit.x, unit) - self.target.colour(zero.x, zero)).reshape(x.shape[1], -1)
        return mean, empirical, root @ root.T

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        z = self.whiten(x, like)
        constant = 0.5 * (self._variance().log() + math.log(2 * math.pi)).sum()
        return -0.5 * like.total(z.square()) - constant.to(x)

    def score(self, x: Tensor, like: Batch) -> Tensor:
        return -self._scale(self._flat(x, like) - self.mean.to(x).flatten(), -1.0).reshape(x.shape)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        return self._scale(self._flat(x, like) - self.mean.to(x).flatten(), -0.5).reshape(x.shape)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        return self.mean.to(z) + self._scale(self._flat(z, like), 0.5).reshape(z.shape)

    def _scale(self, y: Tensor, power: float) -> Tensor:
        """Covariance to the given power, applied to rows y (B, D)."""
        modes, scale = self.modes.to(y), self._variance().pow(power).to(y)
        return (y @ modes * scale) @ modes.T

    def _variance(self) -> Tensor:
        if self.variance[0].isnan():
            raise ValueError("FullGaussian: no covariance yet; call .fit(batch) or give covariance=.")
        return self.variance

    def _flat(self, x: Tensor, like: Batch) -> Tensor:
        if like.grid("FullGaussian") != self.event or x.shape[1:] != self.event:
            raise ValueError(f"FullGaussian: made for samples of shape {self.event}, got {tuple(x.shape[1:])}.")
        return x.flatten(1)


def _cholesky(covariance: Tensor) -> Tensor:
    L, info = torch.linalg.cholesky_ex(covariance)
    if info.any():
        raise ValueError(_NOT_DEFINITE)
    return L
