"""Whether a coupling keeps the law of x0: it may use only what leaves the prior unchanged.

A coupling that turns or relabels a draw to bring it near its data keeps the marginal law of x0 only if the prior is
invariant under what it did (Klein, Krämer and Noé 2023).  A harmonic chain is invariant under rotations and not under
permutations; an anchored or masked prior under neither.  And x0 *given* x1 is no longer the prior's law, it is the
aligned one: over rotated data the marginal is right, over data that all stand one way it is not.  So the velocity must
have the symmetry too; then the flow is the one that learns from data turned at random.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from scifm.couplings.crossing import crossed_by
from scifm.priors.base import Prior

__all__ = ["check_legal", "symmetries_of"]


def symmetries_of(part: Any) -> frozenset[str]:
    """The attribute `symmetries`: of a coupling, what it uses; of a velocity, what it has; none if it says nothing."""
    return frozenset(getattr(part, "symmetries", frozenset()))


def check_legal(coupling: Any, prior: Prior, velocity: nn.Module) -> None:
    """Refuse a coupling with which x0 would not follow the prior.

    Raises:
        ValueError: where it pairs across conditions on which the prior's law depends; where it uses a symmetry that
            the prior does not have; where the velocity declares symmetries and lacks one that is used.
    """
    who = type(prior).__name__
    crossed = sorted({*crossed_by(coupling)} & {*prior.conditional})
    if crossed:
        raise ValueError(
            f"Flow: the law of {who} depends on {', '.join(crossed)}, and the coupling pairs "
            "across it: x0 would not follow the prior any more. Take them out of the coupling's ignore= and on=."
        )
    used = symmetries_of(coupling)
    missing = sorted(used - prior.symmetries)
    if missing:
        raise ValueError(
            f"Flow: the coupling uses {', '.join(missing)}, under which {who} is not invariant (it has: "
            f"{', '.join(sorted(prior.symmetries)) or 'none'}), so x0 would not follow the prior any more. Switch that "
            "part of the coupling off, or take a prior that has the symmetry, such as MeanFreeGaussian."
        )
    has = getattr(velocity, "symmetries", None)
    missing = sorted(used - frozenset(used if has is None else has))
    if missing:
        raise ValueError(
            f"Flow: the coupling uses {', '.join(missing)}, under which {type(velocity).__name__} is not equivariant: "
            "it would learn from draws that are turned to their data and sample from draws that are not. Take an "
            "equivariant network, such as networks.EGNN, or switch that part of the coupling off."
        )
