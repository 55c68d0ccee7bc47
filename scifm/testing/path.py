"""The contract of a path."""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.paths import Path
from scifm.testing.laws import fresh, same_form, say

__all__ = ["check_path"]


def check_path(path: Path, like: Batch, seed: int = 0) -> None:
    """Whether a path starts at x0, ends at x1 up to σ_1 x0, is finite, and has the velocity of its points.

    Raises:
        AssertionError: naming the law that is broken.
    """
    if len(like) == 0:
        raise ValueError("check_path: like must hold at least one sample.")
    like = like.to(torch.float64)
    x0, x1 = like.randn(fresh(seed)), like.randn(fresh(seed + 1))

    def at(t: float) -> tuple[Tensor, Tensor]:
        return path(x0, x1, torch.full((len(like),), t, dtype=torch.float64, device=x0.device), like)

    for t, end in ((0.0, x0), (1.0, x1)):
        x, u = at(t)
        same_form("Path: x_t", x, like.x)
        same_form("Path: u_t", u, like.x)
        say(bool(x.isfinite().all() and u.isfinite().all()), f"Path: x_t or u_t is not finite at t={t:g}.")
        sigma = float(path.coefficients(torch.tensor([t], dtype=torch.float64, device=x0.device))[1])
        target = end if t == 0 else x1 + sigma * x0
        gap = float((x - target).abs().max())
        say(gap < 1e-6, f"Path: x_t at t={t:g} is {gap:.2g} away from {'x0' if t == 0 else 'x1 + σ x0'}.")
        say(
            t == 0 or abs(sigma) < 1,
            f"Path: σ at t=1 is {sigma:g}, so the path ends in data blurred by {sigma:g} x0; expected 0, or little.",
        )
    for t in (0.0, 1e-3, 0.02, 0.1, 0.5, 0.9, 0.98, 1 - 1e-3, 1.0):
        before, after = max(t - 1e-5, 0.0), min(t + 1e-5, 1.0)
        slope = (at(after)[0] - at(before)[0]) / (after - before)
        error = float((slope - at(t)[1]).abs().max() / (1 + slope.abs().max()))
        say(
            error < (1e-2 if t in (0, 1) else 1e-6),  # at the ends the slope is one-sided and rough
            f"Path: u_t is not the time derivative of x_t at t={t:g} (relative error {error:.2g}).",
        )
        narrow, half = torch.full((len(like),), t, device=x0.device), like.to(torch.float32)
        pair = path(x0.float(), x1.float(), narrow, half), path(x0, x1, narrow.double(), like)
        for name, small, wide in zip(("x_t", "u_t"), *pair, strict=True):
            same_form(f"Path: {name}", small, half.x)
            gap = float((small - wide).abs().max() / (1 + wide.abs().max()))
            say(gap < 1e-3, f"Path: {name} in torch.float32 at t={t:g} is off by {gap:.2g} (relative) from float64.")
    # One time per sample, also where the number of samples equals a dimension of the data.
    t = torch.linspace(0.1, 0.9, len(like), dtype=torch.float64, device=x0.device)
    together = path(x0, x1, t, like)
    for b in range(len(like)):
        rows = torch.tensor([b], device=x0.device)
        for whole, alone in zip(together, at(float(t[b])), strict=True):
            gap = float((like.stack(whole, rows) - like.stack(alone, rows)).abs().max()) if like.dims[b] else 0.0
            say(gap < 1e-12, f"Path: sample {b} does not follow its own time t[{b}] (off by {gap:.2g}).")
