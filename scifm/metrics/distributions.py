"""How far two samples of one number are apart: bonds, angles or torsions of generated structures beside those of data.

With F, G the empirical distribution functions of x and y:

    W1 = ∫ |F − G| dr                        Wasserstein, in the unit of the number, exact
    W1 on a circle = min_α ∫ |F − G − α| dr   α is the median of F − G (Rabin, Delon and Gousseau 2011)
    KS = max |F − G|                          Kolmogorov and Smirnov; in [0, 1], does not see the unit
    Kuiper = max (F − G) + max (G − F)        its form on a circle, where the origin must not matter
    JS = ½ KL(p, m) + ½ KL(q, m), m = ½ (p + q)   Jensen and Shannon, nats in [0, log 2], on stated bins

W1 says how far, the others whether.  Samples of one law have distances too: W1 falls as (1/m + 1/n)^½.  So `compare`
gives the distance of two halves of the data beside it, scaled to the sizes at hand, and a standard error by resampling
whole samples: the numbers of one structure depend on each other, structures do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Comparison", "bootstrap", "compare", "jensen_shannon", "kolmogorov_smirnov", "wasserstein_line"]


def wasserstein_line(x: Tensor, y: Tensor, period: float | None = None) -> float:
    """W1 of two sets of numbers, exactly, in their unit; of any sizes, in O(n log n).

    Args:
        x, y: any shapes; every number weighs the same.
        period: length of the circle they live on, such as 2π for torsions; None for a line.

    Raises:
        ValueError: for sets that are empty or not finite, or a period that is not positive.

    Example:
        >>> wasserstein_line(torch.tensor([0.0, 1.0]), torch.tensor([6.0, 7.0]))
        6.0
        >>> wasserstein_line(torch.tensor([0.0, 1.0]), torch.tensor([6.0, 7.0]), period=8.0)
        2.0
    """
    x, y = _numbers("wasserstein_line", x, y, period)
    place, gap = _difference(x, y)
    if period is None:
        return float((gap[:-1].abs() * place.diff()).sum())
    width = torch.cat([place.diff(), (place[0] + period - place[-1])[None]])
    order = gap.argsort()
    half = int(torch.searchsorted(width[order].cumsum(0), 0.5 * width.sum()))
    middle = gap[order[min(half, len(order) - 1)]]
    return float(((gap - middle).abs() * width).sum())


def kolmogorov_smirnov(x: Tensor, y: Tensor, period: float | None = None) -> float:
    """Largest difference of the distribution functions, in [0, 1]; Kuiper's sum of both signs on a circle.

    Args and Raises: as `wasserstein_line`.

    Example:
        >>> kolmogorov_smirnov(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
        0.5
    """
    x, y = _numbers("kolmogorov_smirnov", x, y, period)
    gap = _difference(x, y)[1]
    if period is None:
        return float(gap.abs().max())
    return float(gap.max().clamp(min=0) + (-gap).max().clamp(min=0))


def jensen_shannon(x: Tensor, y: Tensor, bins: Tensor) -> float:
    """Jensen–Shannon divergence of the histograms on given bins, nats: 0 for equal ones, log 2 for disjoint ones.

    What lies outside the bins counts as one bin more on either side. The value grows with the number of bins that hold
    few numbers: state the bins.

    Args:
        bins: (k + 1,) edges, increasing.

    Example:
        >>> jensen_shannon(torch.zeros(4), torch.zeros(7), torch.linspace(-1, 1, 5))
        0.0
    """
    x, y = _numbers("jensen_shannon", x, y)
    if bins.ndim != 1 or len(bins) < 2 or not bool((bins.diff() > 0).all()):
        raise ValueError(f"jensen_shannon: expected increasing edges (k + 1,), got {tuple(bins.shape)}.")
    edges = bins.to(x)
    p, q = (torch.bincount(torch.bucketize(v, edges, right=True), minlength=len(edges) + 1) / len(v) for v in (x, y))
    m = (p + q) / 2
    return float((torch.special.xlogy(p, p / m).nan_to_num() + torch.special.xlogy(q, q / m).nan_to_num()).sum() / 2)


@dataclass(frozen=True)
class Comparison:
    """How far numbers of samples are from those of data.

    Attributes:
        wasserstein: W1, in the unit of the numbers.
        stderr: its standard error, from resampling whole samples on both sides.
        floor: W1 that two sets of data of these sizes have, from random halves of the data. Not to be subtracted:
            a W1 near its floor says that no difference was found.
        ks: Kolmogorov–Smirnov, or Kuiper on a circle.
        mean, std: of the samples; on a circle circular ones.
        data_mean, data_std: of the data.
    """

    wasserstein: float
    stderr: float
    floor: float
    ks: float
    mean: float
    std: float
    data_mean: float
    data_std: float

    def __str__(self) -> str:
        return (
            f"W1 {self.wasserstein:.3g} ± {self.stderr:.1g} (same law: {self.floor:.2g}), KS {self.ks:.3f}, "
            f"mean {self.mean:.4g} (data {self.data_mean:.4g}), std {self.std:.3g} (data {self.data_std:.3g})"
        )


def compare(
    x: list[Tensor],
    y: list[Tensor],
    period: float | None = None,
    generator: torch.Generator | None = None,
    draws: int = 50,
) -> Comparison:
    """Compare a number of generated samples with that of data.

    Args:
        x: the numbers of each sample, in any lengths; `[values]` only if they come from one.
        y: the same of the data.
        period: as `wasserstein_line`.
        generator: of the halves and resamples.
        draws: resamples, and halves.

    Example:
        >>> data = list(torch.randn(200, 5, generator=torch.Generator().manual_seed(0)))
        >>> found = compare([v + 1 for v in data], data, generator=torch.Generator().manual_seed(1))
        >>> abs(found.wasserstein - 1) < 1e-5, found.floor < 0.1
        (True, True)
    """
    x, y = [v.detach().reshape(-1).cpu().double() for v in x], [v.detach().reshape(-1).cpu().double() for v in y]
    nothing = torch.zeros(0, dtype=torch.float64)
    all_x, all_y = _numbers("compare", torch.cat([*x, nothing]), torch.cat([*y, nothing]))

    def distance(some_x: list[Tensor], some_y: list[Tensor]) -> float:
        a, b = torch.cat(some_x), torch.cat(some_y)
        return wasserstein_line(a, b, period) if len(a) and len(b) else math.nan

    halves = []
    for _ in range(draws if len(y) > 1 else 0):
        order = torch.randperm(len(y), generator=generator).tolist()
        first, second = order[: len(y) // 2], order[len(y) // 2 :]
        halves.append(distance([y[i] for i in first], [y[i] for i in second]))
    kept = [v for v in halves if math.isfinite(v)]
    # sizes in samples: their numbers are no independent draws
    scale = math.sqrt((1 / len(x) + 1 / len(y)) / (1 / max(len(y) // 2, 1) + 1 / max(len(y) - len(y) // 2, 1)))
    floor = scale * sum(kept) / len(kept) if kept else math.nan
    stderr = bootstrap(distance, x, y, generator=generator, draws=draws)
    moments = [*_moments(all_x, period), *_moments(all_y, period)]
    ks = kolmogorov_smirnov(all_x, all_y, period)
    return Comparison(wasserstein_line(all_x, all_y, period), stderr, floor, ks, *moments)


def bootstrap(
    statistic: Callable[..., float], *sets: list, generator: torch.Generator | None = None, draws: int = 100
) -> float:
    """Standard error of a statistic of independent samples, by drawing them again with replacement (Efron 1979).

    Args:
        statistic: of as many lists as there are sets, each of the length of its set.
        sets: lists of samples, drawn independently of each other.

    Returns:
        the standard deviation over `draws`; NaN if a set has fewer than two samples.

    Example:
        >>> values = list(torch.randn(400, generator=torch.Generator().manual_seed(0)))
        >>> g = torch.Generator().manual_seed(1)
        >>> 0.03 < bootstrap(lambda v: float(torch.stack(v).mean()), values, generator=g) < 0.07
        True
    """
    if draws < 2 or any(len(s) < 2 for s in sets):
        return math.nan
    values = []
    for _ in range(draws):
        again = [[s[i] for i in torch.randint(len(s), (len(s),), generator=generator).tolist()] for s in sets]
        values.append(statistic(*again))
    kept = torch.tensor([v for v in values if math.isfinite(v)], dtype=torch.float64)
    return float(kept.std()) if len(kept) > 1 else math.nan


def _difference(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted places (m + n,), and F − G from each to the next."""
    place, order = torch.cat([x, y]).sort()
    step = torch.cat([torch.full_like(x, 1 / len(x)), torch.full_like(y, -1 / len(y))])[order].cumsum(0)
    last = torch.cat([place.diff() > 0, torch.ones_like(place[:1], dtype=torch.bool)])
    step[-1] = 0.0
    return place[last], step[last]  # between equal numbers the functions have no value


def _numbers(who: str, x: Tensor, y: Tensor, period: float | None = None) -> tuple[Tensor, Tensor]:
    x, y = x.detach().reshape(-1).cpu().double(), y.detach().reshape(-1).cpu().double()
    if not len(x) or not len(y) or not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError(
            f"{who}: expected two sets of finite numbers, got {len(x)} and {len(y)}, of which "
            f"{int((~x.isfinite()).sum())} and {int((~y.isfinite()).sum())} are NaN or infinite; leave out what is "
            "undefined."
        )
    if period is None:
        return x, y
    if not 0 < period < math.inf:
        raise ValueError(f"{who}: period must be positive, got {period}.")
    return x.remainder(period), y.remainder(period)


def _moments(x: Tensor, period: float | None) -> tuple[float, float]:
    if period is None:
        return float(x.mean()), float(x.std()) if len(x) > 1 else math.nan
    turn = torch.polar(torch.ones_like(x), 2 * math.pi / period * x).mean()
    spread = torch.sqrt(-2 * turn.abs().clamp(1e-300, 1).log())  # circular standard deviation
    return float(turn.angle() * period / (2 * math.pi)), float(spread * period / (2 * math.pi))
