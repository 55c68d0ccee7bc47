"""Internal coordinates: bonds, angles and torsions of points, and points from them.

    r = |x_2 − x_1|,   θ = angle at x_2 between x_1 and x_3 in [0, π],   φ = torsion about x_2 → x_3 in (−π, π]

with b_1 = x_2 − x_1, b_2 = x_3 − x_2, b_3 = x_4 − x_3 and

    θ = atan2(|b_1 × b_2|, −b_1 · b_2)
    φ = atan2(|b_2| b_1 · (b_2 × b_3), (b_1 × b_2) · (b_2 × b_3)).

The sign of φ is IUPAC's (1970): looking from x_2 to x_3, positive where the far bond is clockwise of the near one; cis
is 0, trans is π.  It changes under reflection and under no rotation.  Both forms keep their digits at all angles,
unlike arc cosines.  Where points coincide or lie on a line the torsion is not defined and a straight angle has a kink:
values there are 0 (for θ: 0 or π) and gradients are zero instead of NaN.  Near a line the gradient of a torsion is
large, of the order of 1 / (r sin θ), as it must be.

Back: x_4 from x_1, x_2, x_3 and (r, θ, φ) of the new bond is the natural extension reference frame of Parsons et al.
(2005).  `from_internal` places a chain in its own frame: x_1 at the origin, x_2 on the first axis, x_3 in the plane of
the first two, on the positive side.  Of the 3n − 6 coordinates left free there (n ≥ 3),

    log |det ∂x / ∂(r, θ, φ)| = log r_2 + Σ_{i ≥ 3} (2 log r_i + log sin θ_{i−1}),

with r_i the bond from x_i to x_(i+1): plane polar coordinates for the third point, spherical ones for all others.

A tuple of points is a column of `index` (k, m), row numbers of x: the form of `edge_index`.  `index=None` takes all
runs of consecutive points, which is a chain; `scifm.geometry.runs` gives those of a batch with gaps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.geometry.distances import norm

__all__ = ["angles", "bond_lengths", "from_internal", "log_det_internal", "place", "torsions", "volumes"]


def bond_lengths(x: Tensor, index: Tensor | None = None) -> Tensor:
    """Distances of pairs: (..., n, d) and (2, m) -> (..., m); of neighbours, (..., n − 1), if index is None."""
    a, b = _take("bond_lengths", x, index, 2)
    return norm(b - a)


def angles(x: Tensor, index: Tensor | None = None) -> Tensor:
    """Angles at the middle of three points, radians in [0, π]: (..., n, d), d = 2 or 3, and (3, m) -> (..., m).

    Example:
        >>> torch.rad2deg(angles(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])))
        tensor([90.])
    """
    a, b, c = _take("angles", x, index, 3)
    if x.shape[-1] not in (2, 3):
        raise ValueError(f"angles: expected points in 2 or 3 dimensions, got {tuple(x.shape)}.")
    u, v = a - b, c - b
    if x.shape[-1] == 2:
        across = (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])[..., None]
    else:
        across = torch.linalg.cross(u, v)
    return _atan2(norm(across), (u * v).sum(-1))


def torsions(x: Tensor, index: Tensor | None = None) -> Tensor:
    """Torsion angles of four points, radians in [−π, π], signed as IUPAC: (..., n, 3) and (4, m) -> (..., m).

    Example:
        >>> right_handed = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
        >>> torch.rad2deg(torsions(right_handed))
        tensor([90.])
    """
    b1, b2, b3 = _bonds("torsions", x, index)
    first, second = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
    return _atan2(norm(b2) * (b1 * second).sum(-1), (first * second).sum(-1))


def volumes(x: Tensor, index: Tensor | None = None) -> Tensor:
    """Signed volumes b_1 · (b_2 × b_3) of four points: (..., n, 3) and (4, m) -> (..., m).

    Six times that of the tetrahedron. Of the sign of the torsion: positive for a right-handed turn; for a centre listed
    with three of its neighbours it tells which of two mirror images it is.
    """
    b1, b2, b3 = _bonds("volumes", x, index)
    return (b1 * torch.linalg.cross(b2, b3)).sum(-1)


def place(a: Tensor, b: Tensor, c: Tensor, length: Tensor, angle: Tensor, torsion: Tensor) -> Tensor:
    """The point d with |d − c| = length, angle b c d, and torsion a b c d.

    Args:
        a, b, c: (..., 3), not on a line: there the torsion means nothing, and the result is some point at the right
            distance and angle.
        length, angle, torsion: (...), radians.

    Returns:
        (..., 3).
    """
    return _place(a, b, c, _bond(length, angle, torsion))


def from_internal(length: Tensor, angle: Tensor, torsion: Tensor) -> Tensor:
    """A chain from its internal coordinates, in its own frame; undoes the three with `index=None`.

    Args:
        length: (..., n − 1), n ≥ 2.
        angle: (..., max(n − 2, 0)), radians.
        torsion: (..., max(n − 3, 0)), radians.

    Returns:
        (..., n, 3). The points are placed one after the other: errors add up along a chain, about linearly.

    Raises:
        ValueError: where the three do not belong to one chain.

    Example:
        >>> square = from_internal(torch.ones(3), torch.full((2,), torch.pi / 2), torch.zeros(1))
        >>> bool(torch.allclose(square[3], torch.tensor([0.0, 1.0, 0.0]), atol=1e-6))
        True
    """
    n = length.shape[-1] + 1
    if n < 2 or angle.shape[-1] != max(n - 2, 0) or torsion.shape[-1] != max(n - 3, 0):
        raise ValueError(
            f"from_internal: {n - 1} lengths make a chain of {n} points with {max(n - 2, 0)} angles and "
            f"{max(n - 3, 0)} torsions, got {angle.shape[-1]} and {torsion.shape[-1]}."
        )
    zero = torch.zeros_like(length[..., 0])
    x = [torch.stack([zero, zero, zero], -1), torch.stack([length[..., 0], zero, zero], -1)]
    if n > 2:
        r, theta = length[..., 1], angle[..., 0]
        x.append(x[1] + torch.stack([-r * theta.cos(), r * theta.sin(), zero], -1))
    if n > 3:
        bond = _bond(length[..., 2:], angle[..., 1:], torsion)
        for i in range(n - 3):
            x.append(_place(x[-3], x[-2], x[-1], bond[..., i, :]))
    return torch.stack(x, -2)


def log_det_internal(length: Tensor, angle: Tensor) -> Tensor:
    """log |det| of `from_internal` on the coordinates it leaves free: (..., n − 1) and (..., n − 2) -> (...).

    To be subtracted from the log-density of internal coordinates for that of points in the chain's own frame.
    −∞ at straight angles.
    """
    radial = length[..., 1:].log()  # the third point has no torsion: plane polar coordinates
    return radial.sum(-1) + (radial[..., 1:] + angle[..., 1:].sin().log()).sum(-1)


# -- steps --------------------------------------------------------------------------------------------------


def _take(who: str, x: Tensor, index: Tensor | None, k: int) -> tuple[Tensor, ...]:
    if x.ndim < 2:
        raise ValueError(f"{who}: expected points (..., n, d), got {tuple(x.shape)}.")
    if index is None:
        m = max(x.shape[-2] - k + 1, 0)
        return tuple(x.narrow(-2, min(i, x.shape[-2]), m) for i in range(k))
    if index.ndim != 2 or index.shape[0] != k:
        raise ValueError(f"{who}: expected index ({k}, m), one column for each {k} points, got {tuple(index.shape)}.")
    return tuple(x.index_select(-2, row) for row in index)


def _bonds(who: str, x: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if x.shape[-1] != 3:
        raise ValueError(f"{who}: expected points in 3 dimensions, got {tuple(x.shape)}.")
    a, b, c, d = _take(who, x, index, 4)
    return b - a, c - b, d - c


def _atan2(y: Tensor, x: Tensor) -> Tensor:
    """atan2, with value and gradient zero where both are zero."""
    nowhere = (y == 0) & (x == 0)
    return torch.atan2(y, torch.where(nowhere, torch.ones_like(x), x))


def _bond(length: Tensor, angle: Tensor, torsion: Tensor) -> Tensor:
    """The new bond in the frame of the two before it."""
    across = length * angle.sin()
    return torch.stack([-length * angle.cos(), across * torsion.cos(), across * torsion.sin()], -1)


def _place(a: Tensor, b: Tensor, c: Tensor, bond: Tensor) -> Tensor:
    along = _unit(c - b)
    up = _unit(torch.linalg.cross(b - a, along))
    side = torch.linalg.cross(up, along)
    return c + bond[..., :1] * along + bond[..., 1:2] * side + bond[..., 2:] * up


def _unit(v: Tensor) -> Tensor:
    size = norm(v)[..., None]
    return v / torch.where(size > 0, size, 1.0)
