"""Two-dimensional laws for teaching and tests: seeded, made from nothing, in no unit."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.source import Data

__all__ = ["checkerboard", "draw", "eight_gaussians", "moons", "rings"]


def moons(n: int = 10_000, noise: float = 0.1, seed: int = 0) -> Data:
    """Two interleaved half circles, x (n, 2), with normal noise across them."""
    _at_least_zero("moons", noise=noise)
    return _data("moons", n, seed, lambda m, g: _moons(m, noise, g))


def eight_gaussians(n: int = 10_000, radius: float = 2.0, std: float = 0.1, seed: int = 0) -> Data:
    """Eight normal clouds on a circle, x (n, 2)."""
    _at_least_zero("eight_gaussians", std=std, radius=radius)
    return _data("eight_gaussians", n, seed, lambda m, g: _eight(m, radius, std, g))


def rings(n: int = 10_000, radii: tuple[float, ...] = (0.5, 1.0, 1.5), noise: float = 0.05, seed: int = 0) -> Data:
    """Concentric circles with equal numbers of points per length, x (n, 2)."""
    _at_least_zero("rings", noise=noise)
    if not radii or not all(0 < r < math.inf for r in radii):
        raise ValueError(f"rings: expected at least one radius, all positive, got radii={radii}.")
    return _data("rings", n, seed, lambda m, g: _rings(m, radii, noise, g))


def checkerboard(n: int = 10_000, seed: int = 0) -> Data:
    """Uniform on the black squares of a 4 × 4 board on [−2, 2)², x (n, 2): entropy exactly 3 bits."""
    return _data("checkerboard", n, seed, _checkerboard)


def draw(name: str, n: int, generator: torch.Generator) -> Tensor:
    """Fresh points (n, 2) of the toy of that name, with its default shape."""
    laws: dict[str, Callable[[int, torch.Generator], Tensor]] = {
        "moons": lambda m, g: _moons(m, 0.1, g),
        "eight_gaussians": lambda m, g: _eight(m, 2.0, 0.1, g),
        "rings": lambda m, g: _rings(m, (0.5, 1.0, 1.5), 0.05, g),
        "checkerboard": _checkerboard,
    }
    if name not in laws:
        raise ValueError(f"toys.draw: there is no toy {name!r}; there are {', '.join(laws)}.")
    return laws[name](n, generator)


def _at_least_zero(name: str, **values: float) -> None:
    for what, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: {what} must be finite and not negative, got {value}.")


def _data(name: str, n: int, seed: int, law: Callable[[int, torch.Generator], Tensor]) -> Data:
    if n < 10:
        raise ValueError(f"{name}: expected at least 10 points to split, got {n}.")
    generator = torch.Generator().manual_seed(seed)
    held = max(1, n // 10)
    train, valid, test = (Batch(law(m, generator)) for m in (n, held, held))
    summary = f"{name}: {n} training, {held} validation and {held} test points in the plane, drawn with seed {seed}"
    return Data(name, train, valid, test, summary=summary)


def _moons(n: int, noise: float, g: torch.Generator) -> Tensor:
    angle = math.pi * torch.rand(n, generator=g)
    lower = torch.rand(n, generator=g) < 0.5
    x = torch.where(lower, 1 - torch.cos(angle), torch.cos(angle))
    y = torch.where(lower, 0.5 - torch.sin(angle), torch.sin(angle))
    return torch.stack([x, y], 1) + noise * torch.randn(n, 2, generator=g)


def _eight(n: int, radius: float, std: float, g: torch.Generator) -> Tensor:
    angle = math.pi / 4 * torch.randint(8, (n,), generator=g)
    centre = radius * torch.stack([torch.cos(angle), torch.sin(angle)], 1)
    return centre + std * torch.randn(n, 2, generator=g)


def _rings(n: int, radii: tuple[float, ...], noise: float, g: torch.Generator) -> Tensor:
    which = torch.multinomial(torch.tensor(radii), n, replacement=True, generator=g)
    angle = 2 * math.pi * torch.rand(n, generator=g)
    circle = torch.tensor(radii)[which, None] * torch.stack([torch.cos(angle), torch.sin(angle)], 1)
    return circle + noise * torch.randn(n, 2, generator=g)


def _checkerboard(n: int, g: torch.Generator) -> Tensor:
    x = 4 * torch.rand(n, generator=g) - 2
    row = torch.randint(2, (n,), generator=g)
    # In column i the black squares are rows i, i + 2 (mod 4) of the board.
    y = torch.rand(n, generator=g) + 2 * row + (x.floor() % 2) - 2
    return torch.stack([x, y], 1)
