"""Alignment within a pair: each draw is turned and its points are relabelled until it lies near its own sample.

    x0' = R x0 π,   (R, π) = argmin Σ_i |R x0_π(i) − x1_i|²

Where the prior does not tell x0 from x0' and the velocity turns and relabels with its input, the pair (x0', x1) teaches
the same flow as (x0, x1) along a shorter path (Klein, Krämer and Noé 2023; Song et al. 2023).  x0' has the prior's law
over data that are turned and relabelled at random, which is what an equivariant velocity learns from in effect; `Flow`
refuses the coupling where prior or velocity lack a symmetry that it uses.

It is turned about the origin, under which a prior is invariant: centre data and prior, as MeanFreeGaussian demands.
Rotation and relabelling are alternated (`scifm.couplings.superpose`): a local optimum, from several starts.  Points are
only exchanged with their like (`scifm.couplings.twins`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.blocks import blocks
from scifm.couplings.pairing import check_draws
from scifm.couplings.superpose import Moves, superpose
from scifm.couplings.twins import twins

__all__ = ["Aligned", "check_points"]


@dataclass(frozen=True)
class Aligned:
    """Rotation and permutation of each draw onto its sample; no draw leaves its sample.

    For sets of points: ragged rows (d,) or dense events (n, d), in the plane or in space if they are turned.

    Args:
        rotation: turn draws, det +1.
        permutation: relabel points that nothing tells apart: equal in all nodes, and where there are edges with the
            same neighbours by equal edges.
        reflection: mirror draws as well. Not for molecules, whose mirror images differ.
        starts: orientations to begin from: 1 is the draw as it is; 2 to 4 principal frames (2 in the plane, twice as
            many with reflections), beyond these some at random.
        sweeps: of relabelling and turning, from each start.
        ignore: names of nodes that the velocity does not look at, so that they do not tell points apart.

    Raises:
        ValueError: where nothing is allowed, or starts or sweeps are fewer than 1.

    Example:
        >>> y = torch.tensor([[[0.0, 1.0], [0.0, -1.0], [3.0, 0.0], [-3.0, 0.0]]])
        >>> Aligned()(y[:, [2, 3, 1, 0]].flip(-1), Batch(y)).round()
        tensor([[[ 0.,  1.],
                 [ 0., -1.],
                 [ 3.,  0.],
                 [-3.,  0.]]])
    """

    rotation: bool = True
    permutation: bool = True
    reflection: bool = False
    starts: int = 4
    sweeps: int = 2
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.rotation or self.permutation) or (self.reflection and not self.rotation):
            raise ValueError(
                "Aligned: expected rotation or permutation, and reflection only beside rotation; for plain pairs use "
                "couplings.independent or OptimalTransport."
            )
        if self.starts < 1 or self.sweeps < 1:
            raise ValueError(f"Aligned: expected starts and sweeps of at least 1, got {self.starts}, {self.sweeps}.")
        if isinstance(self.ignore, str):
            raise ValueError(f'Aligned: ignore must be a tuple of names, e.g. ("{self.ignore}",), got {self.ignore!r}.')

    @property
    def symmetries(self) -> frozenset[str]:
        """What prior and velocity must not notice: "rotation", "reflection", and for relabelling "automorphism", or
        "permutation" where points that some nodes tell apart are exchanged."""
        relabelling = "permutation" if self.ignore else "automorphism"
        used = {"rotation": self.rotation, relabelling: self.permutation, "reflection": self.reflection}
        return frozenset(name for name, yes in used.items() if yes)

    @property
    def moves(self) -> Moves:
        return Moves(self.rotation, self.permutation, self.reflection, self.starts, self.sweeps)

    @torch.no_grad()
    def __call__(self, x0: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """x0 (rows, *event), each draw turned and relabelled onto its sample in `batch.x`.

        Raises:
            ValueError: where x0 is not shaped and typed like the data, either is empty or not finite, or samples are
                not sets of points.
        """
        check_draws("Aligned", x0, batch)
        check_points("Aligned", batch, self.rotation)
        points = batch.points
        draws, kinds = x0.detach().reshape(points.x.shape), twins(points, self.ignore)
        moved = []
        for block in blocks(points):
            x, y = block.pad(draws), block.pad(points.x)
            kind = None
            if kinds is not None:
                kind = torch.where(block.mask, block.pad(kinds), -1)
            elif not block.full:
                kind = torch.where(block.mask, 0, -1)
            moved.append(self._move(superpose(x, y, kind, self.moves, generator), x))
        return blocks(points).rows(moved).reshape(x0.shape)

    def _move(self, pose, x: Tensor) -> Tensor:
        if self.rotation:
            return pose(x)
        return torch.take_along_dim(x, pose.order[..., None], -2)


def check_points(who: str, batch: Batch, turned: bool) -> None:
    """Refuse samples that are not sets of points, in the plane or in space where they are turned."""
    event = batch.event[1:] if batch.dense else batch.event
    if len(event) != 1 or (turned and event[0] not in (2, 3)):
        raise ValueError(
            f"{who}: expected sets of points, dense events (n, d) or ragged rows (d,)"
            f"{', d = 2 or 3' if turned else ''}; got {'dense' if batch.dense else 'ragged'} {batch.event}. "
            "Other data are paired by couplings.OptimalTransport."
        )
