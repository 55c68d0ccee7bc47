"""Gaussian fields whose law does not change when the globe is turned about its axis.

With the orthonormal Fourier transform along longitude, x̂_m = F (x − μ) at wavenumbers m = 0 .. W/2, a zonally
stationary Gaussian has independent wavenumbers, each with one Hermitian covariance S_m of all that is not longitude
(latitudes, levels, variables):

    x̂_m ~ CN(0, S_m),     log p(x) = −½ Σ_m w_m ( log det S_m + x̂_m* S_m⁻¹ x̂_m ) − (N/2) log 2π

w_m = 1 for m = 0 and, where W is even, m = W/2, whose coefficients and covariances are real; else 2, since −m repeats
m.  Latitudes may have any spacing and hold the poles.  A field that is turned, x(·, j + s), has coefficients
x̂_m e^{2πi ms/W}, so its density is the same: a flow from here keeps the equivariance of its network.

The covariances are fitted in closed form, S_m = (1 − a) Ŝ_m + a diag Ŝ_m with Ŝ_m the mean of x̂_m x̂_m*: off the
diagonal they are shrunk, or with fewer fields than rows they would be singular.  All rows are taken together, variables
and levels too, since fields of one atmosphere go together; W/2 + 1 matrices of D rows take W D² numbers and D³ steps.

The powers S_m^p = U_m λ_m^p U_m* come from eigenvectors: the symmetric root keeps a whitened field a field.
References: Jones 1963 (Gaussian fields on the sphere); Stein 2007 (axially symmetric ones).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior

__all__ = ["Zonal", "ZonalGaussian"]


class Zonal(Prior):
    """What zonally stationary Gaussians share: a covariance of the rows per zonal wavenumber; subclasses make it.

    Args:
        shape: (*rows, W) of one sample, longitude last, equally spaced and closed.
        parts: into how many equal parts, one after the other, the rows fall that are independent of one another.
        mean: number or tensor that broadcasts to (*rows, 1); a mean that varies with longitude would end the symmetry.
    """

    metric = "prior"
    gaussian = True

    def __init__(self, shape: Sequence[int], parts: int, mean: float | Tensor):
        super().__init__()
        self.shape, self.parts = tuple(shape), parts
        who = type(self).__name__
        if len(self.shape) < 2 or min(self.shape) < 1 or self.shape[-1] < 2:
            raise ValueError(
                f"{who}: shape must be (channels, ..., latitudes, longitudes) with at least 2 longitudes, "
                f"got {self.shape}."
            )
        centre = torch.as_tensor(mean, dtype=torch.float64)
        if centre.ndim and centre.shape[-1] != 1:
            raise ValueError(
                f"{who}: the mean must be the same at all longitudes, a number or {(*self.shape[:-1], 1)}, got "
                f"{tuple(centre.shape)}. A mean per point belongs to a transform, such as Standardise or Climatology."
            )
        W = self.shape[-1]
        self.waves, rows = W // 2 + 1, math.prod(self.shape[:-1]) // parts
        m = torch.arange(self.waves)
        self.weight: Tensor
        self.register_buffer("weight", torch.where((m == 0) | (2 * m == W), 1.0, 2.0).double(), persistent=False)
        self.mean: Tensor
        self.variance: Tensor
        self.modes: Tensor
        self.register_buffer("mean", centre.expand(*self.shape[:-1], 1).clone())
        # NaN marks "not fitted yet".  Complex numbers are kept as pairs, since module.to(dtype) would drop the second.
        blank = torch.full((self.waves, parts, rows), torch.nan, dtype=torch.float64)
        self.register_buffer("variance", blank)
        self.register_buffer("modes", blank[..., None, None].expand(*blank.shape, rows, 2).clone())

    @abstractmethod
    def fit(self, batch: Batch) -> Prior:
        """Mean and covariances from data (B, *rows, W)."""

    def _set(self, S: Tensor, cure: str) -> None:
        """Take over Hermitian covariances S (waves, parts, D, D); `cure` ends the error where they are singular."""
        variance, modes = torch.linalg.eigh(S)
        least = 1e-14 * variance.amax()
        if not (variance > least).all():
            raise ValueError(
                f"{type(self).__name__}: {int((~(variance > least)).sum())} of {variance.numel()} modes have no "
                f"variance, so there is no density. {cure}"
            )
        modes = torch.view_as_real(modes.to(torch.complex128))
        self.variance, self.modes = variance.to(self.mean), modes.contiguous().to(self.mean)

    def _coefficients(self, y: Tensor) -> Tensor:
        """(B, *rows, W) real -> (waves, parts, D, B) complex."""
        c = torch.fft.rfft(y.flatten(1, -2), norm="ortho")
        return c.unflatten(1, (self.parts, -1)).permute(3, 1, 2, 0)

    def _power(self, y: Tensor, power: float) -> Tensor:
        """The covariance to the given power, applied to fields y (B, *rows, W)."""
        if self.variance[0, 0, 0].isnan():
            raise ValueError(
                f"{type(self).__name__}: its covariances are made from data; call .fit(batch) before using the prior."
            )
        U = torch.view_as_complex(self.modes.to(y))
        c = U @ (self.variance.pow(power).to(y)[..., None] * (U.mH @ self._coefficients(y)))
        rows = c.permute(3, 1, 2, 0).flatten(1, 2)
        # without n= an odd number of longitudes would come back one short
        return torch.fft.irfft(rows, n=self.shape[-1], norm="ortho").reshape(y.shape)

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        z = self.whiten(x, like)
        logdet = (self.weight.to(self.variance)[:, None, None] * self.variance.log()).sum()
        return -0.5 * (like.total(z.square()) + (logdet + math.log(2 * math.pi) * math.prod(self.shape)).to(x))

    def score(self, x: Tensor, like: Batch) -> Tensor:
        return -self._power(self._check(x, like) - self.mean.to(x), -1.0)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        return self._power(self._check(x, like) - self.mean.to(x), -0.5)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        return self.mean.to(z) + self._power(self._check(z, like), 0.5)

    def _check(self, x: Tensor, like: Batch) -> Tensor:
        who = type(self).__name__
        if like.grid(who) != self.shape or x.shape[1:] != self.shape:
            raise ValueError(f"{who}: made for samples of shape {self.shape}, got {tuple(x.shape[1:])}.")
        return x

    def _data(self, batch: Batch, least: int) -> Tensor:
        x = self._check(batch.x, batch).double()
        if len(x) < least or not x.isfinite().all():
            raise ValueError(
                f"{type(self).__name__}.fit: expected at least {least} finite fields, got {len(x)}"
                f"{'' if x.isfinite().all() else ' with NaN or infinite values; fill or drop them'}."
            )
        return x


class ZonalGaussian(Zonal):
    """Zonally stationary Gaussian, one covariance of all rows per zonal wavenumber; made by `fit`.

    Args:
        shape: (*rows, W) of one sample, e.g. (C, H, W): longitude last, equally spaced and closed.
        shrink: weight a of the diagonal, in (0, 1]; more with few fields, 1 for independent rows.
        nugget: white variance added, as a share of the mean variance.  Needed where a row never varies along
            longitude, as the values at a pole, which are one.
        mean: number or tensor that broadcasts to (*rows, 1); `fit` takes the mean of each row.

    Example:
        >>> fields = Batch(torch.randn(50, 2, 5, 8).cumsum(-2))
        >>> prior = ZonalGaussian((2, 5, 8)).fit(fields)
        >>> turned = fields.x.roll(3, -1)
        >>> torch.allclose(prior.log_prob(fields.x, fields), prior.log_prob(turned, fields), rtol=1e-4)
        True
    """

    def __init__(self, shape: Sequence[int], shrink: float = 0.02, nugget: float = 0.0, mean: float | Tensor = 0.0):
        super().__init__(shape, 1, mean)
        if not (0 < shrink <= 1 and 0 <= nugget < 1):
            raise ValueError(
                f"ZonalGaussian: shrink must be in (0, 1] and nugget in [0, 1), got {shrink} and {nugget}; without "
                "shrinkage covariances of few fields are singular."
            )
        self.shrink, self.nugget = shrink, nugget

    def fit(self, batch: Batch) -> ZonalGaussian:
        x = self._data(batch, 2)
        self.mean = x.mean((0, -1))[..., None].to(self.mean)
        c = self._coefficients(x - self.mean.to(x))
        S = c @ c.mH / len(x)
        diagonal = S.diagonal(dim1=-2, dim2=-1).real
        white = self.nugget * (self.weight.to(x)[:, None, None] * diagonal).sum() / math.prod(self.shape)
        S = (1 - self.shrink) * S + torch.diag_embed(self.shrink * diagonal + white)
        self._set(S, "A row that never varies along longitude, as at a pole, needs a nugget, or leave it out.")
        return self
