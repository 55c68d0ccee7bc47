"""Anomalies from the cycles of the year and the day.

    y = (x − m(t)) / s,     m(t) = Σ_k F_k(t) c_k

The regressors F are 1, annual harmonics cos(kφ) and sin(kφ), φ = 2π t / year, and for each hour of day but the first
an indicator, by itself and times the first few annual harmonics: the daily cycle of July is not that of January.
The c_k are a least-squares fit at each point.  This is smoother than means of day-of-year or month × hour bins, and has
far fewer parameters: 16 for three harmonics and four hours, where 12 months × 4 hours make 48.
For monthly data five harmonics say what twelve means of months would, but for their alternation from month to month.
Reference: Wilks 2011, *Statistical methods in the atmospheric sciences*, section 9.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.transforms.base import Transform, days, enough, finite, inside, varies

__all__ = ["Climatology"]


class Climatology(Transform):
    """Anomalies from a smooth annual and daily cycle, divided by their standard deviation.

    Needs `context["time"]`, days since 1970-01-01 (B,) float64, and dense batches.

    Args:
        harmonics: of the annual cycle.
        hours: hours of day that occur, UTC; the first is the reference.
        per: standard deviation of the anomalies per "point" or "global".
        daily: annual harmonics that change the daily cycle; 0 for one that is the same all year.
        mask: bool, broadcasts to the event; False where values pass as they are, such as the zeros put on land.
        year: length in days of the data's calendar: 365.2425 of the standard one, 365 without leap years, 360 of
            twelve months of thirty days.
    """

    def __init__(
        self,
        harmonics: int = 3,
        hours: Sequence[float] = (0, 6, 12, 18),
        per: str = "point",
        *,
        daily: int = 1,
        mask: Tensor | None = None,
        year: float = 365.2425,
    ):
        super().__init__()
        if per not in ("point", "global"):
            raise ValueError(f'Climatology: per must be "point" or "global", got {per!r}.')
        if harmonics < 1 or len(hours) < 1 or daily < 0:
            raise ValueError(
                f"Climatology: expected at least one harmonic and one hour, and daily of 0 or more, got {harmonics}, "
                f"{hours} and {daily}."
            )
        if not 1 < year < math.inf:
            raise ValueError(f"Climatology: year must be a number of days, such as 365.2425 or 360, got {year}.")
        self.harmonics, self.hours, self.per = harmonics, tuple(hours), per
        self.daily, self.year = daily, float(year)
        self.coefficients: Tensor
        self.std: Tensor
        self.mask: Tensor | None
        self.register_buffer("coefficients", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("mask", None if mask is None else mask.clone())

    def features(self, batch: Batch) -> Tensor:
        """Regressors of each sample, (B, 1 + 2 harmonics + (1 + 2 daily) (hours − 1))."""
        time = days(batch, "Climatology")
        angle = 2 * math.pi * time / self.year
        waves = [torch.ones_like(angle)]
        for k in range(1, max(self.harmonics, self.daily) + 1):
            waves += [torch.cos(k * angle), torch.sin(k * angle)]
        columns = waves[: 1 + 2 * self.harmonics]
        hour = (time % 1) * 24
        known = torch.zeros_like(hour, dtype=torch.bool)
        for number, which in enumerate(self.hours):
            here = ((hour - which + 12) % 24 - 12).abs() < 0.05  # 3 minutes: days in float32 are that coarse
            known |= here
            if number:
                columns += [here * wave for wave in waves[: 1 + 2 * self.daily]]
        if not known.all():
            odd = sorted({round(h, 2) for h in hour[~known].tolist()})
            raise ValueError(
                f"Climatology: made for the hours {self.hours}, but the data hold {odd[:5]}; name them in hours=."
            )
        return torch.stack(columns, 1)

    def fit(self, batch: Batch) -> Climatology:
        batch.grid("Climatology")
        x, F = enough(batch, "Climatology").double().flatten(1), self.features(batch)
        if len(F) < 2 * F.shape[1]:
            raise ValueError(
                f"Climatology: {len(F)} samples cannot fix {F.shape[1]} coefficients per point; give more."
            )
        # gelsd also takes hours that do not occur, but it runs on the CPU only
        solution = torch.linalg.lstsq(F.cpu(), x.cpu(), driver="gelsd").solution.to(x.device)
        variance = (x - F @ solution).reshape(batch.x.shape).square().mean(0)
        within = None if self.mask is None else inside(self.mask, batch, "Climatology").expand(batch.event)
        if self.per == "global":
            variance = (variance if within is None else variance[within]).mean()
        coefficients, std = solution.reshape(-1, *batch.event), variance.sqrt()
        if within is not None:  # y = x outside
            coefficients, std = torch.where(within, coefficients, 0.0), torch.where(within, std, 1.0)
        size = x.abs().amax()
        varies(std, size, "Climatology", "" if within is not None else " Where they are land, say so by mask=.")
        self.coefficients, self.std = coefficients, std
        return self

    def mean(self, batch: Batch) -> Tensor:
        """Expected value at each sample's time, in the user's units, shaped like x."""
        if self.coefficients.ndim == 0:
            raise ValueError("Climatology: used before fit; call .fit(training data) first.")
        if self.coefficients.shape[1:] != batch.event:
            raise ValueError(
                f"Climatology: fitted on samples of shape {tuple(self.coefficients.shape[1:])}, got {batch.event}."
            )
        F = self.features(batch).to(self.coefficients)
        return (F @ self.coefficients.flatten(1)).reshape(len(batch), *batch.event).to(batch.x)

    def forward(self, batch: Batch) -> Batch:
        return batch.replace((finite(batch, "Climatology") - self.mean(batch)) / self.std.to(batch.x))

    def inverse(self, batch: Batch) -> Batch:
        return batch.replace(self.mean(batch) + self.std.to(batch.x) * batch.x)

    def log_det(self, batch: Batch) -> Tensor:
        self.mean(batch)  # the same refusals as forward
        return -batch.total(self.std.log().to(batch.x).expand_as(batch.x))
