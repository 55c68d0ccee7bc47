"""Hamiltonian Monte Carlo on sets of points, many chains at once.

A chain gets a momentum p ~ N(0, 1), follows H(x, p) = U(x) + |p|²/2 by L leapfrog steps of length ε, and goes back to
where it was with probability 1 − min(1, exp(−ΔH)).  Leapfrog keeps volumes and can be reversed, so exp(−U) is
stationary whatever ε is; ε decides only how often a move is refused.  Where translations change nothing the momentum
is centred too, and the chain stays on centred sets.

ε is drawn anew for every chain and move, from 0.7 to 1.3 of its setting: a trajectory of one length may be a period of
the system and go nowhere.  ε may be adapted during burn-in only, since afterwards that would change the stationary law.

References: Duane et al. 1987; Neal 2011 (MCMC using Hamiltonian dynamics).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from scifm.energies.base import Energy
from scifm.energies.pairs import centred

__all__ = ["adapt", "lattice", "transition"]

TARGET = 0.8  # mean acceptance that the adaptation aims at
JITTER = (0.7, 0.6)  # least factor of the step, and the range above it


def transition(
    energy: Energy,
    x: Tensor,
    step: Tensor,
    leapfrog: int,
    generator: torch.Generator | None = None,
    value: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One move of every chain.

    Args:
        energy: U in units of kT.
        x: (..., n, d) where the chains are.
        step: ε, broadcasts against (...).
        leapfrog: L.
        value: U(x), if it is known.

    Returns:
        where they are now; U there (...); the probability with which each move was accepted (...).
    """
    centre = "translation" in energy.symmetries
    value = energy(x) if value is None else value
    momentum = _normal(x, generator)
    momentum = centred(momentum, None) if centre else momentum
    epsilon = (step * (JITTER[0] + JITTER[1] * _uniform(value, generator)))[..., None, None]
    q, p = x, momentum - 0.5 * epsilon * energy.gradient(x)
    for last in range(leapfrog - 1, -1, -1):
        q = q + epsilon * p
        p = p - (epsilon if last else 0.5 * epsilon) * energy.gradient(q)
    found = energy(q)
    gain = value - found + 0.5 * (momentum.square() - p.square()).sum((-2, -1))
    accept = gain.clamp(max=0).exp().nan_to_num(0)  # a trajectory that blew up is refused
    moved = _uniform(value, generator) < accept
    # Rounding would let the centre drift over thousands of moves.
    q = centred(q, None) if centre else q
    return torch.where(moved[..., None, None], q, x), torch.where(moved, found, value), accept


def adapt(log_step: Tensor, accept: Tensor, move: int) -> Tensor:
    """log ε after move number `move`, nearer to where the mean acceptance is 0.8 (Robbins and Monro 1951)."""
    return log_step + (accept - TARGET) / (1 + 0.1 * move) ** 0.5


def lattice(
    points: int,
    width: int,
    spacing: float,
    chains: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Starts without overlap, (chains, points, width), centred: sites of a cubic lattice nearest to a centre.

    Each chain has its own centre and each point is moved by up to a tenth of the spacing.  Where points start on top
    of each other, as Gaussian starts do now and then, a chain of a steep energy never comes free and spoils every
    average.

    Example:
        >>> lattice(13, 3, 1.1, 2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 13, 3])
    """
    side = range(-1, 2 + round(points ** (1 / width)))  # enough sites around any centre within the middle cell
    site = torch.tensor(list(itertools.product(side, repeat=width)), dtype=torch.get_default_dtype())
    like = torch.zeros(chains, len(site), dtype=dtype)
    middle = (len(side) - 1) / 2 - 1 + _uniform(like[:, :width], generator) - 0.5
    distance = (site.to(like) - middle[:, None]).square().sum(-1)
    nearest = site.to(like)[distance.topk(points, 1, largest=False).indices]
    x = nearest + 0.2 * (_uniform(nearest, generator) - 0.5)
    return spacing * centred(x, None)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
