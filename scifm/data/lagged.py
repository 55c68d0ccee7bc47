"""What came before, as a condition: pairs x(t) | x(t − Δ) from a series.

A forecast is a law of x(t) given x(t − Δ).  `lagged` finds for each sample the one that is a lead time earlier in the
same series, and gives it along as context.  Samples without one, at the start and behind gaps, are left out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from scifm.batch import Batch

__all__ = ["lagged"]


def lagged(
    batch: Batch,
    lead: float,
    name: str = "previous",
    *,
    source: Batch | None = None,
    units: Callable[[Batch], Batch] | None = None,
    tolerance: float = 1e-3,
) -> Batch:
    """Samples with what was `lead` days before in `context[name]`.

    Args:
        batch: dense, with `context["time"]`, (B,) in days.
        lead: Δ > 0, days.
        name: of the condition.
        source: where the earlier samples are looked for; the batch itself by default. Of two at the same time the first
            is taken.
        units: maps a batch to the units of the condition, such as a fitted transform for model units.
        tolerance: days by which times may be off.

    Returns:
        the samples that have one, in their order, with context[name] (B', *event).

    Raises:
        ValueError: without times, for a lead that is not positive, or where no sample has one.

    Example:
        >>> series = Batch(torch.arange(4.0)[:, None], context={"time": torch.tensor([0.0, 1.0, 2.0, 4.0])})
        >>> pairs = lagged(series, 1.0)
        >>> pairs.x[:, 0].tolist(), pairs.context["previous"][:, 0].tolist()
        ([1.0, 2.0], [0.0, 1.0])
    """
    source = batch if source is None else source
    for who, held in (("batch", batch), ("source", source)):
        if "time" not in held.context:
            raise ValueError(
                f'lagged: the {who} has no context["time"], days of each sample; its context holds '
                f"{sorted(held.context) or 'nothing'}."
            )
    if not 0 < lead < float("inf"):
        raise ValueError(f"lagged: expected a lead time of more than 0 days, got {lead}.")
    earlier, order = source.context["time"].double().sort(stable=True)
    wanted = batch.context["time"].double() - lead
    at = torch.searchsorted(earlier, wanted - tolerance).clamp(max=max(0, len(earlier) - 1))
    found = (earlier[at] - wanted).abs() <= tolerance if len(earlier) else torch.zeros_like(wanted, dtype=torch.bool)
    if not found.any():
        step = float(earlier.diff().median()) if len(earlier) > 1 else float("nan")
        raise ValueError(
            f"lagged: none of {len(batch)} samples has one {lead:g} days earlier; the usual step is {step:g} days, so "
            "choose a multiple of that."
        )
    before = source.select(order[at[found]])
    kept = batch.select(found)
    value = (before if units is None else units(before)).x
    return Batch(kept.x, context={**kept.context, name: value})
