"""Scores as pictures: spectra, ranks, spread against error, and the ladder of likelihoods."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from scifm.bits import Estimate
from scifm.figure import DATA, FLOW, OTHER, canvas
from scifm.metrics.calibration import RankHistogram, SpreadSkill
from scifm.metrics.spectra import Spectrum, spectrum_error

__all__ = ["ladder", "rank_histogram", "spectra", "spread_skill"]

SHADES = (FLOW, "#c4622d", "#3c8d5a", "#8a5aa8")


def spectra(
    data: Spectrum, samples: Spectrum | Mapping[str, Spectrum], unit: str = "", wavenumber: str = "cycles per grid step"
) -> Any:
    """Spectra on logarithmic axes, and below them their ratio to that of data; wavenumber 0 is left out.

    Args:
        data: with one line of power, (K,).
        samples: of the same grid, several by name.
        unit: of a value.
        wavenumber: what it counts: "cycles per circle" of a zonal spectrum, "degree" of one on the sphere.
    """
    several = {"samples": samples} if isinstance(samples, Spectrum) else dict(samples)
    if data.power.ndim != 1:
        raise ValueError(
            f"spectra: expected one line of power (K,), got {tuple(data.power.shape)}; draw bands one by one."
        )
    errors = {name: spectrum_error(found, data) for name, found in several.items()}
    keep = (data.k > 0).cpu()
    k, real = _plain(data.k)[keep], _plain(data.power)[keep]
    made, (top, low) = canvas(4.8, 4.4, 2, 1, sharex=True, height_ratios=(3, 1))
    top.loglog(k, real, color=DATA, label="data")
    for colour, (name, found) in zip(_shades(len(several)), several.items(), strict=True):
        power = _plain(found.power)[keep]
        top.loglog(k, power, color=colour, ls="--", label=f"{name} (mean |log10 ratio| {errors[name].mean:.3f})")
        low.loglog(k, power / real, color=colour, ls="--")
    low.axhline(1, color=DATA, lw=0.8)
    from matplotlib.ticker import NullFormatter

    for axis in (low.xaxis, low.yaxis):
        axis.set_minor_formatter(NullFormatter())  # labels of less than two decades run into each other
    square = "" if not unit else f" [{unit}²]" if unit.isalpha() else f" [({unit})²]"
    top.set(ylabel=f"power per mode{square}")
    low.set(xlabel=f"wavenumber [{wavenumber}]" if wavenumber != "degree" else "degree l", ylabel="ratio to data")
    top.legend(frameon=False)
    return made


def rank_histogram(found: RankHistogram | Mapping[str, RankHistogram]) -> Any:
    """Shares of ranks times M + 1, so that a calibrated ensemble is 1 everywhere; several by name."""
    several = {"": found} if isinstance(found, RankHistogram) else dict(found)
    made, ax = canvas(4.8, 3.0)
    for colour, (name, one) in zip(_shades(len(several)), several.items(), strict=True):
        bins = len(one.shares)
        ax.stairs(_plain(one.shares) * bins, np.arange(bins + 1) - 0.5, color=colour, label=name or None, lw=1.3)
        if len(several) == 1:
            ax.stairs(_plain(one.shares) * bins, np.arange(bins + 1) - 0.5, color=colour, alpha=0.25, fill=True)
    ax.axhline(1, color=DATA, lw=0.8, ls="--")
    ax.set(xlabel="rank of what came among the members", ylabel="share, 1 if calibrated")
    ax.set_ylim(bottom=0)
    if any(several):
        ax.legend(frameon=False)
    return made


def spread_skill(found: Mapping[str, SpreadSkill], unit: str = "") -> Any:
    """Spread, times √(1 + 1/M), against the error of the ensemble mean, one point by name; calibrated on the line."""
    if not found:
        raise ValueError("spread_skill: expected at least one SpreadSkill by name, such as a lead time.")
    made, ax = canvas(3.8, 3.6)
    rmse = [s.rmse for s in found.values()]
    spread = [s.spread * math.sqrt(1 + 1 / s.members) for s in found.values()]
    ax.plot(rmse, spread, "o-", color=FLOW, ms=4, lw=1)
    for name, at, height, one in zip(found, rmse, spread, found.values(), strict=True):
        ax.annotate(f"{name}: {one.ratio:.2f}", (at, height), (4, -9), textcoords="offset points", fontsize=8)
    top = 1.15 * max([v for v in rmse + spread if math.isfinite(v)], default=1.0) or 1.0
    ax.plot([0, top], [0, top], color=DATA, lw=0.8, ls="--")
    where = f" [{unit}]" if unit else ""
    ax.set(
        xlim=(0, top),
        ylim=(0, top),
        xlabel=f"RMSE of the ensemble mean{where}",
        ylabel=f"spread{where}",
        aspect="equal",
    )
    return made


def ladder(scores: Mapping[str, Estimate], flow: str = "flow", unit: str = "bits/dim") -> Any:
    """Held-out negative log-likelihoods as bars, best on top: a flow beside the Gaussians that it must beat.

    Args:
        scores: by name, `{"flow": Estimate(score.value, score.stderr), **score.baselines}`.
        flow: names that begin so are blue.
        unit: of the values.

    Raises:
        ValueError: where there is nothing to draw.
    """
    rows = sorted(((n, s) for n, s in scores.items() if math.isfinite(s.value)), key=lambda row: row[1].value)
    if not rows:
        raise ValueError(f"ladder: expected finite scores by name, got {dict(scores)}.")
    made, ax = canvas(6, 0.7 + 0.42 * len(rows))
    errors = [s.stderr if math.isfinite(s.stderr) else 0.0 for _, s in rows]
    colours = [FLOW if name.startswith(flow) else OTHER for name, _ in rows]
    bars = ax.barh([n for n, _ in rows], [s.value for _, s in rows], xerr=errors, color=colours, error_kw={"lw": 1})
    ax.bar_label(bars, labels=[str(s) for _, s in rows], padding=4, fontsize=9)
    ax.invert_yaxis()
    ax.margins(x=0.4)
    ax.axvline(0, color="black", lw=0.8)
    ax.set(xlabel=f"held-out NLL [{unit}], less is better")
    return made


def _plain(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()


def _shades(count: int) -> list[str]:
    return [SHADES[i % len(SHADES)] for i in range(count)]
