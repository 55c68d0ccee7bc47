"""Power spectra S_k of a stationary Gaussian field: the variance of each mode of an orthonormal basis.

A spectrum is a callable `(k, P) -> S`: k (*modes) the radial wavenumber of each of the N modes in cycles per grid
step, P (*modes) the mean periodogram of data, or None when the spectrum is given rather than fitted.  The mean of S
over all modes is the variance of a value.  With P it fits itself:

- by the mean (`White`, `Isotropic`, `PerMode`), which maximises the Whittle likelihood −½ Σ_k (log S_k + P_k/S_k)
  of independent modes; or
- by minimising the Whittle likelihood over its parameters (`Matern`, `PowerLaw`).  Least squares on log-log axes
  is not offered: on real fields it returns absurd slopes.

A spectrum must not vanish anywhere: a mode without variance has no density.  A bare power law is refused for this
reason.  On NCEP temperature its likelihood is off by a million bits per dimension, for it misses the small-scale
floor by orders of magnitude.  References: Whittle 1953; Lindgren, Rue and Lindström 2011 (Matérn).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Isotropic", "Matern", "PerMode", "PowerLaw", "Spectrum", "White"]

Spectrum = Callable[[Tensor, "Tensor | None"], Tensor]


@dataclass(frozen=True)
class White:
    """Equal variance in every mode; `variance` where nothing is fitted."""

    variance: float = 1.0

    def __call__(self, k: Tensor, P: Tensor | None = None) -> Tensor:
        if P is None:
            _positive("White", variance=self.variance)
            return torch.full_like(k, self.variance)
        return P.mean().expand_as(k).clone()


@dataclass(frozen=True)
class Matern:
    """S = a (κ² + k²)^-(ν + d/2) + n with range √(8ν)/(2πκ) in grid steps, variance and nugget per value.

    Args:
        length: correlation range in grid steps (correlation falls to about 0.14).
        nu: smoothness ν; fitted too when data are given, within [0.1, 4].
        variance: pointwise variance, nugget included.
        nugget: share of the variance that is white, in (0, 1).
    """

    length: float = 10.0
    nu: float = 1.0
    variance: float = 1.0
    nugget: float = 1e-3

    def __call__(self, k: Tensor, P: Tensor | None = None) -> Tensor:
        _positive("Matern", length=self.length, nu=self.nu, variance=self.variance, nugget=self.nugget)
        if self.nugget >= 1:
            raise ValueError(f"Matern: nugget is a share of the variance, in (0, 1); got {self.nugget}.")

        def shape(log_kappa: Tensor, nu: Tensor) -> Tensor:
            kappa = log_kappa.exp()
            s = (1 + (k / kappa).square()).pow(-(nu + k.ndim / 2))
            return s / s.mean()

        if P is None:
            nu = k.new_tensor(self.nu)
            kappa = (8 * nu).sqrt() / (2 * torch.pi * self.length)
            return self.variance * ((1 - self.nugget) * shape(kappa.log(), nu) + self.nugget)
        mean = P.mean()

        def S(p: Tensor) -> Tensor:
            nu = 0.1 + 3.9 * torch.sigmoid(p[2])
            return mean * (p[0].exp() * shape(p[1], nu) + p[3].exp())

        start = (8 * self.nu) ** 0.5 / (2 * torch.pi * self.length)
        p = k.new_tensor([0.0, torch.tensor(start).log(), 0.0, torch.tensor(self.nugget).log()])
        return _whittle(S, p, P)


@dataclass(frozen=True)
class PowerLaw:
    """S = a |k|^-p + n: steep spectra on a floor.

    Args:
        slope: p; fitted too when data are given, within [1, 6].
        nugget: the floor as a share of the variance. Without one the law has no usable density: 0 is refused,
            and None stands for 1e-3 with a warning.
        variance: pointwise variance, nugget included.
    """

    slope: float = 3.0
    nugget: float | None = None
    variance: float = 1.0

    def __call__(self, k: Tensor, P: Tensor | None = None) -> Tensor:
        nugget = self.nugget
        if nugget is None:
            nugget = 1e-3
            if P is None:
                warnings.warn(
                    "PowerLaw without a nugget has no usable density; a nugget of 1e-3 of the variance was added. "
                    "Name one to silence this, or fit the spectrum to data.",
                    stacklevel=2,
                )
        if not 0 < nugget < 1:
            raise ValueError(
                f"PowerLaw: nugget={nugget} leaves modes without variance, so there is no density "
                "(10^6 bits per dimension on real fields). Give a share of the variance in (0, 1)."
            )
        _positive("PowerLaw", slope=self.slope, variance=self.variance)
        floor = k[k > 0].min()  # the zero mode gets the variance of the largest scale

        def shape(slope: Tensor) -> Tensor:
            s = (k.clamp(min=floor) / floor).pow(-slope)
            return s / s.mean()

        if P is None:
            return self.variance * ((1 - nugget) * shape(k.new_tensor(self.slope)) + nugget)
        mean = P.mean()

        def S(p: Tensor) -> Tensor:
            return mean * (p[0].exp() * shape(1 + 5 * torch.sigmoid(p[1])) + p[2].exp())

        return _whittle(S, k.new_tensor([0.0, 0.0, torch.tensor(nugget).log()]), P)


@dataclass(frozen=True)
class Isotropic:
    """The mean periodogram in bins of |k|, with about equally many modes each; the zero mode has a bin of its own."""

    bins: int = 24

    def __call__(self, k: Tensor, P: Tensor | None = None) -> Tensor:
        if P is None:
            raise ValueError("Isotropic is made from data: call SpectralGaussian(...).fit(batch).")
        flat, power = k.flatten(), P.flatten()
        edges = torch.quantile(flat[flat > 0], torch.linspace(0, 1, self.bins + 1, dtype=k.dtype, device=k.device))
        # Equal-count bins alone would lump the few largest scales, which hold most variance, so those stay apart.
        alone = flat[flat > 0].unique()[:8]
        edges = torch.cat([alone, edges[edges > alone[-1]]]).unique()
        number = (torch.bucketize(flat, edges) + 1) * (flat > 0)
        total = torch.zeros(len(edges) + 2, dtype=P.dtype, device=P.device).index_add(0, number, power)
        count = torch.zeros_like(total).index_add(0, number, torch.ones_like(power))
        return (total / count.clamp(min=1))[number].reshape(P.shape)


@dataclass(frozen=True)
class PerMode:
    """Each mode its own variance (1 − shrink) P_k + shrink S_k, S the isotropic fit.

    Args:
        shrink: weight of the isotropic spectrum, in (0, 1]; more with few samples.
    """

    shrink: float = 0.1

    def __call__(self, k: Tensor, P: Tensor | None = None) -> Tensor:
        if P is None:
            raise ValueError("PerMode is made from data: call SpectralGaussian(...).fit(batch).")
        if not 0 < self.shrink <= 1:
            raise ValueError(f"PerMode: shrink must be in (0, 1], got {self.shrink}; 0 lets modes vanish.")
        return (1 - self.shrink) * P + self.shrink * Isotropic()(k, P)


def _whittle(S: Callable[[Tensor], Tensor], start: Tensor, P: Tensor) -> Tensor:
    """Minimise Σ log S + P/S over the parameters of S by L-BFGS."""
    p = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([p], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        s = S(p)
        loss = (s.log() + P / s).mean()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    s = S(p.detach())
    if not s.isfinite().all():
        raise ValueError("The Whittle fit of the spectrum did not converge; try Isotropic() or PerMode().")
    return s


def _positive(who: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{who}: {name} must be positive and finite, got {value}.")
