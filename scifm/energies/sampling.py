"""Samples of an energy from nothing: annealed Hamiltonian Monte Carlo, with parallel tempering against barriers.

Burn-in starts hot and cools: T_i from `hottest` to 1 in equal ratios over its first half, then stays.  Started cold,
chains freeze in whatever they fall into first: DW4 from a far start stays at E[U] = −8 for ever, where it should be
−22.5.

With several replicas a chain is R systems at temperatures in equal ratios from 1 to `hottest`, and after each move
neighbours are exchanged with probability min(1, exp((β_r − β_s)(U_r − U_s))).  What is stuck when cold walks to where
it is not.  Only the coldest is kept.

References: Swendsen and Wang 1986; Kirkpatrick et al. 1983; `scifm.energies.hmc` for the moves.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.bits import Estimate
from scifm.energies.base import Energy
from scifm.energies.bridge import Bridge
from scifm.energies.diagnostics import mean, rhat
from scifm.energies.hmc import adapt, transition
from scifm.energies.virial import Virial, virial

__all__ = ["MonteCarlo", "Samples", "sample"]


@dataclass(frozen=True)
class MonteCarlo:
    """How to sample.

    Args:
        burn_in: moves before the first save, in which the step is adapted.
        saves: kept states of each chain.
        thin: moves from one save to the next.
        leapfrog: steps of a move.
        hottest: temperature, in units of the energy's own, at which burn-in starts.
        replicas: systems per chain that exchange their places; 1 is none.
    """

    burn_in: int = 600
    saves: int = 50
    thin: int = 15
    leapfrog: int = 10
    hottest: float = 8.0
    replicas: int = 1

    def __post_init__(self) -> None:
        counts = (self.saves, self.thin, self.leapfrog, self.replicas)
        if min(counts) < 1 or self.burn_in < 0 or not 1 <= self.hottest < math.inf:
            raise ValueError(
                "MonteCarlo: expected saves, thin, leapfrog and replicas of at least 1, burn_in of at least 0 and "
                f"hottest of at least 1, got {self}."
            )


@dataclass(frozen=True, eq=False)
class Samples:
    """Kept states and what they are worth.

    Attributes:
        x: (S, C, n, d), S saves of C chains.
        energy: (S, C) in units of kT.
        step: length of a leapfrog step at the end of burn-in.
        acceptance: mean probability with which moves were accepted after burn-in.
        exchange: mean probability with which neighbouring replicas were exchanged; NaN without.
        mean_energy: with its standard error, correlation in time included.
        rhat: split R̂ of the energy; above 1.05 chains disagree.
        virial: E[x · ∇U/T] against D.
    """

    x: Tensor = field(repr=False)
    energy: Tensor = field(repr=False)
    step: float
    acceptance: float
    exchange: float
    mean_energy: Estimate
    rhat: float
    virial: Virial

    @property
    def batch(self) -> Batch:
        """All of them, (S·C, n, d), save after save."""
        return Batch(self.x.flatten(0, 1))

    def __str__(self) -> str:
        saves, chains = self.energy.shape
        exchange = "" if math.isnan(self.exchange) else f", exchanges {self.exchange:.2f}"
        return (
            f"{chains} chains of {saves} saves: E[U] {self.mean_energy} kT, R̂ {self.rhat:.3f}, {self.virial}; "
            f"acceptance {self.acceptance:.2f} at step {self.step:.3g}{exchange}"
        )


def sample(
    energy: Energy, start: Tensor, settings: MonteCarlo = MonteCarlo(), generator: torch.Generator | None = None
) -> Samples:
    """Run chains from `start`, with a progress bar on a terminal.

    Args:
        energy: what to sample.
        start: (C, n, d), one set per chain, without overlaps, e.g. from `lattice`; gives dtype and device.
        generator: source of all randomness.

    Raises:
        ValueError: where the energy of a start is not finite, or starts are not centred where they must be.

    Warns:
        UserWarning: where chains disagree (R̂ above 1.05) or some never moved.

    Example:
        >>> from scifm.energies import HarmonicCluster, lattice
        >>> g = torch.Generator().manual_seed(0)
        >>> found = sample(HarmonicCluster(), lattice(3, 2, 1.0, 64, g), MonteCarlo(50, 20, 5), g)
        >>> abs(found.mean_energy.value - 2.0) < 0.2  # D/2
        True
    """
    start = _checked(energy, start)
    chains = start.shape[0]
    ladder = torch.logspace(0, math.log10(settings.hottest), settings.replicas, dtype=torch.float64).to(start)
    x = start.expand(settings.replicas, *start.shape)
    log_step = start.new_full((settings.replicas,), math.log(0.01 * float(start.abs().max()) or 0.01))
    kept, energies, accepted, exchanged = [], [], [], []
    moved = torch.zeros(chains, dtype=torch.bool, device=start.device)
    for move in _progress(settings.burn_in + settings.saves * settings.thin):
        burning = move < settings.burn_in
        heat = settings.hottest ** (1 - 2 * move / settings.burn_in) if burning else 1.0
        target = Bridge(energy, 1 / ladder.clamp(min=heat)[:, None])
        x, value, accept = transition(target, x, log_step.exp()[:, None], settings.leapfrog, generator)
        value = value / target.beta.to(value)
        if settings.replicas > 1:
            x, value, exchange = _exchange(x, value, target.beta.to(value), move % 2, generator)
            exchanged.append(exchange)
        if burning:
            log_step = adapt(log_step, accept.mean(1), move)
            continue
        accepted.append(accept[0].mean())
        moved |= accept[0] > 1e-3
        if (move + 1 - settings.burn_in) % settings.thin == 0:
            kept.append(x[0])
            energies.append(value[0])
    return _judged(energy, torch.stack(kept), torch.stack(energies), log_step, accepted, exchanged, moved)


def _exchange(
    x: Tensor, value: Tensor, beta: Tensor, first: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbours first + 2k and first + 2k + 1 change places, (R, C, ...); each exchange is one of whole states."""
    replicas, chains = value.shape
    lower = torch.arange(first, replicas - 1, 2, device=x.device)
    gain = (beta[lower] - beta[lower + 1]) * (value[lower] - value[lower + 1])
    accept = gain.clamp(max=0).exp()
    device = x.device if generator is None else generator.device
    swap = torch.rand(accept.shape, generator=generator, dtype=accept.dtype, device=device).to(x.device) < accept
    source = torch.arange(replicas, device=x.device)[:, None].repeat(1, chains)
    source[lower] += swap.long()
    source[lower + 1] -= swap.long()
    column = torch.arange(chains, device=x.device)
    return x[source, column], value[source, column], accept.mean() if len(lower) else accept.new_ones(())


def _judged(
    energy: Energy,
    x: Tensor,
    value: Tensor,
    log_step: Tensor,
    accepted: list[Tensor],
    exchanged: list[Tensor],
    moved: Tensor,
) -> Samples:
    stuck, agreement = int((~moved).sum()), rhat(value)
    if stuck or agreement > 1.05:
        warnings.warn(
            f"sample: {stuck} of {len(moved)} chains never moved, and R̂ of the energy is {agreement:.3f} (at most 1.05 "
            "when chains agree); take a longer burn-in, a hotter start, or replicas.",
            stacklevel=3,
        )
    return Samples(
        x=x,
        energy=value,
        step=float(log_step[0].exp()),
        acceptance=float(torch.stack(accepted).mean()),
        exchange=float(torch.stack(exchanged).mean()) if exchanged else math.nan,
        mean_energy=mean(value),
        rhat=agreement,
        virial=virial(energy, Batch(x.flatten(0, 1)), chains=x.shape[1]),
    )


def _checked(energy: Energy, start: Tensor) -> Tensor:
    if start.ndim != 3 or 0 in start.shape or not start.is_floating_point():
        raise ValueError(f"sample: start must be sets (chains, n, d), got {start.dtype} {tuple(start.shape)}.")
    value = energy(start)
    if not (value.isfinite() & (value < 1e12)).all():
        raise ValueError(
            f"sample: the energy of {int((~(value < 1e12)).sum())} starts is infinite or above 1e12 kT: points lie on "
            "top of each other, and such a chain never comes free. Start from lattice(n, d, spacing, chains)."
        )
    centre = float(start.mean(1).abs().max())
    if "translation" in energy.symmetries and centre > 1e-4 * float(start.abs().max()):
        raise ValueError(f"sample: starts must have their centre at the origin, it is off by {centre:.3g}.")
    return start


def _progress(moves: int) -> range:
    from tqdm import tqdm

    return tqdm(range(moves), desc="Monte Carlo", unit="move", disable=None, leave=False)  # type: ignore[return-value]
