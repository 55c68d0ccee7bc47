"""What a file says of the values of its fields, as far as figures and tables need it.

Latitudes and longitudes are those of a grid with one of each per row and column, in degrees: a `y` in metres is no
latitude.  A mask is where values exist.  What stands beside samples:

    fields that are conditioned (`context`)    the test fields whose conditions the samples have
    others                                     as many test fields, evenly spaced

so that a difference is none of season or weather.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scifm.areas import area_weights
from scifm.batch import Batch
from scifm.data.grids import Coordinate, GridSpec, cells

__all__ = ["CHANNELS", "Labels", "beside", "is_field", "members_of"]

CHANNELS = 8  # of fields with more of them so many are looked at, evenly spaced
ENSEMBLE = 2**25  # values of all members of all cases together


@dataclass(frozen=True, eq=False)
class Labels:
    """Names, units and places of the values of fields (C, *grid).

    Attributes:
        names, units: of each channel; a single one may have no name.
        periodic: for each axis of the grid, whether it is a longitude that closes the circle.
        latitude, longitude: (H,) and (W,) degrees, both or neither.
        along: the coordinate of a grid with one axis, (n,), and what it is called.
        mask: bool (C, *grid), True where values exist; None where all do.
        level: (C, *grid) mean map of training data, about which spectra inside a mask are taken.
        weights: (*grid) areas of the cells, None where all count the same.
        in_order: sample k has the conditions of test sample k, and after the last of the first again.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    periodic: tuple[bool, ...]
    latitude: Tensor | None = None
    longitude: Tensor | None = None
    along: tuple[Tensor | None, str] = (None, "")
    mask: Tensor | None = None
    level: Tensor | None = None
    weights: Tensor | None = None
    in_order: bool = False

    @staticmethod
    def plain(event: Sequence[int], unit: str = "", in_order: bool = False) -> Labels:
        """Of fields that nothing else is known of."""
        names = ("",) if event[0] == 1 else tuple(str(c) for c in range(event[0]))
        return Labels(names, (unit,) * event[0], (False,) * (len(event) - 1), in_order=in_order)

    @staticmethod
    def of(spec: GridSpec, unit: str = "", level: Tensor | None = None, in_order: bool = False) -> Labels:
        """What a file says.

        Args:
            unit: of the data set, where it has one; it goes before that of the file.
            level: see `Labels`; needed where the file has a mask.
        """
        units = (unit,) * len(spec.channels) if unit else tuple(spec.units)
        coords = [spec.coords.get(spec.roles.get(role, "")) for role in ("lat", "lon")]
        degrees = [_degrees(spec, role, coord) for role, coord in zip(("lat", "lon"), coords, strict=True)]
        placed = all(d is not None for d in degrees) and [c.dims for c in coords if c] == [(d,) for d in spec.grid]
        bent = any(c is not None and len(c.dims) == 2 for c in coords)
        latitude, longitude = degrees if placed else (None, None)
        area = torch.from_numpy(spec.area) if spec.area is not None and (placed or bent) else None
        return Labels(
            tuple(spec.channels),
            units,
            spec.periodic,
            latitude,
            longitude,
            _along(spec),
            None if spec.mask is None else torch.from_numpy(spec.mask),
            level,
            None if area is None else area_weights(area),
            in_order,
        )

    @property
    def shown(self) -> list[tuple[int, str]]:
        """Channels that are looked at, each with what tells its files apart."""
        count = len(self.names)
        chosen = np.linspace(0, count - 1, min(count, CHANNELS)).round().astype(int).tolist()
        return [(c, re.sub(r"[^\w.@+-]+", "-", f"-{self.names[c]}") if count > 1 else "") for c in chosen]

    def said(self, c: int) -> str:
        """Name and unit of a channel, for an axis."""
        return " ".join(filter(None, [self.names[c], f"[{self.units[c]}]" if self.units[c] else ""]))

    @property
    def circles(self) -> bool:
        """Whether rows are circles of latitude."""
        return self.latitude is not None and len(self.latitude) > 1 and self.periodic[-1]

    @property
    def globe(self) -> bool:
        """Whether they go from pole to pole."""
        if not self.circles or self.latitude is None:
            return False
        phi = self.latitude.sort().values
        south, north = phi[0] - (phi[1] - phi[0]), phi[-1] + (phi[-1] - phi[-2])
        return bool(south < -90 + 1e-3) and bool(north > 90 - 1e-3)

    def channel(self, x: Tensor, c: int) -> Tensor:
        """One channel (B, *grid) of fields, NaN outside the mask."""
        return x[:, c] if self.mask is None else torch.where(self.mask[c], x[:, c], math.nan)

    def filled(self, x: Tensor, c: int) -> Tensor:
        """The same for transforms that want all of a grid: with a mask what differs from the mean map, and 0 outside.

        The mean map is that of training data.  One of the fields themselves would take a part of their variance away.
        """
        if self.mask is None:
            return x[:, c]
        level = torch.zeros(()) if self.level is None else self.level[c].to(x)
        return torch.where(self.mask[c], x[:, c] - level, 0.0)

    def weights_of(self, c: int) -> Tensor | None:
        """Weights (*grid) of the values of a channel, 0 outside the mask; None where all count the same."""
        if self.mask is None:
            return self.weights
        return self.mask[c].double() if self.weights is None else area_weights(self.weights, self.mask[c])


def is_field(data: Batch) -> bool:
    """Whether samples are (C, *grid), with four points along each axis at least."""
    return data.dense and len(data.event) in (2, 3, 4) and min(data.event[1:]) >= 4


def beside(samples: Batch, test: Batch, labels: Labels) -> Batch:
    """Test fields that samples are held against, see above; at most so many, but 64 where conditions do not matter."""
    from scifm.verbs import evenly

    if test.context and labels.in_order:
        return test.select(range(min(len(samples), len(test))))
    return evenly(test, max(64, len(samples)))


def members_of(samples: Batch, test: Batch, labels: Labels) -> tuple[Tensor, Tensor] | None:
    """Samples as ensembles (M, n, *event) beside what came (n, *event); None for less than two members per case.

    Cases are the test fields, or some of them, evenly spaced, where there would be very many values.
    """
    count = len(samples) // len(test)
    if count < 2 or not test.context or not labels.in_order:
        return None
    members, observed = samples.x[: count * len(test)].unflatten(0, (count, len(test))), test.x.cpu()
    cases = max(1, min(len(test), ENSEMBLE * len(test) // members.numel()))
    chosen = torch.linspace(0, len(test) - 1, cases).round().long()
    return members[:, chosen], observed[chosen]


def _degrees(spec: GridSpec, role: str, coord: Coordinate | None) -> Tensor | None:
    if coord is None or len(coord.dims) != 1 or coord.values.dtype.kind not in "iuf":
        return None
    unit = str(coord.attrs.get("units", "")).lower()
    if not (unit.startswith(("deg", "rad")) or (not unit and spec.roles[role].lower().startswith(role))):
        return None
    lon, attrs = spec.coords.get(spec.roles.get("lon", "")), coord.attrs
    if not unit and role == "lat" and lon is not None and cells.radians(lon.values, lon.attrs):
        attrs = {"units": "radians"}
    return torch.from_numpy(cells.degrees(coord.values, attrs, role == "lon").astype(np.float64))


def _along(spec: GridSpec) -> tuple[Tensor | None, str]:
    if len(spec.grid) != 1:
        return None, ""
    (dim,) = spec.grid
    coord = spec.coords.get(dim)
    if coord is None or coord.dims != (dim,) or coord.values.dtype.kind not in "iuf":
        return None, dim
    name, unit = str(coord.attrs.get("long_name", dim)), str(coord.attrs.get("units", ""))
    return torch.from_numpy(coord.values.astype(np.float64)), f"{name} [{unit}]" if unit else name
