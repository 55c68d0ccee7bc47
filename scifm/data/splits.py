"""Splits that do not leak: by name for samples that stand alone, by blocks of time with gaps for series.

By name, a sample stays where it is whatever else is added, dropped or sorted otherwise:

    u = sha256(name) / 2²⁵⁶:     test for u < 0.1,   valid for u < 0.2,   train for all else

Samples that say the same thing belong together, or a test would ask for what was learnt; give them one name.

Maps that follow each other are alike for days, so a random split of them would score memory (Roberts et al. 2017,
doi:10.1111/ecog.02881).  A series is cut into blocks; some blocks, evenly spread, are for test and validation, and what
lies within a gap of them is left out of the splits before: of any two samples in different splits,

    |t_i − t_j| > gap.

Where a series has a hole, or a date far from all others, most stretches of time are empty and a split may be left with
nothing; then blocks hold equal numbers of times, as many blocks as leave the poorest split most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SPLITS", "block_split", "by_name"]

SPLITS = ("train", "valid", "test")


def by_name(names: Sequence[str], valid: float = 0.1, test: float = 0.1) -> dict[str, Tensor]:
    """Sample numbers of each split, from their names.

    Args:
        names: one per sample; equal names stay together.
        valid, test: expected shares.

    Raises:
        ValueError: for shares that leave nothing, or a split without samples.

    Example:
        >>> {k: v.tolist() for k, v in by_name([f"molecule {i}" for i in range(8)], 0.25, 0.25).items()}
        {'train': [0, 1, 5], 'valid': [2, 3, 4, 6], 'test': [7]}
    """
    if not (0 < valid and 0 < test and valid + test < 1):
        raise ValueError(f"splits: expected shares between 0 and 1 that leave some to train, got {valid} and {test}.")
    at = torch.tensor([int.from_bytes(hashlib.sha256(n.encode()).digest()[:6]) / 2**48 for n in names])
    rows = {"train": at >= test + valid, "valid": (at >= test) & (at < test + valid), "test": at < test}
    found = {name: chosen.nonzero()[:, 0] for name, chosen in rows.items()}
    empty = [name for name, chosen in found.items() if len(chosen) == 0]
    if empty:
        raise ValueError(
            f"splits: of {len(names)} samples none fell into {' or '.join(empty)}; loosen the filters, or raise "
            "the shares."
        )
    return found


def block_split(
    time: Tensor | int,
    *,
    valid: float = 0.1,
    test: float = 0.2,
    gap: float | None = None,
    blocks: int = 23,
) -> dict[str, Tensor]:
    """Sample numbers of each split, in blocks of time with gaps.

    Args:
        time: of each sample, (B,) in days (or any other unit), in any order; samples of one time, such as the members
            of an ensemble, stay together.  Or their number, for samples without a time: members, cases in an order.
        valid, test: shares of the blocks, at least one block each.
        gap: time left out between splits, in the unit of `time`.  By default 3, the days that weather remembers, or
            one step where the steps are longer, but no more than a thirtieth of the whole; none between samples
            without a time.
        blocks: how many; fewer where there are fewer times.  An odd number that does not divide the year, so that test
            blocks of several years fall into all seasons.

    Raises:
        ValueError: for shares that leave nothing, times that are not finite, fewer than three times, or a gap that
            leaves a split empty however the times are cut.

    Example:
        >>> {k: v.tolist() for k, v in block_split(torch.arange(10.0), gap=1.0, blocks=5).items()}
        {'train': [0, 1, 2, 9], 'valid': [7], 'test': [4, 5]}
    """
    if not (0 < valid and 0 < test and valid + test < 1):
        raise ValueError(f"splits: expected shares between 0 and 1 that leave some to train, got {valid} and {test}.")
    if isinstance(time, int):
        t, gap = torch.arange(time, dtype=torch.float64), gap or 0.0
    else:
        t = time.detach().cpu().double().flatten()
    if not t.isfinite().all():
        raise ValueError(f"splits: {int((~t.isfinite()).sum())} of {len(t)} times are missing; drop those samples.")
    times = t.unique()
    count = min(blocks, len(times))
    if count < 3:
        raise ValueError(
            f"splits: {len(times)} different time(s) cannot be cut into train, valid and test blocks; expected at "
            "least 3. Name a dim with more entries for the samples, or read more files."
        )
    span, step = float(times[-1] - times[0]), float(times.diff().quantile(0.9))  # of months, the longest
    gap = min(max(3.0, step), span / 30) if gap is None else float(gap)
    if not 0 <= gap < span:
        raise ValueError(f"splits: expected a gap between 0 and the whole span of {span:g}, got {gap:g}.")
    # equal stretches of time; of a few times, equal numbers of them
    at = ((times - times[0]) / span * count).floor().clamp(max=count - 1).long()
    if len(at.unique()) < count:
        at = _equal(len(times), count)
    place = torch.searchsorted(times, t)
    found = _cut(t, _roles(count, valid, test)[at][place], gap)
    if empty := [name for name, rows in found.items() if len(rows) == 0]:
        shares = torch.tensor([1 - valid - test, valid, test])
        others = [_cut(t, _roles(n, valid, test)[_equal(len(times), n)][place], gap) for n in range(count, 2, -1)]
        found = max(others, key=lambda rows: float((torch.tensor([len(r) for r in rows.values()]) / shares).min()))
        if not all(map(len, found.values())):
            raise ValueError(
                f"splits: a gap of {gap:g} leaves nothing for {' or '.join(empty)} in a span of {span:g}; take fewer "
                "blocks or a shorter gap."
            )
    return found


def _equal(n: int, count: int) -> Tensor:
    """The block of each of n times, equal numbers in each."""
    return (torch.arange(n) * count) // n


def _cut(t: Tensor, roles: Tensor, gap: float) -> dict[str, Tensor]:
    """Sample numbers of each split by the role of each sample, without those that lie within a gap of another."""
    near_test = _within(t, t[roles == 2], gap)
    roles = roles.masked_fill((roles < 2) & near_test, -1)
    roles = roles.masked_fill((roles == 0) & _within(t, t[roles == 1], gap), -1)
    return {name: (roles == number).nonzero()[:, 0] for number, name in enumerate(SPLITS)}


def _roles(count: int, valid: float, test: float) -> Tensor:
    """0, 1 or 2 for train, valid and test of each block, evenly spread."""
    tests = min(max(1, round(test * count)), count - 2)
    valids = min(max(1, round(valid * count)), count - tests - 1)
    roles = torch.zeros(count, dtype=torch.long)
    roles[((torch.arange(tests) + 0.5) * count / tests).floor().long()] = 2
    rest = (roles == 0).nonzero()[:, 0]
    roles[rest[((torch.arange(valids) + 0.5) * len(rest) / valids).floor().long()]] = 1
    return roles


def _within(t: Tensor, others: Tensor, gap: float) -> Tensor:
    """Whether each time is no further than the gap from the nearest of others."""
    if len(others) == 0:
        return torch.zeros(len(t), dtype=torch.bool)
    others = others.sort().values
    right = torch.searchsorted(others, t).clamp(max=len(others) - 1)
    nearest = torch.minimum((t - others[right]).abs(), (t - others[(right - 1).clamp(min=0)]).abs())
    return nearest <= gap * (1 + 1e-9)
