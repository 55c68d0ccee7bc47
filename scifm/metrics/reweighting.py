"""A flow as a Boltzmann generator: its samples, weighted so that they are those of a known energy.

    x ~ q,  log w = −U(x)/T − log q(x)

Then log Z, free-energy differences and averages follow with their errors, `scifm.weights`.  Energy and flow must have
their densities on the same space: on centred sets both, in the same unit of length, with every constant.

By default the divergence is exact, whatever the size: a random one would bias the weights, and is refused unless asked
for.  That costs as many backward passes per evaluation as a sample has numbers.

References: Noé et al. 2019 (Boltzmann generators); Köhler, Klein and Noé 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.energies.base import Energy
from scifm.flow import Flow
from scifm.solve import Solver
from scifm.trace import Exact, Trace
from scifm.weights import Weights, refuse_noise, weigh

__all__ = ["Reweighted", "check_space", "reweight"]


@dataclass(frozen=True, eq=False)
class Reweighted:
    """Samples of a flow and what they weigh.

    Attributes:
        samples: in the user's units.
        energy: (B,) U/T of each.
        log_prob: (B,) of the flow, nats.
        weights: their importance weights.
        nfe: mean number of velocity evaluations of a sample.
    """

    samples: Batch = field(repr=False)
    energy: Tensor = field(repr=False)
    log_prob: Tensor = field(repr=False)
    weights: Weights
    nfe: float

    def __str__(self) -> str:
        return f"{self.weights}, nfe {self.nfe:.0f}"


def reweight(
    flow: Flow,
    energy: Energy,
    like: Batch,
    generator: torch.Generator | None = None,
    solver: Solver = Solver(),
    trace: Trace = Exact(),
    *,
    chunk: int = 256,
    allow_stochastic: bool = False,
    correct: bool = False,
) -> Reweighted:
    """Draw samples with the layout and conditions of `like` and weigh them, with a progress bar on a terminal.

    All sets should have the same size and conditions, or each would need a log Z of its own.

    Args:
        flow: in evaluation; its samples are in the unit of length of the energy.
        energy: U/T.
        like: one sample is drawn for each of its samples; its values are not looked at.
        generator: source of all randomness; the result does not depend on `chunk`.
        trace: divergence estimator.
        chunk: samples that travel together.
        allow_stochastic, correct: for a random trace, as for `scifm.weights.weigh`.

    Raises:
        ValueError: for a random trace unless allowed; where flow and energy have different degrees of freedom; for
            samples of different sizes.

    Example:
        >>> from scifm import energies, networks, priors
        >>> flow = Flow(networks.MLP((3, 2)), priors.MeanFreeGaussian(0.5))  # untrained: the prior itself
        >>> like = Batch(torch.zeros(8, 3, 2))
        >>> print(reweight(flow, energies.HarmonicCluster(spring=4.0), like, torch.Generator().manual_seed(0)))
        log Z 0.903 ± 0.000, ESS 100.0 % of 8 samples, Var(log w) ..., heaviest 12.5 %, nfe ...
    """
    _checked(flow, energy, like, chunk)
    if not allow_stochastic and trace.draw(like.select([0]), torch.Generator()) is not None:
        refuse_noise("reweight", f"{type(trace).__name__} draws probes")
    x0 = flow.prior.sample(like, generator)
    probes = trace.draw(like, generator)
    parts, energies, densities, noises, calls = [], [], [], [], []
    for samples in _progress(len(like), chunk):
        part, own = like.replace(x0).select(samples), None
        if probes is not None:
            own = torch.stack([like.replace(probe).select(samples).x for probe in probes])
        drawn, log_prob, solution = flow.sample_and_log_prob(part, solver=solver, trace=trace, x0=part.x, probes=own)
        parts.append(drawn)
        energies.append(energy.of(drawn))
        densities.append(log_prob)
        calls.append(solution.nfe.double())
        assert solution.logdet is not None
        noises.append(_noise(solution.logdet))
    value, log_prob = torch.cat(energies), torch.cat(densities)
    noise = None if probes is None else torch.cat(noises)
    weights = weigh(value, log_prob, noise=noise, allow_stochastic=allow_stochastic, correct=correct)
    return Reweighted(Batch.join(parts), value, log_prob, weights, float(torch.cat(calls).mean()))


def _noise(logdet: Tensor) -> Tensor:
    """Variance of the mean over probes, (B,); NaN, unknown, for a single one."""
    probes = logdet.shape[1]
    return logdet.var(1) / probes if probes > 1 else torch.full_like(logdet[:, 0], math.nan)


def _checked(flow: Flow, energy: Energy, like: Batch, chunk: int) -> None:
    if len(like) == 0 or chunk < 1:
        raise ValueError(f"reweight: expected at least one sample and a chunk of at least 1, got {len(like)}, {chunk}.")
    check_space(flow, energy, like)
    if bool((like.dims != like.dims[0]).any()):
        raise ValueError(
            "reweight: the samples differ in size, and each size has a log Z of its own; select samples of one size."
        )


def check_space(flow: Flow, energy: Energy, like: Batch) -> None:
    """ValueError where a flow has its density on another space than the energy: their ratio is no weight."""
    ours, theirs = flow.prior.dims(like), energy.dims(like)
    if not torch.equal(ours.double(), theirs.double()):
        raise ValueError(
            f"reweight: the flow has its density in {float(ours[0]):g} dimensions and the energy in "
            f"{float(theirs[0]):g}, so their ratio means nothing. An energy that does not change under translations "
            "needs a prior of centred sets, such as MeanFreeGaussian."
        )


def _progress(samples: int, chunk: int) -> list[range]:
    from tqdm import tqdm

    parts = [range(first, min(first + chunk, samples)) for first in range(0, samples, chunk)]
    return tqdm(parts, desc="reweighting", unit="chunk", disable=None, leave=False)  # type: ignore[return-value]
