"""Parametric shapes in space, sampled evenly: surfaces per area, curves per length.

A shape is a frozen record of its numbers and a callable `(n, generator) -> points (n, 3)`, like the toys of the plane.
Even sampling is by rejection, exact and in closed form: with a map X(u) from easy parameters u and its area element
w(u), a draw of u is kept with probability w(u) / max w.

    ellipsoid      X = (a s₁, b s₂, c s₃), s uniform on the sphere,  w = a b c √((s₁/a)² + (s₂/b)² + (s₃/c)²)
    torus          w ∝ R + r cos θ
    superquadric   g(x) = ((|x₁/a|^{2/e₂} + |x₂/b|^{2/e₂})^{e₂/e₁} + |x₃/c|^{2/e₁})^{e₁/2} = 1  (Barr 1981)
                   X = s / g(s),  w = |∇g(s)| / g(s)³,  for 0 < e ≤ 2, where the body is convex
    trefoil        X = (sin t + 2 sin 2t, cos t − 2 cos 2t, −sin 3t),  w = √(17 + 8 cos 3t + 9 cos² 3t)

For the superquadric: g is homogeneous of degree one, so s·∇g = g, and the area element of a star-shaped surface
r(s) = 1/g(s) is r² / cos(angle of normal and s) = |∇g| / g³.  It is at most ρ³/h, with ρ the longest radius and h the
shortest distance of a tangent plane from the centre, both bounded by the axes.

Surfaces and curves have no density in space.  What a flow learns is the shape with normal noise around it, which
`scifm.data.clouds` adds; without noise its likelihood grows without bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KINDS", "Box", "Ellipsoid", "Helix", "Superquadric", "Torus", "Trefoil", "random_shape"]

Shape = Callable[[int, torch.Generator], Tensor]


def _positive(name: str, **values: float) -> None:
    for what, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: {what} must be positive and finite, got {value}.")


def _rejected(n: int, draw: Callable[[int], tuple[Tensor, Tensor]], generator: torch.Generator) -> Tensor:
    """n draws kept with the probabilities that `draw(m) -> (points (m, 3), keep (m,))` gives them."""
    parts, have, rate = [torch.zeros(0, 3, dtype=torch.float64)], 0, 0.5
    while have < n:
        m = int((n - have) / max(rate, 0.02)) + 16
        x, keep = draw(m)
        x = x[torch.rand(m, generator=generator, dtype=torch.float64) < keep]
        parts.append(x)
        have, rate = have + len(x), (len(x) + 1) / m
    return torch.cat(parts)[:n]


def _sphere(n: int, generator: torch.Generator) -> Tensor:
    s = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return s / s.norm(dim=1, keepdim=True)


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Ellipsoid:
    """Surface of an ellipsoid with half axes a, b, c; a sphere where they are equal."""

    a: float = 1.0
    b: float = 1.0
    c: float = 1.0

    def __post_init__(self) -> None:
        _positive("Ellipsoid", a=self.a, b=self.b, c=self.c)

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        axes = torch.tensor([self.a, self.b, self.c], dtype=torch.float64)

        def draw(m: int) -> tuple[Tensor, Tensor]:
            s = _sphere(m, generator)
            return s * axes, (s / axes).norm(dim=1) * axes.min()

        return _rejected(n, draw, generator)


@dataclass(frozen=True)
class Torus:
    """A ring about the z axis: R from the centre to the middle of the tube, r the tube's radius, r < R."""

    R: float = 1.0
    r: float = 0.35

    def __post_init__(self) -> None:
        _positive("Torus", R=self.R, r=self.r)
        if self.r >= self.R:
            raise ValueError(f"Torus: expected r < R, or the tube meets itself, got r={self.r} and R={self.R}.")

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        def draw(m: int) -> tuple[Tensor, Tensor]:
            theta, phi = (2 * math.pi * _uniform(m, generator) for _ in range(2))
            rho = self.R + self.r * theta.cos()
            x = torch.stack([rho * phi.cos(), rho * phi.sin(), self.r * theta.sin()], 1)
            return x, rho / (self.R + self.r)

        return _rejected(n, draw, generator)


@dataclass(frozen=True)
class Box:
    """Surface of a box with sides a, b, c about the origin."""

    a: float = 2.0
    b: float = 2.0
    c: float = 2.0

    def __post_init__(self) -> None:
        _positive("Box", a=self.a, b=self.b, c=self.c)

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        sides = torch.tensor([self.a, self.b, self.c], dtype=torch.float64)
        x = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        axis = torch.multinomial(1 / sides, n, replacement=True, generator=generator)  # area across an axis ∝ 1/side
        x[torch.arange(n), axis] = x[torch.arange(n), axis].round()  # onto one of the two faces
        return (x - 0.5) * sides


@dataclass(frozen=True)
class Superquadric:
    """Surface between boxes (e → 0), ellipsoids (e = 1) and octahedra (e = 2), half axes a, b, c.

    Args:
        e1, e2: of the profile along z and of the section across it, above 0 and up to 2, where the body is convex.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 1.0
    e1: float = 0.5
    e2: float = 0.5

    def __post_init__(self) -> None:
        _positive("Superquadric", a=self.a, b=self.b, c=self.c, e1=self.e1, e2=self.e2)
        if max(self.e1, self.e2) > 2 or min(self.e1, self.e2) < 0.05:
            raise ValueError(f"Superquadric: expected e1 and e2 from 0.05 to 2, got {self.e1} and {self.e2}.")

    def gauge(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """g and |∇g| at points (n, 3) on the unit sphere."""
        axes = torch.tensor([self.a, self.b, self.c], dtype=x.dtype)
        q = (x.abs() / axes).clamp(min=1e-12)  # powers below one have no derivative at 0
        p, k = 2 / self.e2, 2 / self.e1
        # Powers of ratios to the largest cannot overflow, however boxlike the body is.
        across_max = q[:, :2].amax(1)
        ratio = q[:, :2] / across_max[:, None]
        across = across_max * ratio.pow(p).sum(1).pow(1 / p)  # gauge of the section
        both = torch.stack([across, q[:, 2]], 1)
        most = both.amax(1)
        g = most * (both / most[:, None]).pow(k).sum(1).pow(1 / k)
        by = (both / g[:, None]).pow(k - 1)  # ∂g/∂across, ∂g/∂q₃
        slope = torch.cat([by[:, :1] * (q[:, :2] / across[:, None]).pow(p - 1), by[:, 1:]], 1) / axes
        return g, slope.norm(dim=1)

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        axes = torch.tensor([self.a, self.b, self.c], dtype=torch.float64)
        # Inside the box of its axes, outside the octahedron on them.
        bound = axes.norm() ** 3 * axes.pow(-2).sum().sqrt()

        def draw(m: int) -> tuple[Tensor, Tensor]:
            s = _sphere(m, generator)
            g, slope = self.gauge(s)
            return s / g[:, None], slope / g**3 / bound

        return _rejected(n, draw, generator)


@dataclass(frozen=True)
class Helix:
    """A helix about the z axis, right-handed or, with handed = −1, its mirror image.

    Args:
        radius: of the cylinder it winds on.
        pitch: rise per turn.
        turns: how many.
        handed: 1 or −1.
    """

    radius: float = 0.6
    pitch: float = 0.7
    turns: float = 2.5
    handed: int = 1

    def __post_init__(self) -> None:
        _positive("Helix", radius=self.radius, pitch=self.pitch, turns=self.turns)
        if self.handed not in (1, -1):
            raise ValueError(f"Helix: handed must be 1 (right) or -1 (left), got {self.handed}.")

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        t = self.turns * (_uniform(n, generator) - 0.5)  # at constant speed, so even in length
        angle = 2 * math.pi * t
        return torch.stack([self.radius * angle.cos(), self.handed * self.radius * angle.sin(), self.pitch * t], 1)


@dataclass(frozen=True)
class Trefoil:
    """The trefoil knot, reaching about `size` from its centre; its two hands cannot be turned into each other."""

    size: float = 1.0
    handed: int = 1

    def __post_init__(self) -> None:
        _positive("Trefoil", size=self.size)
        if self.handed not in (1, -1):
            raise ValueError(f"Trefoil: handed must be 1 or -1, got {self.handed}.")

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        def draw(m: int) -> tuple[Tensor, Tensor]:
            t = 2 * math.pi * _uniform(m, generator)
            x = [t.sin() + 2 * (2 * t).sin(), t.cos() - 2 * (2 * t).cos(), -self.handed * (3 * t).sin()]
            fold = (3 * t).cos()
            return torch.stack(x, 1) * (self.size / 3), ((17 + 8 * fold + 9 * fold**2) / 34).sqrt()

        return _rejected(n, draw, generator)


KINDS = ("sphere", "ellipsoid", "torus", "box", "superquadric", "helix", "left helix", "trefoil", "left trefoil")
"""What `random_shape` makes, in the order of their labels."""


def random_shape(kind: str, generator: torch.Generator) -> Shape:
    """A shape of about unit size with random proportions.

    Raises:
        ValueError: for a kind that there is not.

    Example:
        >>> random_shape("torus", torch.Generator().manual_seed(0))(5, torch.Generator().manual_seed(1)).shape
        torch.Size([5, 3])
    """
    u = torch.rand(5, generator=generator, dtype=torch.float64).tolist()  # always five, so that kinds share a stream

    def between(k: int, low: float, high: float) -> float:
        return low + (high - low) * u[k]

    axes = [between(k, 0.4, 1.0) for k in range(3)]
    made: dict[str, Callable[[], Shape]] = {
        "sphere": lambda: Ellipsoid(axes[0], axes[0], axes[0]),
        "ellipsoid": lambda: Ellipsoid(*axes),
        "torus": lambda: Torus(between(0, 0.6, 0.9), between(1, 0.1, 0.4)),
        "box": lambda: Box(*(1.4 * a for a in axes)),
        "superquadric": lambda: Superquadric(axes[0], axes[1], axes[2], between(3, 0.2, 1.8), between(4, 0.2, 1.8)),
        "helix": lambda: Helix(between(0, 0.3, 0.8), between(1, 0.4, 0.9), between(2, 1.5, 3.0)),
        "left helix": lambda: Helix(between(0, 0.3, 0.8), between(1, 0.4, 0.9), between(2, 1.5, 3.0), -1),
        "trefoil": lambda: Trefoil(between(0, 0.7, 1.1)),
        "left trefoil": lambda: Trefoil(between(0, 0.7, 1.1), -1),
    }
    if kind not in made:
        raise ValueError(f"shapes: there is no kind {kind!r}; there are {', '.join(KINDS)}.")
    return made[kind]()
