"""Gaussian fields that are diagonal in a known orthonormal basis.

Each axis of the box is periodic (Fourier) or not (DCT-II, reflecting walls).  With the orthonormal transform F and a
variance S_k per mode,

    x = m + F⁻¹ √S F ε,      log p(x) = -½ Σ_k ( |F(x - m)|²_k / S_k + log S_k ) - (N/2) log 2π,

the sum running over all N modes.  No Jacobian appears, since F is orthonormal.  The last periodic axis keeps the half
spectrum of a real FFT; each of its columns counts twice except k = 0 and, when the length is even, k = n/2.
A circulant embedding, padded and cropped, would be exactly stationary on a box with walls, but its cropped density has
no closed form; the DCT has one.  References: Wood and Chan 1994; Strang 1999.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.spectra import Isotropic, PerMode, Spectrum

__all__ = ["Basis", "SpectralGaussian", "dct_matrix"]


@lru_cache(maxsize=256)  # as many as chains have lengths
def dct_matrix(n: int, dtype: torch.dtype = torch.float64, device: torch.device = torch.device("cpu")) -> Tensor:
    """Orthonormal DCT-II matrix (n, n), made in float64 and kept: row j holds the mode of j half-cycles.

    A matrix, not an FFT: for the few hundred points of an axis a matrix product is faster and as exact.
    """
    i = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * (i + 0.5) * i[:, None]) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.to(device, dtype)


class Basis:
    """Real fields on a box <-> coefficients of an orthonormal basis, over the last axes of a tensor.

    Args:
        grid: number of points along each axis.
        periodic: for each axis, whether it closes on itself.

    Attributes:
        shape: of the coefficients; the last periodic axis has n//2 + 1.
        weight: (*shape) how often each coefficient counts in sums over all N modes.
        k: (*grid) radial wavenumber of every mode in cycles per grid step.
    """

    def __init__(self, grid: Sequence[int], periodic: Sequence[bool]):
        self.grid, self.periodic = tuple(grid), tuple(bool(p) for p in periodic)
        n = len(self.grid)
        if len(self.periodic) != n or n == 0 or min(self.grid) < 1:
            raise ValueError(
                f"Basis: expected one periodic flag per axis of the grid {self.grid}, got {self.periodic}."
            )
        self.walls = [a - n for a in range(n) if not self.periodic[a]]
        self.rings = [a - n for a in range(n) if self.periodic[a]]  # the last of them is the halved one
        squared = torch.zeros((), dtype=torch.float64)
        for a, size in enumerate(self.grid):
            k = torch.arange(size, dtype=torch.float64) / (2 * size)
            if self.periodic[a]:
                k = torch.fft.fftfreq(size, dtype=torch.float64)
            squared = squared + k.square().reshape([-1] + [1] * (n - a - 1))
        self.k = squared.sqrt()
        self.weight = self.half(torch.ones_like(self.k))
        if self.rings:
            size = self.grid[self.rings[-1]]
            j = torch.arange(size // 2 + 1)
            once = ((j == 0) | (2 * j == size)).reshape([-1] + [1] * (-self.rings[-1] - 1))
            self.weight = torch.where(once, 1.0, 2.0).to(self.weight).expand_as(self.weight).clone()
        self.shape = tuple(self.weight.shape)

    def half(self, S: Tensor) -> Tensor:
        """(..., *grid) one value per mode -> (..., *shape) those that a real field does not repeat."""
        if not self.rings:
            return S
        return S.narrow(self.rings[-1], 0, self.grid[self.rings[-1]] // 2 + 1)

    def symmetrise(self, S: Tensor) -> Tensor:
        """Mean of S(k) and S(-k) over the periodic axes; unequal, they would not belong to a real field."""
        mirrored = S
        for a in self.rings:
            mirrored = mirrored.flip(a).roll(1, a)  # index j -> -j mod n
        return 0.5 * (S + mirrored)

    def power(self, x: Tensor) -> Tensor:
        """Squared modulus of the coefficient of every mode, (..., *grid)."""
        for a in self.walls:
            x = _along(dct_matrix(self.grid[a], x.dtype, x.device), x, a)
        if self.rings:
            x = torch.fft.fftn(x, dim=self.rings, norm="ortho")
        return x.abs().square()

    def forward(self, x: Tensor) -> Tensor:
        """(..., *grid) real -> (..., *shape), complex if any axis is periodic."""
        for a in self.walls:
            x = _along(dct_matrix(self.grid[a], x.dtype, x.device), x, a)
        return torch.fft.rfftn(x, dim=self.rings, norm="ortho") if self.rings else x

    def inverse(self, c: Tensor) -> Tensor:
        """(..., *shape) -> (..., *grid) real: undoes `forward`."""
        if self.rings:
            c = torch.fft.irfftn(c, s=[self.grid[a] for a in self.rings], dim=self.rings, norm="ortho")
        for a in self.walls:
            c = _along(dct_matrix(self.grid[a], c.dtype, c.device).T, c, a)
        return c


def _along(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    return (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)


class SpectralGaussian(Prior):
    """Stationary Gaussian field on a box with a variance per mode, independent channels, exact density.

    Args:
        shape: (C, *grid) of one sample.
        periodic: per grid axis. Periodic only if the axis closes on itself: wrapping a regional grid leaks
            into the small scales and costs 0.5 to 0.9 bits per dimension.
        spectrum: one of `scifm.priors.spectra`, or any callable of its kind.
        mean: number or tensor that broadcasts to (C, *grid).

    Example:
        >>> from scifm.priors import spectra
        >>> prior = SpectralGaussian((1, 8, 9), (False, True), spectra.Matern(length=4.0))
        >>> x = prior.sample(Batch(torch.zeros(3, 1, 8, 9)))
        >>> x.shape
        torch.Size([3, 1, 8, 9])
    """

    metric = "prior"
    gaussian = True

    def __init__(
        self,
        shape: Sequence[int],
        periodic: bool | Sequence[bool] = False,
        spectrum: Spectrum = Isotropic(),
        mean: float | Tensor = 0.0,
    ):
        super().__init__()
        self.shape = tuple(shape)
        if len(self.shape) < 2:
            raise ValueError(f"SpectralGaussian: shape must be (channels, *grid), got {self.shape}.")
        grid = self.shape[1:]
        if math.prod(grid) < 2:
            raise ValueError(f"SpectralGaussian: a field needs at least 2 points, got the grid {grid}; use Gaussian.")
        flags = [periodic] * len(grid) if isinstance(periodic, bool) else list(periodic)
        self.basis, self.spectrum = Basis(grid, flags), spectrum
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64).expand(self.shape).clone())
        self.weight: Tensor
        self.register_buffer("weight", self.basis.weight, persistent=False)
        # NaN marks "not fitted yet": a buffer of the right shape, so that a checkpoint loads into a new prior.
        self.register_buffer("variance", torch.full((self.shape[0], *self.basis.shape), torch.nan, dtype=torch.float64))
        if not isinstance(spectrum, (Isotropic, PerMode)):  # these two are made from data only
            self._set([spectrum(self.basis.k, None) for _ in range(self.shape[0])])

    def _set(self, spectra: list[Tensor]) -> None:
        every = torch.stack([self.basis.symmetrise(s) for s in spectra])
        variance = self.basis.half(every).contiguous().to(self.variance)
        if not (variance.isfinite().all() and (variance > 0).all()):
            raise ValueError(
                f"SpectralGaussian: {int((~(every > 0)).sum())} of {every.numel()} modes have no variance, so "
                "there is no density. Give the spectrum a nugget, or PerMode more shrink."
            )
        self.variance = variance

    def fit(self, batch: Batch, mean: bool = True) -> SpectralGaussian:
        """Mean field and spectrum from data (B, C, *grid), by Whittle likelihood or periodogram."""
        x = self._check(batch.x, batch).double()
        if len(x) < 2 or not x.isfinite().all():
            raise ValueError(f"SpectralGaussian.fit: expected at least 2 finite fields, got {len(x)}.")
        if mean:
            self.mean = x.mean(0)
        power = self.basis.power(x - self.mean.to(x)).mean(0)
        self._set([self.spectrum(self.basis.k.to(power), p) for p in power])
        return self

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(self._check(like.randn(generator), like), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        c = self.basis.forward(self._check(x, like) - self.mean.to(x))
        S, w = self._variance().to(x), self.weight.to(x)
        quadratic = like.total(w * (c.real.square() + c.imag.square() if c.is_complex() else c.square()) / S)
        logdet = (self.weight.to(self.variance) * self.variance.log()).sum()
        return -0.5 * (quadratic + (logdet + math.log(2 * math.pi) * math.prod(self.shape)).to(x))

    def score(self, x: Tensor, like: Batch) -> Tensor:
        return -self.basis.inverse(self.basis.forward(self._check(x, like) - self.mean.to(x)) / self._variance().to(x))

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        c = self.basis.forward(self._check(x, like) - self.mean.to(x))
        return self.basis.inverse(c / self._variance().sqrt().to(x))

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        c = self.basis.forward(self._check(z, like)) * self._variance().sqrt().to(z)
        return self.mean.to(z) + self.basis.inverse(c)

    def _variance(self) -> Tensor:
        if self.variance[0].flatten()[0].isnan():
            raise ValueError(
                "SpectralGaussian: this spectrum is made from data; call .fit(batch) before using the prior."
            )
        return self.variance

    def _check(self, x: Tensor, like: Batch) -> Tensor:
        event = like.grid("SpectralGaussian")
        if event != self.shape or x.shape[1:] != self.shape:
            raise ValueError(f"SpectralGaussian: made for samples of shape {self.shape}, got {tuple(x.shape[1:])}.")
        return x
