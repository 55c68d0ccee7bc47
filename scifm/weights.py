"""Importance weights: averages over one law from samples of another, and the constant that comes with them.

    log w = −U(x) − log q(x),     x ~ q
    Z = E_q[w],     E_p[f] = E_q[w f] / E_q[w],     ESS = (Σ w)² / Σ w²   (Kish 1965)

Everything is computed from log w with the maximum taken out, in float64.  The errors are those of the delta method,
first order in the relative errors of means,

    σ²(log Z) = (n/ESS − 1)/(n − 1),     σ²(E_p[f]) = Σ w² (f − E_p[f])² / (Σ w)²

and, as a check on them, of the bootstrap.  Neither can see what was not sampled: where ESS is a handful of samples, or
log w has a variance much above one, both are too small.  So the weights carry n and Var(log w) with them.

**A noisy log q spoils weights.**  Where log q comes with an error ε of variance s², as from a random trace, E[exp(−ε)]
= exp(s²/2) ≠ 1: weights are too large by half of the variance, different for each sample, although the mean of log q,
a likelihood, is right.  So they are refused unless asked for.  With the variance known per sample, log w − s²/2 takes
out what a normal ε does, the first two cumulants; s² is itself an estimate, from K probes, and this holds where s² is
below about one (arXiv:2602.18482).

References: Kish 1965; Owen 2013 (Monte Carlo theory, ch. 9); Efron and Tibshirani 1993.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scifm.bits import Estimate

__all__ = ["Weights", "refuse_noise", "weigh"]


@dataclass(frozen=True, eq=False)
class Weights:
    """Importance weights of n samples. `weigh` makes them.

    Attributes:
        log: (n,) log w, float64, not normalised.
        noise: (n,) variance of each log q, from random probes; None where log q is exact.
        corrected: whether half of that variance was taken off.
    """

    log: Tensor = field(repr=False)
    noise: Tensor | None = field(default=None, repr=False)
    corrected: bool = False

    def __len__(self) -> int:
        return len(self.log)

    @property
    def normalised(self) -> Tensor:
        """(n,) weights that sum to one."""
        return self.log.softmax(0)

    @property
    def ess(self) -> float:
        """Effective number of samples, from 1 to n."""
        return 1 / float(self.normalised.square().sum())

    @property
    def efficiency(self) -> float:
        """ESS/n, the fraction that papers print in per cent. It falls with n while log w has heavy tails."""
        return self.ess / len(self)

    @property
    def variance(self) -> float:
        """Of log w, of weights that are not zero; 1 is an efficiency of e⁻¹ where log w is normal."""
        log = self.log[self.log.isfinite()]
        return float(log.var()) if len(log) > 1 else math.nan

    @property
    def largest(self) -> float:
        """Share of the heaviest sample."""
        return float(self.normalised.max())

    def log_z(self) -> Estimate:
        """log Z = log E_q[w], with the delta method's standard error."""
        n = len(self)
        value = float(self.log.logsumexp(0)) - math.log(n)
        return Estimate(value, math.sqrt(max(0.0, n / self.ess - 1) / (n - 1)) if n > 1 else math.nan)

    def mean(self, values: Tensor) -> Estimate:
        """E_p[f] of values (n,) at the samples.

        Raises:
            ValueError: for values that are not one finite number per sample.
        """
        values = self._one_each("mean", values)
        w = self.normalised
        value = (w * values).sum()
        return Estimate(float(value), float((w * (values - value)).square().sum().sqrt()))

    def free_energy_difference(self, a: Tensor, b: Tensor) -> Estimate:
        """F_b − F_a = −log P(b)/P(a) of two sets of states, in kT.

        Args:
            a, b: (n,) bool, which samples belong to the states; they may overlap and need not cover all.

        Raises:
            ValueError: where a state has no sample: its free energy is then not known to be anything.
        """
        a, b = (self._one_each("free_energy_difference", v).to(self.log) for v in (a, b))
        there = self.log > -math.inf  # a sample of weight zero says nothing of a state
        if not ((a > 0) & there).any() or not ((b > 0) & there).any():
            raise ValueError(
                f"Weights.free_energy_difference: {int(a[there].sum())} samples are in a and {int(b[there].sum())} in "
                "b, without those of weight zero; each state needs some, take more samples or wider states."
            )
        log_a, log_b = ((self.log + v.log()).logsumexp(0) for v in (a, b))
        # Of log P(b)/P(a): each sample's pull on the two relative means, which are correlated.
        share = (self.log - log_b).exp() * b - (self.log - log_a).exp() * a
        return Estimate(float(log_a - log_b), float(share.square().sum().sqrt()))

    def bootstrap(
        self, statistic: str = "log_z", *about: Tensor, draws: int = 200, generator: torch.Generator | None = None
    ) -> float:
        """Standard error of a statistic over resamplings of the samples, of those that leave each state a weight.

        Args:
            statistic: "log_z", "mean" or "free_energy_difference", with its arguments in `about`.
            draws: resamplings.
            generator: source of all randomness.
        """
        kinds = {"log_z": Weights.log_z, "mean": Weights.mean, "free_energy_difference": Weights.free_energy_difference}
        if statistic not in kinds or draws < 2:
            raise ValueError(
                f"Weights.bootstrap: expected a statistic of {', '.join(kinds)} and at least 2 draws, got "
                f"{statistic!r} and {draws}."
            )
        n, device = len(self), self.log.device if generator is None else generator.device
        found = []
        for _ in range(draws):
            pick = torch.randint(n, (n,), generator=generator, device=device).to(self.log.device)
            again = [v[pick] for v in about]
            there = self.log[pick] > -math.inf
            states = again if statistic == "free_energy_difference" else [there]
            if not all((v & there).any() for v in states):
                continue  # a state, or the whole, without a sample that weighs
            found.append(kinds[statistic](Weights(self.log[pick]), *again).value)
        return float(torch.tensor(found).std()) if len(found) > 1 else math.nan

    def __str__(self) -> str:
        noise = ""
        if self.noise is not None:
            noise = f", log q is noisy (s² {float(self.noise.mean()):.2g}{', corrected' * self.corrected})"
        return (
            f"log Z {self.log_z()}, ESS {100 * self.efficiency:.1f} % of {len(self)} samples, Var(log w) "
            f"{self.variance:.2f}, heaviest {100 * self.largest:.1f} %{noise}"
        )

    def _one_each(self, who: str, values: Tensor) -> Tensor:
        if values.shape != self.log.shape:
            raise ValueError(
                f"Weights.{who}: expected one value per sample, {tuple(self.log.shape)}, got {tuple(values.shape)}."
            )
        values = values.to(self.log)
        if not values.isfinite().all():
            raise ValueError(f"Weights.{who}: {int((~values.isfinite()).sum())} values are NaN or infinite.")
        return values


def weigh(
    energy: Tensor,
    log_prob: Tensor,
    *,
    noise: Tensor | None,
    allow_stochastic: bool = False,
    correct: bool = False,
) -> Weights:
    """Importance weights from energies and log-densities of the same samples.

    Args:
        energy: (n,) U/T of each sample. Infinite ones have weight zero.
        log_prob: (n,) log q, on the same space and in the same unit of length, with every constant.
        noise: (n,) variance of each log_prob's error; None says that they are exact, and must be said.
        allow_stochastic: take noisy ones all the same.
        correct: take half of the variance off log w, which removes the bias of a normal error.

    Raises:
        ValueError: for a log_prob with noise, unless allowed; for shapes that differ, NaN, or no finite weight.

    Example:
        >>> weights = weigh(torch.tensor([0.0, 0.0]), torch.tensor([-1.0, -1.0]), noise=None)
        >>> weights.log_z().value, weights.ess
        (1.0, 2.0)
    """
    if energy.ndim != 1 or energy.shape != log_prob.shape or not len(energy):
        raise ValueError(
            "weigh: expected an energy and a log-density for each sample, got shapes "
            f"{tuple(energy.shape)} and {tuple(log_prob.shape)}."
        )
    log = -energy.detach().double() - log_prob.detach().double()
    if log.isnan().any() or (log == math.inf).any() or not log.isfinite().any():
        bad = int((~(log < math.inf)).sum())
        raise ValueError(
            f"weigh: {bad} of {len(log)} weights are NaN or infinite"
            + (", and no weight is finite" if not bad else "")
            + "; look for NaN in the samples, and for a log-density of −∞ where the sample came from."
        )
    if noise is None:
        return Weights(log)
    noise = noise.detach().double()
    if noise.shape != log.shape or bool((noise < 0).any()):
        raise ValueError(
            f"weigh: noise must be a variance per sample, {tuple(log.shape)}, not negative, got {tuple(noise.shape)}."
        )
    if not allow_stochastic:
        known = noise[~noise.isnan()]
        refuse_noise("weigh", f"s² is {float(known.mean()):.2g} on average" if len(known) else "one probe, s² unknown")
    if correct:
        if noise.isnan().any():
            raise ValueError("weigh: the correction needs the variance of each log q, and so at least two probes.")
        log = log - 0.5 * noise
    return Weights(log, noise, correct)


def refuse_noise(
    who: str, size: str, cure: str = "Use trace.Exact(); or say allow_stochastic=True, with correct=True"
) -> None:
    """The ValueError for a log q with noise."""
    raise ValueError(
        f"{who}: log q comes from a random trace ({size}), and weights exp(−U − log q) of a noisy log q are biased by "
        f"exp(s²/2), differently for each sample, so that ESS, log Z and averages would be wrong. {cure} to take out "
        "s²/2."
    )
