"""Which figures and tables a run gets; one that cannot be made is left out, since a report must fail no trained run."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scifm.batch import Batch
from scifm.bits import Estimate
from scifm.figure import DATA, FLOW, OTHER, canvas, save
from scifm.report.labels import Labels, is_field
from scifm.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from scifm.data import Data
    from scifm.energies import Energy
    from scifm.tables import Table

__all__ = ["figures", "left_out", "tables"]


def figures(
    run: Run,
    data: Batch | None,
    samples: Batch | np.ndarray | None,
    unit: str = "",
    energy: Energy | None = None,
    labels: Labels | None = None,
    members: tuple[Tensor, Tensor] | None = None,
) -> list[Path]:
    """Draw what the run holds, into its `figures/`.

    Args:
        data: held-out samples in the user's units, to compare with.
        samples: as `read_batch` or `read_samples` gives them; of ragged sets only a batch knows the sizes.
        unit: of the values, for axes.
        energy: of sets of points, if one is known.
        labels: of fields, as `read_labels` gives them.
        members: ensembles (M, n, *event) and what came, (n, *event), where there are several samples per condition.

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
        draw("bits_per_dim.png", _ladder, score)
    if data is None or samples is None:
        return made
    from scifm.report.fields import draw_ensembles, draw_fields
    from scifm.tables import are_points

    told = data.dense or not isinstance(samples, np.ndarray)  # which rows make a sample
    drawn = samples if isinstance(samples, np.ndarray) else samples.x.cpu().numpy()
    real = data.x.cpu().numpy()
    alike = drawn.shape[1:] == real.shape[1:]
    if alike and told and are_points(data):
        sets = Batch(torch.from_numpy(samples)) if isinstance(samples, np.ndarray) else samples
        _draw_points(draw, data, sets, unit, energy)
    elif alike and is_field(data):
        known = Labels.plain(data.event, unit) if labels is None else labels
        draw_fields(draw, data, torch.from_numpy(drawn), known)
        if members is not None:
            draw_ensembles(draw, *members, known)
    elif alike and real.ndim == 2 and real.shape[1] == 2:
        draw("samples.png", _scatter, real, drawn, unit)
    else:
        draw("samples.png", _histogram, real, drawn, unit)
    return made


def tables(data: Data, samples: Batch | None, labels: Labels | None = None) -> list[Table]:
    """Tables of samples beside the test split, those that fit the data.

    Args:
        samples: as `read_batch` gives them.
        labels: of fields, as `read_labels` gives them.

    Returns:
        tables; one that cannot be made is left out, with a warning on stderr.
    """
    if samples is None:
        return []
    from scifm.report import field_tables
    from scifm.tables import are_points, fitting

    if is_field(data.test) and not are_points(data.test):
        known = Labels.plain(data.test.event, data.unit) if labels is None else labels
        wanted = field_tables.fitting(samples, data, known)
    else:
        wanted = fitting(samples, data)
    made = []
    for name, table in wanted.items():
        try:
            made.append(table())
        except Exception as error:
            left_out(name, error)
    return made


def left_out(what: str, error: Exception) -> None:
    """Say on stderr what a report does without, and why: it must not fail a trained run."""
    reason = " ".join(str(error).split())
    print(f"warning: the report leaves out {what} ({type(error).__name__}: {reason}).", file=sys.stderr)


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


def _ladder(score: Mapping[str, Any]) -> Any:
    from scifm import pictures

    named = {"flow": score, **score.get("baselines", {})}
    known = {name: tuple(math.nan if v[k] is None else v[k] for k in ("value", "stderr")) for name, v in named.items()}
    return pictures.ladder({name: Estimate(*numbers) for name, numbers in known.items()})


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
