"""Whether a coupling keeps the law of x0: it may use only what leaves the prior unchanged.

A coupling that turns or relabels a draw to bring it near its data keeps the marginal law of x0 only if the prior is
invariant under what it did (Klein, Krämer and Noé 2023).  A harmonic chain is invariant under rotations and not under
permutations; an anchored or masked prior under neither.

The words are those of `scifm.symmetries`.  x0 *given* x1 is no longer the prior's law, it is the aligned one: over
rotated data the marginal is right, over data that all stand one way it is not.  So the velocity must have the symmetry
too; then the flow is the one that learns from data turned at random.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

import torch
from torch import nn

from scifm.couplings.aligned import Aligned
from scifm.couplings.crossing import crossed_by
from scifm.couplings.equivariant import EquivariantTransport
from scifm.couplings.hybrid import Hybrid
from scifm.priors.base import Prior
from scifm.symmetries import symmetries_of

__all__ = ["check_legal"]


def check_legal(coupling: Any, prior: Prior, velocity: nn.Module) -> None:
    """Refuse a coupling with which x0 would not follow the prior.

    Raises:
        ValueError: where it pairs across conditions on which the prior's law depends; where it uses a symmetry that
            the prior does not have; where the velocity declares symmetries and lacks one that is used, or looks at
            what the coupling ignores; where it mixes in draws of another prior.
    """
    who = type(prior).__name__
    crossed = sorted({*crossed_by(coupling)} & {*prior.conditional})
    if crossed:
        raise ValueError(
            f"Flow: the law of {who} depends on {', '.join(crossed)}, and the coupling pairs "
            "across it: x0 would not follow the prior any more. Take them out of the coupling's ignore= and on=."
        )
    if isinstance(coupling, Hybrid) and not _equal(coupling.prior, prior):
        raise ValueError(
            f"Flow: Hybrid mixes in draws of another {type(coupling.prior).__name__} than the flow's {who}, so x0 "
            "would not follow the prior any more. Give it the same object."
        )
    used = symmetries_of(coupling)
    missing = sorted(used - symmetries_of(prior))
    if missing:
        raise ValueError(
            f"Flow: the coupling uses {', '.join(missing)}, under which {who} is not invariant (it has: "
            f"{', '.join(sorted(prior.symmetries)) or 'none'}), so x0 would not follow the prior any more. Switch that "
            "part of the coupling off, or take a prior that has the symmetry, such as MeanFreeGaussian. (automorphism: "
            "a permutation of points with equal nodes and bonds, which Aligned(permutation=False) leaves out.)"
        )
    has = getattr(velocity, "symmetries", None)
    missing = sorted(used - symmetries_of(velocity)) if has is not None else []
    if missing:
        raise ValueError(
            f"Flow: the coupling uses {', '.join(missing)}, under which {type(velocity).__name__} is not equivariant: "
            "it would learn from draws that are turned to their data and sample from draws that are not. Take an "
            "equivariant network, such as networks.EGNN, or switch that part of the coupling off."
        )
    told = sorted(_ignored(coupling) & _looked_at(velocity))
    if told:
        raise ValueError(
            f"Flow: the coupling relabels points across {', '.join(told)}, at which {type(velocity).__name__} looks, "
            "so it learns from draws whose points were exchanged and samples from others. Take them out of ignore=."
        )


def _ignored(coupling: Any) -> set[str]:
    """Names of nodes across which points of a sample are exchanged."""
    if isinstance(coupling, Hybrid):
        return _ignored(coupling.coupling)
    if isinstance(coupling, EquivariantTransport):
        return _ignored(coupling.within)
    return {*coupling.ignore} if isinstance(coupling, Aligned) else set()


def _looked_at(velocity: nn.Module) -> set[str]:
    """Names of nodes that the networks of this package look at, inside of others too."""
    from scifm.networks.conditions import Conditions  # networks, too, import this module

    return {name for m in velocity.modules() if isinstance(m, Conditions) for name in m.sizes["nodes"]}


def _equal(a: Prior, b: Prior) -> bool:
    """Whether two priors are the same, or copies with the same numbers and settings."""
    if a is b or type(a) is not type(b):
        return a is b
    ours, theirs = a.state_dict(), b.state_dict()
    return (
        ours.keys() == theirs.keys()
        and [_settings(m) for m in a.modules()] == [_settings(m) for m in b.modules()]
        and all(torch.equal(v.cpu().nan_to_num(), theirs[k].cpu().nan_to_num()) for k, v in ours.items())
    )


def _settings(module: nn.Module) -> dict[str, Any]:
    """What makes a prior beside its numbers: the law that they belong to, names, exponents."""
    plain = {k: v for k, v in vars(module).items() if k != "training" and not k.startswith("_")}
    found = {k: v for k, v in plain.items() if v is None or isinstance(v, bool | int | float | str | tuple | frozenset)}
    return {"type": type(module), **found} | {k: repr(v) for k, v in plain.items() if is_dataclass(v)}
