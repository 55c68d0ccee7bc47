"""Sampling at equal true error: evaluations and wall time of scifm's solver beside torchdiffeq, zuko and torchode.

A plain network (t and x in, 64 × 3) and scifm's own MLP (waves of t) are trained on a toy for 2,000 steps. The error is
the mean distance over samples to a float64 solution of torchdiffeq's dopri8 at 1e-10. Each solver's tolerance is swept,
rtol = atol, by half decades; evaluations and times are interpolated in the logarithm of the error along the solver's
own best settings (those that no other of its settings beats in both error and evaluations). Evaluations are per sample:
where a batch shares its steps those of the batch, where samples have their own the mean over samples.

flow_matching's solver calls torchdiffeq's with its default settings, the first line of each table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import harness
import torch
import torchdiffeq
import torchode
import zuko
from torch import Tensor, nn

from scifm import Batch, Flow, Solver, integrate, networks, priors
from scifm.data import toys

TOLERANCES = [10 ** (-e / 2) for e in range(2, 13)]  # float32 resolves no less
Velocity = Callable[[Tensor, Tensor], Tensor]
Solve = Callable[[Velocity, Tensor, float], "tuple[Tensor, float]"]  # -> the end, and evaluations per sample


class Plain(nn.Module):
    """The usual toy network: time is one more input."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [3, 64, 64, 64]
        layers = [m for a, b in zip(sizes[:-1], sizes[1:], strict=True) for m in (nn.Linear(a, b), nn.SiLU())]
        self.body = nn.Sequential(*layers, nn.Linear(64, 2))

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        return self.body(torch.cat([x, t[:, None]], 1))


def trained(make: Callable[[], nn.Module], toy: str, steps: int) -> nn.Module:
    torch.manual_seed(0)
    net, g = make(), torch.Generator().manual_seed(0)
    flow, optimiser = Flow(net, priors.Gaussian()), torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        flow.loss(Batch(toys.draw(toy, 256, g)), g).mean().backward()
        optimiser.step()
        schedule.step()
    return net.eval().requires_grad_(False)


# -- contestants: (velocity(t (B,), x), x, tolerance) -> end, evaluations per sample -------------------------------


def ours(method: str) -> Solve:
    def solve(f: Velocity, x: Tensor, tol: float) -> tuple[Tensor, float]:
        solver = Solver(method, rtol=tol, atol=tol, max_steps=10_000)
        solution = integrate(lambda t, y, batch, probes: (f(t, y), None), x, 0, 1, Batch(x), solver)
        return solution.x, float(solution.nfe.double().mean())

    return solve


def of_torchdiffeq(land: bool) -> Solve:
    """`land` makes it step onto t = 1 instead of interpolating, which is more accurate at loose tolerances."""

    def solve(f: Velocity, x: Tensor, tol: float) -> tuple[Tensor, float]:
        field, options = Counted(f), {"step_t": torch.ones(1, dtype=x.dtype)} if land else {}
        ends = torch.tensor([0.0, 1.0], dtype=x.dtype)
        return torchdiffeq.odeint(field, x, ends, rtol=tol, atol=tol, method="dopri5", options=options)[-1], field.calls

    return solve


def of_zuko(f: Velocity, x: Tensor, tol: float) -> tuple[Tensor, float]:
    field = Counted(f)
    return zuko.utils.odeint(field, x, 0.0, 1.0, rtol=tol, atol=tol), field.calls


def of_torchode(method: type) -> Solve:
    def solve(f: Velocity, x: Tensor, tol: float) -> tuple[Tensor, float]:
        term = torchode.ODETerm(f)
        control = torchode.IntegralController(atol=tol, rtol=tol, term=term)
        adjoint = torchode.AutoDiffAdjoint(method(term=term), control)
        problem = torchode.InitialValueProblem(x, torch.zeros(len(x)), torch.ones(len(x)))
        solution = adjoint.solve(problem)
        # 2 to start and 6 per step of its own: its counter counts those of the slowest sample for all.
        return solution.ys[:, -1], 2 + 6 * float(solution.stats["n_steps"].double().mean())

    return solve


class Counted:
    """A velocity that takes one time for all, as peers call it, and counts."""

    def __init__(self, f: Velocity):
        self.f, self.calls = f, 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self.f(t.expand(len(x)), x)


SOLVERS: dict[str, Solve] = {
    "torchdiffeq dopri5": of_torchdiffeq(False),
    "torchdiffeq dopri5, step_t=[1]": of_torchdiffeq(True),
    "zuko": of_zuko,
    "torchode dopri5": of_torchode(torchode.Dopri5),
    "torchode tsit5": of_torchode(torchode.Tsit5),
    "scifm dopri5": ours("dopri5"),
    "scifm (bosh5)": ours("bosh5"),
}
OURS = "scifm (bosh5)"


# -- measuring -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    tol: float
    error: float
    nfe: float


def sweep(solve: Solve, f: Velocity, starts: Sequence[Tensor], ends: Sequence[Tensor]) -> list[Point]:
    """The settings of a solver that none of its others beats, from the least error to the largest."""
    points = []
    for tol in TOLERANCES:
        found = [solve(f, x, tol) for x in starts]
        error = [float((y - end).norm(dim=1).mean()) for (y, _), end in zip(found, ends, strict=True)]
        points.append(Point(tol, sum(error) / len(error), sum(n for _, n in found) / len(found)))
    points.sort(key=lambda p: (p.error, p.nfe))
    best: list[Point] = []
    for p in points:
        if not best or p.nfe < best[-1].nfe:
            best.append(p)
    return best


def around(points: list[Point], error: float) -> tuple[Point, Point, float] | None:
    """The settings on both sides of an error, and the weight of the second in the logarithm; None outside."""
    for p, q in zip(points[:-1], points[1:], strict=True):
        if p.error <= error <= q.error:
            return p, q, math.log(error / p.error) / math.log(q.error / p.error)
    return None


def between(a: float, b: float, weight: float) -> float:
    return math.exp((1 - weight) * math.log(a) + weight * math.log(b))


def compared(net: nn.Module, size: int, count: int, targets: Sequence[float], repeats: int) -> str:
    """Evaluations and times of all solvers for `count` batches of `size` at equal error."""
    wide = Batch(torch.zeros(size, 2))

    def f(t: Tensor, x: Tensor) -> Tensor:
        return net(t, x, Batch(x))

    starts = [wide.randn(torch.Generator().manual_seed(k)) for k in range(count)]
    ends = [reference(net, x) for x in starts]
    found = {name: sweep(solve, f, starts, ends) for name, solve in SOLVERS.items()}
    places = {(name, e): around(points, e) for name, points in found.items() for e in targets}
    timed = starts[: max(1, 6 if size == 1 else 1)]
    cases = {}
    for (name, _), place in places.items():
        for point in place[:2] if place else ():
            cases[name, point.tol] = lambda s=SOLVERS[name], tol=point.tol: [s(f, x, tol) for x in timed]
    seconds = harness.interleaved(cases, repeats)
    nfe, wall = {}, {}
    for (name, e), place in places.items():
        if place:
            p, q, w = place
            nfe[name, e] = between(p.nfe, q.nfe, w)
            wall[name, e] = between(seconds[name, p.tol], seconds[name, q.tol], w) / len(timed)
    rows = []
    for name in SOLVERS:
        row: list[str] = [name]
        for values, form in ((nfe, lambda v: f"{v:.1f}"), (wall, harness.milliseconds)):
            for e in targets:
                own, base = values.get((name, e)), values.get((OURS, e))
                ratio = f" ({own / base:.2f})" if own and base else ""
                row.append(form(own) + ratio if own else "–")
        rows.append(row)
    head = [f"B = {size}", *(f"NFE at {e:.0e}" for e in targets), *(f"time at {e:.0e}" for e in targets)]
    return harness.table(head, rows)


def reference(net: nn.Module, x: Tensor) -> Tensor:
    double = Plain() if isinstance(net, Plain) else networks.MLP(2, (64, 64, 64))
    double.load_state_dict(net.state_dict())
    double = double.double()
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    field = Counted(lambda t, y: double(t, y, Batch(y)))
    return torchdiffeq.odeint(field, x.double(), ends, rtol=1e-10, atol=1e-10, method="dopri8")[-1]


def neighbours() -> str:
    """How much a sample's answer changes, and what it costs, when 63 stiff samples travel with it."""
    rate = torch.cat([torch.ones(1), torch.full((63,), 300.0)])[:, None].double()

    def field(rates: Tensor) -> Velocity:
        return lambda t, x: -rates * (x - torch.cos(5 * t)[:, None])

    x, rows = torch.ones(64, 2, dtype=torch.float64), []
    for name, solve in SOLVERS.items():
        alone, few = solve(field(rate[:1]), x[:1], 1e-5)
        beside, many = solve(field(rate), x, 1e-5)
        rows.append([name, f"{float((beside[0] - alone[0]).abs().max()):.1g}", f"{few:.0f}", f"{many:.0f}"])
    return harness.table(
        ["a mild sample, tolerance 1e-5", "change beside 63 stiff", "NFE alone", "mean NFE of all"], rows
    )


@torch.no_grad()
def measure(quick: bool) -> str:
    targets = (1e-3, 1e-4) if quick else (1e-3, 1e-4, 1e-5)
    nets = {"plain network, 64 × 3, eight Gaussians": (Plain, "eight_gaussians")}
    if not quick:
        nets["plain network, 64 × 3, moons"] = (Plain, "moons")
        nets["scifm's MLP (waves of time), 64 × 3, eight Gaussians"] = (
            lambda: networks.MLP(2, (64, 64, 64)),
            "eight_gaussians",
        )
    text = ["## Sampling a trained 2-D flow at equal true error", __doc__.split("\n\n")[1].replace("\n", " ")]
    text.append(f"In brackets: times as many as {OURS}. A dash: the solver does not reach that error in float32.")
    for name, (make, toy) in nets.items():
        with torch.enable_grad():
            net = trained(make, toy, 400 if quick else 2000)
        text.append(f"### {name}")
        for size, count in ((1, 4 if quick else 12), (256, 1 if quick else 4), *(() if quick else ((4096, 1),))):
            text.append(compared(net, size, count, targets, 3 if quick else 5))
    return "\n\n".join([*text, "### A stiff neighbour", neighbours()])
