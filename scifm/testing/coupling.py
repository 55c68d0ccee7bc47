"""The contract of a coupling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors import Gaussian, Prior
from scifm.testing.laws import fresh, same_form, say

__all__ = ["check_coupling"]

REPEATS = 64  # pairings over which the use of each draw is averaged; a count within one has spread below one


def check_coupling(
    coupling: Callable[..., Tensor],
    batch: Batch,
    prior: Prior | None = None,
    seed: int = 0,
    ignore: Sequence[str] = (),
    permutes: bool = True,
) -> None:
    """Whether a coupling only re-pairs: each draw used once, never across sizes or conditions, seeded, x1 untouched.

    Args:
        prior: makes the draws; white noise if None.
        ignore: names of context across which the coupling may pair.
        permutes: whether it uses each draw exactly once. False for one that draws pairs from a plan: each sample must
            still get a draw of its own group, and each draw must be used once on average over 64 generators, or x0
            would no longer follow the prior.

    Raises:
        AssertionError: naming the law that is broken.
    """
    prior = Gaussian() if prior is None else prior
    x0, data = prior.sample(batch, fresh(seed)), batch.x.clone()
    before = x0.clone()
    paired = coupling(x0, batch, fresh(seed))
    same_form("Coupling", paired, x0)
    say(torch.equal(batch.x, data) and torch.equal(x0, before), "Coupling: changes its arguments in place.")
    state = torch.get_rng_state()
    again = coupling(x0, batch, fresh(seed))
    say(
        torch.equal(paired, again),
        "Coupling: two calls with equal generators differ; draw from the generator only.",
    )
    say(
        torch.equal(state, torch.get_rng_state()),
        "Coupling: draws from the global random state, not from generator.",
    )
    uses = [paired] if permutes else [coupling(x0, batch, fresh(seed + 1 + i)) for i in range(REPEATS)]
    for group in batch.groups(ignore):
        if not batch.dims[group[0]]:
            continue  # empty samples have no draws
        old = batch.stack(x0, group)
        same = torch.stack([(batch.stack(new, group)[:, None] == old[None]).all(-1) for new in uses])  # which got which
        named = f"a group of samples that share size and conditions ({group.tolist()[:8]})"
        if permutes:
            say(
                bool((same.sum(1) == 1).all() and (same.sum(2) == 1).all()),
                f"Coupling: {named} does not get back each of its own draws exactly once.",
            )
        else:
            say(bool((same.sum(2) == 1).all()), f"Coupling: {named} gets draws that are not its own.")
            off = float((same.sum(1).double().mean(0) - 1).abs().max())
            say(
                off < 5 / REPEATS**0.5,
                f"Coupling: {named} has a draw that is used {off:.2g} times too often or too seldom on average, so x0 "
                "does not follow the prior.",
            )
