"""The contract of a velocity."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from scifm.batch import Batch
from scifm.symmetries import symmetries_of
from scifm.testing.equivariant import check_equivariant
from scifm.testing.laws import fresh, rounding, same_form, say

__all__ = ["check_velocity"]


def check_velocity(velocity: nn.Module, batch: Batch, symmetries: Collection[str] | None = None, seed: int = 0) -> None:
    """Whether a velocity network has the right form, treats samples alone, is deterministic, and is equivariant.

    Args:
        symmetries: those of `check_equivariant`; None takes the network's own, which it may declare as `symmetries`.

    Raises:
        AssertionError: naming the law that is broken.
        ValueError: for a symmetry of another name.
    """
    t = torch.rand(len(batch), generator=fresh(seed), dtype=batch.x.dtype).to(batch.x.device)
    with torch.no_grad():
        v = velocity(t, batch.x, batch)
        same_form("Velocity", v, batch.x)
        say(bool(v.isfinite().all()), "Velocity: not finite for finite data.")
        say(
            torch.equal(v, velocity(t, batch.x, batch)),
            "Velocity: two equal calls differ; is dropout on? call .eval().",
        )

        for b in range(len(batch)):
            rows = torch.tensor([b], device=batch.x.device)
            part = batch.select([b])
            if not part.dims[0]:
                continue
            single = velocity(t[b : b + 1], part.x, part)
            gap = float((part.stack(single, rows * 0) - batch.stack(v, rows)).abs().max())
            scale = 1 + float(v.abs().max())
            say(
                gap < rounding(v) * scale,
                f"Velocity: sample {b} depends on its batch mates (off by {gap:.2g}); no batch "
                "statistics, and no reduction over the batch axis.",
            )
    wanted = symmetries_of(velocity) if symmetries is None else symmetries
    if wanted:
        check_equivariant(velocity, batch, wanted, seed=seed)
