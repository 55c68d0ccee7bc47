"""What a training step does as a function of its number: the samples it sees, its seeds and its learning rate."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scifm.recipe import Recipe

__all__ = ["Stretches", "draw", "learning_rate", "seed_of"]


class Stretches(NamedTuple):
    """Samples that are cheap to read one after the other: the sizes of their chunks, and how many fit into memory."""

    sizes: tuple[int, ...]
    together: int


def draw(n: int, size: int, step: int, seed: int, stretches: Stretches | None = None) -> Tensor:
    """The samples of a step, (size,): consecutive pieces of one fresh shuffle of 0..n−1 per epoch.

    With `stretches` chunks are shuffled, and samples within as many chunks as are taken together.
    """
    first, last = step * size, (step + 1) * size
    pieces = []
    for epoch in range(first // n, (last - 1) // n + 1):
        pieces.append(_shuffle(n, seed, epoch, stretches)[max(first - epoch * n, 0) : last - epoch * n])
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


@lru_cache(maxsize=2)
def _shuffle(n: int, seed: int, epoch: int, stretches: Stretches | None) -> Tensor:
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    if stretches is None:
        return torch.randperm(n, generator=generator)
    chunks = torch.arange(n).split(list(stretches.sizes))
    order, mixed = torch.randperm(len(chunks), generator=generator), []
    for window in order.split(stretches.together):
        samples = torch.cat([chunks[k] for k in window.tolist()])
        mixed.append(samples[torch.randperm(len(samples), generator=generator)])
    return torch.cat(mixed)


def seed_of(seed: int, *what: int | str) -> int:
    """The seed of one thing of a run: a hash, so that neighbours and other things share no streams."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, (seed, *what))).encode()).digest()[:7], "big")


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to nothing."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
