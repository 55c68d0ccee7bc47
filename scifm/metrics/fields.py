"""Do samples have the law of the data?  Distances of two sets of fields where they can see something.

    energy distance   2 E‖X − Y‖ − E‖X − X'‖ − E‖Y − Y'‖        0 for equal laws only     (Székely and Rizzo 2013)
    sliced W2         ( mean over directions u of W2²(u·X, u·Y) )^½                          (Rabin et al. 2011)

On whole fields a Euclidean norm is blind.  In many dimensions all distances between fields are alike, whatever their
pattern: 48 maps of white noise are as near to held-out maps of temperature as 48 training maps are.  So the distances
are taken in two spaces:

- **components**: scores of the leading principal components of data, each over its standard deviation; large scales.
- **patches**: small squares cut out at random places, whitened by the principal components of the data's own patches,
  all of them: the last ones are the small scales, of which samples easily have too much.

Two finite sets of one law have distances, too.  Each comes with that *floor*: the mean over random halves of the data,
brought from the size of halves to that of the sets, by (1/n + 1/m) for the energy distance and its root for W2.
A distance near its floor says that no difference was found, not that there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Components", "FieldDistance", "energy_distance", "field_distances", "leading_components", "patches_of",
           "sliced_wasserstein"]  # fmt: skip

Distance = Callable[[Tensor, Tensor], float]
ROWS = 1024  # of a matrix of distances that are held at once


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Squared energy distance of points (n, d) and (m, d), in their unit; a point and itself count as a pair.

    Example:
        >>> energy_distance(torch.zeros(3, 2), torch.tensor([[3.0, 4.0]]))
        10.0
    """
    x, y = _points("energy_distance", x, y)
    return max(0.0, 2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y))


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = 128, generator: torch.Generator | None = None) -> float:
    """Sliced W2 of two sets of points (n, d) and (m, d), in their unit; each direction exactly, directions at random.

    Example:
        >>> round(sliced_wasserstein(torch.zeros(3, 1), torch.full((7, 1), 2.0)), 6)
        2.0
    """
    x, y = _points("sliced_wasserstein", x, y)
    u = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
    u = u / u.square().sum(0).sqrt()
    n, m = len(x), len(y)
    # Both quantile functions are steps: at i/n and j/m.  In units of 1/nm these are whole numbers.
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    width = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    a, b = (x @ u).sort(0).values[(ends - 1) // m], (y @ u).sort(0).values[(ends - 1) // n]
    return math.sqrt(float((width[:, None] * (a - b).square()).sum(0).mean()))


@dataclass(frozen=True)
class Components:
    """Leading principal components of a set of fields; called with fields (B, *event) it gives their scores (B, k).

    Attributes:
        mean: (D,), vectors: (D, k) orthonormal, std: (k,) of the scores; a score is given over it.
    """

    mean: Tensor
    vectors: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return (x.detach().cpu().double().flatten(1) - self.mean) @ self.vectors / self.std


def leading_components(x: Tensor, count: int = 10) -> Components:
    """The `count` leading principal components of fields (B, *event); fewer where the fields have fewer.

    Example:
        >>> x = torch.randn(50, 1, 4, 5, generator=torch.Generator().manual_seed(0))
        >>> leading_components(x, 3)(x).std(0)
        tensor([1.0000, 1.0000, 1.0000], dtype=torch.float64)
    """
    if x.ndim < 2 or len(x) < 2 or count < 1 or not x.isfinite().all():
        raise ValueError(f"leading_components: expected at least 2 finite fields, got {tuple(x.shape)}, count={count}.")
    flat = x.detach().cpu().double().flatten(1)
    mean = flat.mean(0)
    _, s, rows = torch.linalg.svd(flat - mean, full_matrices=False)
    kept = min(count, int((s > 1e-10 * s[0]).sum()) if s[0] > 0 else 0)
    if not kept:
        raise ValueError("leading_components: all fields are alike, so there is nothing to compare in.")
    return Components(mean, rows[:kept].T, s[:kept] / math.sqrt(len(x) - 1))


def patches_of(x: Tensor, side: int = 8, count: int = 8, generator: torch.Generator | None = None) -> Tensor:
    """Patches at random places, `count` of each field (B, C, *grid): (B, count, C, *sides), an axis of at most `side`.

    Example:
        >>> patches_of(torch.arange(24.0).reshape(1, 1, 4, 6), 4, 3).shape
        torch.Size([1, 3, 1, 4, 4])
    """
    if x.ndim < 3 or not x.numel() or side < 1 or count < 1:
        raise ValueError(f"patches_of: expected fields (B, C, *grid), got {tuple(x.shape)}, side={side}, {count=}.")
    windows = x
    for axis in range(2, x.ndim):
        windows = windows.unfold(axis, min(side, x.shape[axis]), 1)  # a view
    places = [torch.randint(n, (len(x), count), generator=generator) for n in windows.shape[2 : x.ndim]]
    sample = torch.arange(len(x))[:, None].expand(-1, count)
    return windows.movedim(1, x.ndim - 1)[sample, *places]


@dataclass(frozen=True)
class FieldDistance:
    """A distance of samples and data, and the floor that two sets of data of these sizes have."""

    value: float
    floor: float

    def __str__(self) -> str:
        return f"{self.value:.3g} (data against data: {self.floor:.2g})"


def field_distances(
    samples: Tensor,
    data: Tensor,
    components: int = 10,
    side: int = 8,
    reference: Tensor | None = None,
    generator: torch.Generator | None = None,
    halves: int = 20,
) -> dict[str, FieldDistance]:
    """Energy distance and sliced W2 of samples and held-out data, of components and of patches, with their floors.

    Args:
        samples, data: (B, C, *grid) and (B', C, *grid), finite, B' at least 4.
        components: how many of the leading ones; of patches there are all, but for a quarter of the patches at most.
        side: of a patch, in points.
        reference: training data whose components are the spaces; those of `data` fit `data` a little too well.
        generator: places of patches, directions and halves.
        halves: random halves of the data for each floor.

    Returns:
        by name: "energy, components", "sliced W2, components", "energy, patches", "sliced W2, patches".  Without a
        unit, for scores are over their standard deviations.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> smooth = torch.randn(80, 1, 12, 12, generator=g).cumsum(-1).cumsum(-2)
        >>> found = field_distances(0.1 * smooth[:40] + torch.randn(40, 1, 12, 12, generator=g), smooth, generator=g)
        >>> [name for name, d in found.items() if d.value > 3 * d.floor]
        ['energy, components', 'energy, patches', 'sliced W2, patches']
    """
    if samples.shape[1:] != data.shape[1:] or data.ndim < 3 or len(data) < 4 or not len(samples):
        raise ValueError(
            "field_distances: expected fields (B, C, *grid) of one shape, at least 4 of data, got "
            f"{tuple(samples.shape)} and {tuple(data.shape)}."
        )
    if not (samples.isfinite().all() and data.isfinite().all()):
        raise ValueError("field_distances: expected finite fields, got NaN or infinity; look where they come from.")
    base = data if reference is None else reference
    score = leading_components(base, components)
    cut = [patches_of(v.detach().cpu(), side, generator=generator) for v in (base, samples, data)]
    small = cut[0].flatten(0, 1)
    local = leading_components(small, min(small[0].numel(), max(1, len(small) // 4)))
    spaces = {
        "components": (score(samples)[:, None], score(data)[:, None]),
        "patches": tuple(local(v.flatten(0, 1)).unflatten(0, v.shape[:2]) for v in cut[1:]),
    }
    seed = int(torch.randint(2**31, (), generator=generator))

    def sliced(x: Tensor, y: Tensor) -> float:  # the same directions for the value and its floor
        return sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(seed))

    found = {}
    for space, (x, y) in spaces.items():
        for name, distance, power in (("energy", energy_distance, 1.0), ("sliced W2", sliced, 0.5)):
            value = distance(x.flatten(0, 1), y.flatten(0, 1))
            found[f"{name}, {space}"] = FieldDistance(value, _floor(distance, power, y, len(x), halves, generator))
    return dict(sorted(found.items(), key=lambda item: item[0].split(", ")[1]))


def _floor(
    distance: Callable[[Tensor, Tensor], float],
    power: float,
    y: Tensor,
    n: int,
    halves: int,
    generator: torch.Generator | None,
) -> float:
    """Mean distance of random halves of whole fields y (B, p, k), scaled to sets of n and B fields."""
    m, values = len(y), []
    for _ in range(halves):
        first, second = (y[part].flatten(0, 1) for part in torch.randperm(m, generator=generator).tensor_split(2))
        values.append(distance(first, second))
    scale = (1 / n + 1 / m) / (1 / (m // 2) + 1 / (m - m // 2))
    return scale**power * sum(values) / max(len(values), 1)


def _mean_distance(x: Tensor, y: Tensor) -> float:
    total = sum(
        float(torch.cdist(part, y, compute_mode="donot_use_mm_for_euclid_dist").sum()) for part in x.split(ROWS)
    )
    return total / (len(x) * len(y))


def _points(who: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = x.detach().cpu().double(), y.detach().cpu().double()
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not x.numel() or not y.numel():
        raise ValueError(f"{who}: expected points (n, d) and (m, d), got {tuple(x.shape)} and {tuple(y.shape)}.")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError(f"{who}: expected finite points, got NaN or infinity; look where they come from.")
    return x, y
