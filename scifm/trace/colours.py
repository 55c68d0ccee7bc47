"""Exact traces of local networks: points so far apart that they cannot see each other are probed together.

A network whose value at a point depends on inputs up to `radius` steps away along each axis has J_ij = 0 beyond.  Give
the points of a grid colours so that equal colours are more than `radius` apart on some axis; with e_c one at the points
of colour c, e_cᵀ J e_c is the sum of their J_ii, and

    tr J = Σ_c e_cᵀ J e_c           C · Π_axes (radius + 1) products, however large the grid.

The colour of a point is the tuple of its colours on each axis: its number mod (radius + 1) where the axis has ends.  An
axis of n points that closes on itself is cut into q = ⌊n / (radius + 1)⌋ arcs, as equal as can be, each numbered from
0: two points of equal number are at least an arc's length apart, which is never less than radius + 1, and no colouring
has fewer colours than the longest arc has points.

A network of longer reach, with a group norm or many levels, is no sum of such blocks.  With random signs s on the
points, (s e_c)ᵀ J (s e_c) is unbiased all the same, and since only far pairs of equal colour make noise, it has a small
fraction of Hutchinson's variance.
References: Coleman and Moré 1983, colouring; Tang and Saad 2012, probing; Laeuchli and Stathopoulos 2020, with signs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.trace.base import Linearisation, Velocity
from scifm.trace.hutchinson import noise

__all__ = ["Colours"]

PATTERNS = 6  # of signs, to find points of one colour that see each other: half of the pairs show in each


@dataclass(frozen=True)
class Colours:
    """Coloured probes on grids (C, *grid), dense batches only.

    Without signs the answer is exact or refused: at every call one colour, another each time, is probed once more with
    signs, which must change nothing.  `verify` does so for all colours and several patterns.

    Args:
        radius: reach of the network in grid steps, on each axis or one for all. L convolutions of edge 3 reach L steps.
        periodic: whether each axis, or all, closes on itself and the network knows.
        signs: 0, or the number K of random sign patterns, a column each, for networks that reach further.

    Raises:
        ValueError: on ragged batches, another number of axes, or, without signs, a network that reaches further.
    """

    radius: int | Sequence[int]
    periodic: bool | Sequence[bool] = False
    signs: int = 0

    def __post_init__(self) -> None:
        radii = [self.radius] if isinstance(self.radius, int) else list(self.radius)
        if not radii or min(radii) < 0 or self.signs < 0:
            raise ValueError(f"Colours: radius and signs must be whole numbers, 0 or more, got {self}.")

    def draw(self, like: Batch, generator: torch.Generator | None = None) -> Tensor | None:
        """The sign patterns (K, B, *event); None without."""
        self.labels(like)  # complain before the work
        return noise(like, self.signs, "rademacher", generator) if self.signs else None

    def __call__(
        self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        labels, number = self.labels(batch)
        at = Linearisation(velocity, t, x, batch)
        if not self.signs:
            turn = int(1e6 * abs(float(t[0]))) if len(t) else -1  # another colour and pattern at each time
            diagonal = torch.zeros_like(x)
            for c, here in _classes(labels, number):
                part = here * at.times((here.to(x) * torch.ones_like(x))[None])[0]
                diagonal = diagonal + part
                if turn >= 0 and c == turn % number:
                    self._refuse(at, here, part, turn // number % PATTERNS)
            return at.v, batch.total(diagonal)[:, None]
        if probes is None or probes.shape != (self.signs, *x.shape):
            raise ValueError("Colours: draw the signs once per solve with .draw(like, generator) and pass them.")
        columns = []
        for signs in probes:
            diagonal = torch.zeros_like(x)
            for _, here in _classes(labels, number):
                probe = here * signs
                diagonal = diagonal + probe * at.times(probe[None])[0]
            columns.append(batch.total(diagonal))
        return at.v, torch.stack(columns, 1)

    def verify(self, velocity: Velocity, t: Tensor, x: Tensor, batch: Batch) -> None:
        """Raise a ValueError where the radius is too small for this velocity, looking at every colour."""
        labels, number = self.labels(batch)
        at = Linearisation(velocity, t, x, batch)
        for _, here in _classes(labels, number):
            plain = here * at.times((here.to(x) * torch.ones_like(x))[None])[0]
            for pattern in range(PATTERNS):
                self._refuse(at, here, plain, pattern)

    def labels(self, like: Batch) -> tuple[Tensor, int]:
        """The colour of every number of a sample, (*event), and how many colours there are."""
        channels, *grid = like.grid("Colours")
        radii = _each("radius", self.radius, len(grid))
        closed = _each("periodic", self.periodic, len(grid))
        label, number = torch.arange(channels, device=like.x.device), channels
        for n, radius, periodic in zip(grid, radii, closed, strict=True):
            along = axis_colours(n, radius, periodic).to(label.device)
            many = int(along.max()) + 1 if n else 1
            label, number = label[..., None] * many + along, number * many
        return label, number

    def _refuse(self, at: Linearisation, here: Tensor, plain: Tensor, pattern: int) -> None:
        """Whether signs on the points of one colour change what is read there: they see each other."""
        order = torch.arange(here.numel(), device=here.device, dtype=torch.float64)
        signs = ((1 + pattern) * order.square()).cos()  # quadratic phases: no pattern is a shift of another
        signs = torch.where(signs < 0, -1.0, 1.0).to(plain).reshape(here.shape)
        with torch.no_grad():
            probe = (here * signs).expand_as(plain)
            gap = (probe * at.times(probe[None])[0] - plain).abs()
            rounding = 1e-9 if plain.dtype == torch.float64 else 1e-3
            if bool((gap > rounding * plain.abs().max()).any()):
                raise ValueError(
                    "Colours: points of one colour see each other (by "
                    f"{float(gap.max() / plain.abs().max()):.1g} of the diagonal), so the trace would be wrong: the "
                    f"network reaches further than radius={self.radius}, or an axis closes on itself other than "
                    f"periodic={self.periodic} says. Give its true reach, or signs=K for an unbiased estimate (a group "
                    "norm, attention or pooling sees the whole field)."
                )


def axis_colours(n: int, radius: int, periodic: bool) -> Tensor:
    """Colours (n,) of the points of an axis: equal ones are more than `radius` apart, around the seam too."""
    place = torch.arange(n)
    if not periodic:
        return place % (radius + 1)
    arcs = max(1, n // (radius + 1))
    starts = torch.tensor([math.ceil(n * k / arcs) for k in range(arcs)])
    return place - starts[torch.searchsorted(starts, place, right=True) - 1]


def _classes(labels: Tensor, number: int) -> Iterator[tuple[int, Tensor]]:
    for c in range(number):
        yield c, labels == c


def _each(name: str, value: int | Sequence, axes: int) -> list:
    values = [value] * axes if isinstance(value, int) else list(value)
    if len(values) != axes:
        raise ValueError(f"Colours: {name} has {len(values)} entries for {axes} grid axes; events are (C, *grid).")
    return values
