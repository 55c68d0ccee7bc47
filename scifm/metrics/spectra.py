"""Power spectra of fields on a grid, and how far two of them are apart.

In an orthonormal basis of the grid a field has coefficients c_k, one per mode, and

    power(k) = mean of |c_k|² over the modes of a bin,      Σ modes · power / N  =  mean square of a value    (Parseval)

so white noise of variance 1 has power 1 at every wavenumber, whatever the grid, and spectra of two grids compare.

- Radial: Fourier along periodic axes, DCT-II along the others (`scifm.priors.spectral.Basis`), rings of equal |k|.  A
  Fourier transform of a regional map sees a jump where its edges meet, and draws a k⁻² tail that is not in the data.
- Zonal: Fourier along circles of latitude, averaged over bands.  WeatherBench 2's ZonalEnergySpectrum is
  modes · power / W times the length of the circle (Rasp et al. 2024).
- By degree on the sphere: `scifm.metrics.sphere`.

`ffm_spectrum` is what Kerrigan, Migliorini and Smyth (2024) compare: the modulus of the *sum* of coefficients over a
diamond |k_x| + |k_y| = j of one quadrant.  It depends on phases and is no energy; use it for their table only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.areas import latitude_weights
from scifm.priors.spectral import Basis

__all__ = ["Spectrum", "SpectrumError", "ffm_spectrum", "radial_spectrum", "spectrum_error", "zonal_spectrum"]


@dataclass(frozen=True)
class Spectrum:
    """Power by wavenumber, in the square of the unit of a value.

    Attributes:
        k: (K,) float64 wavenumber, rising from 0: cycles per grid step, per circle of latitude, or the degree.
        power: (..., K) float64, mean over the modes of a bin and over fields.
        modes: (K,) float64, how many modes a bin has.
        size: by which Σ modes · power is divided for the mean square of a value: N, or 4π on the sphere.
    """

    k: Tensor
    power: Tensor
    modes: Tensor
    size: float

    @property
    def mean_square(self) -> Tensor:
        """Mean square of a value, (...)."""
        return (self.modes * self.power).sum(-1) / self.size


def radial_spectrum(x: Tensor, periodic: bool | Sequence[bool] = False) -> Spectrum:
    """Power by radial wavenumber in rings, in cycles per grid step.

    Args:
        x: (B, C, *grid) finite fields; all samples and channels are averaged, so call it per channel where they differ.
        periodic: for each axis of the grid, whether it closes on itself.

    Returns:
        k from the mean of a field, alone in the bin 0, to the corners; rings are as wide as the coarsest step of k.

    Raises:
        ValueError: for fields without a grid, or not finite.

    Example:
        >>> x = torch.randn(50, 1, 8, 9, generator=torch.Generator().manual_seed(0))
        >>> found = radial_spectrum(x, (False, True))
        >>> bool((found.power - 1).abs().max() < 0.3), torch.allclose(found.mean_square, x.double().square().mean())
        (True, True)
    """
    if x.ndim < 3 or not x.numel() or not x.isfinite().all():
        raise ValueError(f"radial_spectrum: expected finite fields (B, C, *grid), got {tuple(x.shape)}.")
    grid = x.shape[2:]
    flags = [periodic] * len(grid) if isinstance(periodic, bool) else list(periodic)
    basis = Basis(grid, flags)
    power = basis.power(x.detach().double()).mean((0, 1)).flatten()
    k = basis.k.to(power.device).flatten()
    width = max([1 / (n if ring else 2 * n) for n, ring in zip(grid, flags, strict=True) if n > 1], default=1.0)
    ring = torch.where(k > 0, (k / width).round().long().clamp(min=1), 0)
    modes = torch.bincount(ring).double()
    keep = modes > 0

    def mean(values: Tensor) -> Tensor:
        return (torch.bincount(ring, values) / modes)[keep]

    return Spectrum(mean(k), mean(power), modes[keep], float(len(k)))


def zonal_spectrum(x: Tensor, latitude: Tensor, bands: Sequence[tuple[float, float]] = ((-90.0, 90.0),)) -> Spectrum:
    """Power by zonal wavenumber, in cycles per circle of latitude, in bands of latitude.

    Args:
        x: (..., H, W) fields whose longitudes close the circle, evenly spaced.
        latitude: (H,) degrees, in any order.
        bands: (south, north) in degrees, ends included; within one, latitudes weigh by their area.

    Returns:
        power (bands, W//2 + 1); `mean_square` is that of each band.

    Raises:
        ValueError: for a band without a latitude, or latitudes that do not fit.

    Example:
        >>> wave = torch.cos(torch.arange(12) * 2 * torch.pi / 12 * 3).expand(1, 4, 12)
        >>> found = zonal_spectrum(wave, torch.tensor([60.0, 20.0, -20.0, -60.0]), [(0, 90), (-90, 90)])
        >>> int(found.power[0].argmax()), found.mean_square
        (3, tensor([0.5000, 0.5000], dtype=torch.float64))
    """
    if x.ndim < 2 or latitude.shape != x.shape[-2:-1] or not x.isfinite().all():
        raise ValueError(
            f"zonal_spectrum: expected finite fields (..., H, W) and latitude (H,), got {tuple(x.shape)} and "
            f"{tuple(latitude.shape)}."
        )
    w, phi = latitude_weights(latitude).to(x.device), latitude.double().to(x.device)
    shares = torch.stack([w * ((phi >= south) & (phi <= north)) for south, north in bands])
    if (shares.sum(1) == 0).any():
        empty = bands[int((shares.sum(1) == 0).nonzero()[0])]
        raise ValueError(f"zonal_spectrum: no latitude lies in the band {tuple(empty)}.")
    width = x.shape[-1]
    lines = torch.fft.rfft(x.detach().double(), norm="ortho").abs().square().flatten(0, -3).mean(0)
    m = torch.arange(width // 2 + 1, dtype=torch.float64, device=x.device)
    modes = torch.where((m == 0) | (2 * m == width), 1.0, 2.0).double()
    return Spectrum(m, shares @ lines / shares.sum(1, keepdim=True), modes, float(width))


@dataclass(frozen=True)
class SpectrumError:
    """|log10 ratio| of two spectra: its mean over wavenumbers and the largest; 0.3 is a factor of two."""

    mean: float
    max: float

    def __str__(self) -> str:
        return f"|log10 ratio| of spectra: mean {self.mean:.3f}, max {self.max:.3f}"


def spectrum_error(samples: Spectrum, data: Spectrum) -> SpectrumError:
    """How far the spectrum of samples is from that of data; every wavenumber counts the same, 0 does not.

    Raises:
        ValueError: for spectra of different grids, or data without power at a wavenumber.

    Example:
        >>> x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> print(spectrum_error(radial_spectrum(10 * x), radial_spectrum(x)))
        |log10 ratio| of spectra: mean 2.000, max 2.000
    """
    if samples.power.shape != data.power.shape or not torch.allclose(samples.k, data.k.to(samples.k)):
        raise ValueError(
            f"spectrum_error: expected spectra of one grid, got wavenumbers {tuple(samples.k.shape)} to "
            f"{float(samples.k.max()):.4g} and {tuple(data.k.shape)} to {float(data.k.max()):.4g}."
        )
    kept = data.k > 0
    ours, theirs = samples.power[..., kept], data.power[..., kept].to(samples.power)
    if not theirs.numel() or not (theirs > 0).all():
        raise ValueError("spectrum_error: the data have no power at some wavenumber, so there is no ratio.")
    ratio = (ours / theirs).log10().abs()
    return SpectrumError(float(ratio.mean()), float(ratio.max()))


def ffm_spectrum(x: Tensor) -> Tensor:
    """The spectrum of FFM's tables: |Σ c_k| over |k_x| + |k_y| = 1 ... n/2, mean over square fields (B, n, n), n even.

    Example:
        >>> ffm_spectrum(torch.tensor([1.0, 0.0, -1.0, 0.0]).expand(1, 4, 4))  # one wave
        tensor([8., 0.], dtype=torch.float64)
    """
    if x.ndim != 3 or x.shape[1] != x.shape[2] or x.shape[1] % 2:
        raise ValueError(f"ffm_spectrum: expected square fields (B, n, n) of an even n, got {tuple(x.shape)}.")
    half = x.shape[1] // 2
    c = torch.fft.fft2(x.detach().double())[:, : half + 1, : half + 1].flatten(1)
    i = torch.arange(half + 1, device=x.device)
    shell = (i[:, None] + i).flatten()
    total = torch.zeros(len(x), 2 * half + 1, dtype=c.dtype, device=x.device).index_add(1, shell, c)
    return total[:, 1 : half + 1].abs().mean(0)
