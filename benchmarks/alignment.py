"""Rotations and pairing of clouds: the nearest rotation beside a batched SVD, and LJ13 paired with noise.

Times are what one thread computes (`time.process_time`), medians of calls in turn.

Kabsch: covariances (B, 3, 3) of 13 random points, float64, `geometry.nearest_rotation` against `torch.linalg.svd` with
the sign of the determinant put right, the same result to 1e-6.  "Whole" begins with points in float32, centres them and
multiplies out the covariance, both sides alike.

Pairing: 256 samples of LJ13 (float32) with draws of a MeanFreeGaussian that is fitted to them, mean over batches of the
mean Σ|x0 − x1|² of a pair.  "All pairs" aligns each of the 65 536 pairs from one start and then solves one assignment;
its time and cost are the reference of the ratios.  SCIFM_DATA says where the data are; without it, minima of
Lennard-Jones shape are replaced by relaxed random clouds, and the table says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import harness
import torch
from torch import Tensor

from scifm import Batch, couplings, priors
from scifm.couplings import Aligned, EquivariantTransport
from scifm.geometry import kabsch, nearest_rotation, overlap, random_rotation

interleaved = partial(harness.interleaved, clock=time.process_time)


def by_svd(h: Tensor) -> Tensor:
    """What one writes with torch alone."""
    u, _, v = torch.linalg.svd(h)
    sign = torch.linalg.det(u @ v)
    return torch.cat([u[..., :-1], u[..., -1:] * sign[:, None, None]], -1) @ v


def whole_svd(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return by_svd(y.mT @ x)


def clouds(count: int, seed: int = 0, points: int = 13) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, points, 3, generator=g), torch.randn(count, points, 3, generator=g)


def rotations(quick: bool) -> str:
    rows = []
    for count in (64, 256, 1024) if quick else (64, 256, 1024, 4096, 16384, 65536):
        x, y = clouds(count)
        h = (y.mT @ x).double()
        found = interleaved(
            {
                "ours": lambda h=h: nearest_rotation(h),
                "value": lambda h=h: overlap(h),
                "svd": lambda h=h: by_svd(h),
                "whole": lambda x=x, y=y: kabsch(x, y),
                "whole svd": lambda x=x, y=y: whole_svd(x, y),
            },
            repeats=3 if quick else 7,
        )
        ms = [harness.milliseconds(found[k]) for k in ("ours", "value", "svd", "whole", "whole svd")]
        ratios = [f"**{found['svd'] / found['ours']:.1f}**", f"**{found['whole svd'] / found['whole']:.1f}**"]
        rows.append((count, *ms, *ratios))
    head = ("B", "rotation", "its overlap only", "SVD", "whole", "whole, SVD", "SVD / rotation", "SVD / whole")
    return harness.table(head, rows)


def degenerate(count: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs of clouds, among them those whose best rotation is not unique."""
    x, y = (part.double() for part in clouds(count, points=7))
    turn = random_rotation(count, 3, torch.Generator().manual_seed(1), torch.float64).mT
    flat, line = x * torch.tensor([1.0, 1.0, 0.0]).double(), x[..., :1] * turn[:, :1]
    cross = torch.cat([torch.eye(3), -torch.eye(3)]).double().expand(count, 6, 3)
    return {
        "random": (x, y),
        "turned": (x, x @ turn),
        "mirrored": (x, -x @ turn),
        "as wide every way, mirrored": (cross, -cross @ turn + 1e-9 * x[:, :6]),
        "nearly so": (cross + 1e-5 * x[:, :6], -cross @ turn),
        "planar": (flat, x @ turn),
        "both planar": (flat, flat @ turn),
        "linear": (line, x),
        "both linear": (line, line.flip(0)),
        "coincident": (x, torch.ones_like(x)),
        "n = 1": (x[:, :1], y[:, :1]),
        "n = 2": (x[:, :2], y[:, :2]),
        "n = 3": (x[:, :3], y[:, :3]),
    }


def optima(quick: bool) -> str:
    rows = []
    count = 2000 if quick else 100_000
    for name, (x, y) in degenerate(count).items():
        r = kabsch(x, y)
        x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
        h = y.mT @ x
        s = torch.linalg.svdvals(h)
        best = s[:, 0] + s[:, 1] + s[:, 2] * torch.linalg.det(h).sign()
        lost = (best - (r * h).sum((1, 2))) / h.flatten(1).norm(dim=1).clamp(min=1e-300)
        det = (torch.linalg.det(r) - 1).abs().max()
        rows.append((name, f"{float(det):.0e}", f"{float(lost.abs().max()):.0e}"))
    return f"{count} pairs of each kind.\n\n" + harness.table(("clouds", "|det R − 1|", "overlap lost / |H|"), rows)


def particles(count: int) -> tuple[Batch, str]:
    """LJ13, or relaxed clouds in its place."""
    if os.environ.get("SCIFM_DATA"):  # else the data set would be made first, which takes minutes
        from scifm.data import load_dataset

        x, about = load_dataset("lj13").lj13().train.x, "LJ13 train"
    else:
        x, about = relaxed(count), "relaxed random clouds in place of LJ13, which is not here"
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:count]
    x = x[chosen].float()
    return Batch(x - x.mean(1, keepdim=True)), about


def relaxed(count: int, steps: int = 300) -> Tensor:
    x = clouds(count, seed=5)[0].requires_grad_()
    eye = 1e6 * torch.eye(13)
    for _ in range(steps):
        r = ((x[:, :, None] - x[:, None]).square().sum(-1) + eye).clamp(min=0.5)
        (gradient,) = torch.autograd.grad((r**-6 - 2 * r**-3).sum(), x)
        x = (x - 2e-3 * gradient.clamp(-20, 20)).detach().requires_grad_()
    return x.detach()


def pairing(quick: bool) -> str:
    batches, size = (2, 64) if quick else (6, 256)
    data, about = particles(batches * size)
    prior = priors.MeanFreeGaussian().fit(data)
    parts = [data.select(range(k, k + size)) for k in range(0, batches * size, size)]
    draws = [prior.sample(part, torch.Generator().manual_seed(k)) for k, part in enumerate(parts)]
    reference = "all pairs, one start"
    cases: dict[str, Callable[..., Tensor]] = {
        reference: EquivariantTransport("pairs", Aligned(starts=1, sweeps=1)),
        "random": couplings.independent,
        "OptimalTransport()": couplings.OptimalTransport(),
        "Aligned(starts=1)": Aligned(starts=1),
        "Aligned()": Aligned(),
        "EquivariantTransport()": EquivariantTransport(),
        "EquivariantTransport, starts=2": EquivariantTransport(within=Aligned(starts=2)),
        "EquivariantTransport, starts=8": EquivariantTransport(within=Aligned(starts=8)),
    }
    g = torch.Generator().manual_seed(9)
    costs = {
        name: sum(float((case(x0, b, g) - b.x).square().sum((1, 2)).mean()) for x0, b in zip(draws, parts, strict=True))
        / batches
        for name, case in cases.items()
    }
    found = interleaved({n: (lambda c=c: c(draws[0], parts[0], g)) for n, c in cases.items()}, 3 if quick else 5)
    rows = [
        (name, harness.milliseconds(found[name]), f"{found[reference] / max(found[name], 1e-9):.3g}")
        + (f"{costs[name]:.2f}", f"{costs[name] / costs[reference]:.3f}")
        for name in cases
    ]
    head = ("coupling", "time", "times faster", "cost", "cost / reference")
    return f"{about}, {batches} batches of {size}.\n\n" + harness.table(head, rows)


def surfaces(quick: bool) -> str:
    """How near `transport_map` comes to exact assignment, and what it costs."""
    rows, g = [], torch.Generator().manual_seed(0)
    for count in (256, 512) if quick else (256, 512, 1024, 2048):
        u, v = 2 * torch.pi * torch.rand(2, count, generator=g)
        y = torch.stack([(2 + v.cos()) * u.cos(), (2 + v.cos()) * u.sin(), v.sin()], 1)
        x = 1.3 * torch.randn(count, 3, generator=g)

        def cost(order: Tensor, x: Tensor = x, y: Tensor = y) -> float:
            return float((x[order] - y).square().sum(1).mean())

        cases = {"exact": lambda x=x, y=y: couplings.transport_map(x, y, len(y))}
        for block, passes in ((128, 0), (128, 4), (256, 4), (512, 4)):
            if block < count:
                cases[f"{block}, {passes}"] = lambda x=x, y=y, b=block, p=passes: couplings.transport_map(
                    x, y, b, p, torch.Generator().manual_seed(0)
                )
        found = interleaved(cases, repeats=3)
        best = cost(cases["exact"]())
        for name, case in cases.items():
            rows.append((count, name, harness.milliseconds(found[name]), f"{100 * (cost(case()) / best - 1):.2f} %"))
    head = ("points", "block, passes", "time", "excess cost")
    return harness.table(head, rows)


def measure(quick: bool) -> str:
    about = str(__doc__).split("\n", 2)[2].strip()
    return (
        f"## Alignment\n\n{about}\n\n### The nearest rotation\n\n{rotations(quick)}\n\n### Is it the best?\n\n"
        f"{optima(quick)}\n\n### LJ13 with noise\n\n{pairing(quick)}\n\n### A torus with noise, `transport_map`\n\n"
        f"{surfaces(quick)}\n"
    )
