"""log Z of an energy by annealed importance sampling.

Chains start as draws of a Gaussian, whose constant is known, and go through laws exp(−U_β), β_0 = 0 < … < β_K = 1,
with one move of Hamiltonian Monte Carlo at each.  The weight of a chain,

    log w = log Z_0 + Σ_k (β_k − β_(k−1)) (|x|²/2σ² − U/T)(x_(k−1)),     E[w] = Z,

is unbiased however short the moves are, and chains are independent: the mean of their weights has an honest error, as
long as their effective number is not a handful.  Its logarithm is low by about half the squared error.  Chains that
start with points on top of each other may never come apart, some tenth of them for LJ13: they end with weight zero,
which costs chains and biases nothing.

Where to put the levels and how long the steps should be is found by a pilot of fewer chains, which resamples, and
takes the next β where the effective number of chains that a step leaves (conditional ESS) is a set fraction.  The
pilot's numbers are then fixed: adapting them in the run itself would bias it.

References: Neal 2001 (annealed importance sampling); Zhou, Johansen and Aston 2016 (conditional ESS).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.energies.base import Energy
from scifm.energies.bridge import Bridge
from scifm.energies.hmc import adapt, transition
from scifm.priors.mean_free import MeanFreeGaussian
from scifm.weights import Weights, weigh

__all__ = ["Annealed", "Levels", "annealed", "pilot"]

MOVES = 4  # of the pilot at each level, so that its steps are adapted


@dataclass(frozen=True, eq=False)
class Levels:
    """Where an annealing stops on its way.

    Attributes:
        beta: (K + 1,) rising from 0 to 1, float64.
        log_step: (K + 1,) logarithm of the leapfrog step at each.
        std: σ of the Gaussian at the start.
        leapfrog: steps of a move.
    """

    beta: Tensor = field(repr=False)
    log_step: Tensor = field(repr=False)
    std: float
    leapfrog: int

    def __len__(self) -> int:
        return len(self.beta) - 1

    def finer(self, times: int) -> Levels:
        """Each step of β cut into `times` equal ones; the variance of log w falls with their number."""
        part = torch.arange(times, dtype=torch.float64) / times

        def between(values: Tensor) -> Tensor:
            inner = values[:-1, None] + part * values.diff()[:, None]
            return torch.cat([inner.flatten(), values[-1:]])

        return Levels(between(self.beta), between(self.log_step), self.std, self.leapfrog)


@dataclass(frozen=True, eq=False)
class Annealed:
    """Ends of chains, (C, n, d), and their weights, whose `log_z()` is that of the energy."""

    x: Tensor = field(repr=False)
    weights: Weights

    @property
    def batch(self) -> Batch:
        return Batch(self.x)


def annealed(energy: Energy, like: Batch, levels: Levels, generator: torch.Generator | None = None) -> Annealed:
    """Annealed importance sampling with one move per level, with a progress bar on a terminal.

    Args:
        energy: that does not change under translations.
        like: dense (C, n, d), one independent chain per sample; gives dtype and device, its values are not looked at.
        levels: from `pilot`, usually made `finer`.
        generator: source of all randomness.

    Example:
        >>> from scifm.energies import HarmonicCluster
        >>> g, like = torch.Generator().manual_seed(0), Batch(torch.zeros(500, 3, 2))
        >>> levels = pilot(HarmonicCluster(4.0), like, std=1.0, generator=g)
        >>> found = annealed(HarmonicCluster(4.0), like, levels, g).weights.log_z()
        >>> abs(found.value - 2 * math.log(2 * math.pi / 4)) < 5 * found.stderr
        True
    """
    x, log = _start(energy, like, levels.std, generator)
    beta, step = levels.beta.tolist(), levels.log_step.exp().to(x)
    for k in _progress(len(levels), "annealing"):
        log = log + (beta[k + 1] - beta[k]) * _slope(energy, x, levels.std)
        if k + 1 < len(levels):  # a move at β = 1 changes no weight
            x = transition(Bridge(energy, beta[k + 1], levels.std), x, step[k + 1], levels.leapfrog, generator)[0]
    return Annealed(x, weigh(-log, torch.zeros_like(log), noise=None))


def pilot(
    energy: Energy,
    like: Batch,
    *,
    std: float = 1.0,
    keep: float = 0.9,
    leapfrog: int = 5,
    generator: torch.Generator | None = None,
) -> Levels:
    """Find levels and steps for `annealed` with a few chains that resample.

    Args:
        like: dense (C, n, d), one chain per sample; some hundred are enough.
        std: σ of the Gaussian at the start; best where it is about as wide as the samples.
        keep: effective fraction of the chains that each level keeps.

    Raises:
        ValueError: for settings out of range, or an energy that changes under translations.
        RuntimeError: where the levels do not arrive.
    """
    if not (0 < keep < 1 and len(like) >= 2 and leapfrog >= 1):
        raise ValueError(
            f"pilot: expected keep between 0 and 1, at least 2 chains and 1 leapfrog step, got {keep}, {len(like)} and "
            f"{leapfrog}."
        )
    x = _start(energy, like, std, generator)[0]
    log = x.new_zeros(len(x), dtype=torch.float64)
    x, log_step = _settled(
        Bridge(energy, 0.0, std), x, x.new_tensor(math.log(0.3 * std)), leapfrog, generator, 5 * MOVES
    )
    beta, betas, log_steps = 0.0, [0.0], [float(log_step)]
    while beta < 1:
        if len(betas) > 10_000:
            raise RuntimeError(f"pilot: {len(betas)} levels and β is only {beta:.3g}; take a wider or narrower std.")
        slope = _slope(energy, x, std)
        beta, step = _next(beta, slope, log.softmax(0), keep)
        log = log + step * slope
        if 1 / float(log.softmax(0).square().sum()) < 0.5 * len(x):
            x, log = x[_systematic(log.softmax(0), generator)], torch.zeros_like(log)
        x, log_step = _settled(Bridge(energy, beta, std), x, log_step, leapfrog, generator, MOVES)
        betas.append(beta)
        log_steps.append(float(log_step))
    return Levels(torch.tensor(betas, dtype=torch.float64), torch.tensor(log_steps, dtype=torch.float64), std, leapfrog)


def _settled(
    target: Energy, x: Tensor, log_step: Tensor, leapfrog: int, generator: torch.Generator | None, moves: int
) -> tuple[Tensor, Tensor]:
    """The chains after some moves, and a step that suits them."""
    for move in range(moves):
        x, _, accept = transition(target, x, log_step.exp(), leapfrog, generator)
        log_step = adapt(log_step, accept.mean(), move)
    return x, log_step


def _start(energy: Energy, like: Batch, std: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Draws of the Gaussian (C, n, d), and log Z_0 (C,) float64."""
    like.grid("annealed")
    if "translation" not in energy.symmetries:
        raise ValueError(
            f"annealed: {type(energy).__name__} changes under translations, and the Gaussian at the start is one of "
            "centred sets; declare the symmetry if it is there."
        )
    base = MeanFreeGaussian(std)
    constant = 0.5 * base.dims(like).double() * math.log(2 * math.pi * std**2)
    return base.sample(like, generator), constant


def _slope(energy: Energy, x: Tensor, std: float) -> Tensor:
    """|x|²/2σ² − U/T, the derivative of log w by β, (C,) float64."""
    return (Bridge(energy, 0.0, std).base(x) - energy(x)).double()


def _next(beta: float, slope: Tensor, weight: Tensor, keep: float) -> tuple[float, float]:
    """The next β, and how far it is, so that the conditional ESS is the fraction `keep`; by bisection."""

    def kept(step: float) -> float:
        log = step * slope
        w = (log - log.max()).exp()
        return float((weight * w).sum() ** 2 / (weight * w.square()).sum())

    if kept(1 - beta) >= keep:
        return 1.0, 1 - beta
    low, high = -80.0, math.log(1 - beta)  # of log step: an overlap may ask for very short ones
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kept(math.exp(middle)) > keep else (low, middle)
    return beta + math.exp(low), math.exp(low)


def _systematic(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers of the chains that go on, (C,), in proportion to their weights."""
    chains = len(weight)
    device = weight.device if generator is None else generator.device
    offset = torch.rand((), generator=generator, device=device).to(weight)
    place = (torch.arange(chains, device=weight.device) + offset) / chains
    return torch.searchsorted(weight.cumsum(0), place).clamp(max=chains - 1)


def _progress(steps: int, what: str) -> range:
    from tqdm import tqdm

    return tqdm(range(steps), desc=what, unit="level", disable=None, leave=False)  # type: ignore[return-value]
