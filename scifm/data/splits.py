"""Splits that depend on names alone: a sample stays where it is whatever else is added, dropped or sorted otherwise.

    u = sha256(name) / 2²⁵⁶:     test for u < 0.1,   valid for u < 0.2,   train for all else

Samples that say the same thing belong together, or a test would ask for what was learnt; give them one name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SPLITS", "by_name"]

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
