"""Are generated clouds like the data's?  Distances of two clouds, and of two sets of clouds.

Between two clouds X and Y of points (Fan et al. 2017), as PointFlow computes them (Yang et al. 2019):

    Chamfer    CD(X, Y) = mean_x min_y |x − y|²  +  mean_y min_x |x − y|²                squared distances
    EMD        EMD(X, Y) = min over bijections φ of mean_x |x − φ(x)|                    plain distances, |X| = |Y|

Note the two conventions: CD is in the unit's square, EMD in the unit.  PointFlow's text writes sums, its code takes
these means; its EMD is approximate, this one is exact, by assignment.

Between a set S of generated and a set R of reference clouds, with the matrices of such distances:

    MMD        mean over R of the distance to the nearest of S                           low is good; quality
    coverage   share of R that is the nearest reference of some cloud in S               high is good; variety
    1-NNA      share of S ∪ R whose nearest neighbour, itself apart, is of its own set   ½ is perfect, 1 is worst

1-NNA (Lopez-Paz and Oquab 2017) is the one that cannot be fooled by a few good clouds.  It goes *below* ½ where samples
are copies: S = R gives 0, since each cloud's nearest neighbour is its twin on the other side.  Neighbours at the same
distance count by their share, so if all clouds are alike it is (n − 1)/(2n − 1), which is chance.  Published values are
in percent, on as many generated clouds as reference clouds; it depends on both numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.couplings.assignment import assign
from scifm.geometry import distances

__all__ = [
    "CloudScores",
    "chamfer",
    "cloud_scores",
    "coverage",
    "emd",
    "minimum_matching_distance",
    "nearest_neighbour_accuracy",
    "pairwise",
]

Distance = Callable[[Tensor, Tensor], Tensor]
ENTRIES = 2**23  # distances that are held together


@dataclass(frozen=True)
class CloudScores:
    """How two sets of clouds compare, by one distance.

    Attributes:
        mmd: minimum matching distance, in the distance's unit.
        coverage: 0 to 1.
        accuracy: of the nearest neighbour; ½ is perfect.
    """

    mmd: float
    coverage: float
    accuracy: float


def chamfer(x: Tensor, y: Tensor) -> Tensor:
    """mean_x min_y |x − y|² + mean_y min_x |x − y|² of clouds (..., n, d) and (..., m, d), in the unit's square.

    Example:
        >>> chamfer(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0]]))
        tensor(0.5000)
    """
    _two("chamfer", x, y)
    square = _squares(x, y)
    return square.amin(-1).mean(-1) + square.amin(-2).mean(-1)


def emd(x: Tensor, y: Tensor) -> Tensor:
    """The smallest mean |x_i − y_φ(i)| over bijections of clouds (..., n, d) of equal sizes, exactly, in their unit.

    Raises:
        ValueError: for clouds of different sizes; draw as many points of each, or use `wasserstein(x, y, power=1)`.

    Example:
        >>> emd(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [0.0]]))
        tensor(0.5000)
    """
    _two("emd", x, y)
    if x.shape[-2] != y.shape[-2]:
        raise ValueError(
            f"emd: expected clouds of equal sizes, got {x.shape[-2]} and {y.shape[-2]} points; draw as many of each, "
            "or use metrics.wasserstein with power=1."
        )
    distance = distances(x, y)  # whose gradient is finite where points coincide
    flat = distance.reshape(-1, *distance.shape[-2:])
    means = [d.gather(1, assign(d)[:, None]).mean() for d in flat]
    return torch.stack(means).reshape(distance.shape[:-2])


def pairwise(a: Batch, b: Batch, distance: Distance = chamfer) -> Tensor:
    """The distance of each cloud of `a` to each of `b`, (A, B).

    Args:
        a, b: dense (B, n, d) or ragged.
        distance: `chamfer`, `emd`, or a function like them: symmetric, 0 for equal clouds, of two stacks of clouds.

    Raises:
        ValueError: for clouds without points, or of points that differ in dimension.
    """
    left, right = _clouds(a), _clouds(b)
    alone = a is b or (a.x is b.x and torch.equal(a.points.counts, b.points.counts))
    found = torch.zeros(len(left), len(right), dtype=a.x.dtype, device=a.x.device)
    # Clouds of one size are stacked, so that no padding can be taken for a point.
    sizes: dict[int, list[int]] = {}
    for k, cloud in enumerate(right):
        sizes.setdefault(len(cloud), []).append(k)
    for m, columns in sizes.items():
        stacked = torch.stack([right[k] for k in columns])
        for i, cloud in enumerate(left):
            step = max(1, ENTRIES // max(1, len(cloud) * m))
            for first in range(0, len(columns), step):
                some = columns[first : first + step]
                if alone and some[-1] <= i:
                    continue  # both distances are symmetric; what is left out is mirrored below
                other = stacked[first : first + step]
                found[i, some] = distance(cloud.expand(len(other), *cloud.shape), other)
    return found.triu(1) + found.triu(1).T if alone else found


def minimum_matching_distance(generated_reference: Tensor) -> float:
    """MMD from distances (S, R) of generated and reference clouds: mean over references of the nearest one."""
    _matrix("minimum_matching_distance", generated_reference)
    return float(generated_reference.amin(0).mean())


def coverage(generated_reference: Tensor) -> float:
    """Share of references that are the nearest of some generated cloud, from distances (S, R); ties go to the first.

    Example:
        >>> coverage(torch.tensor([[0.0, 1.0], [0.1, 1.0]]))
        0.5
    """
    _matrix("coverage", generated_reference)
    return len(generated_reference.argmin(1).unique()) / generated_reference.shape[1]


def nearest_neighbour_accuracy(generated: Tensor, between: Tensor, reference: Tensor) -> float:
    """1-NNA from distances (S, S), (S, R) and (R, R): ½ for sets of one law, 1 for sets far apart, 0 for copies.

    A cloud whose nearest neighbours tie counts by the share of them that are of its own set.

    Raises:
        ValueError: for matrices that do not fit together, or fewer than two clouds in all.

    Example:
        >>> near, far = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.full((2, 2), 9.0)
        >>> nearest_neighbour_accuracy(near, far, near)
        1.0
    """
    s, r = between.shape if between.ndim == 2 else (0, 0)
    if generated.shape != (s, s) or reference.shape != (r, r) or min(s, r) < 1:
        raise ValueError(
            f"nearest_neighbour_accuracy: expected distances (S, S), (S, R) and (R, R), got {tuple(generated.shape)}, "
            f"{tuple(between.shape)} and {tuple(reference.shape)}."
        )
    whole = torch.cat([torch.cat([generated, between], 1), torch.cat([between.T, reference], 1)])
    _matrix("nearest_neighbour_accuracy", whole)
    whole = whole.clone().fill_diagonal_(torch.inf)
    nearest = (whole == whole.amin(1, keepdim=True)).double()
    of_s = nearest[:, :s].sum(1) / nearest.sum(1)
    right = torch.cat([of_s[:s], 1 - of_s[s:]])
    return float(right.mean())


def cloud_scores(generated: Batch, reference: Batch, distance: Distance = chamfer) -> CloudScores:
    """MMD, coverage and 1-NNA of generated clouds against reference clouds, by one distance.

    Args:
        generated, reference: dense (B, n, d) or ragged, best as many of each.
        distance: `chamfer` or `emd`. EMD costs an assignment per pair of clouds: (S + R)² / 2 of them.
    """
    between = pairwise(generated, reference, distance)
    own, theirs = (pairwise(b, b, distance) for b in (generated, reference))
    accuracy = nearest_neighbour_accuracy(own, between, theirs)
    return CloudScores(minimum_matching_distance(between), coverage(between), accuracy)


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """|x_i − y_j|² (..., n, m), coordinate by coordinate: differences do not cancel as products do."""
    square = torch.zeros((), dtype=x.dtype, device=x.device)
    for a, b in zip(x.unbind(-1), y.unbind(-1), strict=True):
        square = square + (a[..., :, None] - b[..., None, :]).square()
    return square


def _two(who: str, x: Tensor, y: Tensor) -> None:
    if x.ndim < 2 or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-1] or 0 in (x.shape[-2], y.shape[-2]):
        raise ValueError(
            f"{who}: expected clouds (..., n, d) and (..., m, d), got {tuple(x.shape)} and {tuple(y.shape)}."
        )
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError(f"{who}: expected finite points, got NaN or infinity; look where the samples come from.")


def _clouds(batch: Batch) -> list[Tensor]:
    points = batch.points
    empty = (points.counts == 0).nonzero()
    if len(batch) == 0 or len(empty):
        what = f"cloud {int(empty[0])} is without points" if len(empty) else "there are none"
        raise ValueError(f"metrics.clouds: expected clouds with points, but {what}.")
    return list(points.x.split(points.counts.tolist()))


def _matrix(who: str, distances: Tensor) -> None:
    if distances.ndim != 2 or 0 in distances.shape or distances.isnan().any():
        raise ValueError(f"{who}: expected a matrix of distances without NaN, got {tuple(distances.shape)}.")
