"""The contract of a coupling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.couplings.assignment import assign
from scifm.couplings.twins import twins
from scifm.geometry import kabsch, random_rotation
from scifm.priors import Gaussian, Prior
from scifm.symmetries import symmetries_of
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
    mixes: bool = False,
) -> None:
    """Whether a coupling only re-pairs: each draw used once, never across sizes or conditions, seeded, x1 untouched.

    One that declares `symmetries` may turn (about the origin) and relabel its draws as well, but must not do more than
    it declares.  If it draws nothing at random, its cost must stay when draws and data are turned or relabelled alike.

    Args:
        prior: makes the draws; white noise if None. With symmetries its law should be continuous, for points are told
            apart by their distance from the origin.
        ignore: names of context, or nodes, across which the coupling may pair.
        permutes: whether it uses each draw exactly once. False for one that draws pairs from a plan: each sample must
            still get a draw of its own group, and each draw must be used once on average over 64 generators, or x0
            would no longer follow the prior.
        mixes: whether x0 is no longer one of the draws, as for `couplings.Hybrid`. Then the mean log-density of x0 over
            64 generators must be that of draws, and no more is asked.

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
    if mixes:
        _check_law(coupling, batch, prior, seed)
        return
    symmetries = symmetries_of(coupling)
    if symmetries:
        _check_orbits(symmetries, x0, paired, batch, ignore)
        if _draws_nothing(coupling, x0, batch, seed):  # else it is equivariant in law only
            _check_equivariance(coupling, symmetries, x0, paired, batch)
        return
    uses = [paired] if permutes else [coupling(x0, batch, fresh(seed + 1 + i)) for i in range(REPEATS)]
    _check_pairs(uses, x0, batch, ignore, permutes)


def _check_pairs(uses: Sequence[Tensor], x0: Tensor, batch: Batch, ignore: Sequence[str], permutes: bool) -> None:
    """Each draw goes to one sample of its group: in the one use there is, or on average over several."""
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


def _draws_nothing(coupling: Callable[..., Tensor], x0: Tensor, batch: Batch, seed: int) -> bool:
    generator = fresh(seed)
    before = generator.get_state()
    coupling(x0, batch, generator)
    return torch.equal(before, generator.get_state())


def _check_law(coupling: Callable[..., Tensor], batch: Batch, prior: Prior, seed: int) -> None:
    """E log p(x0) over pairs against draws: a number that no symmetry of the prior changes."""
    generator = fresh(seed + 1)
    drawn, mixed = [], []
    for _ in range(REPEATS):
        x0 = prior.sample(batch, generator)
        drawn.append(prior.log_prob(prior.sample(batch, generator), batch).double().mean())
        mixed.append(prior.log_prob(coupling(x0, batch, generator), batch).double().mean())
    gap = torch.stack(mixed) - torch.stack(drawn)
    error = float(gap.std()) / REPEATS**0.5
    off = abs(float(gap.mean()))
    say(
        off <= 5 * error + 1e-6,
        f"Coupling: the mean log-density of x0 under the prior is off by {off:.2g} ± {error:.1g}, so x0 does not "
        "follow the prior.",
    )


def _check_orbits(symmetries: frozenset[str], x0: Tensor, paired: Tensor, batch: Batch, ignore: Sequence[str]) -> None:
    """Each sample has a draw of its group, moved by no more than the symmetries, and each draw is used once."""
    points = batch.points
    old, new = (points.replace(x.reshape(points.x.shape)) for x in (x0, paired))
    kinds = twins(points, ignore)
    if "permutation" in symmetries and not ignore:
        kinds = None
    relabels = not symmetries.isdisjoint({"permutation", "automorphism"})
    turns = not symmetries.isdisjoint({"rotation", "reflection"})
    tolerance = 1e-3 if x0.dtype == torch.float32 else 1e-6
    for group in batch.groups(ignore):
        if not points.counts[group[0]]:
            continue
        x, y = (b.stack(b.x, group).reshape(len(group), -1, b.x.shape[-1]) for b in (old, new))
        if relabels:
            kind = None if kinds is None else points.stack(kinds, group[:1]).reshape(-1)
            x, y = _ordered(x, kind, turns), _ordered(y, kind, turns)
        x, y = x[None], y[:, None]  # every draw against every result
        if turns:
            x, y = torch.broadcast_tensors(x, y)
            x = x @ kabsch(x, y, about_centre=False, reflect="reflection" in symmetries).mT
        differ = ((x - y).abs() >= tolerance * (1 + y.abs().max())).any(-1).any(-1).double()
        say(
            not differ[torch.arange(len(group)), assign(differ)].any(),
            f"Coupling: a group of samples that share size and conditions ({group.tolist()[:8]}) does not get back "
            f"each of its own draws exactly once, moved by no more than {', '.join(sorted(symmetries))}.",
        )


def _ordered(x: Tensor, kind: Tensor | None, turns: bool) -> Tensor:
    """Points of each kind by what the moves do not change: their distance from the origin, or a coordinate."""
    order = (x.square().sum(-1) if turns else x[..., 0]).argsort(-1)
    if kind is not None:
        order = order.gather(-1, kind[order].argsort(dim=-1, stable=True))
    return torch.take_along_dim(x, order[..., None], -2)


def _check_equivariance(
    coupling: Callable[..., Tensor], symmetries: frozenset[str], x0: Tensor, paired: Tensor, batch: Batch
) -> None:
    """What draws and data cost when both are turned, or relabelled where nothing tells points apart."""
    d, cost = batch.event[-1], float((paired - batch.x).square().sum())
    moves = {}
    if not symmetries.isdisjoint({"rotation", "reflection"}):
        turn = random_rotation(1, d, fresh(0), torch.float64)[0].to(x0)
        moves["turned"] = lambda x: x @ turn.mT
    if batch.dense and not symmetries.isdisjoint({"permutation", "automorphism"}):
        order = torch.randperm(batch.event[0], generator=fresh(0)).to(x0.device)
        moves["relabelled"] = lambda x: x[:, order]
    for name, move in moves.items():
        other = batch.replace(move(batch.x))
        found = float((coupling(move(x0), other) - other.x).square().sum())
        say(
            abs(found - cost) <= 1e-3 * cost + 1e-9,
            f"Coupling: its cost is {cost:.6g}, and {found:.6g} where draws and data are {name} alike: it looks at how "
            "the data lie, and x0 given turned data would follow another law.",
        )
