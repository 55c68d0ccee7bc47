"""The contract of an equivariant velocity: what is done to the points is done to their velocities.

    translation   v(x + a)  = v(x)         one vector a for all points of a sample
    rotation      v(x R)    = v(x) R       RᵀR = 1, det R = +1, about the origin
    reflection    v(x R)    = v(x) R       RᵀR = 1, det R = −1
    permutation   v(σ x)    = σ v(x)       nodes and edges go with their points
    automorphism  v(σ x)    = σ v(x)       σ exchanges twins, which nodes and edges do not tell apart

Each sample is moved, turned, mirrored and reordered on its own.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.couplings.twins import twins
from scifm.symmetries import symmetries_of
from scifm.testing.laws import fresh, rounding, say

__all__ = ["check_equivariant"]

BROKEN = {
    "translation": "moving the points changes the answer",
    "rotation": "turning the points does not turn the answer",
    "reflection": "mirroring the points does not mirror the answer",
    "permutation": "reordering the rows does not reorder the answer",
    "automorphism": "exchanging twins, points of equal nodes and bonds, does not exchange their answers",
}
KEPT = {
    "translation": "moving the points changes nothing",
    "rotation": "turning the points just turns the answer",
    "reflection": "mirroring the points just mirrors the answer: the network cannot tell left from right",
    "permutation": "reordering the rows just reorders the answer",
    "automorphism": "exchanging twins just exchanges their answers",
}


def check_equivariant(
    velocity: nn.Module,
    batch: Batch,
    symmetries: Collection[str] | None = None,
    lacks: Collection[str] = (),
    seed: int = 0,
) -> None:
    """Whether a velocity has the symmetries it claims, to rounding in the dtype of the batch.

    Args:
        batch: sets of points: ragged rows (d,), or dense events (n, d) or (d,). Give several unlike points per sample,
            for much is symmetric that would not be otherwise: three points are their own mirror image.
        symmetries: of "translation", "rotation", "reflection", "permutation", "automorphism"; None takes
            `velocity.symmetries`.
        lacks: symmetries that must *not* be there, such as "reflection" where left must differ from right.

    Raises:
        AssertionError: naming the law that is broken, or kept although it is among `lacks`; for a velocity that is zero
            everywhere, with which every law holds.
        ValueError: for a symmetry of another name, or one that is claimed and lacked at once.

    Example:
        >>> x = torch.randn(2, 4, 3)
        >>> check_equivariant(lambda t, x, batch: x - x.mean(1, keepdim=True), Batch(x), ["translation", "rotation"])
    """
    claimed = symmetries_of(velocity) if symmetries is None else frozenset(symmetries)
    unknown = sorted((claimed | {*lacks}) - {*BROKEN})
    if unknown:
        raise ValueError(f"check_equivariant: expected symmetries among {', '.join(BROKEN)}, got {', '.join(unknown)}.")
    if claimed & {*lacks}:
        raise ValueError(f"check_equivariant: {', '.join(sorted(claimed & {*lacks}))} is both claimed and lacked.")
    generator = fresh(seed)
    t = torch.rand(len(batch), generator=generator, dtype=torch.float64).to(batch.x)
    with torch.no_grad():
        v = velocity(t, batch.x, batch)
        size = float(v.abs().max()) if v.numel() else 0.0
        say(
            size > 0,
            "Velocity: zero everywhere, so every law holds and nothing is learnt from that. Give the zero head weights "
            "first (nn.init.normal_), and more than one point to a sample.",
        )
        for word in BROKEN:  # in one order, so that a seed means the same whatever is asked
            moved, wanted = _moved(word, batch, v, generator)
            if word not in claimed and word not in lacks:
                continue
            gap = float((velocity(t, moved.x, moved) - wanted).abs().max())
            if word in claimed:
                error = gap / (1 + size)
                say(error < rounding(v), f"Velocity: {BROKEN[word]} (relative error {error:.2g}).")
            else:
                say(gap > 10 * rounding(v) * size, f"Velocity: {KEPT[word]} (relative change {gap / size:.2g}).")


def _moved(word: str, batch: Batch, v: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor]:
    """The batch after one move of each sample, and what its velocity should be."""
    points = batch.points
    index, d = points.index, points.event[0]
    assert index is not None
    if word == "permutation":
        return _reordered(batch, v, _orders(points, generator))
    if word == "automorphism":
        order = _twins(points, generator)
        x, wanted = (y.reshape(points.x.shape)[order].reshape(y.shape) for y in (batch.x, v))
        return batch.replace(x), wanted
    if word == "translation":
        shift = torch.randn(len(batch), d, generator=generator, dtype=torch.float64).to(batch.x)
        return batch.replace((points.x + shift[index]).reshape(batch.x.shape)), v
    turns = _orthogonal(len(batch), d, 1 if word == "rotation" else -1, generator).to(batch.x)[index]

    def turned(x: Tensor) -> Tensor:
        return torch.einsum("ni,nij->nj", x.reshape(-1, d), turns).reshape(x.shape)

    return batch.replace(turned(batch.x)), turned(v)


def _orthogonal(number: int, d: int, sign: int, generator: torch.Generator) -> Tensor:
    """Random orthogonal matrices (number, d, d) of the determinant `sign`."""
    q = torch.linalg.qr(torch.randn(number, d, d, generator=generator, dtype=torch.float64))[0]
    flip = torch.where(torch.linalg.det(q) * sign < 0, -1.0, 1.0).to(q)
    return torch.cat([q[..., :1] * flip[:, None, None], q[..., 1:]], -1)


def _orders(points: Batch, generator: torch.Generator) -> Tensor:
    """The rows of each sample in another order, (N,); never the same where a sample has two."""
    index = points.index
    assert index is not None  # points are ragged
    index = index.cpu()
    luck = torch.rand(len(index), generator=generator)
    order = luck.argsort(stable=True)
    order = order[index[order].argsort(stable=True)]
    if torch.equal(order, torch.arange(len(order))):
        order = order.flip(0)
        order = order[index[order].argsort(stable=True)]
    return order.to(points.x.device)


def _twins(points: Batch, generator: torch.Generator) -> Tensor:
    """The rows with twins exchanged at random, (N,)."""
    index, kind = points.index, twins(points)
    assert index is not None
    group = index.cpu() if kind is None else torch.stack([index, kind], 1).cpu().unique(dim=0, return_inverse=True)[1]
    there = group.argsort(stable=True)
    luck = torch.rand(len(group), generator=generator).argsort(stable=True)
    order = torch.empty_like(there)
    order[there] = luck[group[luck].argsort(stable=True)]
    return order.to(points.x.device)


def _reordered(batch: Batch, v: Tensor, order: Tensor) -> tuple[Batch, Tensor]:
    def moved(x: Tensor) -> Tensor:
        return x.reshape(len(order), x.shape[-1])[order].reshape(x.shape)

    if batch.dense:
        return batch.replace(moved(batch.x)), moved(v)
    nodes = {k: value[order] for k, value in batch.nodes.items()}
    joined = None if batch.edge_index is None else order.argsort()[batch.edge_index]  # where these rows are now
    return Batch(moved(batch.x), batch.index, len(batch), batch.context, nodes, joined, batch.edges), moved(v)
