"""A U-Net on grids (Ronneberger et al. 2015, arXiv:1505.04597), built for fields and for CPUs.

    boundary   each axis has its own padding: "circular" where the axis closes on itself (global longitude, a
               periodic box), "replicate" or "reflect" where the domain ends.  On circular axes the network commutes
               exactly with shifts by `multiple` points, when the axis is a whole number of multiples long.
    position   walled axes carry the first few cosines of their coordinate as extra input channels, since the
               statistics of a real field depend on the place; circular axes carry none, which would break the shifts.
    stem       pixel-unshuffle: every block of stem x stem points becomes channels of one, so the convolutions run on
               a quarter of the points.  No information is lost, and on a CPU a training step costs a third.
    odd sizes  grow to the next multiple by the axis' own boundary rule and are cropped again; nothing is interpolated.
    time       FiLM (Perez et al. 2018, arXiv:1709.07871) after the second group norm of every block.

Group norm sees one sample at a time (batch norm would tie samples together); memory stays plain NCHW, which is
faster than channels_last on CPUs at these sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scifm.batch import Batch
from scifm.networks.checks import check_sizes, check_times
from scifm.networks.time import SinusoidalTime

__all__ = ["UNet"]

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MODES = ("replicate", "reflect", "circular")


class UNet(nn.Module):
    """Velocity on grids of any size; the number of axes is the number of paddings.

    Args:
        channels: C, fields on the grid.
        widths: channels of each level, finest first; each level has half the points per axis of the one before.
        blocks: residual blocks per level.
        padding: "replicate", "reflect" or "circular" for each grid axis; one word means two axes alike.
        stem: edge of the pixel blocks folded into channels at the entrance; 1 folds nothing.
        position: cosines of the coordinate given on each axis that is not circular.
        time_width: width of the time embedding.

    Shapes: t (B,), x (B, C, *grid) -> (B, C, *grid).

    Attributes:
        multiple: stem · 2^(levels-1), to whose multiples each axis is grown inside.

    Raises:
        ValueError: on a ragged batch, other channels or axes, or constructor arguments that make no network.

    Example:
        >>> x = torch.randn(2, 1, 25, 53)
        >>> UNet(1, widths=(8, 16), padding=("replicate", "circular"))(torch.rand(2), x, Batch(x)).shape
        torch.Size([2, 1, 25, 53])
    """

    symmetries = frozenset()

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (32, 64, 96),
        blocks: int = 1,
        padding: str | Sequence[str] = ("replicate", "replicate"),
        stem: int = 1,
        position: int = 4,
        time_width: int = 64,
    ):
        super().__init__()
        (self.channels,) = check_sizes("UNet", "channels", (channels,))
        (self.stem,) = check_sizes("UNet", "stem", (stem,))
        (blocks,) = check_sizes("UNet", "blocks", (blocks,))
        widths = check_sizes("UNet", "widths", tuple(widths))
        self.padding = _check_padding(padding)
        if isinstance(position, bool) or not isinstance(position, int) or position < 0:
            raise ValueError(f"UNet: position must be a number of cosines, 0 or more, got {position!r}.")
        self.position = position
        self.multiple = stem * 2 ** (len(widths) - 1)
        axes = len(self.padding)
        folded = channels * stem**axes
        walls = sum(mode != "circular" for mode in self.padding)
        self.embed = nn.Sequential(SinusoidalTime(time_width), nn.Linear(time_width, time_width), nn.SiLU())
        self.enter = _Conv(folded + position * walls, widths[0], self.padding)
        before = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(
            _Level(a, b, blocks, self.padding, time_width) for a, b in zip(before, widths, strict=True)
        )
        self.up = nn.ModuleList(
            _Level(coarse + fine, fine, blocks, self.padding, time_width)
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.norm = _norm(widths[0])
        self.head = _Conv(widths[0], folded, self.padding)
        nn.init.zeros_(self.head.conv.weight)
        nn.init.zeros_(self.head.conv.bias)  # type: ignore[arg-type]

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        self._check(t, batch)
        size = x.shape[2:]
        for axis, mode in enumerate(self.padding):
            x = _grow(x, axis + 2, self.multiple, mode)
        grown = x.shape[2:]
        h = _fold(x, self.stem)
        h = self.enter(torch.cat([h, *self._cosines(h)], 1))
        waves = self.embed(t.to(x))
        skips: list[Tensor] = []
        for depth, level in enumerate(self.down):
            if depth:
                skips.append(h)
                h = _POOL[len(size)](h, 2)
            h = level(h, waves)
        for level in self.up:
            h = level(torch.cat([F.interpolate(h, scale_factor=2.0), skips.pop()], 1), waves)
        h = _unfold(self.head(F.silu(self.norm(h))), self.stem, self.channels)
        for axis, (n, m) in enumerate(zip(size, grown, strict=True)):
            h = h if n == m else h.narrow(axis + 2, 0, n)
        return h.contiguous()

    def _check(self, t: Tensor, batch: Batch) -> None:
        event = batch.grid("UNet")
        if len(event) != 1 + len(self.padding) or event[0] != self.channels or 0 in event:
            raise ValueError(
                f"UNet: made for {self.channels} channel(s) on {len(self.padding)} grid axes, samples of shape "
                f"({self.channels}, {', '.join('n' for _ in self.padding)}), got {event}. "
                "Channels come first; padding= needs one word per grid axis."
            )
        check_times("UNet", t, len(batch))

    def _cosines(self, h: Tensor) -> list[Tensor]:
        """(B, position, *grid) for each walled axis: cos(π k (i+½)/n), k = 1..position."""
        out = []
        for axis, mode in enumerate(self.padding):
            if mode == "circular" or not self.position:
                continue
            n = h.shape[axis + 2]
            place = (torch.arange(n, dtype=h.dtype, device=h.device) + 0.5) / n
            k = torch.arange(1, self.position + 1, dtype=h.dtype, device=h.device)
            wave = torch.cos(math.pi * k[:, None] * place)
            shape = [1, self.position, *[1] * len(self.padding)]
            shape[axis + 2] = n
            out.append(wave.reshape(shape).expand(h.shape[0], -1, *h.shape[2:]))
        return out


class _Level(nn.Module):
    """`blocks` residual blocks at one resolution; the first changes the width."""

    def __init__(self, before: int, after: int, blocks: int, padding: tuple[str, ...], time_width: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            _Block(before if k == 0 else after, after, padding, time_width) for k in range(blocks)
        )

    def forward(self, h: Tensor, waves: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(h, waves)
        return h


class _Block(nn.Module):
    """h -> skip(h) + conv(silu(FiLM(norm(conv(silu(norm(h)))))))."""

    def __init__(self, before: int, after: int, padding: tuple[str, ...], time_width: int):
        super().__init__()
        self.norm1, self.norm2 = _norm(before), _norm(after)
        self.conv1, self.conv2 = _Conv(before, after, padding), _Conv(after, after, padding)
        self.film = nn.Linear(time_width, 2 * after)
        self.skip = nn.Identity() if before == after else _CONV[len(padding)](before, after, 1)

    def forward(self, h: Tensor, waves: Tensor) -> Tensor:
        scale, shift = self.film(waves).unflatten(1, (-1, *[1] * (h.ndim - 2))).chunk(2, 1)
        new = self.norm2(self.conv1(F.silu(self.norm1(h))))
        return self.skip(h) + self.conv2(F.silu(new * (1 + scale) + shift))


class _Conv(nn.Module):
    """Convolution of edge 3 that keeps the size, with its own boundary rule on each axis."""

    def __init__(self, before: int, after: int, padding: tuple[str, ...]):
        super().__init__()
        self.padding = padding
        self.conv = _CONV[len(padding)](before, after, 3)

    def forward(self, h: Tensor) -> Tensor:
        # the mirror image of a single point is that point, which F.pad refuses to see
        modes = [
            "replicate" if m == "reflect" and n == 1 else m for m, n in zip(self.padding, h.shape[2:], strict=True)
        ]
        for mode in dict.fromkeys(modes):  # axes that agree are padded in one go
            edges = [int(m == mode) for m in reversed(modes) for _ in range(2)]
            h = F.pad(h, edges, mode=mode)
        return self.conv(h)


def _norm(width: int) -> nn.GroupNorm:
    """Up to 8 groups of at least 4 channels, so that a group still varies on a 1 x 1 grid."""
    return nn.GroupNorm(math.gcd(width, max(1, min(8, width // 4))), width)


def _grow(x: Tensor, axis: int, multiple: int, mode: str) -> Tensor:
    """Lengthen one axis at its end to the next multiple, by the axis' boundary rule."""
    n = x.shape[axis]
    if n % multiple == 0:
        return x
    i = torch.arange(n + -n % multiple, device=x.device)
    if mode == "circular":
        i = i % n
    elif mode == "replicate" or n == 1:
        i = i.clamp(max=n - 1)
    else:  # reflect: 0 1 2 3 2 1 0 1 ...
        i = (n - 1) - (i % (2 * n - 2) - (n - 1)).abs()
    return x.index_select(axis, i)


def _fold(x: Tensor, s: int) -> Tensor:
    """Pixel-unshuffle in any dimension: (B, C, *grid) -> (B, C·s^axes, *grid/s)."""
    if s == 1:
        return x
    axes = x.ndim - 2
    x = x.reshape(*x.shape[:2], *[m for n in x.shape[2:] for m in (n // s, s)])
    x = x.permute(0, 1, *range(3, 2 * axes + 2, 2), *range(2, 2 * axes + 2, 2))
    return x.flatten(1, axes + 1)


def _unfold(h: Tensor, s: int, channels: int) -> Tensor:
    """The inverse of `_fold`."""
    if s == 1:
        return h
    grid = h.shape[2:]
    axes = len(grid)
    h = h.reshape(h.shape[0], channels, *[s] * axes, *grid)
    h = h.permute(0, 1, *[k for a in range(axes) for k in (2 + axes + a, 2 + a)])
    return h.reshape(h.shape[0], channels, *[n * s for n in grid])


def _check_padding(padding: str | Sequence[str]) -> tuple[str, ...]:
    modes = (padding, padding) if isinstance(padding, str) else tuple(padding)
    if len(modes) not in _CONV or any(mode not in _MODES for mode in modes):
        raise ValueError(
            f"UNet: padding must be one of {', '.join(_MODES)} for each of 1 to 3 grid axes, got {padding!r}."
        )
    return modes
