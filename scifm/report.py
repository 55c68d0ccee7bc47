"""Figures, tables and a page about a run: the course of the training, samples beside data, their statistics, the score.

The radial spectrum (`scifm.metrics.spectra`) is that of cosines, over rings of equal wavenumber: unlike a Fourier
transform it does not see the jump between opposite edges of a grid that is not periodic, which would hide the small
scales.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scifm.figure import DATA, FLOW, OTHER, canvas, save
from scifm.run import Run, atomic

if TYPE_CHECKING:
    from scifm.batch import Batch
    from scifm.data import Data
    from scifm.energies import Energy
    from scifm.tables import Table

__all__ = ["figures", "left_out", "page", "read_batch", "read_samples", "tables"]


def read_samples(path: Path, event: Sequence[int] | None = None) -> np.ndarray:
    """Values of a file that `scifm sample` wrote: (n, *event), or (rows, *event) of a ragged set.

    Args:
        event: shape of a sample, where it is known; it tells the dim that counts the samples, whatever an export
            calls it.  Without it, or where no dim fits, that is `realization`, a usual name, or the first.

    Raises:
        ValueError: where the file holds no variable on a grid, or several that share no grid.
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return file["x"]
    from scifm.data.grids import SAMPLE_DIMS, from_xarray, gridded, open_file

    dataset = open_file(path)
    dims = [str(d) for d in max((v.dims for v in dataset.data_vars.values()), key=len, default=())]
    usual = [d for d in ("realization", *SAMPLE_DIMS) if d in dims]
    first = None
    for dim in dict.fromkeys([*usual, *dims]):
        x = from_xarray(dataset, gridded(dataset) or None, dim)[0].x.numpy()
        if event is None or x.shape[1:] == tuple(event):
            return x
        first = x if first is None else first
    if first is None:
        raise ValueError(f"{path.name} holds no samples.")
    return first


def read_batch(path: Path, like: Batch) -> Batch:
    """Samples of a file that `scifm sample` wrote, with what does not flow where the file holds it.

    Args:
        like: a split of the data they are samples of, for layout and shape.

    Raises:
        ValueError: as `read_samples`; and for ragged sets that are not in an .npz, which keeps their sizes.
    """
    import torch

    from scifm.batch import Batch

    if like.dense:
        return _as_batch(read_samples(path, like.event))
    if path.suffix != ".npz":
        raise ValueError(f"{path.name} does not tell which rows make a set; ragged samples are drawn from .npz files")
    with np.load(path, allow_pickle=False) as file:
        found = {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind in "biuf"}
    named: dict[str, dict[str, Any]] = {"context": {}, "nodes": {}, "edges": {}}
    for name, value in found.items():
        group, _, rest = name.partition(".")
        if rest and group in named:
            named[group][rest] = value
    index = torch.arange(len(found["count"])).repeat_interleave(found["count"])
    return Batch(found["x"], index, len(found["count"]), edge_index=found.get("edge_index"), **named)


def _as_batch(x: np.ndarray) -> Batch:
    import torch

    from scifm.batch import Batch

    return Batch(torch.from_numpy(np.ascontiguousarray(x)))


def figures(
    run: Run,
    data: Batch | None,
    samples: Batch | np.ndarray | None,
    unit: str = "",
    energy: Energy | None = None,
) -> list[Path]:
    """Draw what the run holds, into its `figures/`.

    Args:
        data: held-out samples in the user's units, to compare with.
        samples: as `read_batch` or `read_samples` gives them; of ragged sets only a batch knows the sizes.
        unit: of the values, for axes.
        energy: of sets of points, if one is known.

    Returns:
        the files written; a figure that cannot be drawn is left out, with a warning on stderr.
    """
    made: list[Path] = []

    def draw(name: str, figure: Callable[..., Any], *values: Any) -> None:
        try:
            made.append(save(figure(*values), run.folder / "figures" / name))
        except Exception as error:
            left_out(name, error)

    if run.metrics:
        draw("loss.png", _loss, run.metrics)
    if (score := run.score) is not None:
        draw("bits_per_dim.png", _bits, score)
    if data is None or samples is None:
        return made
    from scifm.tables import are_points

    told = data.dense or not isinstance(samples, np.ndarray)  # which rows make a sample
    drawn = samples if isinstance(samples, np.ndarray) else samples.x.cpu().numpy()
    real = data.x.cpu().numpy()
    alike = drawn.shape[1:] == real.shape[1:]
    if alike and told and are_points(data):
        sets = _as_batch(samples) if isinstance(samples, np.ndarray) else samples
        _draw_points(draw, data, sets, unit, energy)
    elif alike and real.ndim == 4 and min(real.shape[2:]) >= 4:
        draw("samples.png", _images, real[:, 0], drawn[:, 0], unit)
        draw("spectrum.png", _spectra, real[:, 0], drawn[:, 0], unit)
    elif alike and real.ndim == 2 and real.shape[1] == 2:
        draw("samples.png", _scatter, real, drawn, unit)
    else:
        draw("samples.png", _histogram, real, drawn, unit)
    return made


def _draw_points(draw: Callable[..., None], data: Batch, samples: Batch, unit: str, energy: Energy | None) -> None:
    from scifm import pictures
    from scifm.geometry import alpha_carbons

    both = data, samples
    if energy is not None:
        draw("energies.png", pictures.energies, *(energy.of(b) for b in both), None, "kT")
    if "atom" in data.nodes:
        draw("ramachandran.png", pictures.torsion_plane, *both)
        both = tuple(alpha_carbons(b) for b in both)
    draw("samples.png", pictures.clouds, *both, unit)
    draw("pair_distances.png", pictures.pair_functions, *both, unit)
    draw("gyration.png", pictures.gyration, *both, unit)
    if "position" in data.nodes and data.event == (3,):
        draw("chain.png", pictures.chain, *both, unit)
    if data.points.edge_index is not None:
        draw("bonds.png", pictures.bonds, *both, unit)


def tables(data: Data, samples: Batch | None) -> list[Table]:
    """Tables of samples beside the test split, those of `scifm.tables` that fit the data.

    Args:
        samples: as `read_batch` gives them.

    Returns:
        tables; one that cannot be made is left out, with a warning on stderr.
    """
    from scifm.tables import fitting

    made = []
    for name, table in ({} if samples is None else fitting(samples, data)).items():
        try:
            made.append(table())
        except Exception as error:
            left_out(name, error)
    return made


def left_out(what: str, error: Exception) -> None:
    """Say on stderr what a report does without, and why: it must not fail a trained run."""
    reason = " ".join(str(error).split())
    print(f"warning: the report leaves out {what} ({type(error).__name__}: {reason}).", file=sys.stderr)


def page(run: Run, made: Sequence[Path], beside: Sequence[Table] = ()) -> Path:
    """Write report.md: the score, its settings, the figures, the tables and what the run was made of."""
    record, score = run.record, run.score
    numbers = record.get("numbers") or {}
    lines = [f"# {numbers.get('name') or record.get('recipe')}", "", f"{record.get('summary', '')}".strip(), ""]
    if score is not None:
        first, *others = score["line"].split(" | ")
        lines += [f"**{first}**", "", *_score_table(score), ""]
        lines += [f"{told}.\n" for told in others[len(score.get("baselines", {})) :]]
    for path in made:
        lines += [f"![{path.stem}]({path.relative_to(run.folder).as_posix()})", ""]
    if beside:
        lines += ["## Samples beside data", "", *(f"{table}\n" for table in beside)]
    lines += ["## Settings", "", "| what | value |", "|---|---|"]
    flags = record.get("keywords") or record.get("flags") or {}
    lines += [f"| `{k}` | {_cell(v)} |" for k, v in {**flags, **numbers}.items()]
    lines += [f"| {k} | {_cell(record.get(k))} |" for k in ("seed", "device", "threads", "parameters", "started")]
    lines += ["", "## Versions", "", ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items()), ""]
    if git := record.get("git"):
        lines += [f"scifm at commit {git['commit']}{' with changes' if git['dirty'] else ''}.", ""]
    place = shlex.quote(run.folder.as_posix())
    lines += [
        "## Again",
        "",
        "```sh",
        f"scifm sample {place} --number 64 --seed 1 --output more",
        f"scifm score {place} --output again.json",  # the run's own score.json is not overwritten
    ]
    lines += ["```", ""]
    with atomic(run.folder / "report.md") as path:
        path.write_text("\n".join(lines), encoding="utf-8")
    return run.folder / "report.md"


def _score_table(score: Mapping[str, Any]) -> list[str]:
    table = ["| model | bits/dim | standard error |", "|---|--:|--:|"]
    return table + [f"| {name} | {value:.3f} | {_error(error)} |" for name, value, error in _ranked(score)]


def _ranked(score: Mapping[str, Any]) -> list[tuple[str, float, float | None]]:
    """Flow and baselines with their bits and errors; of one sample no error is known."""
    named = {"flow": score} | dict(score.get("baselines", {}))
    return [(name, v["value"], v["stderr"]) for name, v in named.items()]


def _error(error: float | None) -> str:
    return "?" if error is None or math.isnan(error) else f"{error:.3f}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")


# -- figures ---------------------------------------------------------------------------------------------


def _series(rows: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    found = [(r["step"], r[name]) for r in rows if name in r and math.isfinite(r[name])]
    return [s for s, _ in found], [v for _, v in found]


def _loss(rows: Sequence[Mapping[str, float]]) -> Any:
    bits = _series(rows, "valid/bits_per_dim")
    figure, axes = canvas(7.5 if bits[0] else 4.5, 3, 1, 2 if bits[0] else 1, squeeze=False)
    ax = axes[0, 0]
    for name, colour, label in (("train/loss", OTHER, "training"), ("valid/loss", FLOW, "validation")):
        if (series := _series(rows, name))[0]:
            ax.plot(*series, color=colour, label=label, marker="o" if len(series[0]) < 3 else None)
    ax.set(xlabel="step", ylabel="flow-matching loss")
    if ax.lines and all((np.asarray(line.get_ydata()) > 0).all() for line in ax.lines):
        ax.set_yscale("log")
    ax.legend(frameon=False)
    if bits[0]:
        axes[0, 1].plot(*bits, color=FLOW, marker="o", markersize=3)
        axes[0, 1].set(xlabel="step", ylabel="validation NLL [bits/dim]")
    return figure


def _bits(score: Mapping[str, Any]) -> Any:
    rows = sorted(_ranked(score), key=lambda r: r[1])
    figure, ax = canvas(6, 0.7 + 0.45 * len(rows))
    colours = [FLOW if name == "flow" else OTHER for name, _, _ in rows]
    errors = [0.0 if e is None or math.isnan(e) else e for _, _, e in rows]
    bars = ax.barh([r[0] for r in rows], [r[1] for r in rows], xerr=errors, color=colours, error_kw={"lw": 1})
    ax.bar_label(bars, labels=[f"{v:.3f} ± {_error(e)}" for _, v, e in rows], padding=4, fontsize=9)
    ax.invert_yaxis()
    ax.margins(x=0.3)
    ax.axvline(0, color="black", lw=0.8)
    ax.set(xlabel="held-out NLL [bits/dim], less is better")
    return figure


def _images(real: np.ndarray, samples: np.ndarray, unit: str) -> Any:
    count = min(6, len(real), len(samples))
    height, width = real.shape[1:]
    tall = min(2.5, max(0.6, height / width))
    figure, axes = canvas(1.6 * count + 1.2, 2 * 1.6 * tall + 0.6, 2, count, squeeze=False)
    shown = real[np.linspace(0, len(real) - 1, count).round().astype(int)]
    low, high = np.nanpercentile(np.concatenate([shown, samples[:count]]), [0.5, 99.5])  # one scale for both rows
    image = None
    for row, (fields, label) in enumerate(((shown, "data"), (samples[:count], "samples"))):
        for ax, values in zip(axes[row], fields, strict=True):
            image = ax.imshow(values, vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
            ax.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(label)
    figure.colorbar(image, ax=axes, label=unit, shrink=0.8)
    return figure


def _spectra(real: np.ndarray, samples: np.ndarray, unit: str) -> Any:
    import torch

    from scifm.metrics import radial_spectrum

    figure, ax = canvas(4.5, 3.2)
    for fields, colour, label in ((real, DATA, "data"), (samples, FLOW, "samples")):
        found = radial_spectrum(torch.from_numpy(fields)[:, None])
        shown = (found.k > 0) & (found.k <= 0.5)  # neither the mean nor the corners of the box
        ax.loglog(found.k[shown], found.power[shown], color=colour, label=label, ls="-" if label == "data" else "--")
    from matplotlib.ticker import NullFormatter

    ax.xaxis.set_minor_formatter(NullFormatter())  # labels of less than two decades would run into each other
    square = "" if not unit else f" [{unit}²]" if unit.isalpha() else f" [({unit})²]"
    ax.set(xlabel="wavenumber [cycles per grid point]", ylabel=f"mean power{square}")
    ax.legend(frameon=False)
    return figure


def _scatter(real: np.ndarray, samples: np.ndarray, unit: str) -> Any:
    figure, axes = canvas(6.5, 3.3, 1, 2, sharex=True, sharey=True)
    shown = ((real, DATA, "data"), (samples, FLOW, "samples"))
    for ax, (points, colour, label) in zip(axes, shown, strict=True):
        ax.scatter(*points[:2000].T, s=3, color=colour, alpha=0.6, lw=0)
        ax.set(title=label, aspect="equal", xlabel=unit)
    low, high = np.percentile(real, [0, 100], axis=0)
    pad = 0.15 * np.maximum(high - low, 1e-6)  # a stray sample must not shrink the picture
    axes[0].set(xlim=(low[0] - pad[0], high[0] + pad[0]), ylim=(low[1] - pad[1], high[1] + pad[1]))
    return figure


def _histogram(real: np.ndarray, samples: np.ndarray, unit: str) -> Any:
    figure, ax = canvas(4.5, 3.2)
    low, high = np.percentile(real, [0.1, 99.9])
    bins = np.linspace(low, high, 60) if high > low else 10
    for values, colour, label in ((real, DATA, "data"), (samples, FLOW, "samples")):
        ax.hist(values.ravel(), bins=bins, density=True, histtype="step", color=colour, label=label)
    ax.set(xlabel=f"value [{unit}]" if unit else "value", ylabel="density")
    ax.legend(frameon=False)
    return figure
