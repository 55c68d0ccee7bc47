"""What a network on grids knows besides x: time, season, labels, other fields, and the place.

    numbers of a sample   [waves(t), labels and numbers, sin and cos of the time of year and of the hour of day]
                          through a linear map and SiLU into every block (FiLM, Perez et al. 2018, arXiv:1709.07871)
    fields of a sample    previous state, coarse field, permeability, observations and their mask: (B, K, *grid) in
                          `batch.context`, beside x at the entrance
    fields of the place   (K, *grid), the same for all samples: latitude, mask, orography; kept with the weights

In `context`, as for sets of points, whole numbers are classes 0 … k − 1 and become one-hot vectors, so their linear map
is an embedding; floating-point values are k numbers each.

With season: `context["time"]` holds days since 1970-01-01 in UTC, as `scifm.data.grids` reads it.  The time of year is
2π days / length of a year, 365.2425 days on average; in a calendar whose years are all equal, 360 or 365 days, the
phase is that of the day of the year.

Whatever differs from place to place along a circular axis breaks equivariance under shifts, as a coast does in
nature.  Give sines and cosines of longitude only where longitude does not close the circle: see `coordinates`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.networks.checks import check_times
from scifm.networks.conditions import NOTHING, Sizes, numbers
from scifm.networks.time import SinusoidalTime

__all__ = ["GridConditions", "coordinates"]

GREGORIAN = 365.2425  # mean days of a year


class GridConditions(nn.Module):
    """What UNet, FNO and DiT are told besides x; without arguments, the time of the flow alone.

    Args:
        fields: names in `batch.context` of fields on the grid of x, with their number of channels K.
        context: names in `batch.context` of labels and numbers of a sample, with how many classes or numbers.
        calendar: look at `context["time"]`: True, or the days of a year where the calendar is not the usual one.
        static: (K, *grid), what is known of each place, in units of order one and without missing values.
        time_width: features of time, even, and width of what goes to the blocks.

    Attributes:
        channels: fields beside x, those of `fields` first.

    Raises:
        ValueError: for sizes that are none; when called, for a batch without what is named, or on another grid.

    Example:
        >>> x, before = torch.randn(2, 1, 8, 12), torch.randn(2, 1, 8, 12)
        >>> batch = Batch(x, context={"previous": before, "time": torch.tensor([0.0, 20000.25])})
        >>> conditions = GridConditions({"previous": 1}, calendar=True)
        >>> [tuple(c.shape) for c in (conditions(torch.rand(2), batch), *conditions.beside(x, batch))]
        [(2, 68), (2, 1, 8, 12)]
    """

    def __init__(
        self,
        fields: Sizes = NOTHING,
        context: Sizes = NOTHING,
        calendar: bool | float = False,
        static: Tensor | None = None,
        time_width: int = 64,
    ):
        super().__init__()
        self.fields, self.context = dict(fields), dict(context)
        for kind, sizes in (("fields", self.fields), ("context", self.context)):
            if any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in sizes.values()):
                raise ValueError(f"GridConditions: {kind} must name whole numbers of at least 1, got {sizes}.")
        self.year = GREGORIAN if calendar is True else float(calendar)
        if not 0 <= self.year < math.inf:
            raise ValueError(f"GridConditions: calendar must be True, False or days of a year, got {calendar!r}.")
        if static is not None and (not static.is_floating_point() or static.ndim < 2 or not static.isfinite().all()):
            raise ValueError(
                "GridConditions: static must be finite floating-point numbers (K, *grid), got "
                f"{static.dtype} {tuple(static.shape)}. Fill what is missing and give its mask as another channel."
            )
        self.static: Tensor | None
        self.register_buffer("static", None if static is None else static.detach().clone())
        self.waves = SinusoidalTime(time_width)
        self.numbers = time_width + sum(self.context.values()) + (4 if self.year else 0)
        self.channels = sum(self.fields.values()) + (0 if static is None else static.shape[0])

    def forward(self, t: Tensor, batch: Batch) -> Tensor:
        """Numbers of every sample, (B, numbers), at times t (B,)."""
        check_times("GridConditions", t, len(batch))
        known = [numbers("GridConditions", batch, "context", name, k) for name, k in self.context.items()]
        return torch.cat([self.waves(t.to(batch.x)), *known, *self._season(batch)], 1)

    def embedding(self) -> nn.Sequential:
        """A layer for these numbers, (B, numbers) -> (B, time_width)."""
        width = self.waves.width
        linear = nn.Linear(self.numbers, width)
        if self.numbers > width:
            with torch.no_grad():  # as embeddings start: of k classes only one is there at a time
                linear.weight[:, width:].normal_()
        return nn.Sequential(nn.Identity(), linear, nn.SiLU())  # the linear map is "embed.1" in checkpoints

    def beside(self, x: Tensor, batch: Batch) -> list[Tensor]:
        """What goes beside x (B, C, *grid): fields (B, K, *grid) each, those of the place last."""
        grid = x.shape[2:]
        found = [self._field(name, k, x, batch) for name, k in self.fields.items()]
        if self.static is not None:
            if self.static.shape[1:] != grid:
                raise ValueError(
                    f"GridConditions: static is on the grid {tuple(self.static.shape[1:])}, but x on {tuple(grid)}. "
                    "A network that knows its places serves one grid; make another for this one."
                )
            found.append(self.static.to(x).expand(x.shape[0], *self.static.shape))
        return found

    def _season(self, batch: Batch) -> list[Tensor]:
        if not self.year:
            return []
        days = batch.context.get("time")
        if days is None or days.shape != (len(batch),):
            raise ValueError(
                f'GridConditions: calendar needs context["time"], days since 1970-01-01 of shape ({len(batch)},), '
                f"got {'none' if days is None else tuple(days.shape)}. Make the network without calendar= where "
                "samples have no dates."
            )
        days = days.double()[:, None]  # before it is a phase: float32 would lose minutes
        phase = 2 * math.pi * torch.cat([days / self.year, days], 1)
        return [phase.sin().to(batch.x), phase.cos().to(batch.x)]

    def _field(self, name: str, k: int, x: Tensor, batch: Batch) -> Tensor:
        wanted = (x.shape[0], k, *x.shape[2:])
        if name not in batch.context or batch.context[name].shape != wanted:
            there = {key: tuple(value.shape) for key, value in sorted(batch.context.items())}
            raise ValueError(
                f"GridConditions: made for a field context[{name!r}] of shape {wanted}, on the grid of x; the batch "
                f"has {there or 'no context'}. Regrid it first; a field without a channel axis needs unsqueeze(1)."
            )
        return batch.context[name].to(x)


def coordinates(latitude: Tensor, longitude: Tensor, circular: bool = False) -> Tensor:
    """Sine and cosine of latitude and, where it does not close the circle, of longitude: for `static`.

    Args:
        latitude: degrees north, (H,) or, on curvilinear grids, (H, W).
        longitude: degrees east, (W,) or (H, W).
        circular: longitude closes the circle; it is left out then, so that shifts of longitude remain a symmetry.

    Returns:
        (2, H, W) or (4, H, W), in the dtype of latitude.

    Example:
        >>> coordinates(torch.tensor([0.0, 90.0]), torch.arange(0.0, 360.0, 60.0), circular=True)[:, :, 0].round()
        tensor([[0., 1.],
                [1., -0.]])
    """
    if latitude.ndim not in (1, 2) or longitude.ndim not in (1, 2):
        raise ValueError(
            "coordinates: latitude and longitude must be (H,) and (W,), or (H, W) each, got "
            f"{tuple(latitude.shape)} and {tuple(longitude.shape)}."
        )
    rows = latitude[:, None] if latitude.ndim == 1 else latitude
    lat, lon = torch.broadcast_tensors(torch.deg2rad(rows), torch.deg2rad(longitude.to(latitude)))
    return torch.stack([lat.sin(), lat.cos()] if circular else [lat.sin(), lat.cos(), lon.sin(), lon.cos()])
