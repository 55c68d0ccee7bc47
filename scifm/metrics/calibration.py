"""Is an ensemble as wide as it is wrong?  Nothing here is a score to win: a climatology is calibrated, too.

If y is a further draw of the law of the members x_1 ... x_M, then

    spread-skill   √(1 + 1/M) √( mean var / mean mse )  =  1      var over M − 1, mse of the mean   (Fortin et al. 2014)
    rank           of y among the members is uniform on 0 ... M   ∪: too narrow, ∩: too wide, a slope: biased
    PIT            (rank + u) / (M + 1), u uniform, is uniform on [0, 1]
    coverage       of the central interval of level c is c

The spread-skill ratio is one of means, not a mean of ratios, as in GenCast's published scores.  The mse of the mean of
M members is above that of an endless ensemble by var/M, which the unbiased RMSE takes away.  Ties have a random rank
(Hamill 2001).

A chi-square of ranks takes the cases as independent.  Neighbours in space and time are not, and a p-value of
so many correlated cases is far too small: `RankHistogram.chi_square` warns of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.areas import area_mean
from scifm.metrics.ensembles import check_ensemble

__all__ = ["RankHistogram", "SpreadSkill", "interval_coverage", "pit", "rank_histogram", "ranks", "spread_skill"]


@dataclass(frozen=True)
class SpreadSkill:
    """Spread of an ensemble beside the error of its mean, in the unit of a value.

    Attributes:
        spread: √ of the mean variance over members.
        rmse: of the ensemble mean.
        unbiased_rmse: that of an endless ensemble, √(mse − var/M); NaN where noise makes it less than nothing.
        ratio: √(1 + 1/M) spread / rmse; below 1 the ensemble is too narrow.
        members: M.
    """

    spread: float
    rmse: float
    unbiased_rmse: float
    ratio: float
    members: int

    def __str__(self) -> str:
        return f"spread-skill {self.ratio:.3f} (spread {self.spread:.4g}, RMSE {self.rmse:.4g}, {self.members} members)"


def spread_skill(members: Tensor, observed: Tensor, weights: Tensor | None = None) -> SpreadSkill:
    """Spread, error and their ratio, over all cases and places together; call it per channel or lead time.

    Args:
        members: (M, ...), at least two.
        observed: (...).
        weights: of the last dims, as for `area_mean`.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> centre = torch.randn(5000, generator=g)
        >>> x = centre + torch.randn(6, 5000, generator=g)  # five members, and one that is the truth
        >>> print(spread_skill(x[1:], x[0]))
        spread-skill 0.992 (spread 1.003, RMSE 1.107, 5 members)
    """
    count = check_ensemble("spread_skill", members, observed, True)
    x, y = members.double(), observed.double()
    mse = float(area_mean((x.mean(0) - y).square(), weights).mean())
    var = float(area_mean(x.var(0), weights).mean())
    best = mse - var / count
    ratio = math.sqrt((1 + 1 / count) * var / mse) if mse > 0 else math.nan
    return SpreadSkill(math.sqrt(var), math.sqrt(mse), math.sqrt(best) if best >= 0 else math.nan, ratio, count)


def ranks(members: Tensor, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """How many members are below what came, (...) int64 in 0 ... M; among equal ones the rank is drawn.

    Args:
        members: (M, ...), observed: (...), finite.
        generator: breaks ties.

    Example:
        >>> ranks(torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.tensor([1.5, 9.0]))
        tensor([1, 2])
    """
    check_ensemble("ranks", members, observed, False)
    if not (members.isfinite().all() and observed.isfinite().all()):
        raise ValueError("ranks: expected finite values, got NaN or infinity; leave out what is masked, x[:, mask].")
    below, equal = (members < observed).sum(0), (members == observed).sum(0)
    return below + (_uniform(observed, generator) * (equal + 1)).long().clamp(max=equal)


def pit(members: Tensor, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Probability integral transform, (...) float64 in [0, 1): uniform for a calibrated ensemble of any size.

    Args: as `ranks`; the generator draws the place within a rank, too (Czado, Gneiting and Held 2009).

    Example:
        >>> pit(torch.tensor([[1.0], [2.0]]), torch.tensor([1.5]), torch.Generator().manual_seed(0))
        tensor([0.5693], dtype=torch.float64)
    """
    found = ranks(members, observed, generator)
    return (found + _uniform(observed, generator)) / (len(members) + 1)


def interval_coverage(members: Tensor, observed: Tensor, levels: Sequence[float] = (0.5, 0.8)) -> Tensor:
    """Share of what came that lies in the central interval of each level; (levels,) float64.

    The ends are quantiles at (1 ± c)/2 in the convention r/(M + 1) of the r-th smallest member (Weibull), by which
    the share is c for a calibrated ensemble of any size: exactly where r is whole, nearly where it is between.

    Args:
        members: (M, ...), observed: (...), finite.
        levels: each in (0, (M − 1)/(M + 1)], for beyond the outermost members an ensemble says nothing.

    Example:
        >>> members = torch.arange(1.0, 10.0)[:, None].expand(9, 4)
        >>> interval_coverage(members, torch.tensor([0.0, 2.5, 5.0, 8.5]), [0.6, 0.8])
        tensor([0.5000, 0.7500], dtype=torch.float64)
    """
    count = check_ensemble("interval_coverage", members, observed, True)
    if not (members.isfinite().all() and observed.isfinite().all()):
        raise ValueError("interval_coverage: expected finite values, got NaN or infinity; leave out what is masked.")
    most = (count - 1) / (count + 1)
    if not levels or not all(0 < c <= most + 1e-12 for c in levels):
        raise ValueError(
            f"interval_coverage: {count} members tell intervals of levels in (0, {most:.4g}], got {list(levels)}; take "
            f"lower levels or more members."
        )
    ordered = members.sort(0).values
    found = []
    for c in levels:
        low, high = (_at(ordered, (1 + sign * c) / 2 * (count + 1) - 1) for sign in (-1, 1))
        found.append(((observed >= low) & (observed <= high)).double().mean())
    return torch.stack(found)


@dataclass(frozen=True)
class RankHistogram:
    """Shares of the ranks of what came among M members.

    Attributes:
        shares: (M + 1,) float64, sum 1. Times M + 1 they are GenCast's published ones, which have mean 1.
        cases: how many there were; with weights as many equal ones, (Σw)²/Σw².
        correlation: of the ranks of neighbours, the largest along any dim; NaN where no dim is long enough.
    """

    shares: Tensor
    cases: float
    correlation: float

    def chi_square(self) -> tuple[float, float]:
        """χ² = n Σ (s_r − 1/(M+1))² (M+1), and the probability of a larger one if ranks are uniform and independent.

        Warns:
            UserWarning: where ranks of neighbours correlate, for then the probability is too small.
        """
        bins = len(self.shares)
        value = float(self.cases * bins * (self.shares - 1 / bins).square().sum())
        if self.correlation > max(0.05, 3 / math.sqrt(self.cases)):
            warnings.warn(
                f"rank_histogram: ranks of neighbours correlate by {self.correlation:.2f}, so these are far fewer than "
                f"{self.cases:.0f} independent cases and the p-value is too small. Take places and times that are "
                "further apart, members[:, ::k].",
                stacklevel=2,
            )
        half = torch.tensor([(bins - 1) / 2, value / 2], dtype=torch.float64)
        return value, float(torch.special.gammaincc(half[0], half[1]))


def rank_histogram(
    members: Tensor, observed: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
) -> RankHistogram:
    """Histogram of ranks over all cases and places.

    Args:
        members, observed, generator: as for `ranks`.
        weights: of the last dims, broadcast to them, not negative; a place of weight 0 may hold NaN.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> found = rank_histogram(torch.randn(4, 3000, generator=g), torch.randn(3000, generator=g), generator=g)
        >>> found.shares
        tensor([0.2..., 0.1..., 0.2..., 0.2..., 0.2...], dtype=torch.float64)
        >>> found.chi_square()[1] > 0.01
        True
    """
    check_ensemble("rank_histogram", members, observed, False)
    w = torch.ones((), dtype=torch.float64) if weights is None else weights.double()
    if not (w.isfinite().all() and (w >= 0).all() and (w > 0).any()) or w.ndim > observed.ndim:
        raise ValueError(
            f"rank_histogram: expected finite weights of the last dims, none negative, got {tuple(w.shape)}; make them "
            "with area_weights."
        )
    w = w.to(observed.device).expand(observed.shape)
    found = ranks(torch.where(w > 0, members, 0.0), torch.where(w > 0, observed, 0.0), generator)
    shares = torch.bincount(found.flatten(), w.flatten(), minlength=len(members) + 1) / w.sum()
    return RankHistogram(shares, float(w.sum().square() / w.square().sum()), _neighbours(found.double(), w > 0))


def _neighbours(rank: Tensor, keep: Tensor) -> float:
    """Largest correlation of ranks one step apart along a dim, of at least ten pairs."""
    found = [math.nan]
    for dim, n in enumerate(rank.shape):
        a, b, both = rank.narrow(dim, 0, n - 1), rank.narrow(dim, 1, n - 1), keep.narrow(dim, 0, n - 1)
        both = both & keep.narrow(dim, 1, n - 1)
        if int(both.sum()) >= 10:
            found.append(float(torch.corrcoef(torch.stack([a[both], b[both]]))[0, 1]))
    return max((r for r in found if math.isfinite(r)), default=math.nan)


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device=device).to(like.device)


def _at(ordered: Tensor, place: float) -> Tensor:
    """Between the sorted members, by a place in [0, M − 1] that need not be whole."""
    place = min(max(place, 0.0), len(ordered) - 1.0)
    k = min(int(place + 1e-9), len(ordered) - 1)
    share = max(place - k, 0.0)
    return ordered[k] if share < 1e-9 else torch.lerp(ordered[k], ordered[min(k + 1, len(ordered) - 1)], share)
