"""The contract of an energy and its samples."""

from __future__ import annotations

from scifm.batch import Batch
from scifm.energies import Energy
from scifm.energies.virial import Virial, virial
from scifm.testing.laws import say

__all__ = ["check_virial"]


def check_virial(energy: Energy, batch: Batch, chains: int = 1, slack: float = 0.0, errors: float = 5.0) -> Virial:
    """Whether samples can be those of exp(−U/T): E[x · ∇U/T] must be the number of degrees of freedom.

    It catches a pair counted twice or once, a wrong temperature or unit of length, samples that are not centred, and
    chains that were stopped before they forgot their start.

    Args:
        energy, batch, chains: as for `scifm.energies.virial`.
        slack: relative deviation that is let pass beside the statistical one; for published sets that are known to be
            slightly off (DW4: 0.1).
        errors: standard errors that are let pass.

    Returns:
        what was found.

    Raises:
        AssertionError: where it is another number.
    """
    found = virial(energy, batch, chains)
    bound = errors * found.stderr + slack * found.expected
    say(
        abs(found.value - found.expected) <= bound,
        f"check_virial: E[x·∇U/T] = {found.value:.4g} ± {found.stderr:.2g} on {len(batch)} samples, expected "
        f"{found.expected:g}. These are not samples of exp(−U/T): usually the pair factor (once or twice), the "
        "temperature or the unit of length is another, the sets are not centred, or the chains are not in equilibrium.",
    )
    return found
