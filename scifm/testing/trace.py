"""The contract of a divergence estimator."""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.testing.laws import fresh, say, seeded
from scifm.trace import Trace, Velocity

__all__ = ["check_trace", "full_trace"]


def check_trace(
    trace: Trace, velocity: Velocity | None = None, like: Batch | None = None, seed: int = 0, draws: int = 1500
) -> None:
    """Whether a trace has the right form, hits the Jacobian's own trace, is seeded, and knows its error.

    A trace that draws nothing must be exact to rounding; one that draws must be right on average, within five standard
    errors over many draws, and the spread of its columns must be as large as its error is.

    Args:
        velocity, like: a field that the trace is made for, smooth, mixing the numbers of a sample, and samples for it.
            Without them: nonlinear fields on vectors (as many samples as numbers), grids, and ragged sets.
        draws: how many, each for a copy of the sample.

    Raises:
        AssertionError: naming the law that is broken.
    """
    cases = [(_mixing, part) for part in _layouts()] if velocity is None or like is None else [(velocity, like)]
    for field, batch in cases:
        batch = batch.to(torch.float64)
        t = torch.linspace(0.2, 0.8, len(batch), dtype=torch.float64)
        probes = trace.draw(batch, fresh(seed))
        _form(trace, field, t, batch, probes)
        if probes is not None:
            seeded("Trace.draw", lambda g, like=batch: _drawn(trace, like, g), seed)
        _single(trace, field, t, batch, probes)
        _alone(trace, field, t, batch, probes)
        _attached(trace, field, t, batch, probes)
        truth = full_trace(field, t, batch)
        for b in range(len(batch)):
            if batch.dims[b]:
                many = batch.select([b] * (1 if probes is None else draws))
                with torch.no_grad():
                    found = trace(field, t[[b] * len(many)], many.x, many, trace.draw(many, fresh(seed + b)))[1]
                _right(found, float(truth[b]), probes is None)


def full_trace(velocity: Velocity, t: Tensor, batch: Batch) -> Tensor:
    """The trace of each sample's whole Jacobian, (B,), one sample at a time."""
    traces = []
    for b in range(len(batch)):
        part = batch.select([b])
        n = part.x.numel()

        def alone(x: Tensor, part: Batch = part, time: Tensor = t[b : b + 1]) -> Tensor:
            return velocity(time, x, part)

        jacobian = torch.autograd.functional.jacobian(alone, part.x) if n else part.x.new_zeros(0)
        traces.append(torch.as_tensor(jacobian).reshape(n, n).trace() if n else part.x.new_zeros(()))
    return torch.stack(traces)


def _form(trace: Trace, field: Velocity, t: Tensor, batch: Batch, probes: Tensor | None) -> None:
    with torch.no_grad():
        v, divergence = trace(field, t, batch.x, batch, probes)
        wanted = field(t, batch.x, batch)
        again = trace(field, t, batch.x, batch, probes)[1]
    say(probes is None or probes.dtype == batch.x.dtype, "Trace.draw: probes must have the dtype of the data.")
    say(v.shape == wanted.shape and torch.allclose(v, wanted), "Trace: v is not the velocity.")
    say(
        divergence.ndim == 2 and len(divergence) == len(batch) and divergence.dtype == batch.x.dtype,
        f"Trace: the divergence must be {batch.x.dtype} ({len(batch)}, K), a column per estimate, got "
        f"{divergence.dtype} {tuple(divergence.shape)}.",
    )
    say(
        torch.equal(divergence, again),
        "Trace: equal probes give unequal answers: all randomness belongs in draw, once per solve.",
    )


def _single(trace: Trace, field: Velocity, t: Tensor, batch: Batch, probes: Tensor | None) -> None:
    half = batch.to(torch.float32)
    drawn = trace.draw(half, fresh(0))
    say(drawn is None or drawn.dtype == torch.float32, "Trace.draw: probes must have the dtype of the data.")
    with torch.no_grad():
        wide = trace(field, t, batch.x, batch, probes)[1]
        narrow = trace(field, t.float(), half.x, half, None if probes is None else probes.float())[1]
    say(narrow.dtype == torch.float32, f"Trace: the divergence of float32 data is {narrow.dtype}.")
    gap = float(((narrow - wide).abs() / (1 + wide.abs())).max())
    say(gap < 1e-3, f"Trace: float32 is off by {gap:.2g} (relative) from float64.")


def _alone(trace: Trace, field: Velocity, t: Tensor, batch: Batch, probes: Tensor | None) -> None:
    with torch.no_grad():
        together = trace(field, t, batch.x, batch, probes)[1]
        for b in range(len(batch)):
            one = batch.select([b])
            own = None if probes is None else torch.stack([batch.replace(p).select([b]).x for p in probes])
            single = trace(field, t[b : b + 1], one.x, one, own)[1]
            gap = float((single[0] - together[b]).abs().max())
            say(
                gap < 1e-9 * (1 + float(together[b].abs().max())),
                f"Trace: sample {b} depends on its batch mates (off by {gap:.2g}).",
            )


def _attached(trace: Trace, field: Velocity, t: Tensor, batch: Batch, probes: Tensor | None) -> None:
    factor = torch.ones((), dtype=batch.x.dtype, requires_grad=True)

    def scaled(t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        return factor * field(t, x, batch)

    with torch.no_grad():
        found = trace(scaled, t, batch.x, batch, probes)
    say(
        not any(part.requires_grad for part in found),
        "Trace: the result is attached to a graph although gradients are disabled; detach it.",
    )
    with torch.enable_grad():
        total = trace(scaled, t, batch.x, batch, probes)[1].sum()
        slope = torch.autograd.grad(total, factor)[0] if total.requires_grad else torch.zeros(())
    whole = float(total.detach())
    say(
        abs(float(slope) - whole) < 1e-6 * (1 + abs(whole)),
        f"Trace: the divergence of f·v must have itself as gradient in f at f=1, {whole:.4g}, got "
        f"{float(slope):.4g}; use create_graph where gradients are enabled.",
    )


def _right(found: Tensor, truth: float, exact: bool) -> None:
    """Whether estimates (draws, K) are the truth on average, with a spread that says how far off they are."""
    means = found.mean(1)
    mean, error = float(means.mean()), float(means.std() / len(means) ** 0.5) if len(means) > 1 else 0.0
    say(
        abs(mean - truth) < 5 * error + 1e-9 * (1 + abs(truth)),
        f"Trace: {'the' if exact else 'the mean'} divergence is {mean:.6g} ± {error:.2g}, that of the Jacobian "
        f"{truth:.6g}; are probes summed instead of averaged, or their covariance not one?",
    )
    columns = found.shape[1]
    if exact or columns < 2 or error < 1e-9 * (1 + abs(truth)):
        return
    ratio = float(found.var(1).mean() / columns / means.var())
    say(
        0.7 < ratio < 1.4,
        f"Trace: the spread of the columns claims {ratio:.2g} times the variance that the estimates have; columns must "
        "be independent estimates, one per probe.",
    )


def _mixing(t: Tensor, x: Tensor, batch: Batch) -> Tensor:
    """Nonlinear, mixes rows within a sample and coordinates within a row; depends on t."""
    n = x.shape[-1]
    w = torch.cos(torch.arange(n * n, dtype=x.dtype).reshape(n, n).square())
    mean = batch.total(x) / batch.dims.clamp(min=1)
    return torch.sin(x @ w) * batch.spread(1 + t) + 0.3 * x * batch.spread(mean)


def _layouts() -> list[Batch]:
    g = fresh(1)
    return [
        Batch(torch.randn(3, 3, generator=g)),
        Batch(torch.randn(1, 4, generator=g)),
        Batch(torch.randn(2, 2, 3, 2, generator=g)),
        Batch(torch.randn(6, 3, generator=g), torch.tensor([0, 0, 0, 1, 3, 3]), 4),
    ]


def _drawn(trace: Trace, like: Batch, generator: torch.Generator) -> Tensor:
    probes = trace.draw(like, generator)
    say(probes is not None, "Trace.draw: gives probes for one generator and None for another.")
    assert probes is not None
    return probes
