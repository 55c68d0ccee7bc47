"""Figures of fields on grids, samples beside data, by channel, and of ensembles of them.

    samples          curves, or maps with the file's latitudes and longitudes; of a volume the layer in its middle
    spectrum         radial: Fourier along a longitude that closes the circle, cosines elsewhere; without the corners
    zonal_spectrum   along circles of latitude, where there are some
    degree_spectrum  on the sphere, where they go from pole to pole
    rank_histogram, spread_skill     where there are several members for each case

Inside a mask spectra are those of what differs from the mean map, with 0 outside: not the spectrum of anything that
goes on under the land, but the same for data and samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scifm import pictures
from scifm.batch import Batch
from scifm.metrics import degree_spectrum, radial_spectrum, rank_histogram, spread_skill, zonal_spectrum
from scifm.metrics.spectra import Spectrum
from scifm.report.labels import Labels

__all__ = ["draw_ensembles", "draw_fields", "few", "radial"]

VALUES = 2**24  # of one channel that a figure looks at
COLUMNS = 4

Draw = Callable[..., None]
"""draw(name, figure, *values): saves figure(*values) under a name, or says why not."""


def draw_fields(draw: Draw, data: Batch, samples: Tensor, labels: Labels) -> None:
    """Fields and their spectra, channel by channel.

    Args:
        data: fields (C, *grid) in the user's units.
        samples: (B, C, *grid).
        labels: where they are `in_order` and data have conditions, a sample stands below the field it has them from.
    """
    x = data.x.cpu()
    paired = bool(data.context) and labels.in_order
    for c, tag in labels.shown:
        draw(f"samples{tag}.png", _fields, x, samples, c, labels, paired)
        both = [few(v) for v in (x, samples)]
        draw(f"spectrum{tag}.png", _spectra, radial, *both, c, labels, "cycles per grid step")
        if labels.circles:
            draw(f"zonal_spectrum{tag}.png", _spectra, _zonal, *both, c, labels, "cycles per circle")
        if labels.globe:
            draw(f"degree_spectrum{tag}.png", _spectra, _degree, *both, c, labels, "degree")


def draw_ensembles(draw: Draw, members: Tensor, observed: Tensor, labels: Labels) -> None:
    """Ranks of all channels in one figure, spread against error in one for each.

    Args:
        members: (M, n, C, *grid), two at least.
        observed: (n, C, *grid).
    """
    draw("rank_histogram.png", _ranks, members, observed, labels)
    for c, tag in labels.shown:
        draw(f"spread_skill{tag}.png", _spread, members, observed, c, labels)


def few(x: Tensor, values: int = VALUES) -> Tensor:
    """Samples (B, C, *grid), evenly spaced, whose channels have no more than so many values; two at least."""
    most = max(2, values // max(1, x[0, 0].numel()))
    return x if len(x) <= most else x[torch.linspace(0, len(x) - 1, most).round().long()]


def _fields(data: Tensor, samples: Tensor, c: int, labels: Labels, paired: bool) -> Any:
    said = labels.said(c)
    if data.ndim == 3:
        return pictures.curves(labels.channel(data, c), labels.channel(samples, c), *labels.along, said)
    if paired:
        both = min(len(data), len(samples))
        chosen = torch.linspace(0, both - 1, min(both, COLUMNS)).round().long()
        data, samples = data[chosen], samples[chosen]
    data, samples = (labels.channel(x, c) for x in (data, samples))
    if data.ndim == 4:  # a volume
        data, samples = (x[:, x.shape[1] // 2] for x in (data, samples))
    return pictures.panels(data, samples, labels.latitude, labels.longitude, said, COLUMNS)


def _spectra(
    spectrum: Callable[[Tensor, int, Labels], Spectrum],
    data: Tensor,
    samples: Tensor,
    c: int,
    labels: Labels,
    wavenumber: str,
) -> Any:
    real, made = (spectrum(x, c, labels) for x in (data, samples))
    return pictures.spectra(real, made, labels.units[c], wavenumber)


def radial(x: Tensor, c: int, labels: Labels) -> Spectrum:
    """Radial spectrum of a channel of fields (B, C, *grid), without the corners of the box, which few modes reach."""
    found = radial_spectrum(labels.filled(x, c)[:, None], labels.periodic)
    inside = found.k <= 0.5
    return Spectrum(found.k[inside], found.power[inside], found.modes[inside], found.size)


def _zonal(x: Tensor, c: int, labels: Labels) -> Spectrum:
    assert labels.latitude is not None
    found = zonal_spectrum(labels.filled(x, c), labels.latitude)
    return Spectrum(found.k, found.power[0], found.modes, found.size)


def _degree(x: Tensor, c: int, labels: Labels) -> Spectrum:
    assert labels.latitude is not None
    return degree_spectrum(labels.filled(x, c), labels.latitude)


def _ranks(members: Tensor, observed: Tensor, labels: Labels) -> Any:
    g = torch.Generator().manual_seed(0)  # breaks ties
    found = {
        labels.names[c]: rank_histogram(members[:, :, c], observed[:, c], labels.weights_of(c), g)
        for c, _ in labels.shown
    }
    return pictures.rank_histogram(found if len(found) > 1 else found[labels.names[0]])


def _spread(members: Tensor, observed: Tensor, c: int, labels: Labels) -> Any:
    found = spread_skill(members[:, :, c], observed[:, c], labels.weights_of(c))
    return pictures.spread_skill(
        {labels.names[c] if len(labels.names) > 1 else f"{found.members} members": found}, labels.units[c]
    )
