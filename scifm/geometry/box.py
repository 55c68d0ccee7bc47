"""Periodic boxes: points on a torus R^d / Λ, with Λ the lattice {k A : k ∈ Z^d} of a cell A with vectors as rows.

The distance on the torus is that of the nearest of all images, min over k of ‖v − k A‖.  For a right-angled cell that
is rounding, v − L round(v / L).  For a skewed one rounding of fractional coordinates v A⁻¹ is wrong, and so is the
usual search of the 27 cells around it where the skew is large.  Here it is exact.  In up to three dimensions every
lattice has an obtuse superbase, vectors b_0 … b_d that generate it with

    Σ_i b_i = 0,     b_i · b_j ≤ 0  for i ≠ j,

which Selling's (1874) steps find: for b_i · b_j > 0 turn b_i into −b_i and add 2 b_i / (d − 1) to the others but b_j.
Then the vectors that bound the Voronoi cell are among the 2^(d+1) − 2 sums of some of the b_i (Conway and Sloane 1992),
and from floor(v B⁻¹) at most d steps to the best neighbour among these end at the closest lattice vector (McKilliam,
Grant and Clarkson 2014): one product with 7 vectors and their opposites per step, no search of unknown length.

On a torus the mean of positions is not defined, since it changes when a point is wrapped.  The circular mean is: per
axis, the angle of Σ_i w_i exp(2πi f_i) with f fractional (Bai and Breen 2008).  It moves with the points and does not
see how they are wrapped.  Distances, radii and graphs take a `Box`; a straight path between two points does not know
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

__all__ = ["Box"]


@dataclass(frozen=True, eq=False)
class Box:
    """A periodic box, or one per sample; the reduction of its lattice is made once.

    Args:
        cell: lengths (d,) of a right-angled box; or lattice vectors as rows, (*batch, d, d), one cell for all or one
            per sample. A box of lengths per sample is `torch.diag_embed(lengths)`: (3, 3) numbers are always one cell.

    Raises:
        ValueError: for cells that are not finite, have no volume, or are skewed in more than three dimensions.

    Example:
        >>> box = Box(torch.tensor([10.0, 10.0, 4.0]))
        >>> box.minimum_image(torch.tensor([9.0, 4.0, -3.0]))
        tensor([-1.,  4.,  1.])
    """

    cell: Tensor
    inverse: Tensor = field(init=False, repr=False)
    combinations: Tensor = field(init=False, repr=False)  # (*batch, K, d) of the cell's rows, one of each pair of walls
    base: Tensor = field(init=False, repr=False)  # (*batch, d, d) combinations that are an obtuse base
    orthogonal: bool = field(init=False)

    def __post_init__(self) -> None:
        cell = self.cell
        if not cell.is_floating_point() or cell.ndim == 0 or (cell.ndim > 1 and cell.shape[-1] != cell.shape[-2]):
            raise ValueError(
                "Box: expected lengths (d,), or lattice vectors as rows (*batch, d, d), of floating type, got "
                f"{cell.dtype} {tuple(cell.shape)}; lengths per sample are torch.diag_embed(lengths)."
            )
        cell = torch.diag(cell) if cell.ndim == 1 else cell
        rows = cell.detach().cpu().double().numpy()
        _check(rows)
        off = rows * (1 - np.eye(rows.shape[-1]))
        orthogonal = not off.any()
        if not orthogonal and rows.shape[-1] > 3:
            raise ValueError(f"Box: skewed cells have up to three dimensions, got {rows.shape[-1]}.")
        base = np.broadcast_to(np.eye(rows.shape[-1]), rows.shape).copy() if orthogonal else _obtuse(rows)[..., 1:, :]
        sums = _sums(base)
        object.__setattr__(self, "cell", cell)
        object.__setattr__(self, "inverse", torch.linalg.inv(cell))
        object.__setattr__(self, "combinations", torch.from_numpy(sums).to(cell))
        object.__setattr__(self, "base", torch.from_numpy(base).to(cell))
        object.__setattr__(self, "orthogonal", orthogonal)

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def lengths(self) -> Tensor:
        """(*batch, d) lengths of the lattice vectors."""
        return self.cell.square().sum(-1).sqrt()

    @property
    def volume(self) -> Tensor:
        """(*batch,) volume, positive."""
        return torch.linalg.det(self.cell).abs()

    @property
    def inradius(self) -> Tensor:
        """(*batch,) half the shortest lattice vector: two points nearer than this have one image that is."""
        return (self.combinations @ self.cell).square().sum(-1).amin(-1).sqrt() / 2

    def take(self, samples: Tensor) -> Box:
        """The boxes of some samples; the box itself where it is one for all."""
        return self if self.cell.ndim == 2 else _with(self, lambda v: v[samples.to(v.device)])

    def to(self, like: Tensor) -> Box:
        """Of the dtype and on the device of a tensor."""
        if self.cell.dtype == like.dtype and self.cell.device == like.device:
            return self
        return _with(self, lambda v: v.to(like))

    # -- what it does ----------------------------------------------------------------------------------

    def fractional(self, x: Tensor) -> Tensor:
        """Coordinates in units of the lattice vectors, (*batch, ..., d)."""
        return _rows(x, self.to(x).inverse)

    def wrap(self, x: Tensor) -> Tensor:
        """The image of each point inside the cell: fractional coordinates in [0, 1). Shapes as x (*batch, ..., d)."""
        box = self.to(x)
        inside = x - _rows(_rows(x, box.inverse).detach().floor(), box.cell)
        # −1e-9 + L is L in float32: such points belong to the other side
        return inside - _rows(_rows(inside, box.inverse).detach().floor(), box.cell)

    def minimum_image(self, v: Tensor) -> Tensor:
        """The shortest of all images of each difference v (*batch, ..., d); exact for skewed cells.

        Differentiable in v and in the cell; at the border between two images the gradient is that of one of them.
        """
        box = self.to(v)
        return v - _rows(box._shift(v.detach()), box.cell)

    def centre(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Circular mean of points (*batch, n, d), wrapped into the cell: (*batch, d).

        Args:
            weights: (*batch, n), 0 for padding. Where all weights cancel, as for points spread evenly over an axis,
                there is no mean; the result is finite and means nothing.
        """
        box = self.to(x)
        phase = 2 * math.pi * _rows(x, box.inverse)
        w = torch.ones_like(x[..., 0]) if weights is None else weights.to(x)
        sine, cosine = ((w[..., None] * part).sum(-2) for part in (phase.sin(), phase.cos()))
        nowhere = (sine == 0) & (cosine == 0)  # atan2 has no gradient there
        angle = torch.atan2(sine, torch.where(nowhere, torch.ones_like(cosine), cosine))
        return box.wrap(_rows((angle / (2 * math.pi))[..., None, :], box.cell))[..., 0, :]

    def _shift(self, v: Tensor) -> Tensor:
        """(*batch, ..., d) whole lattice vectors to take off v for its shortest image."""
        if self.orthogonal:
            return _rows(v, self.inverse).round()
        cell = self.cell.detach()
        base, wall = self.base @ cell, self.combinations @ cell  # (*batch, d, d), (*batch, K, d)
        shift = _rows(_rows(v, torch.linalg.inv(base)).floor(), self.base)
        half = wall.square().sum(-1)
        for _ in range(cell.shape[-1]):
            rest = v - _rows(shift, cell)
            along = _rows(rest, wall.transpose(-1, -2))
            best, which = (2 * along.abs() - _beside(half, rest)).max(-1, keepdim=True)  # gain by stepping over a wall
            chosen = (which == torch.arange(wall.shape[-2], device=v.device)) * along.sign() * (best > 0)
            shift = shift + _rows(chosen, self.combinations)
        return shift


def _with(box: Box, change) -> Box:
    """The same box elsewhere, without reducing its lattice again."""
    new = object.__new__(Box)
    names = ("cell", "inverse", "combinations", "base")
    new.__dict__.update(box.__dict__, **{k: change(getattr(box, k)) for k in names})
    return new


def _rows(x: Tensor, matrix: Tensor) -> Tensor:
    """x (*batch, ..., d) times matrix (*batch, d, e), whatever lies between."""
    batch = matrix.shape[:-2]
    if x.shape[-1] != matrix.shape[-2] or x.shape[: len(batch)] != batch or (batch and x.ndim == len(batch)):
        raise ValueError(
            f"Box: expected points (*batch, ..., {matrix.shape[-2]}) with batch {tuple(batch)}, got {tuple(x.shape)}."
        )
    if not batch:
        return x @ matrix
    return (x.reshape(*batch, -1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """(*batch, K) so that it broadcasts against (*batch, ..., K)."""
    batch = values.shape[:-1]
    return values.reshape(*batch, *[1] * (x.ndim - len(batch) - 1), values.shape[-1])


# -- reduction, in float64 on the CPU ---------------------------------------------------------------------


def _check(rows: np.ndarray) -> None:
    if not np.isfinite(rows).all():
        raise ValueError("Box: the cell is not finite.")
    sizes = np.linalg.norm(rows, axis=-1)
    if not (np.abs(np.linalg.det(rows)) > 1e-9 * sizes.prod(-1)).all():
        raise ValueError("Box: a cell has no volume: lengths must be positive and lattice vectors independent.")


def _obtuse(rows: np.ndarray) -> np.ndarray:
    """(*batch, d + 1, d) whole combinations of the rows of each cell that form an obtuse superbase."""
    d = rows.shape[-1]
    cells = rows.reshape(-1, d, d)
    whole = _shorter(cells)
    whole = np.concatenate([-whole.sum(1, keepdims=True), whole], 1)
    which, upper = np.arange(len(cells)), np.triu(np.ones((d + 1, d + 1), bool), 1)
    for _ in range(1000):  # a dozen do, after `_shorter`
        b = whole @ cells
        gram = b @ b.transpose(0, 2, 1)
        scale = np.trace(gram, axis1=1, axis2=2)
        pair = np.where(upper, gram, -np.inf).reshape(len(cells), -1)
        i, j = np.divmod(pair.argmax(1), d + 1)
        sharp = pair.max(1) > 1e-12 * scale
        if not sharp.any():
            return whole.reshape(*rows.shape[:-2], d + 1, d)
        factor = np.full((len(cells), d + 1), 2.0 / max(d - 1, 1))
        factor[which, i], factor[which, j] = -2.0, 0.0
        whole = whole + (sharp[:, None] * factor)[..., None] * whole[which, i][:, None]
    raise ValueError("Box: the lattice of a cell could not be reduced; its vectors are nearly dependent.")


def _shorter(cells: np.ndarray) -> np.ndarray:
    """(m, d, d) whole combinations: each vector is shortened by the others until none gets shorter."""
    d = cells.shape[-1]
    whole = np.broadcast_to(np.eye(d), cells.shape).copy()
    for _ in range(1000):
        before = whole.copy()
        for i in range(d):
            for j in range(d):
                if i != j:
                    b = whole @ cells
                    times = np.rint((b[:, i] * b[:, j]).sum(-1) / np.square(b[:, i]).sum(-1) * (1 - 1e-12))
                    whole[:, j] -= times[:, None] * whole[:, i]
        if np.array_equal(whole, before):
            break
    return whole


def _sums(base: np.ndarray) -> np.ndarray:
    """(*batch, 2^d − 1, d): sums of some of an obtuse superbase, whose base is given; all others are minus these."""
    d = base.shape[-1]
    superbase = np.concatenate([-base.sum(-2, keepdims=True), base], -2)
    some = np.array(
        [[(k >> i) & 1 for i in range(d + 1)] for k in range(1, 2**d)], float
    )  # not the last: it or the rest
    return some @ superbase
