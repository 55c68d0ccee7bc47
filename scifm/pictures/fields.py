"""Maps of fields, samples below data, with coastlines where there are some; and curves, samples beside data."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from scifm.figure import DATA, FLOW, canvas
from scifm.pictures.coasts import coastlines

__all__ = ["curves", "panels"]


def panels(
    data: Tensor,
    samples: Tensor,
    latitude: Tensor | None = None,
    longitude: Tensor | None = None,
    unit: str = "",
    columns: int = 4,
) -> Any:
    """Fields of data, evenly spaced in their order, above the first samples.

    Args:
        data, samples: (B, H, W) of one channel; NaN where there is none, as over land.
        latitude, longitude: (H,) and (W,) degrees in the order of the file, rising or falling, both or neither.  With
            them north is up, and coasts are drawn where cartopy has them; without, the first row is on top.
        columns: of fields at most.

    Raises:
        ValueError: for fields or coordinates that do not fit.
    """
    if data.ndim != 3 or data.shape[1:] != samples.shape[1:] or not len(data) or not len(samples):
        raise ValueError(
            f"panels: expected fields (B, H, W) of one shape, got {tuple(data.shape)} and {tuple(samples.shape)}; pick "
            "a channel, x[:, 0]."
        )
    x, y = _coordinates(latitude, longitude, data.shape[1:])
    count = min(columns, len(data), len(samples))
    chosen = np.linspace(0, len(data) - 1, count).round().astype(int)
    rows = [v.detach().double().cpu().numpy() for v in (data[chosen.tolist()], samples[:count])]
    fine = np.concatenate([v[np.isfinite(v)] for v in rows])
    low, high = np.percentile(fine, [0.5, 99.5]) if fine.size else (0.0, 1.0)  # a stray sample spoils no scale
    coasts = [] if latitude is None else coastlines()
    shape = np.ptp(y) / max(np.ptp(x), 1e-9)
    made, axes = canvas(1.9 * count + 1.2, 2 * 1.9 * min(2.5, max(0.4, shape)) + 0.6, 2, count, squeeze=False)
    image = None
    for line, values, label in zip(axes, rows, ("data", "samples"), strict=True):
        for ax, field in zip(line, values, strict=True):
            image = ax.pcolormesh(x, y, field, vmin=low, vmax=high, cmap="viridis", shading="nearest", rasterized=True)
            limits = ax.get_xlim(), ax.get_ylim()
            for coast in coasts:
                for turn in (-360, 0, 360):  # a grid may start anywhere
                    ax.plot(coast[:, 0] + turn, coast[:, 1], color="black", lw=0.5)
            ax.set(xlim=limits[0], ylim=limits[1])
            ax.tick_params(labelsize=7, labelleft=ax is line[0], labelbottom=label == "samples")
            if latitude is None:  # numbers of rows and columns say nothing
                ax.set(xticks=[], yticks=[])
            else:
                ax.locator_params(nbins=4)
            if latitude is None:
                ax.invert_yaxis()
        line[0].set_ylabel(label)
    made.colorbar(image, ax=axes, label=unit, shrink=0.8)
    return made


def curves(
    data: Tensor, samples: Tensor, along: Tensor | None = None, name: str = "", unit: str = "", most: int = 30
) -> Any:
    """Curves of data, evenly spaced in their order, beside the first samples, to one scale.

    Args:
        data, samples: (B, n) of one channel; NaN where there is none.
        along: (n,) where the values are; by default their numbers.
        name: of that coordinate, with its unit.
        unit: of the values.
        most: curves of each.

    Raises:
        ValueError: for curves or a coordinate that do not fit.
    """
    n = data.shape[-1] if data.ndim else 0
    if data.ndim != 2 or data.shape[1:] != samples.shape[1:] or not len(data) or not len(samples):
        raise ValueError(
            f"curves: expected curves (B, n) of one length, got {tuple(data.shape)} and {tuple(samples.shape)}; pick "
            "a channel, x[:, 0]."
        )
    if along is not None and tuple(along.shape) != (n,):
        raise ValueError(f"curves: expected a coordinate (n,) of the curves' {n} values, got {tuple(along.shape)}.")
    x = np.arange(n) if along is None else along.double().cpu().numpy()
    chosen = np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(int)
    both = [v.detach().double().cpu().numpy() for v in (data[chosen.tolist()], samples[:most])]
    made, axes = canvas(8, 3.2, 1, 2, sharex=True, sharey=True)
    for ax, values, colour, label in zip(axes, both, (DATA, FLOW), ("data", "samples"), strict=True):
        ax.plot(x, values.T, color=colour, lw=0.8, alpha=max(0.25, 0.9 - 0.03 * len(values)))
        ax.set(title=label, xlabel=name)
    fine = np.concatenate([v[np.isfinite(v)] for v in both])
    low, high = np.percentile(fine, [0.1, 99.9]) if fine.size else (0.0, 1.0)  # a stray sample spoils no scale
    pad = 0.1 * (high - low) or 1.0
    axes[0].set(ylim=(low - pad, high + pad), ylabel=unit)
    return made


def _coordinates(latitude: Tensor | None, longitude: Tensor | None, grid: Any) -> tuple[np.ndarray, np.ndarray]:
    if latitude is None and longitude is None:
        return np.arange(grid[1], dtype=float), np.arange(grid[0], dtype=float)
    if latitude is None or longitude is None or (len(latitude), len(longitude)) != tuple(grid):
        got = [None if c is None else tuple(c.shape) for c in (latitude, longitude)]
        raise ValueError(f"panels: expected latitude (H,) and longitude (W,) of the grid {tuple(grid)}, got {got}.")
    # 359, 0, 1 goes on as 359, 360, 361
    return np.unwrap(longitude.double().cpu().numpy(), period=360), latitude.double().cpu().numpy()
