"""A power that makes positive data as normal as a power can.

    y = (u^λ − 1) / λ,  u = x + shift > 0;     y = log u at λ = 0;     log |det ∂y/∂x| = (λ − 1) Σ log u

λ is the maximum over [0, 2] of the profile likelihood of normal y with one mean and variance,

    ℓ(λ) = −½ n log var y(λ) + (λ − 1) Σ log u,

over the training values.  Rain, concentrations, wind speeds and energies are skewed like that.  Zeros have no
logarithm and no density: rain that is exactly zero on dry days needs a shift of the size of the smallest amount that
is measured, and even then a lump of mass stays at one value.

For λ > 0 the values y stay above −1/λ.  A flow knows nothing of this bound, and a draw below it belongs to no x:
`inverse` takes it to the smallest x there is, and warns.  For λ < 0 they stay below −1/λ, and a draw beyond belongs to
no finite x: such a power is never fitted, and draws from one that was given are cut off at a huge number.
Reference: Box and Cox 1964, J. R. Stat. Soc. B 26, 211.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.transforms.base import Transform, enough, finite

__all__ = ["BoxCox"]

RANGE = (0.0, 2.0)  # of λ in fits: above, one extreme value decides; below, draws have no bound


class BoxCox(Transform):
    """y = ((x + shift)^λ − 1) / λ for data above −shift.

    Args:
        power: λ; None to have `fit` find it in [0, 2]. Zero is the logarithm.
        shift: added first, in the user's units; None to have `fit` take a small amount, the 5 % quantile of what is
            above zero, for data that are never negative.
        per: λ that is fitted for all values, "global", or per "channel" (first event axis).

    Raises:
        ValueError: for values at or below −shift, before `fit` where λ is not given, or for rows of another shape.

    Warns:
        UserWarning: by `inverse`, where model values belong to no x.

    Example:
        >>> BoxCox(power=0.5)(Batch(torch.tensor([[4.0, 9.0]]))).x
        tensor([[2., 4.]])
    """

    def __init__(self, power: float | None = None, shift: float | None = 0.0, per: str = "global"):
        super().__init__()
        if per not in ("global", "channel"):
            raise ValueError(f'BoxCox: per must be "global" or "channel", got {per!r}.')
        if not all(given is None or math.isfinite(given) for given in (power, shift)):
            raise ValueError(f"BoxCox: power and shift must be finite, got {power} and {shift}.")
        self.per, self.given, self.measured = per, power is not None, shift is None
        self.power: Tensor
        self.shift: Tensor
        self.register_buffer("shift", torch.tensor(math.nan if shift is None else float(shift), dtype=torch.float64))
        self.register_buffer("power", torch.tensor(math.nan if power is None else float(power), dtype=torch.float64))

    def fit(self, batch: Batch) -> BoxCox:
        """The shift and λ, by maximum likelihood, where they were not given."""
        enough(batch, "BoxCox")
        if self.measured:
            self.shift = _small(finite(batch, "BoxCox")).to(self.shift)
        log = self._log(batch).double()
        if self.given:
            return self
        if self.per == "global":
            self.power = torch.tensor(_most_likely(log.flatten())).to(self.power)
        else:
            found = [_most_likely(channel.flatten()) for channel in log.unbind(1)]
            self.power = torch.tensor(found).to(self.power).reshape(-1, *[1] * (log.ndim - 2))
        return self

    def forward(self, batch: Batch) -> Batch:
        power, log = self._fitted(batch), self._log(batch)
        safe = torch.where(power == 0, 1.0, power)
        return batch.replace(torch.where(power == 0, log, torch.expm1(safe * log) / safe))

    def inverse(self, batch: Batch) -> Batch:
        power, y = self._fitted(batch), batch.x
        safe, tiny = torch.where(power == 0, 1.0, power), torch.finfo(y.dtype).eps
        beyond = (power != 0) & (1 + safe * y < tiny)
        if beyond.any():
            warnings.warn(
                f"BoxCox: {int(beyond.sum())} of {y.numel()} model values lie beyond −1/λ and belong to no x; they "
                "were moved to the nearest. With many of them take power=0, whose inverse knows no bound.",
                stacklevel=2,
            )
        log = torch.where(power == 0, y, torch.log1p((safe * y).clamp(min=tiny - 1)) / safe)
        return batch.replace(log.exp() - self.shift.to(y))

    def log_det(self, batch: Batch) -> Tensor:
        return batch.total((self._fitted(batch) - 1) * self._log(batch))

    def _log(self, batch: Batch) -> Tensor:
        """log (x + shift), refusing what has none."""
        if self.shift.isnan():
            raise ValueError("BoxCox: used before fit; call .fit(training data) first, or give shift=.")
        shifted = finite(batch, "BoxCox") + self.shift.to(batch.x)
        if not (shifted > 0).all():
            bad = int((shifted <= 0).sum())
            raise ValueError(
                f"BoxCox: data must be above {-float(self.shift):g}, but {bad} of {shifted.numel()} values are not, "
                f"the smallest is {float(batch.x.min()):g}. Give a larger shift, such as the smallest amount that is "
                "measured where zero means none, or drop them."
            )
        return shifted.log()

    def _fitted(self, batch: Batch) -> Tensor:
        if self.power.isnan().any():
            raise ValueError("BoxCox: used before fit; call .fit(training data) first, or give power=.")
        if self.power.ndim and self.power.shape != (*batch.event[:1], *[1] * (len(batch.event) - 1)):
            raise ValueError(f"BoxCox: fitted on {len(self.power)} channels, got rows of shape {batch.event}.")
        return self.power.to(batch.x)


def _small(x: Tensor) -> Tensor:
    """A small amount that is not zero: a twentieth of the positive values is smaller."""
    if (x < 0).any() or not (x > 0).any():
        raise ValueError(
            f"BoxCox.fit: a shift is found for amounts, which are never negative and not all zero; these run from "
            f"{float(x.min()):g} to {float(x.max()):g}. Give shift=."
        )
    positive = x[x > 0]
    return positive.kthvalue(1 + len(positive) // 20).values


def _most_likely(log: Tensor) -> float:
    """λ of values with these logarithms."""
    from scipy.optimize import minimize_scalar

    log = log - log.mean()  # by their geometric mean: the same λ, and powers that do not overflow
    if not log.abs().max() > 1e-10:
        raise ValueError("BoxCox.fit: the data do not vary; drop that channel.")

    def cost(power: float) -> float:
        y = log if power == 0 else torch.expm1(power * log) / power
        return float(0.5 * y.var(correction=0).log())  # the other term is zero for centred logarithms

    found: Any = minimize_scalar(cost, bounds=RANGE, method="bounded", options={"xatol": 1e-8})
    return float(found.x)
