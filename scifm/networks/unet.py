"""A U-Net on grids (Ronneberger et al. 2015, arXiv:1505.04597), built for fields and for CPUs.

    boundary   each axis has its own padding: "circular" where the axis closes on itself (global longitude, a
               periodic box), "pole" where latitude runs to both poles, "replicate" or "reflect" where the domain ends.
               On circular axes the network commutes exactly with shifts by `multiple` points, when the axis is a whole
               number of multiples long.
    position   walled axes carry the first few cosines of their coordinate as extra input channels, since the
               statistics of a real field depend on the place; circular axes carry none, which would break the shifts.
    stem       pixel-unshuffle: every block of stem x stem points becomes channels of one, so the convolutions run on
               a quarter of the points.  No information is lost, and on a CPU a training step costs a third.
    odd sizes  grow to the next multiple by the axis' own boundary rule and are cropped again; nothing is interpolated.
    time       FiLM (Perez et al. 2018, arXiv:1709.07871) after the second group norm of every block, with labels and
               season; other fields go beside x at the entrance (`GridConditions`).
    poles      the entrance reads across them as they are, point by point.  In hidden layers the end of a grown axis
               counts as the pole, and points that have been folded or averaged as half a cell off it.

Group norm sees one sample at a time (batch norm would tie samples together); memory stays plain NCHW, which is
faster than channels_last on CPUs at these sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scifm.batch import Batch
from scifm.networks.checks import check_count, check_sizes, check_times
from scifm.networks.film import film, group_norm
from scifm.networks.grid_conditions import GridConditions
from scifm.networks.padding import CONV, Conv, Padding, Pole, check_grid, check_padding, coarser, cosines, extend
from scifm.networks.pixels import fold, unfold

__all__ = ["UNet"]

_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class UNet(nn.Module):
    """Velocity on grids of any size; the number of axes is the number of paddings.

    Args:
        channels: C, fields on the grid.
        widths: channels of each level, finest first; each level has half the points per axis of the one before.
        blocks: residual blocks per level.
        padding: "replicate", "reflect", "circular" or "pole" for each grid axis; one word means two axes alike. See
            `Pole` for rows on the poles and for winds.
        stem: edge of the pixel blocks folded into channels at the entrance; 1 folds nothing.
        position: cosines of the coordinate given on each axis that is not circular.
        conditions: what else it is told, and the width of the time embedding; None for time alone.

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
        padding: str | Pole | Sequence[str | Pole] = ("replicate", "replicate"),
        stem: int = 1,
        position: int = 4,
        conditions: GridConditions | None = None,
    ):
        super().__init__()
        (self.channels,) = check_sizes("UNet", "channels", (channels,))
        (self.stem,) = check_sizes("UNet", "stem", (stem,))
        (blocks,) = check_sizes("UNet", "blocks", (blocks,))
        widths = check_sizes("UNet", "widths", tuple(widths))
        self.conditions = GridConditions() if conditions is None else conditions
        read = channels + self.conditions.channels
        self.padding = check_padding("UNet", padding, read)
        self.position = check_count("UNet", "position", position)
        self.multiple = stem * 2 ** (len(widths) - 1)
        axes, time = len(self.padding), self.conditions.waves.width
        walls = sum(rule != "circular" for rule in self.padding)
        fine = self.padding if stem == 1 else coarser(self.padding)
        at = [fine, *[coarser(self.padding)] * (len(widths) - 1)]  # boundary rules of each level
        self.embed = self.conditions.embedding()
        extended = tuple(None if isinstance(rule, Pole) else rule for rule in self.padding)
        self.enter = Conv(read * stem**axes + position * walls, widths[0], extended)
        before = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(_Level(*level, blocks, time) for level in zip(before, widths, at, strict=True))
        self.up = nn.ModuleList(
            _Level(coarse + fine, fine, rules, blocks, time)
            for fine, coarse, rules in zip(widths[-2::-1], widths[:0:-1], at[-2::-1], strict=True)
        )
        self.norm = group_norm(widths[0])
        self.head = Conv(widths[0], channels * stem**axes, fine)
        nn.init.zeros_(self.head.conv.weight)
        nn.init.zeros_(self.head.conv.bias)  # type: ignore[arg-type]

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        check_grid("UNet", batch.grid("UNet"), self.channels, self.padding)
        check_times("UNet", t, len(batch))
        size = x.shape[2:]
        waves = self.embed(self.conditions(t, batch))
        h = self._enter(torch.cat([x, *self.conditions.beside(x, batch)], 1))
        skips: list[Tensor] = []
        for depth, level in enumerate(self.down):
            if depth:
                skips.append(h)
                h = _POOL[len(size)](h, 2)
            h = level(h, waves)
        for level in self.up:
            h = level(torch.cat([F.interpolate(h, scale_factor=2.0), skips.pop()], 1), waves)
        h = unfold(self.head(F.silu(self.norm(h))), self.stem, self.channels)
        for axis, n in enumerate(size):
            h = h if h.shape[axis + 2] == n else h.narrow(axis + 2, 0, n)
        return h.contiguous()

    def _enter(self, x: Tensor) -> Tensor:
        """Grown to multiples, extended across the poles by what the first convolution sees there, and folded."""
        poles = [isinstance(rule, Pole) for rule in self.padding]
        for axis in sorted(range(len(poles)), key=lambda axis: not poles[axis]):  # while longitude still closes
            beyond = self.stem if poles[axis] else 0
            after = beyond + -x.shape[axis + 2] % self.multiple
            if after:
                x = extend(x, axis, beyond, after, self.padding)
        h = fold(x, self.stem)
        return self.enter(torch.cat([h, *cosines(h, self.padding, self.position, beyond=1)], 1))


class _Level(nn.Module):
    """`blocks` residual blocks at one resolution; the first changes the width."""

    def __init__(self, before: int, after: int, padding: Padding, blocks: int, time_width: int):
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

    def __init__(self, before: int, after: int, padding: Padding, time_width: int):
        super().__init__()
        self.norm1, self.norm2 = group_norm(before), group_norm(after)
        self.conv1, self.conv2 = Conv(before, after, padding), Conv(after, after, padding)
        self.film = nn.Linear(time_width, 2 * after)
        self.skip = nn.Identity() if before == after else CONV[len(padding)](before, after, 1)

    def forward(self, h: Tensor, waves: Tensor) -> Tensor:
        new = film(self.norm2(self.conv1(F.silu(self.norm1(h)))), self.film(waves))
        return self.skip(h) + self.conv2(F.silu(new))
