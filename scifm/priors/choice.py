"""Which of several bases suits the data: the one whose likelihood of what it has not seen is highest."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior

__all__ = ["best", "halves"]


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """What is fitted to and what decides: the last fifth of n rows, and those before it but for a gap of a tenth."""
    n = len(x)
    return x[: n - n // 5 - n // 10], x[n - n // 5 :]


def best(candidates: Iterable[Prior], batch: Batch) -> Prior:
    """Fit each to the first part of the data, keep the one that suits the last fifth, and fit it to all.

    The last fifth is a block behind a gap: neighbours in time are alike, and would favour what remembers most.

    Args:
        candidates: unfitted, on the same space; the first wins a tie, and where samples are fewer than five.
        batch: data in model units.

    Raises:
        ValueError: where none can be fitted; the message is that of the last.

    Example:
        >>> from scifm.priors import Gaussian
        >>> smooth = Batch(torch.randn(50, 1, 8).cumsum(-1))
        >>> best([Gaussian(), Gaussian(per="value")], smooth).per
        'value'
    """
    priors = list(candidates)
    first, last = (rows.tolist() for rows in halves(torch.arange(len(batch))))
    if not last:
        return priors[0].fit(batch)
    head, tail = batch.select(first), batch.select(last)
    tail = tail.replace(tail.x.double())
    scores: list[float] = []
    failed: Exception | None = None
    for prior in priors:
        try:
            scores.append(float(prior.fit(head).log_prob(prior.project(tail.x, tail), tail).mean()))
        except (ValueError, NotImplementedError) as error:  # too few samples for this one
            failed = error
            scores.append(float("-inf"))
    if max(scores, default=float("-inf")) == float("-inf"):
        raise ValueError(f"priors.best: none of {len(priors)} candidates could be fitted ({failed}).")
    return priors[scores.index(max(scores))].fit(batch)
