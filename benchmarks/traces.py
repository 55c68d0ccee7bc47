"""Log-densities and traces beside zuko, torchdiffeq and an autograd loop.

log-density   a flow on 64 numbers, the same network for all; tolerances are swept, and times compared at equal true
              error of log p, against a reference in float64 at 1e-10, by interpolation between the tolerances
colours       the exact trace of three convolutions on 1 x 32 x 64 against one backward pass per number
modes         reverse against forward, in blocks and one by one
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from harness import interleaved, milliseconds, table
from torch import Tensor, nn

from scifm import Batch, Flow, Solver, networks, priors
from scifm.testing.known import KnownMixture
from scifm.trace import Colours, Exact, Hutchinson

D = 64


def measure(quick: bool) -> str:
    """The three tables as Markdown."""
    return "\n\n".join(["## Log-densities and traces", log_density(quick), colours(quick), signed(quick), modes(quick)])


# -- log-density at equal true error -------------------------------------------------------------------


def trained(steps: int) -> tuple[Flow, Tensor]:
    """A white-prior flow of the coloured mixture, MLP 256 x 3, briefly trained, and data."""
    law, g = KnownMixture.coloured((D,)), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    flow = Flow(networks.MLP((D,), hidden=(256, 256, 256)), priors.Gaussian())
    optimiser = torch.optim.Adam(flow.parameters(), 1e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 50) * (1 - step / steps)
        loss = flow.loss(Batch(5 * law.sample(256, g).float()), g).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return flow.requires_grad_(False).eval(), 5 * law.sample(16, g).float()


def exact_by_loop(network: nn.Module, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """One backward pass per number, as in torchdiffeq's own example."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        v = network(t.to(y).expand(len(y)), y, Batch(y))
        parts = [torch.autograd.grad(v[:, i].sum(), y, retain_graph=True)[0][:, i] for i in range(y.shape[1])]
    return v.detach(), torch.stack(parts).sum(0)


def by_torchdiffeq(flow: Flow, x: Tensor, tolerance: float) -> Tensor:
    from torchdiffeq import odeint

    def field(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return exact_by_loop(flow.velocity, t, state[0])

    start = (x, x.new_zeros(len(x)))
    z, gained = odeint(field, start, x.new_tensor([1.0, 0.0]), method="dopri5", rtol=tolerance, atol=tolerance)
    return flow.prior.log_prob(z[-1], Batch(x)) + gained[-1]


def by_zuko(flow: Flow, x: Tensor, tolerance: float) -> Tensor:
    from zuko.transforms import FreeFormJacobianTransform

    def field(t: Tensor, y: Tensor) -> Tensor:
        return flow.velocity(t.expand(len(y)), y, Batch(y))

    there = FreeFormJacobianTransform(field, 0.0, 1.0, phi=(), atol=tolerance, rtol=tolerance, exact=True)
    z, gained = there.inv.call_and_ladj(x)  # type: ignore[attr-defined]
    return flow.prior.log_prob(z, Batch(x)) + gained


def by_scifm(flow: Flow, x: Tensor, tolerance: float) -> Tensor:
    return flow.log_prob(Batch(x), Exact(), Solver(rtol=tolerance, atol=tolerance))


@torch.no_grad()
def log_density(quick: bool) -> str:
    with torch.enable_grad():
        flow, x = trained(60 if quick else 1000)
    x = x[:2] if quick else x
    truth = by_zuko(copy.deepcopy(flow).double(), x.double(), 1e-7 if quick else 1e-10)
    tolerances = (1e-3, 1e-4) if quick else (1e-3, 1e-4, 1e-5)
    ways: dict[str, Callable[[Flow, Tensor, float], Tensor]] = {
        "scifm": by_scifm,
        "zuko": by_zuko,
        "torchdiffeq, loop": by_torchdiffeq,
    }
    cases, errors = {}, {}
    for name, way in ways.items():
        for tolerance in tolerances:
            cases[f"{name} {tolerance:g}"] = lambda way=way, tolerance=tolerance: way(flow, x, tolerance)
            errors[f"{name} {tolerance:g}"] = float((way(flow, x, tolerance).double() - truth).abs().mean())
    seconds = interleaved(cases, 1 if quick else 3)
    rows = [[name, f"{errors[name]:.1e}", milliseconds(s)] for name, s in seconds.items()]
    curves = {n: [(errors[f"{n} {t:g}"], seconds[f"{n} {t:g}"]) for t in tolerances] for n in ways}
    low = max(min(e for e, _ in curve) for curve in curves.values())
    high = min(max(e for e, _ in curve) for curve in curves.values())
    equal = []
    for level in (high, math.sqrt(low * high), low):
        ours, *theirs = (at(curve, level) for curve in curves.values())
        equal.append([f"{level:.1e}", milliseconds(ours), *(f"{other / ours:.1f} x" for other in theirs)])
    return "\n\n".join(
        [
            f"**Log-density, exact trace**, {D} numbers, MLP 256 x 3, float32, {len(x)} samples.",
            table(["tolerance", "mean error of log p, nats", "time"], rows),
            "At equal true error, as multiples of scifm's time:",
            table(["error, nats", "scifm", *list(ways)[1:]], equal),
        ]
    )


def at(curve: list[tuple[float, float]], error: float) -> float:
    """Seconds for an error within the curve, by interpolation of the logarithms."""
    curve = sorted(curve)
    for (e0, s0), (e1, s1) in zip(curve[:-1], curve[1:], strict=True):
        if e0 <= error <= e1:
            u = math.log(error / e0) / math.log(e1 / e0)
            return math.exp((1 - u) * math.log(s0) + u * math.log(s1))
    return min(curve, key=lambda pair: abs(math.log(pair[0] / error)))[1]


# -- colours -------------------------------------------------------------------------------------------


class Convolutions(nn.Module):
    """Three convolutions of edge 3: reach 3."""

    def __init__(self, width: int = 32):
        super().__init__()
        torch.manual_seed(0)
        sizes = (1, width, width, 1)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        first, second, third = self.layers
        return third(nn.functional.silu(second(nn.functional.silu(first(x) + batch.spread(t)))))


def loop_over_all(network: nn.Module, t: Tensor, batch: Batch) -> Tensor:
    with torch.enable_grad():
        x = batch.x.detach().requires_grad_()
        v = network(t, x, batch).flatten(1)
        flat = [torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0].flatten(1)[:, i] for i in range(v.shape[1])]
    return torch.stack(flat).sum(0)


@torch.no_grad()
def colours(quick: bool) -> str:
    network = Convolutions().requires_grad_(False)
    rows = []
    for number in (1,) if quick else (1, 4):
        batch = Batch(torch.randn(number, 1, 32, 64, generator=torch.Generator().manual_seed(0)))
        t = torch.full((number,), 0.5)
        cases = {
            "autograd loop": lambda batch=batch, t=t: loop_over_all(network, t, batch),
            "Exact()": lambda batch=batch, t=t: Exact()(network, t, batch.x, batch)[1][:, 0],
            "Colours(3)": lambda batch=batch, t=t: Colours(3)(network, t, batch.x, batch, None)[1][:, 0],
        }
        truth = cases["autograd loop"]()
        seconds = interleaved(cases, 1 if quick else 3)
        for name, call in cases.items():
            gap = float(((call() - truth) / truth).abs().max())
            ratio = seconds["autograd loop"] / seconds[name]
            rows.append([f"{name}, {number} field(s)", milliseconds(seconds[name]), f"{ratio:.1f} x", f"{gap:.0e}"])
    head = ["exact trace of 3 convolutions, 1 x 32 x 64", "time", "faster than the loop", "relative difference"]
    return table(head, rows)


@torch.no_grad()
def signed(quick: bool) -> str:
    """Coloured signs on a network that sees the whole field, against plain probes of the same number."""
    torch.manual_seed(0)
    network = networks.UNet(1, widths=(8, 16), padding=("circular", "circular")).requires_grad_(False)
    nn.init.normal_(network.head.conv.weight, std=0.1)
    draws = 10 if quick else 60
    g = torch.Generator().manual_seed(0)
    one = Batch(torch.randn(1, 1, 16, 16, generator=g))
    many, t = one.select([0] * draws), torch.full((draws,), 0.5)
    truth = float(Exact()(network, t[:1], one.x, one)[1])
    rows = []
    for radius in (1, 3):
        number = (radius + 1) ** 2
        cells = []
        for trace in (Colours(radius, True, signs=1), Hutchinson(number)):
            found = trace(network, t, many.x, many, trace.draw(many, g))[1].mean(1)
            cells.append(float((found / truth - 1).square().mean().sqrt()))
        rows.append([f"{number}", *(f"{c:.1e}" for c in cells), f"{(cells[1] / cells[0]) ** 2:.1f}"])
    head = ["probes, U-Net with group norm, untrained", "coloured signs", "plain", "variance, plain / coloured"]
    return "Relative error of the trace:\n\n" + table(head, rows)


# -- modes ---------------------------------------------------------------------------------------------


@torch.no_grad()
def modes(quick: bool) -> str:
    torch.manual_seed(0)
    unet = networks.UNet(1, widths=(8, 16))
    nn.init.normal_(unet.head.conv.weight, std=0.1)
    mlp = networks.MLP((D,), hidden=(256, 256, 256))
    nn.init.normal_(mlp.head.weight, std=0.1)
    g = torch.Generator().manual_seed(0)
    cases = [
        ("MLP 256 x 3, 64 numbers, 1 sample", mlp, Batch(torch.randn(1, D, generator=g))),
        ("MLP 256 x 3, 64 numbers, 64 samples", mlp, Batch(torch.randn(64, D, generator=g))),
        ("U-Net, 1 x 8 x 8, 4 samples", unet, Batch(torch.randn(4, 1, 8, 8, generator=g))),
    ]
    traces = {
        "reverse, one by one": Exact(1),
        "reverse, 16": Exact(16),
        "reverse, 64": Exact(64),
        "forward, 16": Exact(16, "forward"),
        "forward, 64": Exact(64, "forward"),
        "default": Exact(),
    }
    rows = []
    for name, network, batch in cases:
        network.requires_grad_(False)
        t = torch.full((len(batch),), 0.5)
        calls: dict[str, Callable[[], object]] = {
            label: partial(trace, network, t, batch.x, batch, None) for label, trace in traces.items()
        }
        seconds = interleaved({"": partial(network, t, batch.x, batch), **calls}, 1 if quick else 5)
        rows.append([name, *(f"{seconds[label] / seconds['']:.0f}" for label in traces)])
    return "Exact traces, in evaluations of the network:\n\n" + table(["network", *traces], rows)
