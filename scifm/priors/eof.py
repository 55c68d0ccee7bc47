"""Low rank plus spectral residual: a few empirical modes for the large scales, a spectrum for everything else.

    C = L Λ Lᵀ + R,     R = F⁻¹ S F

L (D, r) holds the leading empirical orthogonal functions (EOFs) of the data, F is an orthonormal DCT or Fourier
transform, and S the spectrum of what the EOFs leave over.  With a *white* residual this is probabilistic PCA, whose
likelihood is poor, because the residual of a real field is anything but white.

Along each EOF the residual has some variance already, which is taken off Λ or it would be counted twice:
Λ_i = max(λ_i − l_iᵀ R l_i, 0), so that the model's variance along l_i is the data's λ_i.

In coordinates whitened by the residual, w = R^-½ (x − m), the covariance is the identity and r more columns:

    A = R^-½ L Λ^½ = V √d Wᵀ,     C_w = 1 + A Aᵀ = 1 + V d Vᵀ,     V orthonormal,

whose powers and determinant are exact and cost 2 D r: C_w^p = 1 + V ((1 + d)^p − 1) Vᵀ and log det C = log det R +
Σ log (1 + d_i), which is Woodbury's identity in an eigenbasis.  Whitening is z = C_w^-½ R^-½ (x − m): two symmetric
roots one after the other, so a whitened field stays a field.  References: Lorenz 1956 (EOFs); Tipping and Bishop 1999.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.spectra import PerMode, Spectrum
from scifm.priors.spectral import SpectralGaussian

__all__ = ["EOFGaussian"]


class EOFGaussian(Prior):
    """Gaussian field with `rank` empirical modes over all channels and a spectrum per channel; made by `fit`.

    Channels that differ in scale should be standardised first, or the EOFs serve the largest only.

    Args:
        shape: (C, *grid) of one sample.
        rank: number r of EOFs, less than the number of fields it is fitted to and of their values.
        periodic: per grid axis, as for `SpectralGaussian`.
        spectrum: of the residual, one of `scifm.priors.spectra`.  Without the leading patterns a field is less
            isotropic than with them, so each mode has its own variance unless told otherwise.
    """

    metric = "prior"
    gaussian = True

    def __init__(
        self,
        shape: Sequence[int],
        rank: int = 32,
        periodic: bool | Sequence[bool] = False,
        spectrum: Spectrum = PerMode(),
    ):
        super().__init__()
        self.shape, self.rank = tuple(shape), int(rank)
        self.residual = SpectralGaussian(shape, periodic, spectrum)  # its mean is the mean of the whole
        size = math.prod(self.shape)
        if not 1 <= self.rank < size:
            raise ValueError(f"EOFGaussian: rank must be in 1..{size - 1} for {size} values, got {rank}.")
        self.modes: Tensor
        self.gain: Tensor
        # NaN marks "not fitted yet", as in SpectralGaussian.
        self.register_buffer("modes", torch.full((size, self.rank), torch.nan, dtype=torch.float64))
        self.register_buffer("gain", torch.full((self.rank,), torch.nan, dtype=torch.float64))

    def fit(self, batch: Batch) -> EOFGaussian:
        """Mean, EOFs and residual spectrum of fields (B, C, *grid)."""
        x = self._check(batch.x, batch).double()
        if len(x) < self.rank + 2 or not x.isfinite().all():
            raise ValueError(
                f"EOFGaussian.fit: rank {self.rank} needs at least {self.rank + 2} finite fields, got {len(x)}"
                f"{'' if x.isfinite().all() else ' with NaN or infinite values'}; more data or a lower rank cures this."
            )
        mean = x.mean(0)
        y = (x - mean).flatten(1)
        eofs = _leading(y, self.rank)
        amplitudes = y @ eofs
        rest = (y - amplitudes @ eofs.T).reshape(x.shape)
        self.residual.mean = mean
        self.residual.fit(batch.replace(mean + rest), mean=False)
        own = self._power(eofs.T, 0.5).square().sum(1)  # l_iᵀ R l_i
        excess = (amplitudes.square().mean(0) - own).clamp(min=0)
        columns = self._power(eofs.T, -0.5).T * excess.sqrt()
        modes, singular, _ = torch.linalg.svd(columns, full_matrices=False)
        self.modes, self.gain = modes.contiguous().to(self.modes), singular.square().to(self.gain)
        return self

    def _power(self, rows: Tensor, power: float) -> Tensor:
        """Residual covariance to the given power, applied to rows (n, D)."""
        basis = self.residual.basis
        c = basis.forward(rows.reshape(-1, *self.shape)) * self.residual.variance.pow(power).to(rows)
        return basis.inverse(c).flatten(1)

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(self._check(like.randn(generator), like), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        z = self.whiten(x, like)
        centre = Batch(self.residual.mean[None])
        constant = self.residual.log_prob(centre.x, centre)[0] - 0.5 * self.gain.log1p().sum()
        return constant.to(x) - 0.5 * like.total(z.square())

    def score(self, x: Tensor, like: Batch) -> Tensor:
        w = self._along_modes(self.residual.whiten(self._check(x, like), like), -1.0)
        return -self._power(w.flatten(1), -0.5).reshape(x.shape)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        return self._along_modes(self.residual.whiten(self._check(x, like), like), -0.5)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        return self.residual.colour(self._along_modes(self._check(z, like), 0.5), like)

    def _along_modes(self, w: Tensor, power: float) -> Tensor:
        """C_w = 1 + V d Vᵀ to the given power, applied to fields w."""
        if self.gain[0].isnan():
            raise ValueError("EOFGaussian: its modes are made from data; call .fit(batch) before using the prior.")
        V, change = self.modes.to(w), ((1 + self.gain).pow(power) - 1).to(w)
        return w + ((w.flatten(1) @ V * change) @ V.T).reshape(w.shape)

    def _check(self, x: Tensor, like: Batch) -> Tensor:
        event = like.grid("EOFGaussian")
        if event != self.shape or x.shape[1:] != self.shape:
            raise ValueError(f"EOFGaussian: made for samples of shape {self.shape}, got {tuple(x.shape[1:])}.")
        return x


def _leading(y: Tensor, rank: int) -> Tensor:
    """The `rank` leading right singular vectors of y (n, D), by the smaller of the two Gram matrices: (D, rank)."""
    n, size = y.shape
    gram = y @ y.T if n < size else y.T @ y
    vectors = torch.linalg.eigh(gram)[1][:, -rank:].flip(1)
    # Squaring lost half the digits of the smaller ones; QR makes them orthonormal again.
    return torch.linalg.qr(y.T @ vectors if n < size else vectors)[0]
