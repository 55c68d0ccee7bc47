"""What lies beyond the edge of a grid: one rule per axis.

    replicate   the edge once more: a wall, and nothing is known beyond it
    reflect     the mirror image
    circular    the axis closes on itself: global longitude, a periodic box
    pole        latitude from pole to pole: beyond the pole comes the opposite meridian

Two opposite meridians make a circle, and on it a field is periodic.  With latitudes φ_0 … φ_(n-1) and longitudes λ

    f(φ_(-1-i), λ) = ± f(φ_i, λ + 180°)     poles half a cell beyond the outer rows, period 2n        Pole(), "pole"
    f(φ_(-i), λ)   = ± f(φ_i, λ + 180°)     the outer rows are the poles, period 2n − 2               Pole(rows=True)

with + for scalars and − for the components of vectors along φ and λ, for beyond a pole east and north point the other
way.  It holds for rows in either order and of any spacing (Gaussian grids have no row on a pole), and wants longitudes
that close the circle, an even number of them, so that each meridian has its opposite.

A network extends its input by these rules as it is.  Of hidden channels nobody knows which are scalars; where vectors
are named, every other one counts as a vector, so that both kinds can be had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CONV", "Conv", "Padding", "Pole", "check_grid", "check_padding", "coarser", "cosines", "extend", "pad"]

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
WORDS = ("replicate", "reflect", "circular", "pole")


@dataclass(frozen=True)
class Pole:
    """The rule of a latitude axis that runs from pole to pole; the word "pole" stands for `Pole()`.

    Args:
        rows: the first and the last row lie on the poles; if not, the poles are half a cell beyond them.
        vectors: channels that are components of vectors along latitude or longitude, such as wind; they change sign
            across the pole. Channels that flow are counted first, then the fields of the conditions in their order.

    Example:
        >>> from scifm import Batch, networks
        >>> wind = Batch(torch.randn(2, 3, 19, 36))  # u, v and temperature, every 10°, from pole to pole
        >>> padding = (networks.Pole(rows=True, vectors=(0, 1)), "circular")
        >>> networks.UNet(3, widths=(8, 8), padding=padding)(torch.rand(2), wind.x, wind).shape
        torch.Size([2, 3, 19, 36])
    """

    rows: bool = False
    vectors: tuple[int, ...] = ()


Rule = str | Pole | None  # None inside networks: already extended
Padding = tuple[Rule, ...]


def check_padding(who: str, padding: str | Pole | Sequence[str | Pole], channels: int) -> Padding:
    """One rule per grid axis, poles as `Pole`; a ValueError that names `who` where they make no grid."""
    rules = (padding, padding) if isinstance(padding, str) else (padding,) if isinstance(padding, Pole) else padding
    rules = tuple(rules)
    if len(rules) not in CONV or any(not isinstance(r, Pole) and r not in WORDS for r in rules):
        raise ValueError(
            f"{who}: padding must be one of {', '.join(WORDS)} for each of 1 to 3 grid axes, got {padding!r}."
        )
    rules = tuple(Pole() if r == "pole" else r for r in rules)
    poles = [r for r in rules if isinstance(r, Pole)]
    if poles and (len(poles) > 1 or rules.count("circular") != 1):
        raise ValueError(
            f"{who}: a pole axis is a latitude, and needs one circular axis beside it, the longitude; got {padding!r}."
        )
    for c in poles[0].vectors if poles else ():
        if isinstance(c, bool) or not isinstance(c, int) or not 0 <= c < channels:
            raise ValueError(
                f"{who}: Pole(vectors=) must name channels from 0 to {channels - 1}, those that flow and then the "
                f"fields of the conditions, got {poles[0].vectors!r}."
            )
    return rules


def check_grid(who: str, event: tuple[int, ...], channels: int, padding: Padding) -> None:
    """Whether samples (C, *grid) are such as a network was made for."""
    if len(event) != 1 + len(padding) or event[0] != channels or 0 in event:
        raise ValueError(
            f"{who}: made for {channels} channel(s) on {len(padding)} grid axes, samples of shape "
            f"({channels}, {', '.join('n' for _ in padding)}), got {event}. "
            "Channels come first; padding= needs one word per grid axis."
        )
    for axis, rule in enumerate(padding):
        if isinstance(rule, Pole):
            longitudes = event[1 + padding.index("circular")]
            if longitudes % 2 or event[1 + axis] <= rule.rows:
                raise ValueError(
                    f"{who}: beyond a pole comes the opposite meridian, so a pole axis needs an even number of "
                    f"longitudes, and two rows if they lie on the poles; got the grid {event[1:]}. "
                    'Use "replicate" for that axis, or leave out what is there twice.'
                )


def coarser(padding: Padding) -> Padding:
    """The rules where several points have become one: no row lies on a pole any more."""
    return tuple(replace(r, rows=False) if isinstance(r, Pole) else r for r in padding)


def extend(x: Tensor, axis: int, before: int, after: int, padding: Padding) -> Tensor:
    """Lengthen a grid axis of an input (B, C, *grid) by its rule, as far as one likes."""
    rule, n = padding[axis], x.shape[axis + 2]
    i = torch.arange(-before, n + after, device=x.device)
    if isinstance(rule, Pole):
        far = _antipodes(x, padding, _signs(x, rule.vectors))
        x = torch.cat([x, far.flip(axis + 2).narrow(axis + 2, int(rule.rows), n - 2 * rule.rows)], axis + 2)
        i = i % x.shape[axis + 2]
    elif rule == "circular":
        i = i % n
    elif rule == "replicate" or n == 1:
        i = i.clamp(0, n - 1)
    else:  # reflect: 2 1 0 1 2 3 2 1 0 1 ...
        i = (n - 1) - (i % (2 * n - 2) - (n - 1)).abs()
    return x.index_select(axis + 2, i)


def pad(h: Tensor, padding: Padding) -> Tensor:
    """One more point at both ends of each axis of hidden features (B, width, *grid)."""
    for axis, rule in enumerate(padding):  # poles first, as long as longitude closes
        if isinstance(rule, Pole):
            n, skip = h.shape[axis + 2], int(rule.rows and h.shape[axis + 2] > 1)
            signs = _signs(h, range(1, h.shape[1], 2) if rule.vectors else ())
            ends = [h.narrow(axis + 2, row, 1) for row in (skip, n - 1 - skip)]
            first, last = (_antipodes(end, padding, signs) for end in ends)
            h = torch.cat([first, h, last], axis + 2)
    # the mirror image of a single point is that point, which F.pad refuses to see
    modes = ["replicate" if r == "reflect" and n == 1 else r for r, n in zip(padding, h.shape[2:], strict=True)]
    for mode in dict.fromkeys(m for m in modes if isinstance(m, str)):  # axes that agree are padded in one go
        edges = [int(m == mode) for m in reversed(modes) for _ in range(2)]
        h = F.pad(h, edges, mode=mode)
    return h


def _signs(h: Tensor, vectors: Sequence[int]) -> Tensor | None:
    """(C, 1, ...): −1 for components of vectors; None where there are none."""
    if not vectors:
        return None
    signs = torch.ones(h.shape[1], *[1] * (h.ndim - 2), dtype=h.dtype, device=h.device)
    signs[list(vectors)] = -1
    return signs


def _antipodes(h: Tensor, padding: Padding, signs: Tensor | None) -> Tensor:
    """What is at the other side of the pole: 180° further; the mean of two neighbours where that is between them."""
    axis = 2 + padding.index("circular")
    half = h.shape[axis] // 2
    far = h.roll(half, axis)
    if h.shape[axis] % 2:  # in hidden layers only
        far = (far + h.roll(half + 1, axis)) / 2
    return far if signs is None else signs * far


class Conv(nn.Module):
    """Convolution of edge 3 that keeps the size, with its own boundary rule on each axis."""

    def __init__(self, before: int, after: int, padding: Padding, groups: int = 1):
        super().__init__()
        self.padding = padding
        self.conv = CONV[len(padding)](before, after, 3, groups=groups)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(pad(h, self.padding))


def cosines(h: Tensor, padding: Padding, count: int, beyond: int = 0) -> list[Tensor]:
    """Where a point is: cos(π k (i+½)/n), k = 1..count, for each axis that is not circular, (B, count, *grid) each.

    Args:
        beyond: points at each end of a pole axis of h that lie beyond the poles.
    """
    out = []
    for axis, rule in enumerate(padding):
        if rule == "circular" or not count:
            continue
        edge = beyond if isinstance(rule, Pole) else 0
        n = h.shape[axis + 2] - 2 * edge
        place = (torch.arange(-edge, n + edge, dtype=h.dtype, device=h.device) + 0.5) / n
        k = torch.arange(1, count + 1, dtype=h.dtype, device=h.device)
        wave = torch.cos(math.pi * k[:, None] * place)
        shape = [1, count, *[1] * len(padding)]
        shape[axis + 2] = n + 2 * edge
        out.append(wave.reshape(shape).expand(h.shape[0], -1, *h.shape[2:]))
    return out
