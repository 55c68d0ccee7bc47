"""Tables of fields on grids, samples beside data, for `scifm report`: what the figures show, in numbers.

    values       mean, spread and quantiles of each channel, and how far its spectrum is from that of data
    distances    what `metrics.field_distances` measures
    ensembles    what came beside several members per case

Whatever is compared with the test fields has a floor: what test fields differ by among themselves.  For spectra it is
the mean over random halves, brought from their size to that of the sets by the root of 1/n + 1/m.  Test fields that
follow each other in time are more alike than others of their law, so that the floor is a low one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.source import Data
from scifm.data.stored import some
from scifm.metrics import area_mean, crps, field_distances, spectrum_error, spread_skill
from scifm.report.fields import radial
from scifm.report.labels import Labels, beside, members_of
from scifm.tables import Table
from scifm.verbs import evenly

__all__ = ["distances", "ensembles", "fitting", "values"]

FIELDS, DISTANCES = 300, 128  # at most so many of each side
VALUES = 2**22  # of all fields of a side together
HALVES = 10
LEVELS = (0.01, 0.5, 0.99)


def fitting(samples: Batch, data: Data, labels: Labels) -> dict[str, Callable[[], Table]]:
    """The tables that fit fields, by name, each made when it is called; none for samples of another shape.

    Args:
        samples: of a flow of the data, in their units.
        data: fields (C, *grid) with their training split; training fields are compared where nothing conditions them.
        labels: of the fields.
    """
    if samples.event != data.test.event:
        return {}
    test = beside(samples, data.test, labels)
    most = max(2, VALUES // math.prod(test.event))
    paired = bool(data.test.context) and labels.in_order  # training fields have other conditions

    def three(number: int) -> tuple[Tensor, Tensor, Tensor]:
        number = min(number, most, len(samples), len(test))
        first = test.x[:number] if paired else evenly(test, number).x
        return samples.x[:number], first.cpu(), evenly(some(data.train), 2 * number).x.cpu()

    found: dict[str, Callable[[], Table]] = {
        "the table of fields": lambda: values(*three(FIELDS), labels, paired),
    }
    if min(len(test), most) >= 4:
        found["the table of distances"] = lambda: distances(*three(DISTANCES), labels, paired)
    if (members := members_of(samples, data.test, labels)) is not None:
        found["the table of ensembles"] = partial(ensembles, *members, labels)
    return found


def values(samples: Tensor, data: Tensor, train: Tensor, labels: Labels, paired: bool = False) -> Table:
    """Moments, quantiles and error of the spectrum, a row for test data, samples and training data of each channel.

    Args:
        samples, data, train: (B, C, *grid).
        paired: training fields have other conditions than the samples, and are left out.
    """
    rows = []
    sides = {"test data": data, "samples": samples} | ({} if paired else {"training data": train[: len(data)]})
    for c, _ in labels.shown:
        for side, x in sides.items():
            name = ", ".join(filter(None, [labels.said(c), side]))
            error = (
                _floor(data, len(samples), c, labels) if side == "test data" else _spectrum_error(x, data, c, labels)
            )
            rows.append([name, *(f"{v:.4g}" for v in _moments(x[:, c], labels.weights_of(c))), *map(_number, error)])
    caption = (
        f"Fields: {_how_many(samples, data, paired)}{_channels(labels)}. Mean, standard deviation and quantiles of all "
        f"values{'' if labels.weights is None else ', weighted by area'}; error of the radial spectrum, the mean and "
        "the largest |log10 ratio| to that of the test data over wavenumbers, in the row of the test data what halves "
        "of them differ by."
    )
    quantiles = [f"{100 * q:g} %" for q in LEVELS]
    return Table(caption, ("", "mean", "std", *quantiles, "spectrum, mean", "largest"), rows)


def distances(samples: Tensor, data: Tensor, train: Tensor, labels: Labels, paired: bool = False) -> Table:
    """Energy distance and sliced W2 in components and patches, of samples and of training data, with their floor.

    Args: as for `values`; every second training field makes the spaces, the others are compared.
    """
    x, y, z = (_standard(v, train, labels) for v in (samples, data, train))
    reference, other = z[::2], z[1::2]
    found = {}
    for side, v in (("samples", x),) if paired or len(other) < 2 else (("samples", x), ("training data", other)):
        found[side] = field_distances(
            v, y, reference=reference, generator=torch.Generator().manual_seed(0), halves=HALVES
        )
    rows = []
    for name, distance in found["samples"].items():
        beside = [f"{found[side][name].value:.3g}" for side in found if side != "samples"]
        rows.append([name, f"{distance.value:.3g}", f"{distance.floor:.2g}", *beside])
    caption = (
        f"Distances from the test data: {_how_many(samples, data, paired)}. Of the leading components of the fields, "
        "each channel over its standard deviation, and of patches of 8 points a side; same law: what two sets of test "
        "data of this size differ by."
    )
    return Table(caption, ("", "samples", "same law", *list(found)[1:]), rows)


def ensembles(members: Tensor, observed: Tensor, labels: Labels) -> Table:
    """Fair CRPS, error and spread of each channel.

    Args:
        members: (M, n, C, *grid), two at least.
        observed: (n, C, *grid).
    """
    rows = []
    for c, _ in labels.shown:
        x, y, weights = members[:, :, c], observed[:, c], labels.weights_of(c)
        score, found = float(area_mean(crps(x, y, fair=True).double(), weights).mean()), spread_skill(x, y, weights)
        numbers = (score, found.rmse, found.spread, found.ratio)
        rows.append([labels.said(c) or "all values", *(f"{v:.4g}" for v in numbers)])
    caption = (
        f"Ensembles: {len(members)} members for each of {len(observed)} test fields, given their conditions"
        f"{_channels(labels)}. Spread-skill is 1 for calibrated members, and for those of a climatology."
    )
    return Table(caption, ("", "fair CRPS", "RMSE of the mean", "spread", "spread-skill"), rows)


# -- parts ----------------------------------------------------------------------------------------------------


def _moments(x: Tensor, weights: Tensor | None) -> list[float]:
    """Mean, standard deviation and quantiles of all values of fields (B, *grid)."""
    w = torch.ones(x.shape[1:], dtype=torch.float64) if weights is None else weights.double().cpu()
    keep = w > 0
    v, order = x.double()[:, keep].flatten().sort()
    w = w[keep].expand(len(x), -1).flatten()[order]
    w = w / w.sum()
    mean = (w * v).sum()
    at = torch.searchsorted(w.cumsum(0), torch.tensor(LEVELS, dtype=torch.float64)).clamp(max=len(v) - 1)
    return [float(mean), float((w * (v - mean).square()).sum().sqrt()), *v[at].tolist()]


def _spectrum_error(x: Tensor, y: Tensor, c: int, labels: Labels) -> tuple[float, float]:
    ours, theirs = (radial(v, c, labels) for v in (x, y))
    if not (theirs.power[theirs.k > 0] > 0).all():  # data that do not vary
        return math.nan, math.nan
    error = spectrum_error(ours, theirs)
    return error.mean, error.max


def _floor(y: Tensor, n: int, c: int, labels: Labels) -> tuple[float, float]:
    """What random halves of fields (B, C, *grid) differ by, scaled to sets of n and B; NaN for a single field."""
    if len(y) < 2:
        return math.nan, math.nan
    g, small, large = torch.Generator().manual_seed(0), len(y) // 2, len(y) - len(y) // 2
    scale = math.sqrt((1 / n + 1 / len(y)) / (1 / small + 1 / large))
    halves = [torch.randperm(len(y), generator=g).tensor_split(2) for _ in range(HALVES)]
    found = [_spectrum_error(y[a], y[b], c, labels) for a, b in halves]
    return tuple(scale * sum(each) / HALVES for each in zip(*found, strict=True))  # type: ignore[return-value]


def _standard(x: Tensor, train: Tensor, labels: Labels) -> Tensor:
    """Fields minus the mean map of training fields, each channel over the spread of these; 0 outside the mask."""
    mask = torch.ones(x.shape[1:], dtype=torch.bool) if labels.mask is None else labels.mask
    mean = train.double().mean(0)
    square = torch.where(mask, train.double() - mean, 0.0).square().flatten(2)
    std = (square.sum((0, 2)) / (len(train) * mask.flatten(1).sum(1))).sqrt()
    gaps = torch.where(mask, x.double() - mean, 0.0)
    return gaps / torch.where(std > 0, std, 1.0).reshape(-1, *[1] * (x.ndim - 2))


def _channels(labels: Labels) -> str:
    shown = len(labels.shown)
    return f", {shown} of {len(labels.names)} channels" if shown < len(labels.names) else ""


def _how_many(samples: Tensor, data: Tensor, paired: bool) -> str:
    what = "the test data with their conditions" if paired else "the test data"
    return f"{len(samples)} samples beside {len(data)} of {what}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
