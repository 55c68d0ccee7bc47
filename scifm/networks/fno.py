"""A Fourier neural operator on grids (Li et al. 2021, arXiv:2010.08895).

    h_(l+1) = W h_l + P silu(FiLM(norm(K h_l + D h_l)))

    K    spectral convolution: each of the lowest modes of h has its own matrix from channels to channels
    D    depth-wise convolution of edge 3, for the small scales that K does not know, with a boundary rule per axis
    W    1 x 1, the identity at the start; P, 1 x 1 too (after Tran et al. 2023, arXiv:2111.13802)

Modes are Fourier's, e^(2πikx/n), on circular axes and cosines, DCT-II, on all others: a walled field continued as a
mirror image has no jump, where Fourier modes would see one from end to end.  A mode k < `modes` is at most as fast as
the grid allows: a coarser grid has fewer and uses those, so one network serves several grids.

On circular axes K multiplies modes, D is periodic, and all else is pointwise: the network commutes with *every* shift
along them, as long as its conditions do.  Only walled axes carry cosines of their coordinate.

Transforms are in `scifm.networks.modes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scifm.batch import Batch
from scifm.networks.checks import check_count, check_sizes, check_times
from scifm.networks.film import film, group_norm
from scifm.networks.grid_conditions import GridConditions
from scifm.networks.modes import Modes, kinds_of
from scifm.networks.padding import CONV, Conv, Padding, Pole, check_grid, check_padding, cosines

__all__ = ["FNO"]


class FNO(nn.Module):
    """Velocity on grids of any size, equivariant under every shift along circular axes.

    Args:
        channels: C, fields on the grid.
        width: channels of the hidden layers.
        modes: wavenumbers 0 … modes − 1 for each grid axis, or one number for all; cycles of a circular axis, half
            cycles of another. A grid that has fewer uses those it has.
        layers: spectral layers.
        padding: "replicate", "reflect", "circular" or "pole" for each grid axis, as for `UNet`.
        position: cosines of the coordinate given on each axis that is not circular.
        conditions: what else it is told, and the width of the time embedding; None for time alone.

    Shapes: t (B,), x (B, C, *grid) -> (B, C, *grid).

    Raises:
        ValueError: on a ragged batch, other channels or axes, or constructor arguments that make no network.

    Example:
        >>> x = torch.randn(2, 1, 25, 53)
        >>> FNO(1, 8, modes=(6, 8), layers=2)(torch.rand(2), x, Batch(x)).shape
        torch.Size([2, 1, 25, 53])
    """

    symmetries = frozenset()

    def __init__(
        self,
        channels: int,
        width: int = 32,
        modes: int | Sequence[int] = 12,
        layers: int = 4,
        padding: str | Pole | Sequence[str | Pole] = ("replicate", "circular"),
        position: int = 4,
        conditions: GridConditions | None = None,
    ):
        super().__init__()
        self.channels, width, layers = check_sizes("FNO", "channels, width and layers", (channels, width, layers))
        self.conditions = GridConditions() if conditions is None else conditions
        read = channels + self.conditions.channels
        self.padding = check_padding("FNO", padding, read)
        axes = len(self.padding)
        self.modes = check_sizes("FNO", "modes", (modes,) * axes if isinstance(modes, int) else tuple(modes))
        if len(self.modes) != axes:
            raise ValueError(f"FNO: modes must be one number, or one per grid axis ({axes}), got {modes!r}.")
        self.position = check_count("FNO", "position", position)
        time, conv = self.conditions.waves.width, CONV[axes]
        walls = sum(rule != "circular" for rule in self.padding)
        self.embed = self.conditions.embedding()
        self.enter = conv(read + position * walls, width, 1)
        self.layers = nn.ModuleList(_Layer(width, self.modes, self.padding, time) for _ in range(layers))
        self.leave = conv(width, width, 1)
        self.head = conv(width, channels, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        check_grid("FNO", batch.grid("FNO"), self.channels, self.padding)
        check_times("FNO", t, len(batch))
        waves = self.embed(self.conditions(t, batch))
        modes = Modes(x, self.modes, self.padding)
        beside = [*self.conditions.beside(x, batch), *cosines(x, self.padding, self.position)]
        h = self.enter(torch.cat([x, *beside], 1))
        for layer in self.layers:
            h = layer(h, waves, modes)
        return self.head(F.silu(self.leave(h)))


class _Layer(nn.Module):
    def __init__(self, width: int, modes: tuple[int, ...], padding: Padding, time_width: int):
        super().__init__()
        conv = CONV[len(padding)]
        self.spectral = _Spectral(width, modes, padding)
        self.depthwise = Conv(width, width, padding, groups=width)
        self.norm, self.film = group_norm(width), nn.Linear(time_width, 2 * width)
        self.mix, self.skip = conv(width, width, 1), conv(width, width, 1, bias=False)
        nn.init.dirac_(self.skip.weight)

    def forward(self, h: Tensor, waves: Tensor, modes: Modes) -> Tensor:
        new = film(self.norm(self.spectral(h, modes) + self.depthwise(h)), self.film(waves))
        return self.skip(h) + self.mix(F.silu(new))


class _Spectral(nn.Module):
    """Modes of h -> their matrices -> modes of the answer; the matrices are (*modes, width, width), complex where an
    axis is circular: (..., 2)."""

    def __init__(self, width: int, modes: tuple[int, ...], padding: Padding):
        super().__init__()
        self.complex = "circular" in padding
        kinds = kinds_of(padding)
        rows = [2 * m - 1 if kind == "signed" else m for m, kind in zip(modes, kinds, strict=True)]
        shape = (*rows, width, width, *([2] if self.complex else []))
        std = 1 / math.sqrt(width * (2 if self.complex else 1))
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(shape), std=std))

    def forward(self, h: Tensor, modes: Modes) -> Tensor:
        weight = self.weight
        for axis, there in enumerate(modes.counts):  # those that the grid has: the first, or the middle ones
            missing = weight.shape[axis] - there
            weight = weight.narrow(axis, missing // 2 if modes.kinds[axis] == "signed" else 0, there)
        c = modes.analyse(h).movedim((0, 1), (-2, -1))
        c = _complex_product(c, weight) if self.complex else c @ weight
        return modes.synthesise(c.movedim((-2, -1), (0, 1)))


def _complex_product(c: Tensor, weight: Tensor) -> Tensor:
    """c (..., B, n) @ weight (..., n, m, 2) in real numbers: PyTorch takes complex products one by one."""
    a, b = weight.unbind(-1)
    both = torch.cat([torch.cat([a, b], -1), torch.cat([-b, a], -1)], -2)
    return torch.complex(*(torch.cat([c.real, c.imag], -1) @ both).chunk(2, -1))
