"""The contract of a coupling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors import Gaussian, Prior
from scifm.testing.laws import fresh, same_form, say

__all__ = ["check_coupling"]


def check_coupling(
    coupling: Callable[..., Tensor],
    batch: Batch,
    prior: Prior | None = None,
    seed: int = 0,
    ignore: Sequence[str] = (),
) -> None:
    """Whether a coupling only re-pairs: each draw used once, never across sizes or conditions, seeded, x1 untouched.

    Args:
        prior: makes the draws; white noise if None.
        ignore: names of context across which the coupling may pair.

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
    for group in batch.groups(ignore):
        if not batch.dims[group[0]]:
            continue  # empty samples have no draws
        new, old = batch.stack(paired, group), batch.stack(x0, group)
        same = (new[:, None] == old[None]).all(-1)
        say(
            bool((same.sum(0) == 1).all() and (same.sum(1) == 1).all()),
            "Coupling: a group of samples that share "
            f"size and conditions ({group.tolist()[:8]}) does not get back each of its own draws exactly once.",
        )
