"""Which of several bases suits the data: the one whose likelihood of what it has not seen is highest."""

from __future__ import annotations

from collections.abc import Iterable

from scifm.batch import Batch
from scifm.priors.base import Prior

__all__ = ["best"]


def best(candidates: Iterable[Prior], batch: Batch) -> Prior:
    """Fit each to the first four fifths of the data, keep the one that suits the last fifth, and fit it to all.

    The last fifth is a block: neighbours in time are alike, and a random part would favour what remembers most.

    Args:
        candidates: unfitted, on the same space; the first wins a tie, and where samples are fewer than five.
        batch: data in model units.

    Raises:
        ValueError: where none can be fitted; the message is that of the last.

    Example:
        >>> import torch
        >>> from scifm.priors import Gaussian
        >>> smooth = Batch(torch.randn(50, 1, 8).cumsum(-1))
        >>> best([Gaussian(), Gaussian(per="value")], smooth).per
        'value'
    """
    priors, cut = list(candidates), len(batch) - len(batch) // 5
    if cut == len(batch):
        return priors[0].fit(batch)
    head, tail = batch.select(range(cut)), batch.select(range(cut, len(batch)))
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
