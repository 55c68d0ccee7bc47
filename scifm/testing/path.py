"""The contract of a path."""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.conversions import Gauge
from scifm.paths import Path
from scifm.testing.laws import fresh, same_form, say

__all__ = ["check_path"]


def check_path(path: Path, like: Batch, seed: int = 0) -> None:
    """Whether a path goes from x0 to x1, is finite, has the velocity of its points, and converts.

    At its ends it may be a multiple of x0 and of x1, with a little of the other.

    Raises:
        AssertionError: naming the law that is broken.
    """
    if len(like) == 0:
        raise ValueError("check_path: like must hold at least one sample.")
    like = like.to(torch.float64)
    x0, x1 = like.randn(fresh(seed)), like.randn(fresh(seed + 1))

    def at(t: float) -> tuple[Tensor, Tensor]:
        times = torch.full((len(like),), t, dtype=torch.float64, device=x0.device)
        return path(x0, x1, times, like, fresh(seed + 2))

    noisy = path.noise(torch.full((1,), 0.5, dtype=torch.float64)) is not None
    for t in (0.0, 1.0):
        x, u = at(t)
        same_form("Path: x_t", x, like.x)
        same_form("Path: u_t", u, like.x)
        say(bool(x.isfinite().all() and u.isfinite().all()), f"Path: x_t or u_t is not finite at t={t:g}.")
        alpha, sigma = (float(c) for c in path.coefficients(torch.tensor([t], dtype=torch.float64))[:2])
        gap = float((x - alpha * x1 - sigma * x0).abs().max())
        say(gap < 1e-6, f"Path: x_t at t={t:g} is {gap:.2g} away from α x1 + σ x0, with its own α and σ.")
        small, large, what = (alpha, sigma, "x0") if t == 0 else (sigma, alpha, "x1")
        say(
            abs(small) < (0.2 if t == 0 else 1) * large,
            f"Path: α = {alpha:g} and σ = {sigma:g} at t={t:g}; there the path must be (nearly) a multiple of {what}.",
        )
    for t in (0.0, 1e-3, 0.02, 0.1, 0.5, 0.9, 0.98, 1 - 1e-3, 1.0):
        end = t in (0, 1)
        if end and noisy:
            continue  # noise of its own starts like √t: no slope there
        h = 1e-9 if end else 1e-4 * min(t, 1 - t)
        before, after = max(t - h, 0.0), min(t + h, 1.0)
        slope = (at(after)[0] - at(before)[0]) / (after - before)
        error = float((slope - at(t)[1]).abs().max() / (1 + slope.abs().max()))
        say(
            error < (1e-2 if end else 1e-6),  # at the ends the slope is one-sided and rough
            f"Path: u_t is not the time derivative of x_t at t={t:g} (relative error {error:.2g}).",
        )
        narrow, half = torch.full((len(like),), t, device=x0.device), like.to(torch.float32)
        if noisy:
            continue  # the noise is drawn in another dtype
        pair = path(x0.float(), x1.float(), narrow, half), path(x0, x1, narrow.double(), like)
        for name, small, wide in zip(("x_t", "u_t"), *pair, strict=True):
            same_form(f"Path: {name}", small, half.x)
            gap = float((small - wide).abs().max() / (1 + wide.abs().max()))
            say(gap < 1e-3, f"Path: {name} in torch.float32 at t={t:g} is off by {gap:.2g} (relative) from float64.")
    # One time per sample, also where the number of samples equals a dimension of the data.
    t = torch.linspace(0.1, 0.9, len(like), dtype=torch.float64, device=x0.device)
    together = path(x0, x1, t, like, fresh(seed + 2))
    for b in range(len(like)):
        rows = torch.tensor([b], device=x0.device)
        for whole, alone in zip(together, at(float(t[b])), strict=True):
            gap = float((like.stack(whole, rows) - like.stack(alone, rows)).abs().max()) if like.dims[b] else 0.0
            say(gap < 1e-12, f"Path: sample {b} does not follow its own time t[{b}] (off by {gap:.2g}).")
    _conversions(path, x0, x1, t, like)


def _conversions(path: Path, x0: Tensor, x1: Tensor, t: Tensor, like: Batch) -> None:
    """x0 and x1 read off x_t and u_t, and back, where the path has no noise of its own."""
    if path.noise(t) is not None:
        return
    for at in (t, torch.zeros_like(t), torch.ones_like(t)):
        x_t, u_t = path(x0, x1, at, like)
        gauge = Gauge(path, at, x_t, like)
        inside = bool(((at > 0) & (at < 1)).all())
        for kind, wanted in (("x1", x1), ("noise", x0), ("score", -x0)):
            value = gauge.from_velocity(kind, u_t)
            back = gauge.to_velocity(kind, value)
            say(bool(value.isfinite().all() and back.isfinite().all()), f"Path: {kind} is not finite at an end.")
            if not inside:
                continue
            wanted = wanted / gauge.sigma if kind == "score" else wanted
            gap = float(((value - wanted).abs() / (1 + wanted.abs())).max())
            say(gap < 1e-6, f"Path: {kind} read off x_t and u_t is off by {gap:.2g} (relative); are α and σ exchanged?")
            gap = float((back - u_t).abs().max() / (1 + u_t.abs().max()))
            say(gap < 1e-6, f"Path: the velocity read off {kind} is off by {gap:.2g} (relative).")
