"""Negative log-likelihood in bits per dimension, in the user's units, with everything that could be wrong about it.

For continuous data, bits/dim = −log₂ p(x) / D.  Data on a lattice of width δ (integers, packed files) have no
density: a model could pile up mass on the levels and score without bound.  They get the probability of their bin,

    P(x) = ∫_bin p(x + u) du = δ^D E_u[ p(x + u) ],   u uniform on [−δ/2, δ/2)^D,
    bits/dim = −[ log (1/K) Σ_k p(x + u_k) + D log δ ] / (D log 2),

a bound that tightens with the number of draws K (Theis et al. 2016; K alone moves published figures by 0.1 bits).
The bins are centred on the levels, as rounding makes them.  D counts the degrees of freedom, `prior.dims`: all numbers
of a sample, but fewer where the prior lives on a subspace.

Random probes have an error, which is measured.  With a `precision` the data are scored again, each turn with new probes
on the same dequantised values, until the standard error of the mean over all probes is as small as that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scifm import trace as traces
from scifm.batch import Batch
from scifm.bits import BitsPerDim, Estimate
from scifm.noise import Noise, dequantise
from scifm.solve import Solver, SolverError
from scifm.trace import Trace

if TYPE_CHECKING:
    from scifm.flow import Flow

Keep = Callable[[range, Callable[[], "dict[str, Tensor]"]], "dict[str, Tensor]"]

__all__ = ["BitsPerDim", "Estimate", "bits_per_dim", "dequantise"]


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
    precision: float | None = None,
    most: int = 64,
    baselines: Mapping[str, Estimate] | None = None,
    progress: Callable[[int], Any] | None = None,
    keep: Keep | None = None,
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
        precision: standard error, bits/dim, that the probes are to reach, in as many turns as that takes.
        most: probes per sample after which it is given up, with a warning.
        progress: called with the number of samples done after each chunk, of every turn.
        keep: `(numbers, make) -> make()` or what it gave before for these numbers, such as a `scifm.parts.Parts`: how a
            score goes on that was cut off. The chunks of a second turn have the numbers after those of the first.

    Raises:
        ValueError: for empty or non-finite data, samples without values, or settings out of range.

    Warns:
        UserWarning: where `most` probes do not reach the precision, or too few probes meet several draws.
    """
    dims = flow.prior.dims(batch)
    _checked(batch, dims, draws, chunk, check, precision, most)
    trace = traces.default(batch) if trace is None else trace
    draws = 1 if delta is None else draws
    device = torch.device("cpu") if generator is None else generator.device
    base = int(torch.randint(2**31, (), generator=generator, device=device))
    noise = Noise(base, delta, draws, trace)
    dims = dims.double().cpu()
    scale = 1 / (dims * math.log(2))
    turns, nfe = [], 0.0
    while True:
        columns, calls = _turn(flow, batch, range(len(batch)), noise, solver, chunk, len(turns), progress, keep)
        turns.append(columns)
        nfe += float(calls.sum())
        log_prob, variance = _pooled(torch.cat(turns, 2), dims, noise)
        probe_stderr = _probe_stderr(variance, scale)
        if _enough(probe_stderr, precision, noise.probes, len(turns), most, len(batch)):
            break
    bits = -log_prob * scale
    mean = estimate(bits)
    solver_error = None
    check = min(check, len(batch))
    if check:
        few, (tighter, factor) = dims[:check], solver.tighter(batch.x.dtype)
        try:
            again = _turn(flow, batch, range(check), noise, tighter, chunk)[0]
            change = _pooled(again, few, noise)[0] - _pooled(turns[0][:, :check], few, noise)[0]
            solver_error = factor * float((change * scale[:check]).abs().mean())
        except SolverError:  # the tighter solve failed, not the score: the error stays unknown
            check = 0
    name = type(trace).__name__
    probes = noise.probes * len(turns)
    return BitsPerDim(
        value=mean.value,
        stderr=mean.stderr,
        probe_stderr=probe_stderr,
        solver_error=solver_error,
        checked=check,
        samples=len(batch),
        dims=float(dims.mean()),
        delta=delta,
        draws=draws,
        trace=f"{name.lower()} trace" if not probes else f"{probes} probe(s)" + f" {name}" * (name != "Hutchinson"),
        solver=str(solver),
        nfe=nfe / (len(batch) * draws),
        per_sample=tuple(bits.tolist()),
        baselines=dict(baselines or {}),
        probes=probes,
    )


def _turn(
    flow: Flow,
    batch: Batch,
    samples: range,
    noise: Noise,
    solver: Solver,
    chunk: int,
    turn: int = 0,
    progress: Callable[[int], Any] | None = None,
    keep: Keep | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-densities (draws, n, K), one per probe, and evaluations (n,), on the CPU in float64."""
    pieces, calls, before = [], [], turn * len(batch)
    for first in range(samples.start, samples.stop, chunk):
        part = range(first, min(first + chunk, samples.stop))
        make = partial(_chunk, flow, batch, part, noise, solver, turn)
        found = make() if keep is None else keep(range(before + part.start, before + part.stop), make)
        pieces.append(found["columns"])
        calls.append(found["nfe"])
        noise.probes = int(found["probes"])  # drawn by who made the chunk, which may be an earlier process
        if progress is not None:
            progress(len(part))
    return torch.cat(pieces, 1), torch.cat(calls)


def _chunk(flow: Flow, batch: Batch, part: range, noise: Noise, solver: Solver, turn: int) -> dict[str, Tensor]:
    columns, nfe = [], torch.zeros(len(part))
    for data, probes in zip(*noise(batch, part, turn), strict=True):
        log_prob, solution = flow.density(data, noise.trace, solver, probes)
        assert solution.logdet is not None
        each = solution.logdet - solution.logdet.mean(1, keepdim=True)
        columns.append((log_prob[:, None] + each).cpu())
        nfe = nfe + solution.nfe.cpu()
    return {"columns": torch.stack(columns), "nfe": nfe, "probes": torch.tensor(noise.probes)}


def _pooled(columns: Tensor, dims: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """log P (n,) from log-densities (draws, n, K), and its variance from the probes (n,), NaN if unknown."""
    log_prob, probes = columns.mean(2), columns.shape[2]
    # One probe has no spread, which is not the same as no error.
    variance = columns.var(2) / probes if probes > 1 else torch.full_like(log_prob, math.nan)
    # Averaging exp(log p + error) is biased upward by about half the variance of the error, in nats.
    if noise.draws > 1 and noise.probes and not (variance.mean() < 0.25):
        warnings.warn(
            f"bits_per_dim: with {noise.draws} dequantisation draws the probes' variance biases the likelihood upward "
            f"(it is {float(variance.mean()):.2g} nats² per sample, NaN if one probe); use one draw, more probes or "
            "the exact trace.",
            stacklevel=3,
        )
    weight = log_prob.softmax(0)
    return mixture(log_prob, dims, noise.delta), (weight.square() * variance).sum(0)


def _enough(error: float | None, precision: float | None, probes: int, turns: int, most: int, size: int) -> bool:
    """Whether to stop. An error that rests on fewer than eight differences is not believed: two may agree by chance."""
    if precision is None or not probes:
        return True
    if error is not None and error <= precision and size * (probes * turns - 1) >= 8:
        return True
    if (turns + 1) * probes <= most:
        return False
    warnings.warn(
        f"bits_per_dim: the probes' standard error is {'unknown' if error is None else f'{error:.2g}'} bits/dim after "
        f"{turns * probes} probes per sample, precision={precision:g} was asked for; raise most={most}, score more "
        "samples, or take an exact trace (Exact, or Colours for a local network).",
        stacklevel=3,
    )
    return True


def estimate(values: Tensor) -> Estimate:
    """Mean and standard error of independent values (B,); the error of a single value is NaN."""
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), error)


def mixture(log_prob: Tensor, dims: Tensor, delta: float | None) -> Tensor:
    """log (1/K) Σ_k p(x + u_k) from (K, B), with the volume δ^D of the bin where delta is given, (B,)."""
    mean = log_prob.logsumexp(0) - math.log(len(log_prob))
    return mean if delta is None else mean + dims * math.log(delta)


def _probe_stderr(variance: Tensor, scale: Tensor) -> float | None:
    error = float((variance * scale.square()).sum().sqrt() / len(variance))
    return None if math.isnan(error) else error


def _checked(
    batch: Batch, dims: Tensor, draws: int, chunk: int, check: int, precision: float | None, most: int
) -> None:
    if not batch.x.is_floating_point():
        raise ValueError(f"bits_per_dim: the data are {batch.x.dtype}; convert to floats, with delta=1 for integers.")
    empty = (dims == 0).nonzero().flatten().tolist()
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
    if (precision is not None and not 0 < precision < math.inf) or most < 1:
        raise ValueError(
            f"bits_per_dim: precision must be a positive number of bits/dim and most at least 1, got {precision} and "
            f"{most}."
        )
