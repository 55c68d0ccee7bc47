"""Two-dimensional laws for teaching and tests: seeded, made from nothing, in no unit.

A law is a frozen record of its shape and a callable `(n, generator) -> points (n, 2)`; the functions of the same names
draw a data set of it.  The laws of the published two-dimensional tables are in `PUBLISHED`, under names that say where
they come from:

    "tong:..."       Tong et al. 2024 (OT-CFM) and 2023 (SF²M): eight clouds of std 1 on a circle of radius 5; two moons
                     with noise 0.05, doubled and moved by (−1, 0); an S with noise 0.05, times 1.5.  From data to
                     data both are larger: a circle of radius 12 with clouds of std 1.5, and moons of std 7 about 0
    "torchcfm:..."   what torchcfm's helpers draw, and with them Cheng and Schwing 2025 (C²OT): a circle of radius 5
                     whose clouds have *covariance* √0.1, so std 0.1^¼ = 0.56; moons without width, tripled and moved by
                     (−1, −1), smeared along the diagonal by up to 0.6
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.source import Data

__all__ = [
    "PUBLISHED",
    "Checkerboard",
    "EightGaussians",
    "Moons",
    "Rings",
    "SCurve",
    "checkerboard",
    "draw",
    "eight_gaussians",
    "moons",
    "rings",
    "scurve",
]

Law = Callable[[int, torch.Generator], Tensor]


def _at_least_zero(name: str, **values: float) -> None:
    for what, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: {what} must be finite and not negative, got {value}.")


@dataclass(frozen=True)
class Moons:
    """Two interleaved half circles of radius one, equally likely, as x = shift + scale · (circle + noise).

    Args:
        noise: standard deviation of the normal noise around the circles.
        smear: width of a uniform shift along the diagonal, the same for both coordinates of a point.
        scale, shift: applied last.
    """

    noise: float = 0.1
    smear: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        _at_least_zero("moons", noise=self.noise, smear=self.smear, scale=self.scale)

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        return self.labelled(n, generator)[0]

    def labelled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points (n, 2), and which moon each is of, (n,): 0 the upper, 1 the lower."""
        angle = math.pi * torch.rand(n, generator=generator)
        lower = torch.rand(n, generator=generator) < 0.5
        x = torch.where(lower, 1 - torch.cos(angle), torch.cos(angle))
        y = torch.where(lower, 0.5 - torch.sin(angle), torch.sin(angle))
        points = torch.stack([x, y], 1) + self.noise * torch.randn(n, 2, generator=generator)
        if self.smear:
            points = points + self.smear * torch.rand(n, 1, generator=generator)
        return self.scale * points + torch.tensor(self.shift), lower.long()


@dataclass(frozen=True)
class EightGaussians:
    """Eight normal clouds, equally likely, on a circle about 0."""

    radius: float = 2.0
    std: float = 0.1

    def __post_init__(self) -> None:
        _at_least_zero("eight_gaussians", std=self.std, radius=self.radius)

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        angle = math.pi / 4 * torch.randint(8, (n,), generator=generator)
        centre = self.radius * torch.stack([torch.cos(angle), torch.sin(angle)], 1)
        return centre + self.std * torch.randn(n, 2, generator=generator)


@dataclass(frozen=True)
class SCurve:
    """Two three-quarter circles of radius one, about (0, ±1), that meet at 0 in the shape of an S, as
    x = scale · (curve + noise), with equal numbers of points per length."""

    noise: float = 0.05
    scale: float = 1.0

    def __post_init__(self) -> None:
        _at_least_zero("scurve", noise=self.noise, scale=self.scale)

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        angle = 3 * math.pi * (torch.rand(n, generator=generator) - 0.5)
        curve = torch.stack([torch.sin(angle), torch.sign(angle) * (torch.cos(angle) - 1)], 1)
        return self.scale * (curve + self.noise * torch.randn(n, 2, generator=generator))


@dataclass(frozen=True)
class Rings:
    """Concentric circles with equal numbers of points per length."""

    radii: tuple[float, ...] = (0.5, 1.0, 1.5)
    noise: float = 0.05

    def __post_init__(self) -> None:
        _at_least_zero("rings", noise=self.noise)
        if not self.radii or not all(0 < r < math.inf for r in self.radii):
            raise ValueError(f"rings: expected at least one radius, all positive, got radii={self.radii}.")

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        radii = torch.tensor(self.radii)
        which = torch.multinomial(radii, n, replacement=True, generator=generator)
        angle = 2 * math.pi * torch.rand(n, generator=generator)
        circle = radii[which, None] * torch.stack([torch.cos(angle), torch.sin(angle)], 1)
        return circle + self.noise * torch.randn(n, 2, generator=generator)


@dataclass(frozen=True)
class Checkerboard:
    """Uniform on the black squares of a 4 × 4 board on [−2, 2)²: entropy exactly 3 bits."""

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        x = 4 * torch.rand(n, generator=generator) - 2
        row = torch.randint(2, (n,), generator=generator)
        # In column i the black squares are rows i, i + 2 (mod 4) of the board.
        y = torch.rand(n, generator=generator) + 2 * row + (x.floor() % 2) - 2
        return torch.stack([x, y], 1)


# The large moons of the data-to-data table are standardised by one mean and one std of all numbers, then times 7.
# Of x, y = cos a, sin a or 1 − cos a, ½ − sin a: mean 3/8, mean square (1 + ½ + ⅛ − 1/π)/2 + 0.1².
_LARGE = 7.0 / math.sqrt((1.625 - 1 / math.pi) / 2 + 0.1**2 - 0.375**2)

PUBLISHED: MappingProxyType[str, Law] = MappingProxyType(
    {
        "tong:eight_gaussians": EightGaussians(radius=5.0, std=1.0),
        "tong:moons": Moons(noise=0.05, scale=2.0, shift=(-1.0, 0.0)),
        "tong:scurve": SCurve(noise=0.05, scale=1.5),
        "tong:eight_gaussians_large": EightGaussians(radius=12.0, std=1.5),
        "tong:moons_large": Moons(noise=0.1, scale=_LARGE, shift=(-0.375 * _LARGE, -0.375 * _LARGE)),
        "torchcfm:eight_gaussians": EightGaussians(radius=5.0, std=0.1**0.25),
        "torchcfm:moons": Moons(noise=0.0, smear=0.2, scale=3.0, shift=(-1.0, -1.0)),
    }
)

_DEFAULT: dict[str, Law] = {
    "moons": Moons(),
    "eight_gaussians": EightGaussians(),
    "rings": Rings(),
    "checkerboard": Checkerboard(),
    "scurve": SCurve(),
}


def moons(n: int = 10_000, noise: float = 0.1, seed: int = 0) -> Data:
    """Two interleaved half circles, x (n, 2), with normal noise across them."""
    return _data("moons", n, seed, Moons(noise))


def eight_gaussians(n: int = 10_000, radius: float = 2.0, std: float = 0.1, seed: int = 0) -> Data:
    """Eight normal clouds on a circle, x (n, 2)."""
    return _data("eight_gaussians", n, seed, EightGaussians(radius, std))


def rings(n: int = 10_000, radii: tuple[float, ...] = (0.5, 1.0, 1.5), noise: float = 0.05, seed: int = 0) -> Data:
    """Concentric circles with equal numbers of points per length, x (n, 2)."""
    return _data("rings", n, seed, Rings(radii, noise))


def checkerboard(n: int = 10_000, seed: int = 0) -> Data:
    """Uniform on the black squares of a 4 × 4 board on [−2, 2)², x (n, 2): entropy exactly 3 bits."""
    return _data("checkerboard", n, seed, Checkerboard())


def scurve(n: int = 10_000, noise: float = 0.05, scale: float = 1.0, seed: int = 0) -> Data:
    """Two three-quarter circles that meet in the shape of an S, x (n, 2), with normal noise across them."""
    return _data("scurve", n, seed, SCurve(noise, scale))


def draw(name: str, n: int, generator: torch.Generator) -> Tensor:
    """Fresh points (n, 2) of the toy of that name with its default shape, or of one of `PUBLISHED`."""
    law = _DEFAULT.get(name, PUBLISHED.get(name))
    if law is None:
        raise ValueError(f"toys.draw: there is no toy {name!r}; there are {', '.join([*_DEFAULT, *PUBLISHED])}.")
    return law(n, generator)


def _data(name: str, n: int, seed: int, law: Law) -> Data:
    if n < 10:
        raise ValueError(f"{name}: expected at least 10 points to split, got {n}.")
    generator = torch.Generator().manual_seed(seed)
    held = max(1, n // 10)
    train, valid, test = (Batch(law(m, generator)) for m in (n, held, held))
    summary = f"{name}: {n} training, {held} validation and {held} test points in the plane, drawn with seed {seed}"
    return Data(name, train, valid, test, summary=summary)
