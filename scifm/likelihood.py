"""Negative log-likelihood in bits per dimension, in the user's units, with everything that could be wrong about it.

For continuous data, bits/dim = −log₂ p(x) / D.  Data on a lattice of width δ (integers, packed files) have no
density: a model could pile up mass on the levels and score without bound.  They get the probability of their bin,

    P(x) = ∫_bin p(x + u) du = δ^D E_u[ p(x + u) ],   u uniform on [−δ/2, δ/2)^D,
    bits/dim = −[ log (1/K) Σ_k p(x + u_k) + D log δ ] / (D log 2),

a bound that tightens with the number of draws K (Theis et al. 2016; K alone moves published figures by 0.1 bits).
The bins are centred on the levels, as rounding makes them.  All noise of sample i comes from a seed of its own, so that
the value does not depend on how the data are cut into chunks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scifm import trace as traces
from scifm.batch import Batch
from scifm.bits import BitsPerDim, Estimate
from scifm.solve import Solver, SolverError
from scifm.trace import Trace

if TYPE_CHECKING:
    from scifm.flow import Flow

__all__ = ["BitsPerDim", "Estimate", "bits_per_dim", "dequantise"]


def dequantise(batch: Batch, delta: float | None, generator: torch.Generator | None = None) -> Batch:
    """Uniform noise on [−δ/2, δ/2) added to every value; the batch itself where delta is None."""
    if delta is None:
        return batch
    if not 0 < delta < math.inf:
        raise ValueError(f"dequantise: the bin width delta must be positive and finite, got {delta}.")
    device = batch.x.device if generator is None else generator.device
    u = torch.rand(batch.x.shape, generator=generator, dtype=batch.x.dtype, device=device)
    return batch.replace(batch.x + delta * (u.to(batch.x.device) - 0.5))


def bits_per_dim(
    flow: Flow,
    batch: Batch,
    *,
    delta: float | None = None,
    draws: int = 1,
    trace: Trace | None = None,
    solver: Solver = Solver(),
    generator: torch.Generator | None = None,
    chunk: int = 64,
    check: int = 4,
    baselines: Mapping[str, Estimate] | None = None,
    progress: Callable[[int], Any] | None = None,
    keep: Callable[[range, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] | None = None,
) -> BitsPerDim:
    """Score samples in the user's units.

    Args:
        batch: data, B samples.
        delta: bin width of data on a lattice, in the user's units; None for continuous data.
        draws: dequantisation samples K; used where delta is given.
        trace: divergence estimator; None takes exact up to 64 numbers per sample, else two probes.
        solver: how to integrate.
        generator: source of all noise.
        chunk: samples that travel together; bounds the memory, does not change the value.
        check: number of samples solved again at a tighter tolerance; 0 for none.
        baselines: closed-form Gaussians to carry along, from `scifm.baselines.baselines`.
        progress: called with the number of samples done after each chunk.
        keep: `(samples, make) -> make()` or what it gave before, such as a `scifm.parts.Parts`: how a score goes on
            that was cut off.

    Raises:
        ValueError: for empty or non-finite data, samples without values, or settings out of range.
    """
    _checked(batch, draws, chunk, check)
    trace = traces.default(batch) if trace is None else trace
    draws = 1 if delta is None else draws
    device = torch.device("cpu") if generator is None else generator.device
    base = int(torch.randint(2**31, (), generator=generator, device=device))
    noise = Noise(base, delta, draws, trace)
    logs, probe_vars, nfe = [], [], 0.0
    for first in range(0, len(batch), chunk):
        samples = range(first, min(first + chunk, len(batch)))
        make = partial(_chunk, flow, batch, samples, noise, solver)
        found = make() if keep is None else keep(samples, make)
        logs.append(found["log_prob"])
        probe_vars.append(found["variance"])
        nfe += float(found["nfe"].sum())
        noise.probes = int(found["probes"])  # drawn by who made the chunk, which may be an earlier process
        if progress is not None:
            progress(len(samples))
    scale = 1 / (batch.dims.double().cpu() * math.log(2))
    bits = -torch.cat(logs) * scale
    mean = estimate(bits)
    probe_stderr = _probe_stderr(torch.cat(probe_vars), scale)
    solver_error = None
    check = min(check, len(batch))
    if check:
        tighter, factor = solver.tighter(batch.x.dtype)
        try:
            again = -_score(flow, batch, range(check), noise, tighter)[0] * scale[:check]
            solver_error = factor * float((again - bits[:check]).abs().mean())
        except SolverError:  # the tighter solve failed, not the score: the error stays unknown
            check = 0
    name = trace.__class__.__name__.lower()
    return BitsPerDim(
        value=mean.value,
        stderr=mean.stderr,
        probe_stderr=probe_stderr,
        solver_error=solver_error,
        checked=check,
        samples=len(batch),
        dims=float(batch.dims.double().mean()),
        delta=delta,
        draws=draws,
        trace=f"{noise.probes} probe(s)" if noise.probes else f"{name} trace",
        solver=str(solver),
        nfe=nfe / (len(batch) * draws),
        per_sample=tuple(bits.tolist()),
        baselines=dict(baselines or {}),
    )


@dataclass
class Noise:
    """All randomness of a score: sample i's comes from seed base + i, whatever its chunk."""

    base: int
    delta: float | None
    draws: int
    trace: Trace
    probes: int = 0

    def __call__(self, batch: Batch, samples: range) -> tuple[list[Batch], list[Tensor | None]]:
        """For each draw, the dequantised samples and their probes."""
        data: list[list[Batch]] = [[] for _ in range(self.draws)]
        probes: list[list[Tensor]] = [[] for _ in range(self.draws)]
        part = batch.select(samples)
        for number, i in enumerate(samples):
            generator = torch.Generator().manual_seed(self.base + i)
            one = part.select([number])
            for k in range(self.draws):
                data[k].append(dequantise(one, self.delta, generator))
                probe = self.trace.draw(one, generator)
                if probe is not None:
                    probes[k].append(probe)
                    self.probes = len(probe)
        return [Batch.join(d) for d in data], [torch.cat(p, 1) if p else None for p in probes]


def _chunk(flow: Flow, batch: Batch, samples: range, noise: Noise, solver: Solver) -> dict[str, Tensor]:
    log_prob, variance, nfe = _score(flow, batch, samples, noise, solver)
    return {"log_prob": log_prob, "variance": variance, "nfe": nfe, "probes": torch.tensor(noise.probes)}


def _score(flow: Flow, batch: Batch, samples: range, noise: Noise, solver: Solver) -> tuple[Tensor, Tensor, Tensor]:
    """log P (n,), its variance from the probes (n,), NaN if unknown, and evaluations (n,), on the CPU in float64."""
    logs, variances, nfe = [], [], torch.zeros(len(samples))
    for data, probes in zip(*noise(batch, samples), strict=True):
        log_prob, solution = flow.density(data, noise.trace, solver, probes)
        logs.append(log_prob.cpu())
        assert solution.logdet is not None
        columns = solution.logdet.shape[1]
        spread = solution.logdet.var(1) if columns > 1 else torch.full_like(log_prob, math.nan)  # unknown for one
        variances.append(spread.cpu() / columns)
        nfe = nfe + solution.nfe.cpu()
    log_prob, variance = torch.stack(logs), torch.stack(variances)
    # Averaging exp(log p + error) is biased upward by about half the variance of the error, in nats.
    if noise.draws > 1 and noise.probes and not (variance.mean() < 0.25):
        warnings.warn(
            f"bits_per_dim: with {noise.draws} dequantisation draws the probes' variance biases the likelihood upward "
            f"(it is {float(variance.mean()):.2g} nats² per sample, NaN if one probe); use one draw, more probes or "
            "the exact trace.",
            stacklevel=4,
        )
    weight = log_prob.softmax(0)
    total = mixture(logs, batch.select(samples), noise.delta)
    return total, (weight.square() * variance).sum(0), nfe


def estimate(values: Tensor) -> Estimate:
    """Mean and standard error of independent values (B,); the error of a single value is NaN."""
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), error)


def mixture(logs: list[Tensor], batch: Batch, delta: float | None) -> Tensor:
    """log (1/K) Σ_k p(x + u_k), with the volume of the bin where delta is given, (B,)."""
    log_prob = torch.stack(logs).logsumexp(0) - math.log(len(logs))
    return log_prob if delta is None else log_prob + batch.dims.double().cpu() * math.log(delta)


def _probe_stderr(variance: Tensor, scale: Tensor) -> float | None:
    error = float((variance * scale.square()).sum().sqrt() / len(variance))
    return None if math.isnan(error) else error


def _checked(batch: Batch, draws: int, chunk: int, check: int) -> None:
    if not batch.x.is_floating_point():
        raise ValueError(f"bits_per_dim: the data are {batch.x.dtype}; convert to floats, with delta=1 for integers.")
    empty = (batch.dims == 0).nonzero().flatten().tolist()
    if len(batch) == 0 or empty:
        got = f"sample {empty[0]} without any" if empty else "none"
        raise ValueError(f"bits_per_dim: expected at least one sample, each with at least one value; got {got}.")
    bad = batch.total((~batch.x.isfinite()).double()) > 0
    if bad.any():
        raise ValueError(
            f"bits_per_dim: sample {int(bad.nonzero()[0])} holds NaN or infinity; fill or drop it, a likelihood of "
            "missing values is not defined."
        )
    if draws < 1 or chunk < 1 or check < 0:
        raise ValueError(
            f"bits_per_dim: draws and chunk must be at least 1 and check at least 0, got {draws}, {chunk}, {check}."
        )
