"""Is this day unusual?  The log-likelihood of each sample, with a scale on which it can be read.

    log p(x_i) = log p0(x0) + log |det|,      p_i = (1 + #{ j : log p(y_j) <= log p(x_i) }) / (1 + n)

A log-density alone means nothing: it depends on units and on the number of values.  So it is set beside those of n
fields y_j that the flow was not trained on, the run's *test* split, scored in the same way.  If x_i came from where
they did, p_i <= α would happen with a probability of at most α (to 1/(n + 1)): a conformal p-value, which holds however
bad the flow is.  A bad flow makes the test weak, not wrong.  It needs the fields to be exchangeable; neighbouring days
are alike, so that n counts for less than it says.

A low density is one meaning of unusual, and of high-dimensional fields a peculiar one: all typical fields have nearly
the same log-density (within about √(D/2) nats), and a field that is too smooth has a *higher* one than any of them.  So
both ends tell; `log_prob_prior`, that of the fitted Gaussian alone, says what second moments would have told.

References: Vovk, Gammerman and Shafer 2005; Bates et al. 2023 (conformal p-values for outliers); Nalisnick et al. 2019
(typicality).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scifm import trace as traces
from scifm.baselines import closed_form
from scifm.batch import Batch
from scifm.likelihood import bits_per_dim
from scifm.noise import Noise
from scifm.parts import Keep, made
from scifm.solve import Solver
from scifm.trace import Trace

if TYPE_CHECKING:
    from scifm.flow import Flow

__all__ = ["Densities", "densities", "p_values"]


@dataclass(frozen=True, eq=False)
class Densities:
    """Of each of B samples, in nats and in the user's units, float64 on the CPU.

    Attributes:
        log_prob: of the flow, (B,); of packed values the mean density over their bin.
        prior: of the flow's prior alone, (B,).
        bits_per_dim: −log₂ per degree of freedom, of the bin where values are packed, (B,).
        nfe: evaluations of the velocity, mean over samples and draws.
        trace: in words.
    """

    log_prob: Tensor
    prior: Tensor
    bits_per_dim: Tensor
    nfe: float
    trace: str


def densities(
    flow: Flow,
    batch: Batch,
    *,
    delta: float | None = None,
    draws: int = 1,
    trace: Trace | None = None,
    solver: Solver = Solver(),
    seed: int = 0,
    chunk: int = 64,
    keep: Keep = made,
    first: int = 0,
    progress: Callable[[int], Any] | None = None,
) -> Densities:
    """Score samples one by one; see `scifm.likelihood.bits_per_dim` for the arguments.

    Args:
        seed: of dequantisation and probes.
        first: number of the first sample among those that `keep` knows.

    Example:
        >>> from scifm import Flow, networks, priors
        >>> flow = Flow(networks.GaussianSkip(networks.MLP(2)), priors.Gaussian())  # untrained: it is its prior
        >>> found = densities(flow, Batch(torch.tensor([[0.0, 0.0], [3.0, 4.0]])))
        >>> [round(float(v), 2) for v in found.log_prob], bool((found.log_prob - found.prior).abs().max() < 1e-3)
        ([-1.84, -14.34], True)
    """

    def kept(samples: range, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return keep(range(first + samples.start, first + samples.stop), make)

    trace = traces.default(batch) if trace is None else trace
    result = bits_per_dim(
        flow, batch, delta=delta, draws=draws, trace=trace, solver=solver, chunk=chunk, check=0, keep=kept,
        generator=torch.Generator().manual_seed(seed), progress=progress,
    )  # fmt: skip
    dims = flow.prior.dims(batch).double().cpu()
    volume = 0.0 if delta is None else dims * math.log(delta)
    bits = torch.tensor(result.per_sample, dtype=torch.float64)
    base = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(seed)))  # as bits_per_dim draws it
    prior = []
    for start in range(0, len(batch), chunk):  # sample i has the noise of the seed base + i, here too
        part = batch.select(range(start, min(start + chunk, len(batch))))
        noise = Noise(base + start, delta, 1 if delta is None else draws, trace)
        prior.append(closed_form(flow, flow.prior, part, noise))
    return Densities(
        log_prob=-bits * dims * math.log(2) - volume,
        prior=torch.cat(prior) - volume,
        bits_per_dim=bits,
        nfe=result.nfe,
        trace=result.trace,
    )


def p_values(log_prob: Tensor, held_out: Tensor) -> Tensor:
    """Conformal p-values (B,) of log-densities (B,) among those of n held-out samples (n,): small is unusual.

    Example:
        >>> p_values(torch.tensor([-9.0, 0.5, 9.0]), torch.tensor([0.0, 1.0, 2.0])).tolist()
        [0.25, 0.5, 1.0]
    """
    below = torch.searchsorted(held_out.sort().values.contiguous(), log_prob.contiguous(), right=True)
    return (1 + below).double() / (1 + len(held_out))
