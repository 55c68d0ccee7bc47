"""Superposition of clouds whose points do not correspond: a rotation and a relabelling, alternated from several starts.

    max over R and π of  Σ_i ⟨y_i, R x_π(i)⟩,    which is  min Σ_i |R x_π(i) − y_i|²  but for terms that are constant

Given R the best π is an assignment, given π the best R is in closed form, and each raises the overlap.  But alternating
ends in a local optimum, which one depends on where it begins.  Good places to begin are those in which the principal
axes of the two clouds coincide: 4 in space, 2 in the plane (`scifm.geometry.inertia`), and as the set of them turns
with the clouds, so does the result.  All starts take one sweep, the better half of them the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.couplings.assignment import assign_many
from scifm.geometry import covariance, nearest_rotation, principal_axes, random_rotation, signs

__all__ = ["Moves", "Pose", "invariants", "superpose"]

NUMBERS = 2**24  # of a chunk of cost matrices


@dataclass(frozen=True)
class Moves:
    """What may be done to a cloud, and how hard the best is searched for; see `couplings.Aligned`."""

    rotation: bool = True
    permutation: bool = True
    reflection: bool = False
    starts: int = 4
    sweeps: int = 2


@dataclass(frozen=True)
class Pose:
    """How clouds x (b, n, d) lie best on others: point i of the result is R x_order[i].

    Attributes:
        order: (b, n) long.
        rotation: (b, d, d) in float64.
        overlap: (b,) Σ_i ⟨y_i, R x_order[i]⟩ in float64.
    """

    order: Tensor
    rotation: Tensor
    overlap: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.take_along_dim(x, self.order[..., None], -2) @ self.rotation.to(x).mT


@torch.no_grad()
def superpose(
    x: Tensor, y: Tensor, kinds: Tensor | None, moves: Moves, generator: torch.Generator | None = None
) -> Pose:
    """The best pose found of each x on its y, never worse than x as it is.

    Args:
        x: (b, n, d) clouds that are moved; about the origin, which stays where it is.
        y: (b, n, d) clouds that stay.
        kinds: (b, n) or (n,) long, points of unequal kinds are not exchanged, and padding, which is 0 in x and y, has a
            kind of its own; None where all may be.
        moves: what is allowed.
        generator: for starts at random, beyond the principal frames.
    """
    d = x.shape[-1]
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, y = x.detach().to(work), y.detach().to(work)
    if kinds is not None:
        kinds = kinds.expand(x.shape[:-1])
    begin = _starts(x, y, moves, generator)
    size = max(1, NUMBERS // max(1, begin.shape[1] * x.shape[1] ** 2))
    found = [
        _search(x[i : i + size], y[i : i + size], None if kinds is None else kinds[i : i + size], moves, r)
        for i, r in zip(range(0, len(x), size), begin.split(size), strict=True)
    ]
    if not found:
        nothing = torch.zeros(x.shape[:-1], dtype=torch.long, device=x.device)
        return Pose(nothing, x.new_zeros(0, d, d, dtype=torch.float64), x.new_zeros(0, dtype=torch.float64))
    return Pose(*(torch.cat(part) for part in zip(*found, strict=True)))


def _search(x: Tensor, y: Tensor, kinds: Tensor | None, moves: Moves, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Order, rotation and overlap, from the starts r (b, s, d, d)."""
    n, d = x.shape[-2:]
    same = torch.arange(n, device=x.device).expand(len(x), n)
    unmoved = (x.double() * y).sum((-2, -1))
    permute = moves.permutation and (kinds is None or _any_shared(kinds))
    if not permute:
        order, turn = same, torch.eye(d, dtype=torch.float64, device=x.device).expand(len(x), d, d)
        if not moves.rotation:
            return order, turn, unmoved
        h = covariance(x, y).double()
        turn = nearest_rotation(h, moves.reflection)
        return order, turn, (turn * h).sum((-2, -1))
    apart = None if kinds is None else (kinds[:, :, None] != kinds[:, None, :])[:, None]
    x, y = x[:, None], y[:, None]
    for sweep in range(moves.sweeps if moves.rotation else 1):
        order = _relabel(x @ r.to(x).mT, y, apart)
        h = covariance(torch.take_along_dim(x, order[..., None], -2), y).double()
        if moves.rotation:
            r = nearest_rotation(h, moves.reflection)
        value = (r * h).sum((-2, -1))  # (b, s)
        if sweep == 0 and moves.sweeps > 1 and value.shape[1] > 1:
            best = value.topk((value.shape[1] + 1) // 2, 1).indices
            r = torch.take_along_dim(r, best[..., None, None], 1)
            order, value = torch.take_along_dim(order, best[..., None], 1), value.gather(1, best)
    best = value.argmax(1, keepdim=True)
    order = torch.take_along_dim(order, best[..., None], 1)[:, 0]
    r, value = torch.take_along_dim(r, best[..., None, None], 1)[:, 0], value.gather(1, best)[:, 0]
    keep = value >= unmoved
    r = torch.where(keep[:, None, None], r, torch.eye(d, dtype=r.dtype, device=r.device))
    return torch.where(keep[:, None], order, same), r, torch.where(keep, value, unmoved)


def _relabel(x: Tensor, y: Tensor, apart: Tensor | None) -> Tensor:
    """(b, s, n) the best partner among x (b, s, n, d) of each point of y (b, 1, n, d); never one that is set apart."""
    cost = -(y @ x.mT)
    if apart is not None:
        most = cost.abs().amax((-2, -1), keepdim=True) * (4 * cost.shape[-1]) + 1
        cost = torch.where(apart, most, cost)
    return assign_many(cost)


def _any_shared(kinds: Tensor) -> bool:
    ordered = kinds.sort(-1).values
    return bool((ordered[..., 1:] == ordered[..., :-1]).any())


def _starts(x: Tensor, y: Tensor, moves: Moves, generator: torch.Generator | None) -> Tensor:
    """(b, s, d, d) orientations of x to begin from: as it is if one, else principal frames, then some at random."""
    b, d = len(x), x.shape[-1]
    if moves.starts == 1 or not (moves.rotation and moves.permutation):
        return torch.eye(d, dtype=torch.float64, device=x.device).expand(b, 1, d, d)
    flips = signs(d, moves.reflection).double().to(x.device)[: moves.starts]
    from_, onto = principal_axes(torch.stack([x, y]))[0].double()[:, :, None]
    frames = (onto * flips[:, None]) @ from_.mT
    more = moves.starts - len(flips)
    if more <= 0:
        return frames
    extra = random_rotation(b * more, d, generator, torch.float64).to(x.device).reshape(b, more, d, d)
    if moves.reflection:  # every other one, so that both halves of the group are searched
        extra[:, ::2, :, 0] *= -1
    return torch.cat([frames, extra], 1)


@torch.no_grad()
def invariants(x: Tensor, kinds: Tensor | None, moves: Moves) -> Tensor:
    """(b, k) numbers that the moves leave unchanged; their squared distance is a guess of that of two clouds.

    Distances of the points from the origin, and distances from the planes through it along the principal axes; sorted
    among points of a kind (n,).  Without rotations, coordinates.
    """
    n = x.shape[-2]
    if moves.rotation:
        axes, _ = principal_axes(x)
        x = torch.cat([(x @ axes.to(x)).abs(), x.square().sum(-1, keepdim=True).sqrt()], -1)
    columns = x.mT  # (b, k, n)
    if moves.permutation:
        columns, order = columns.sort(-1)
        if kinds is not None:
            columns = columns.gather(-1, kinds[order].argsort(stable=True, dim=-1))
    return columns.reshape(len(x), columns.shape[1] * n)
