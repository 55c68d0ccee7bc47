"""Which of several bases suits the data: the one whose likelihood of what it has not seen is highest.

What is taken depends on the data, so a run writes it down, and takes the same when it is built again: with the weights
of a checkpoint to come, on another machine, or with made-up data where those of the training are gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior

__all__ = ["best", "choices", "halves"]

_made: ContextVar[list[tuple[int, str]] | None] = ContextVar("made", default=None)
_kept: ContextVar[list[tuple[int, str]] | None] = ContextVar("kept", default=None)


@contextmanager
def choices(kept: Sequence[Any] | None = None) -> Iterator[list[tuple[int, str]]]:
    """Within: a list of what `best` takes, call by call, as (number among the candidates, name of the class).

    Args:
        kept: such a list of before; then `best` takes the same, whatever the data.
    """
    made: list[tuple[int, str]] = []
    one, two = _made.set(made), _kept.set(None if kept is None else [(int(n), str(name)) for n, name in kept])
    try:
        yield made
    finally:
        _made.reset(one)
        _kept.reset(two)


def halves(batch: Batch) -> tuple[Tensor, Tensor]:
    """Numbers of the samples to fit to, and of the last fifth, which decides, behind a gap of a tenth.

    In the order of `context["time"]` where there is one.  Samples of one time, members of an ensemble, are alike: none
    that is fitted to is of a time that decides, unless too few would be left.
    """
    n, time = len(batch), _times(batch)
    order = time.argsort(stable=True)
    first, last = order[: n - n // 5 - n // 10], order[n - n // 5 :]
    if len(last):
        before = first[time[first] < time[last[0]]]
        first = before if len(before) >= max(2, n // 4) else first
    return first, last


def _times(batch: Batch) -> Tensor:
    time = batch.context.get("time")
    if isinstance(time, Tensor) and time.shape == (len(batch),):
        return time.cpu()
    return torch.arange(len(batch))


def best(candidates: Iterable[Prior], batch: Batch) -> Prior:
    """Fit each to the first part of the data, keep the one that suits the last fifth, and fit it to all.

    The last fifth is a block behind a gap: neighbours in time are alike, and would favour what remembers most.

    Args:
        candidates: unfitted, on the same space; the first wins a tie, and where samples, or their times, are
            fewer than five.
        batch: data in model units.

    Raises:
        ValueError: for no candidates, or where none can be fitted; the message is that of the last.

    Example:
        >>> from scifm.priors import Gaussian
        >>> smooth = Batch(torch.randn(50, 1, 8).cumsum(-1))
        >>> best([Gaussian(), Gaussian(per="value")], smooth).per
        'value'
    """
    priors = list(candidates)
    if not priors:
        raise ValueError("priors.best: expected candidates to choose from, got none.")
    number = _number(priors)
    if number is None:
        number = _compared(priors, batch)
    made = _made.get()
    if made is not None:
        made.append((number, type(priors[number]).__name__))
    return priors[number].fit(batch)


def _compared(priors: list[Prior], batch: Batch) -> int:
    if len(priors) == 1 or len(_times(batch).unique()) < 5:
        return 0
    first, last = (rows.tolist() for rows in halves(batch))
    head, tail = batch.select(first), batch.select(last)
    tail = tail.replace(tail.x.double())
    scores: list[float] = []
    failed: Exception | None = None
    for prior in priors:
        try:  # there may be too few samples for this one
            score = float(prior.fit(head).log_prob(prior.project(tail.x, tail), tail).mean())
            if not math.isfinite(score):  # NaN would win or lose by its place in the list
                raise ValueError(f"{type(prior).__name__}: its log-density of what was held out is {score}")
        except (ValueError, NotImplementedError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            failed, score = error, -math.inf
        scores.append(score)
    if max(scores) == -math.inf:
        raise ValueError(f"priors.best: none of {len(priors)} candidates could be fitted ({failed}).")
    return scores.index(max(scores))


def _number(priors: list[Prior]) -> int | None:
    """What was taken before, where that is known."""
    kept = _kept.get()
    if kept is None:
        return None
    at = len(_made.get() or ())
    names = [type(prior).__name__ for prior in priors]
    if at >= len(kept) or kept[at][0] >= len(names) or names[kept[at][0]] != kept[at][1]:
        was = f"candidate {kept[at][0]}, {kept[at][1]}" if at < len(kept) else "no choice"
        raise ValueError(
            f"priors.best: the run was trained with {was}, and its recipe now offers {', '.join(names)}. It comes from "
            "another version, perhaps; train again, or use that one."
        )
    return kept[at][0]
