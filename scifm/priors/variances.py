"""How the variance of a mode depends on its eigenvalue: the laws behind chain and graph priors.

A law gives S(λ_k, n) > 0, the variance per coordinate of mode k of n points (`scifm.priors.modes`), from a few
numbers θ:

    Isotropic   σ² n^(2ν)                                     white noise whose size may grow with the number of points
    Harmonic    1 / aλ                                        springs on all links (Rouse)
    Springs     1 / (c n^(−4ν) + a_1 λ + … + a_q λ^q)         springs to several neighbours, in a trap
    PowerLaw    A λ^−b                                        b = 1 is harmonic; real proteins have 1.27
    Cubic       exp of a cubic in log λ, each of its four numbers linear in log n
    PerMode     one number per mode, for sets of one size with one graph

Fits maximise the likelihood of independent modes (Whittle's), with P_k = |c_k|²/d the power of a mode of the data:

    minimise  Σ_k log S_k + P_k / S_k.

In the numbers θ used here this is convex (log S or 1/S is linear in them), so Newton's method finds the one
minimum.  Least squares on log-log axes is not offered: log P is skewed, and the modes that matter least decide the
slope.  References: Whittle 1953; McCullagh and Nelder 1989 (gamma models); Doi and Edwards 1986 (polymers).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scifm.priors.whittle import most_likely

__all__ = ["At", "Cubic", "Harmonic", "Isotropic", "PerMode", "PowerLaw", "Springs", "VarianceLaw"]


@dataclass(frozen=True, eq=False)
class At:
    """Modes at which a law is asked; three tensors that broadcast.

    Args:
        lam: eigenvalue.
        points: n, number of points of the set.
        number: k = 1..n−1 of the mode in its set, int64.
    """

    lam: Tensor
    points: Tensor
    number: Tensor


class VarianceLaw(Protocol):
    """A law; `names` says what the numbers θ are, `start` which hold before a fit (NaN where there are none)."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def start(self) -> Tensor:
        """θ (k,), float64."""
        ...

    def log(self, theta: Tensor, at: At) -> Tensor:
        """log S of each mode."""
        ...

    def fit(self, at: At, power: Tensor) -> Tensor:
        """θ from the powers P of modes (M,)."""
        ...


@dataclass(frozen=True)
class Isotropic:
    """S = σ² n^(2ν).

    Args:
        std: σ per coordinate, in model units.
        growth: ν; 1/3 for balls of constant density, 1/2 for random walks.
    """

    std: float = 1.0
    growth: float = 0.0
    names = ("log_std", "growth")

    def start(self) -> Tensor:
        return _numbers(math.log(_positive("Isotropic", "std", self.std)), self.growth)

    def log(self, theta: Tensor, at: At) -> Tensor:
        return 2 * (theta[0] + theta[1] * at.points.log()) + 0 * at.lam

    def fit(self, at: At, power: Tensor) -> Tensor:
        return most_likely("Isotropic", lambda v: self.log(v, at), _numbers(0.0, 0.0), power, 0.5)


@dataclass(frozen=True)
class Harmonic:
    """S = 1/(aλ).

    Args:
        spring: a, in model units to the power −2. Links of d coordinates have the mean square length d/a.
    """

    spring: float = 1.0
    names = ("log_spring",)

    def start(self) -> Tensor:
        return _numbers(math.log(_positive("Harmonic", "spring", self.spring)))

    def log(self, theta: Tensor, at: At) -> Tensor:
        return -theta[0] - at.lam.log()

    def fit(self, at: At, power: Tensor) -> Tensor:
        return -(power * at.lam).mean().log()[None]


@dataclass(frozen=True)
class Springs:
    """1/S = c n^(−4ν) + a_1 λ + … + a_q λ^q: springs up to the q-th neighbour, in a trap wider for more points.

    The inverse covariance is a polynomial of the Laplacian, so a point knows the trap and those up to q links away.
    a_1 is the spring of the links and a_2 the price of bending; a chain in this trap has a radius of gyration ~ n^ν.

    Args:
        order: q, at least 1.
        growth: ν, 1/3 for what is compact; None for no trap.
        numbers: c (unless growth is None), a_1, ..., a_q, in model units to the power −2; None to be made from data.
    """

    order: int = 2
    growth: float | None = 1 / 3
    numbers: Sequence[float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (*(() if self.growth is None else ("trap",)), *(f"spring_{j}" for j in range(1, self.order + 1)))

    def start(self) -> Tensor:
        if self.order < 1 or (self.growth is not None and not 0 < self.growth < 1):
            raise ValueError(f"Springs: order must be at least 1 and growth None or between 0 and 1, got {self}.")
        if self.numbers is None:
            return torch.full((len(self.names),), torch.nan, dtype=torch.float64)
        if len(self.numbers) != len(self.names) or not all(math.isfinite(v) for v in self.numbers):
            raise ValueError(f"Springs: numbers must be {', '.join(self.names)}, got {list(self.numbers)}.")
        return _numbers(*self.numbers)

    def log(self, theta: Tensor, at: At) -> Tensor:
        precision = torch.zeros_like(at.lam)
        for a in theta.flip(0)[: self.order]:
            precision = (precision + a) * at.lam
        if self.growth is not None:
            precision = precision + theta[0] * at.points.pow(-4 * self.growth)
        return -precision.log()

    def fit(self, at: At, power: Tensor) -> Tensor:
        spring = 1 / (power * at.lam).mean()
        trap = [] if self.growth is None else [1e-3 * spring]
        start = torch.stack([*trap, spring, *[0 * spring] * (self.order - 1)])
        return most_likely("Springs", lambda v: self.log(v, at), start, power)


@dataclass(frozen=True)
class PowerLaw:
    """S = A λ^−b.

    Args:
        scale: A, in model units squared.
        slope: b.
    """

    scale: float = 1.0
    slope: float = 1.0
    names = ("log_scale", "slope")

    def start(self) -> Tensor:
        return _numbers(math.log(_positive("PowerLaw", "scale", self.scale)), self.slope)

    def log(self, theta: Tensor, at: At) -> Tensor:
        return theta[0] - theta[1] * at.lam.log()

    def fit(self, at: At, power: Tensor) -> Tensor:
        return most_likely("PowerLaw", lambda v: self.log(v, at), _numbers(0.0, 1.0), power, 1.0)


@dataclass(frozen=True)
class Cubic:
    """log S = Σ_ij θ_ij l^i m^j, i ≤ 3, j ≤ 1, with l = 1 + (log λ)/5 and m = log(n/100); made from data.

    It follows the data closely, and beyond their sizes and eigenvalues it means nothing.
    """

    names = tuple(f"l{i}m{j}" for i in range(4) for j in range(2))

    def start(self) -> Tensor:
        return torch.full((8,), torch.nan, dtype=torch.float64)

    def log(self, theta: Tensor, at: At) -> Tensor:
        l, m = 1 + at.lam.log() / 5, (at.points / 100).log()
        even, odd = (t[0] + l * (t[1] + l * (t[2] + l * t[3])) for t in (theta[0::2], theta[1::2]))
        return even + m * odd

    def fit(self, at: At, power: Tensor) -> Tensor:
        return most_likely("Cubic", lambda v: self.log(v, at), torch.zeros(8, dtype=torch.float64), power, 1.0)


@dataclass(frozen=True)
class PerMode:
    """A variance for each of the n − 1 modes, made from data: sets of one size with one graph, such as one molecule.

    Modes of equal eigenvalue share theirs, or the law would depend on which basis of theirs a machine happens to find.

    Args:
        points: n.
    """

    points: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"log_variance_{k}" for k in range(1, self.points))

    def start(self) -> Tensor:
        if self.points < 2:
            raise ValueError(f"PerMode: points must be at least 2, got {self.points}.")
        return torch.full((self.points - 1,), torch.nan, dtype=torch.float64)

    def log(self, theta: Tensor, at: At) -> Tensor:
        self._fits(at)
        return theta[(at.number - 1).clamp(0, self.points - 2)] + 0 * at.lam

    def fit(self, at: At, power: Tensor) -> Tensor:
        self._fits(at)
        k, zero = at.number - 1, torch.zeros(self.points - 1, dtype=power.dtype, device=power.device)
        count = zero.index_add(0, k, torch.ones_like(power))
        lam, mean = (zero.index_add(0, k, v) / count for v in (at.lam, power))
        if not torch.allclose(lam[k], at.lam, rtol=1e-6):
            raise ValueError("PerMode: the sets do not share one graph; number their points alike, or take PowerLaw().")
        steps = (lam.diff() > 1e-6 * lam[1:]).long()
        group = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
        same = zero.index_add(0, group, mean) / zero.index_add(0, group, torch.ones_like(mean))
        return same[group].log()

    def _fits(self, at: At) -> None:
        if not bool((at.points == self.points).all()):
            raise ValueError(
                f"PerMode: made for sets of {self.points} points, got one of "
                f"{int(at.points[at.points != self.points][0])}; take PowerLaw() for sets of several sizes."
            )


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _positive(who: str, name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{who}: {name} must be positive and finite, got {value}.")
    return value
