"""Areas of the cells of a grid, for means over the sphere.

A cell reaches from edge to edge, and edges are half way between points.  On a grid of latitudes φ and longitudes λ

    area = (sin φ_upper − sin φ_lower) Δλ        on the unit sphere, steradians; a whole globe has 4π

cos φ in its place is 0 at a pole, so that a point there has no weight, and one's variance none to divide by; between
edges it has a small cap.  The first and the last edge are a pole where the outermost point is less than a step
from it, as WeatherBench 2 does (Rasp et al. 2024); a grid that stops earlier ends half a step beyond its last point.

A grid with bent axes, such as an ocean model's, comes with areas of its own: give those to `area_weights`.
Area weights belong in scores.  A density is per value of the grid, whatever the size of its cell.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["area_mean", "area_weights", "cell_areas", "latitude_weights"]


def latitude_weights(latitude: Tensor) -> Tensor:
    """sin φ_upper − sin φ_lower of each latitude, scaled to mean 1; (H,) float64, in the order given.

    Args:
        latitude: (H,) degrees in [−90, 90], rising, falling or in any other order, no two alike.

    Raises:
        ValueError: for latitudes that are none, or come twice.

    Example:
        >>> latitude_weights(torch.tensor([90.0, 0.0, -90.0]))
        tensor([0.4393, 2.1213, 0.4393], dtype=torch.float64)
    """
    bands = _bands(latitude)
    return bands / bands.mean()


def cell_areas(latitude: Tensor, longitude: Tensor) -> Tensor:
    """Areas (H, W) of the cells of a latitude-longitude grid on the unit sphere, steradians, float64.

    Args:
        latitude: (H,) degrees, as for `latitude_weights`.
        longitude: (W,) degrees, each once, in the order of the circle or against it; −180..180 or 0..360.  Where they
            close the circle the first and last cell meet, else the outermost reach half a step beyond their points;
            so they do where both ends, 0 and 360, are there.

    Raises:
        ValueError: for coordinates that are none, come twice, or go more than once around.

    Example:
        >>> areas = cell_areas(torch.linspace(-90, 90, 19), torch.arange(0.0, 360.0, 10.0))
        >>> areas.shape, float(areas.sum() / (4 * torch.pi))
        (torch.Size([19, 36]), 1.0)
    """
    return _bands(latitude)[:, None] * torch.deg2rad(_widths(longitude))


def area_weights(areas: Tensor, mask: Tensor | None = None) -> Tensor:
    """Areas of any grid as weights of mean 1 over the cells that count, 0 elsewhere; float64.

    Args:
        areas: any shape, any unit, not negative; of `cell_areas`, or those a file holds.
        mask: broadcasts to it, true where a cell counts (the ocean, say).  A cell whose area is NaN or 0 never does.

    Raises:
        ValueError: where no cell counts, or an area is negative or infinite.

    Example:
        >>> area_weights(torch.tensor([[1.0, 3.0], [2.0, 9.0]]), torch.tensor([[True, True], [True, False]]))
        tensor([[0.5000, 1.5000],
                [1.0000, 0.0000]], dtype=torch.float64)
    """
    areas = areas.detach().double().nan_to_num(nan=0.0, posinf=math.inf)
    if mask is not None:
        areas = torch.where(mask.bool(), areas, 0.0)
    if (areas < 0).any() or areas.isinf().any() or not (areas > 0).any():
        raise ValueError(
            f"area_weights: expected areas that are finite, not negative and not all 0 or masked, got {areas.numel()} "
            f"cells from {float(areas.min()) if areas.numel() else math.nan:g} with {int((areas > 0).sum())} above 0."
        )
    return areas / areas[areas > 0].mean()


def area_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of values over the dims that weights have, or over all without weights; in the dtype of the values.

    Args:
        values: (..., *grid); a cell of weight 0 may hold NaN.
        weights: (*grid), or a shape that broadcasts to it such as (H, 1), not negative.

    Returns:
        (...).

    Raises:
        ValueError: for weights that do not fit.

    Example:
        >>> area_mean(torch.tensor([[1.0, 2.0], [5.0, 9.0]]), torch.tensor([3.0, 1.0]))
        tensor([1.2500, 6.0000])
    """
    if weights is None:
        return values.mean()
    if (
        weights.ndim == 0
        or weights.ndim > values.ndim
        or any(w not in (1, n) for w, n in zip(weights.shape, values.shape[-weights.ndim :], strict=True))
    ):
        raise ValueError(
            f"area_mean: expected weights that fit the last dims of values {tuple(values.shape)}, got "
            f"{tuple(weights.shape)}."
        )
    grid = values.shape[-weights.ndim :]
    if not (weights.isfinite().all() and (weights >= 0).all() and (weights > 0).any()):
        raise ValueError(
            "area_mean: expected finite weights, none negative and not all 0; make them with area_weights."
        )
    w = weights.to(values).expand(grid)
    dims = tuple(range(-weights.ndim, 0))
    return (torch.where(w > 0, values, 0.0) * w).sum(dims) / w.sum()


# -- edges ---------------------------------------------------------------------------------------------------------


def _bands(latitude: Tensor) -> Tensor:
    """sin φ_upper − sin φ_lower of each latitude, (H,) float64."""
    phi = _coordinate("latitude", latitude)
    if float(phi.abs().max()) > 90 + 1e-6:
        raise ValueError(
            f"latitude_weights: expected degrees in [-90, 90], got {float(phi.min()):g} to "
            f"{float(phi.max()):g}; a curvilinear grid comes with cell areas, give those to area_weights."
        )
    if len(phi) == 1:
        return torch.ones_like(phi)
    rising, order = phi.sort()
    step = rising.diff()
    south, north = rising[0] - step[0] / 2, rising[-1] + step[-1] / 2
    if rising[0] - step[0] < -90 + 1e-6:
        south = south.new_tensor(-90.0)
    if rising[-1] + step[-1] > 90 - 1e-6:
        north = north.new_tensor(90.0)
    edges = torch.cat([south[None], (rising[1:] + rising[:-1]) / 2, north[None]])
    bands = torch.empty_like(phi)
    bands[order] = torch.deg2rad(edges).sin().diff()
    return bands


def _widths(longitude: Tensor) -> Tensor:
    """Degrees from edge to edge of each longitude, (W,) float64."""
    lam = _coordinate("longitude", longitude)
    if len(lam) == 1:
        return torch.full_like(lam, 360.0)
    step = (lam.diff() + 180).remainder(360) - 180  # across the date line as anywhere
    step = -step if float(step.sum()) < 0 else step
    gap = 360 - step.sum()
    if (step <= 0).any() or float(gap) < -1e-3:
        raise ValueError(
            "cell_areas: expected longitudes in the order of the circle or against it, once around at most, got "
            f"steps from {float(step.min()):g} to {float(step.max()):g} degrees that sum to {float(step.sum()):g}."
        )
    closes = 0.5 * float(step.min()) < float(gap) < 1.5 * float(step.max())
    first, last = (gap, gap) if closes else (step[0], step[-1])
    around = torch.cat([first.reshape(1), step, last.reshape(1)])
    return (around[1:] + around[:-1]) / 2


def _coordinate(name: str, values: Tensor) -> Tensor:
    values = torch.as_tensor(values).detach().double()
    if values.ndim != 1 or not len(values) or not values.isfinite().all() or len(values.unique()) < len(values):
        raise ValueError(
            f"scifm.areas: expected a {name} of finite degrees (n,), each once, got shape {tuple(values.shape)}"
            f"{'' if values.ndim != 1 else f' with {len(values.unique())} different values'}; a curvilinear grid comes "
            "with cell areas, give those to area_weights."
        )
    return values
