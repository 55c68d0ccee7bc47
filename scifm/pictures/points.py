"""Figures of sets of points: clouds, pair distances, sizes, chains, backbone torsions, energies; data beside samples.

Each function takes batches in the user's units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.figure import DATA, FLOW, canvas
from scifm.geometry import angles, runs, torsions
from scifm.metrics import (
    backbone_of,
    neighbour_distances,
    of_bonds,
    pair_density,
    radius_of_gyration,
    ramachandran,
    size_scaling,
)

__all__ = ["bonds", "chain", "clouds", "energies", "gyration", "pair_functions", "torsion_plane"]

SHOWN = 3000  # points of one cloud that are drawn
PAIRS = 5_000_000  # pairs that a figure looks at


def clouds(data: Batch, samples: Batch, unit: str = "", columns: int = 5) -> Any:
    """Clouds of data above clouds of samples, in the plane or in space, centred and to one scale.

    Chains and bonds are drawn as lines where the batch tells of them (`nodes["position"]`, `edge_index`).
    """
    rows = [_evenly(batch.points, columns) for batch in (data, samples)]
    columns = max(1, *(len(batch) for batch in rows))
    space = rows[0].x.shape[-1] == 3
    settings = {"subplot_kw": {"projection": "3d"}} if space else {}
    made, axes = canvas(2.1 * columns + 0.4, 4.6, 2, columns, squeeze=False, **settings)
    sets = [[x - x.mean(0) for x in batch.split()] for batch in rows]
    far = 1.2 * max([float(x.abs().max()) for x in sets[0] if x.numel()], default=1.0) or 1.0
    for ax in axes.ravel():
        _frame(ax, far)
    for line, batch, some, colour, label in zip(axes, rows, sets, (DATA, FLOW), ("data", "samples"), strict=True):
        for number, (ax, x) in enumerate(zip(line, some, strict=False)):
            _cloud(ax, x, _lines(batch, number), far, colour)
        line[0].set_title(_with(label, unit), loc="left")
    return made


def pair_functions(data: Batch, samples: Batch, unit: str = "") -> Any:
    """Densities of pair distances, with bands of one standard error of the mean over samples."""
    both = [_few(batch.points) for batch in (data, samples)]
    if not all(bool((batch.counts > 1).any()) for batch in both):
        raise ValueError("no sample has two points")
    far = max(float(_spread(both[0])), 1e-9)
    edges = torch.linspace(0, far, 101, dtype=torch.float64)
    made, ax = canvas(4.5, 3.2)
    for batch, colour, label in zip(both, (DATA, FLOW), ("data", "samples"), strict=True):
        found = pair_density(batch, edges)
        r, value, error = (v.cpu().numpy() for v in (found.r, found.value, found.stderr))
        ax.plot(r, value, color=colour, label=label, lw=1.3)
        ax.fill_between(r, value - error, value + error, color=colour, alpha=0.25, lw=0)
    ax.set(xlabel=_with("pair distance", unit), ylabel=_with("density", f"1/{unit}" if unit else ""), xlim=(0, far))
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return made


def gyration(data: Batch, samples: Batch, unit: str = "") -> Any:
    """Radius of gyration: against the number of points where sizes differ, else its distribution."""
    both = [batch.points for batch in (data, samples)]
    sizes = [radius_of_gyration(batch) for batch in both]
    kept = [(batch.counts > 1) & rg.isfinite() for batch, rg in zip(both, sizes, strict=True)]
    counts = [batch.counts[k] for batch, k in zip(both, kept, strict=True)]
    sizes = [rg[k] for rg, k in zip(sizes, kept, strict=True)]
    made, ax = canvas(4.5, 3.2)
    if len(counts[0].unique()) < 3:
        _histograms(ax, sizes, _with("radius of gyration", unit))
        return made
    for n, rg, colour, label in zip(counts, sizes, (DATA, FLOW), ("data", "samples"), strict=True):
        text = label
        if (rg > 0).sum() > 2 and len(n.unique()) > 1:
            law = size_scaling(n, rg)
            ends = torch.stack([n.min(), n.max()]).double()
            ax.loglog(ends, law.prefactor * ends**law.exponent, color=colour, lw=1.3)
            text = f"{label}: n^({law.exponent:.2f} ± {law.exponent_stderr:.2f})"
        ax.loglog(n, rg, "o", color=colour, alpha=0.4, ms=4, mew=0, label=text)
    from matplotlib.ticker import NullFormatter

    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
    _decades(ax, torch.cat(counts), torch.cat(sizes))
    ax.set(xlabel="points", ylabel=_with("radius of gyration", unit))
    ax.legend(frameon=False)
    return made


def chain(data: Batch, samples: Batch, unit: str = "") -> Any:
    """Chains in space: distances of neighbours, and the plane of angle and torsion of four in a row."""
    made, axes = canvas(10.5, 3.2, 1, 3)
    both = [batch.points for batch in (data, samples)]
    _histograms(axes[0], [neighbour_distances(batch) for batch in both], _with("distance of neighbours", unit))
    planes = []
    for batch in both:
        four = runs(batch, 4)
        x = batch.x.double()
        planes.append(torch.rad2deg(torch.stack([angles(x, four[:3]), torsions(x, four)], -1)))
    _planes(made, axes[1:], planes, ("angle [°]", "torsion [°]"), ((60, 180), (-180, 180)))
    return made


def torsion_plane(data: Batch, samples: Batch) -> Any:
    """Ramachandran plots of backbones: ragged batches with nodes["atom"], in Å."""
    made, axes = canvas(7.2, 3.4, 1, 2)
    planes = []
    for batch in (data, samples):
        backbone, follows = backbone_of(batch)
        planes.append(torch.rad2deg(ramachandran(backbone.double(), follows).pairs))
    _planes(made, axes, planes, ("φ [°]", "ψ [°]"), ((-180, 180), (-180, 180)))
    for ax in axes:
        ax.set_aspect("equal")
    return made


def bonds(data: Batch, samples: Batch, unit: str = "") -> Any:
    """Distributions of the lengths of bonds and of the angles between them."""
    both = [of_bonds(batch) for batch in (data, samples)]
    names = list(both[0])
    made, axes = canvas(4.2 * len(names), 3.2, 1, len(names), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        values = [torch.cat(found[name]) for found in both]
        _histograms(ax, values, _with(name, unit if name == "bond length" else "°"))
    return made


def energies(data: Tensor, samples: Tensor, weights: Tensor | None = None, unit: str = "") -> Any:
    """Histograms of energies, data beside samples, and beside samples by their importance weights.

    Args:
        data, samples: (m,) and (k,) energies.
        weights: (k,) log-weights of the samples, up to a constant.
        unit: of the energies, such as "kT".
    """
    made, ax = canvas(4.5, 3.2)
    _histograms(ax, [data, samples], _with("energy", unit), weights)
    return made


# -- parts ----------------------------------------------------------------------------------------------------


def _evenly(batch: Batch, count: int) -> Batch:
    """Some samples that have points, evenly spaced, without copying the rest."""
    full = (batch.counts > 0).nonzero().flatten()
    return batch.select(full[torch.linspace(0, len(full) - 1, min(count, len(full))).round().long()])


def _few(batch: Batch) -> Batch:
    """As many samples, evenly spaced, as have no more than PAIRS pairs, or some points of one or two."""
    batch = _evenly(batch, len(batch))
    pairs = float(batch.counts.double().square().mean() / 2)
    if len(batch) and pairs > PAIRS / 2:
        step = 1 + int((2 * pairs / PAIRS) ** 0.5)
        sets = [x[::step] for x in _evenly(batch, 2).split()]
        index = torch.arange(len(sets)).repeat_interleave(torch.tensor([len(x) for x in sets]))
        return Batch(torch.cat(sets).cpu(), index, len(sets))
    return _evenly(batch, max(1, int(PAIRS / max(pairs, 1.0))))


def _spread(batch: Batch) -> Tensor:
    """A distance that nearly no pair of data exceeds: the largest among some, from their extents."""
    return torch.stack([(x.amax(0) - x.amin(0)).square().sum().sqrt() for x in batch.split()]).quantile(0.99)


def _frame(ax: Any, far: float) -> None:
    tick = float(f"{0.7 * far:.1g}")
    names = ("x", "y", "z")[: 3 if ax.name == "3d" else 2]
    for name in names:
        ax.set(**{f"{name}lim": (-far, far), f"{name}ticks": [-tick, 0, tick]})
    ax.tick_params(labelsize=6, pad=-3 if ax.name == "3d" else 2)
    if ax.name == "3d":
        ax.set_box_aspect((1, 1, 1), zoom=1.15)
    else:
        ax.set_aspect("equal")


def _lines(batch: Batch, number: int) -> Tensor:
    """(2, m) points of one sample that a line joins, numbered within it."""
    one = batch.select([number])
    if one.edge_index is not None:
        return one.edge_index[:, one.edge_index[0] < one.edge_index[1]]
    return runs(one, 2) if "position" in one.nodes else torch.zeros(2, 0, dtype=torch.long)


def _cloud(ax: Any, x: Tensor, lines: Tensor, far: float, colour: str) -> None:
    x = torch.where(x.abs().amax(-1, keepdim=True) <= far, x, torch.nan).cpu()  # a stray point must not leave its frame
    ends = torch.cat([x[lines.cpu()], torch.full((1, lines.shape[1], x.shape[1]), torch.nan).to(x)])
    if lines.numel():
        ax.plot(*ends.transpose(0, 1).reshape(-1, x.shape[1]).T.numpy(), color=colour, lw=1.0, alpha=0.8)
    shown = x[:: 1 + len(x) // SHOWN].T.numpy()
    size = 24.0 if len(x) <= 60 else 6.0 if len(x) <= 600 else 2.0
    if ax.name == "3d":
        ax.scatter(*shown, s=size, color=colour, lw=0, depthshade=True)
    else:
        ax.scatter(*shown, s=size, color=colour, lw=0, alpha=0.8)


def _histograms(ax: Any, values: Sequence[Tensor], label: str, weights: Tensor | None = None) -> None:
    real, made = (v.detach().reshape(-1).double().cpu().numpy() for v in values)
    good, fine = real[np.isfinite(real)], np.isfinite(made)
    both = np.concatenate([good, made[fine]])
    if not both.size:
        raise ValueError("no finite value to draw")
    low, high = np.percentile(good if good.size else both, [0.1, 99.9])
    pad = 0.15 * (high - low)  # a stray sample must not shrink the picture
    bins = np.linspace(low - pad, high + pad, 70) if high > low else np.histogram_bin_edges(both, 10)
    shown: list[tuple[Any, ...]] = [(real, None, DATA, "data"), (made, None, FLOW, "samples")]
    if weights is not None:
        log = torch.where(torch.from_numpy(fine), weights.detach().double().cpu(), -torch.inf)
        shown.append((made, torch.softmax(log, 0).numpy(), FLOW, "samples, reweighted"))
    for numbers, weight, colour, name in shown:
        style = "--" if weight is not None else "-"
        # shares of all numbers, those outside the picture included
        weight = np.full(len(numbers), 1 / max(len(numbers), 1)) if weight is None else weight
        inside = (numbers >= bins[0]) & (numbers <= bins[-1])
        told = _outside(name, float(weight[inside].sum())) if len(numbers) else name
        ax.hist(numbers[inside], bins=bins, weights=weight[inside], histtype="step", color=colour, label=told, ls=style)
    ax.set(xlabel=label, ylabel="share")
    ax.legend(frameon=False)


def _outside(name: str, inside: float) -> str:
    """The name with the share that is outside of the picture, unless it is next to nothing."""
    return name if inside > 0.995 else f"{name} ({100 * (1 - inside):.0f} % outside)"


def _planes(made: Any, axes: Any, planes: Sequence[Tensor], labels: tuple[str, str], limits: Any) -> None:
    """Two-dimensional histograms, data then samples, to one logarithmic scale of shares."""
    from matplotlib.colors import LogNorm

    cells = [np.histogram2d(*p.cpu().numpy().T, bins=60, range=limits)[0] / max(len(p), 1) for p in planes]
    top = max(float(c.max()) for c in cells)
    norm, image = LogNorm(max(top * 1e-3, 1e-12), max(top, 1e-11)), None
    (left, right), (low, high) = limits
    for ax, plane, cell, name in zip(axes, planes, cells, ("data", "samples"), strict=True):
        image = ax.imshow(
            np.where(cell > 0, cell, np.nan).T, origin="lower", extent=(left, right, low, high), norm=norm,
            aspect="auto", cmap="viridis", interpolation="nearest",
        )  # fmt: skip
        told = _outside(name, float(cell.sum())) if len(plane) else name
        ax.set(title=told, xlabel=labels[0], ylabel=labels[1])
        ax.set(xticks=range(left, right + 1, 30 if right - left < 180 else 90), yticks=range(low, high + 1, 90))
    made.colorbar(image, ax=axes, label="share per cell")


def _decades(ax: Any, n: Tensor, rg: Tensor) -> None:
    """Plain numbers at a few ticks, since less than a decade would show none."""
    for axis, values in ((ax.xaxis, n), (ax.yaxis, rg)):
        good = values[values > 0].double()
        ticks = _ticks(float(good.min()), float(good.max()))
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks])


def _ticks(low: float, high: float) -> list[float]:
    """Three round numbers or more: 1, 2, 5 of each decade about a range, or evenly spaced ones inside a short one."""
    decades = [m * 10.0**e for e in range(-12, 13) for m in (1, 2, 5) if low * 0.8 <= m * 10.0**e <= high * 1.25]
    if len(decades) >= 3 or low == high:
        return decades or [low]
    from matplotlib.ticker import MaxNLocator

    return [float(t) for t in MaxNLocator(6, min_n_ticks=3).tick_values(low, high) if low <= t <= high]


def _with(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name
