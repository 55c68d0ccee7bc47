"""Invertible maps between the user's units and model units, each with its Jacobian.

    y = T(x),     log p_X(x) = log p_Y(T(x)) + log |det ∂T/∂x|

A likelihood in the user's units needs the second term of every transform: standardising by s adds −log s per value.
Parameters are fitted on the training split only, kept as float64 buffers and saved with the flow.  `Batch` in, `Batch`
out: what does not flow (calendar, labels) is there for transforms that need it, and passes through.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scifm.batch import Batch

__all__ = ["Affine", "Chain", "Climatology", "Identity", "Log", "Logit", "Standardise", "Transform"]

YEAR = 365.2425  # days, the mean Gregorian year


class Transform(nn.Module, ABC):
    """Invertible map x -> y with a known log-determinant. x (rows, *event), dense or ragged."""

    @abstractmethod
    def forward(self, batch: Batch) -> Batch:
        """User's units -> model units."""

    @abstractmethod
    def inverse(self, batch: Batch) -> Batch:
        """Model units -> user's units."""

    @abstractmethod
    def log_det(self, batch: Batch) -> Tensor:
        """log |det ∂y/∂x| of each sample of a batch in the user's units, (B,)."""

    def fit(self, batch: Batch) -> Transform:
        """Set the parameters from training data in the user's units; returns self."""
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # A transform that has not seen data yet takes over the shapes of the saved parameters.
        for name, buffer in list(self.named_buffers(recurse=False)):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != buffer.shape:
                setattr(self, name, buffer.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Identity(Transform):
    """Nothing: model units are the user's."""

    def forward(self, batch: Batch) -> Batch:
        return batch

    def inverse(self, batch: Batch) -> Batch:
        return batch

    def log_det(self, batch: Batch) -> Tensor:
        return batch.x.new_zeros(len(batch))


class Affine(Transform):
    """y = (x + shift) · scale, with given numbers or tensors that broadcast to the event.

    Example:
        >>> Affine(shift=-2.0, scale=0.5)(Batch(torch.tensor([[4.0]]))).x
        tensor([[1.]])
    """

    def __init__(self, shift: float | Tensor = 0.0, scale: float | Tensor = 1.0):
        super().__init__()
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.as_tensor(shift, dtype=torch.float64))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float64))
        finite = self.shift.isfinite().all() and self.scale.isfinite().all()
        if not finite or (self.scale == 0).any():
            raise ValueError(f"Affine: shift must be finite and scale finite and not zero, got {shift} and {scale}.")

    def forward(self, batch: Batch) -> Batch:
        self._fits(batch)
        return batch.replace((_finite(batch, "Affine") + self.shift.to(batch.x)) * self.scale.to(batch.x))

    def inverse(self, batch: Batch) -> Batch:
        self._fits(batch)
        return batch.replace(batch.x / self.scale.to(batch.x) - self.shift.to(batch.x))

    def log_det(self, batch: Batch) -> Tensor:
        self._fits(batch)
        return batch.total(self.scale.abs().log().to(batch.x).expand_as(batch.x))

    def _fits(self, batch: Batch) -> None:
        for name, value in (("shift", self.shift), ("scale", self.scale)):
            wanted = batch.event[len(batch.event) - value.ndim :]
            if value.ndim > len(batch.event) or any(v not in (1, w) for v, w in zip(value.shape, wanted, strict=True)):
                raise ValueError(
                    f"Affine: {name} of shape {tuple(value.shape)} does not fit rows of shape {batch.event}; "
                    "a number per channel of a grid has shape (C, 1, 1)."
                )


class Standardise(Transform):
    """y = (x − mean) / std with mean and standard deviation of the training data.

    Args:
        per: "global" (one of each), "channel" (first event axis; each coordinate of a ragged row) or "point" (every
            value of a dense event by itself).
    """

    def __init__(self, per: str = "global"):
        super().__init__()
        if per not in ("global", "channel", "point"):
            raise ValueError(f'Standardise: per must be "global", "channel" or "point", got {per!r}.')
        self.per = per
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(torch.nan, dtype=torch.float64))

    def fit(self, batch: Batch) -> Standardise:
        x = _enough(batch, "Standardise").double()
        if self.per == "point":
            batch.grid('Standardise(per="point")')
        axes = {"global": tuple(range(x.ndim)), "channel": (0, *range(2, x.ndim)), "point": (0,)}[self.per]
        mean, std = x.mean(axes, keepdim=True)[0], x.std(axes, correction=0, keepdim=True)[0]
        _varies(std, mean, "Standardise")
        self.mean, self.std = (mean.squeeze(), std.squeeze()) if self.per == "global" else (mean, std)
        return self

    def forward(self, batch: Batch) -> Batch:
        mean, std = self._fitted(_finite(batch, "Standardise"))
        return batch.replace((batch.x - mean) / std)

    def inverse(self, batch: Batch) -> Batch:
        mean, std = self._fitted(batch.x)
        return batch.replace(mean + std * batch.x)

    def log_det(self, batch: Batch) -> Tensor:
        return -batch.total(self._fitted(batch.x)[1].log().expand_as(batch.x))

    def _fitted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.mean.ndim == 0 and self.mean.isnan():
            raise ValueError("Standardise: used before fit; call .fit(training data) first.")
        wanted = {"global": (), "point": x.shape[1:], "channel": (*x.shape[1:2], *[1] * (x.ndim - 2))}[self.per]
        if self.mean.shape != wanted:
            raise ValueError(
                f'Standardise(per="{self.per}"): fitted on rows that give shape {tuple(self.mean.shape)}, '
                f"but rows of shape {tuple(x.shape[1:])} need {tuple(wanted)}."
            )
        return self.mean.to(x), self.std.to(x)


class Climatology(Transform):
    """Anomalies from a smooth annual and daily cycle, divided by their standard deviation.

    The mean is a least-squares fit, point by point, on 1, `harmonics` annual harmonics, and indicators of the hour of
    day times (1, cos, sin) of the year: smoother than day-of-year bins, and with far fewer parameters.  Needs
    `context["time"]`, days since 1970-01-01 (B,) float64.

    Args:
        harmonics: of the annual cycle.
        hours: hours of day that occur, UTC; the first is the reference.
        per: standard deviation of the anomalies per "point" or "global".
        year: its length in days in the calendar of the times, `GridSpec.year`.
    """

    def __init__(
        self, harmonics: int = 3, hours: Sequence[float] = (0, 6, 12, 18), per: str = "point", year: float = YEAR
    ):
        super().__init__()
        if per not in ("point", "global"):
            raise ValueError(f'Climatology: per must be "point" or "global", got {per!r}.')
        if harmonics < 1 or len(hours) < 1:
            raise ValueError(f"Climatology: expected at least one harmonic and one hour, got {harmonics} and {hours}.")
        if not year > 0:
            raise ValueError(f"Climatology: year must be a positive number of days, got {year}.")
        self.harmonics, self.hours, self.per, self.year = harmonics, tuple(hours), per, float(year)
        self.coefficients: Tensor
        self.std: Tensor
        self.register_buffer("coefficients", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(torch.nan, dtype=torch.float64))

    def features(self, batch: Batch) -> Tensor:
        """Regressors of each sample, (B, 1 + 2 harmonics + 3 (hours − 1))."""
        if "time" not in batch.context:
            raise ValueError(
                'Climatology: needs context["time"], days since 1970-01-01 (B,); the batch has '
                f"{sorted(batch.context) or 'no context'}."
            )
        time = batch.context["time"].double()
        angle = 2 * math.pi * time / self.year
        columns = [torch.ones_like(angle)]
        for k in range(1, self.harmonics + 1):
            columns += [torch.cos(k * angle), torch.sin(k * angle)]
        hour = (time % 1) * 24
        known = torch.zeros_like(hour, dtype=torch.bool)
        for number, which in enumerate(self.hours):
            here = ((hour - which + 12) % 24 - 12).abs() < 0.05  # 3 minutes: days in float32 are that coarse
            known |= here
            if number:
                columns += [here.double(), here * torch.cos(angle), here * torch.sin(angle)]
        if not known.all():
            odd = sorted({round(h, 2) for h in hour[~known].tolist()})
            raise ValueError(
                f"Climatology: made for the hours {self.hours}, but the data hold {odd[:5]}; name them in hours=."
            )
        return torch.stack(columns, 1)

    def fit(self, batch: Batch) -> Climatology:
        batch.grid("Climatology")
        x, F = _enough(batch, "Climatology").double().flatten(1), self.features(batch)
        if len(F) < 2 * F.shape[1]:
            raise ValueError(
                f"Climatology: {len(F)} samples cannot fix {F.shape[1]} coefficients per point; give more."
            )
        # gelsd also takes hours that do not occur, but it runs on the CPU only
        solution = torch.linalg.lstsq(F.cpu(), x.cpu(), driver="gelsd").solution.to(x.device)
        variance = (x - F @ solution).reshape(batch.x.shape).square().mean(0)
        std = (variance if self.per == "point" else variance.mean()).sqrt()
        _varies(std, x.abs().amax(), "Climatology")
        self.coefficients, self.std = solution.reshape(-1, *batch.event), std
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
        return batch.replace((_finite(batch, "Climatology") - self.mean(batch)) / self.std.to(batch.x))

    def inverse(self, batch: Batch) -> Batch:
        return batch.replace(self.mean(batch) + self.std.to(batch.x) * batch.x)

    def log_det(self, batch: Batch) -> Tensor:
        self.mean(batch)  # the same refusals as forward
        return -batch.total(self.std.log().to(batch.x).expand_as(batch.x))


class Logit(Transform):
    """y = log(p / (1 − p)), p = (x − low) / (high − low), for data within bounds."""

    def __init__(self, low: float, high: float):
        super().__init__()
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"Logit: expected finite low < high, got {low} and {high}.")
        self.low, self.high = float(low), float(high)

    def forward(self, batch: Batch) -> Batch:
        return batch.replace(torch.logit(self._share(batch)))

    def inverse(self, batch: Batch) -> Batch:
        return batch.replace(self.low + (self.high - self.low) * torch.sigmoid(batch.x))

    def log_det(self, batch: Batch) -> Tensor:
        p = self._share(batch)
        return -batch.total(p.log() + (-p).log1p() + math.log(self.high - self.low))

    def _share(self, batch: Batch) -> Tensor:
        p = (_finite(batch, "Logit") - self.low) / (self.high - self.low)
        if not ((p > 0) & (p < 1)).all():
            raise ValueError(
                f"Logit: data must lie strictly between {self.low:g} and {self.high:g}; they run from "
                f"{float(batch.x.min()):g} to {float(batch.x.max()):g}. Widen the bounds."
            )
        return p


class Log(Transform):
    """y = log x, for positive data."""

    def forward(self, batch: Batch) -> Batch:
        return batch.replace(self._positive(batch).log())

    def inverse(self, batch: Batch) -> Batch:
        return batch.replace(batch.x.exp())

    def log_det(self, batch: Batch) -> Tensor:
        return -batch.total(self._positive(batch).log())

    def _positive(self, batch: Batch) -> Tensor:
        if not (_finite(batch, "Log") > 0).all():
            raise ValueError(f"Log: data must be positive, the smallest is {float(batch.x.min()):g}; shift them first.")
        return batch.x


class Chain(Transform):
    """One transform after the other; their log-determinants add up."""

    def __init__(self, *transforms: Transform):
        super().__init__()
        for number, transform in enumerate(transforms):
            if not isinstance(transform, Transform):
                raise TypeError(f"Chain: argument {number + 1} must be a Transform, got {type(transform).__name__}.")
        self.transforms = nn.ModuleList(transforms)

    def fit(self, batch: Batch) -> Chain:
        for transform in self._each():
            batch = transform.fit(batch)(batch)
        return self

    def forward(self, batch: Batch) -> Batch:
        for transform in self._each():
            batch = transform(batch)
        return batch

    def inverse(self, batch: Batch) -> Batch:
        for transform in reversed(self._each()):
            batch = transform.inverse(batch)
        return batch

    def log_det(self, batch: Batch) -> Tensor:
        total = batch.x.new_zeros(len(batch))
        for transform in self._each():
            total = total + transform.log_det(batch)
            batch = transform(batch)
        return total

    def _each(self) -> list[Transform]:
        return list(self.transforms)  # type: ignore[arg-type]


def _finite(batch: Batch, who: str) -> Tensor:
    x = batch.x
    if not x.is_floating_point():
        raise ValueError(f"{who}: expected floating-point values, got {x.dtype}; convert them with batch.x.float().")
    if not x.isfinite().all():
        bad = batch.total((~x.isfinite()).double()) > 0
        raise ValueError(
            f"{who}: {int(bad.sum())} of {len(batch)} samples hold NaN or infinity, the first is "
            f"{int(bad.nonzero()[0])}; fill or drop them."
        )
    return x


def _enough(batch: Batch, who: str) -> Tensor:
    if len(batch) < 2:
        raise ValueError(f"{who}.fit: expected at least 2 samples, got {len(batch)}.")
    return _finite(batch, f"{who}.fit")


def _varies(std: Tensor, size: Tensor, who: str) -> None:
    """Refuse a spread that is nothing but the rounding of values of that size."""
    flat = ~(std > 1e-10 * size.abs())
    if flat.any():
        where = f" (the first at {tuple(flat.nonzero()[0].tolist())})" if std.numel() > 1 else ""
        raise ValueError(
            f"{who}.fit: {int(flat.sum())} of {std.numel()} scales are zero{where}: the data do not vary there. "
            'Drop those values, or take one scale for all (per="global").'
        )
