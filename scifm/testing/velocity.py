"""The contract of a velocity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.testing.laws import fresh, rounding, same_form, say

__all__ = ["check_velocity"]


def check_velocity(velocity: nn.Module, batch: Batch, symmetries: Sequence[str] = (), seed: int = 0) -> None:
    """Whether a velocity network has the right form, treats samples alone, and is deterministic.

    Args:
        symmetries: "permutation" also checks that reordering a ragged sample's rows reorders the answer.

    Raises:
        AssertionError: naming the law that is broken.
        ValueError: for a symmetry of another name.
    """
    if set(symmetries) - {"permutation"}:
        raise ValueError(f'check_velocity: symmetries may hold "permutation" only, got {list(symmetries)}.')
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
        if "permutation" in symmetries:
            _permutes(velocity, batch, t, seed)


def _permutes(velocity: nn.Module, batch: Batch, t: Tensor, seed: int) -> None:
    b = int(batch.counts.argmax())
    part = batch.select([b])
    order = torch.randperm(part.x.shape[0], generator=fresh(seed)).to(part.x.device)
    nodes = {k: v[order] for k, v in part.nodes.items()}
    joined = None if part.edge_index is None else order.argsort()[part.edge_index]  # where these rows are now
    moved = Batch(part.x[order], part.index, 1, part.context, nodes, joined, part.edges)
    wanted = velocity(t[b : b + 1], part.x, part)[order]
    gap = float((velocity(t[b : b + 1], moved.x, moved) - wanted).abs().max() / (1 + wanted.abs().max()))
    say(
        gap < rounding(wanted),
        f"Velocity: reordering the rows does not reorder the answer (relative error {gap:.2g}).",
    )
