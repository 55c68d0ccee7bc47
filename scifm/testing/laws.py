"""What all checks share: the form of a result, seeding, independence of batch mates, and how a broken law is said."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["fresh", "independent", "rounding", "same_form", "say", "seeded"]


def rounding(x: Tensor) -> float:
    """A bound on relative errors of a network's answer in the dtype of x."""
    return 1e-10 if x.dtype == torch.float64 else 1e-4


def independent(function: Callable[[Batch, Tensor], Tensor], like: Batch, x: Tensor, who: str) -> None:
    together = function(like, x)
    for b in range(len(like)):
        part = like.replace(x).select([b])
        gap = float((function(part, part.x)[0] - together[b]).abs())
        bound = (1e-4 if x.dtype == torch.float32 else 1e-9) * (1 + float(together[b].abs()))
        say(gap < bound, f"{who}: sample {b} depends on its batch mates (off by {gap:.2g}).")


def seeded(who: str, draw: Callable[[torch.Generator], Tensor], seed: int) -> None:
    state = torch.get_rng_state()
    first, again, other = draw(fresh(seed)), draw(fresh(seed)), draw(fresh(seed + 1))
    say(
        torch.equal(first, again),
        f"{who}: equal generators give different draws; take all randomness from generator.",
    )
    say(
        not torch.equal(first, other),
        f"{who}: different generators give the same draw; is the generator ignored?",
    )
    say(
        torch.equal(state, torch.get_rng_state()),
        f"{who}: draws from the global random state, not from generator.",
    )


def same_form(who: str, x: Tensor, like: Tensor) -> None:
    got, wanted = (x.shape, x.dtype, x.device), (like.shape, like.dtype, like.device)
    say(got == wanted, f"{who}: expected shape, dtype and device {wanted}, got {got}.")


def fresh(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def say(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
