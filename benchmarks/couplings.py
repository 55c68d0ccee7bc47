"""Pairing a batch by optimal transport: time and excess cost of ours, POT, torchcfm and scipy; and what conditions do.

Draws are white noise, data eight Gaussians (D = 2) or white noise of another seed, three data sets per row in turn.
"Matrix given" is the solver alone on one cost matrix, in float32 (float64 for POT, which would convert it); "whole"
begins with points and ends with paired points: ours `couplings.OptimalTransport`, POT's `ot.dist` + `ot.emd` + the
permutation, torchcfm's `sample_plan`, which draws pairs from the plan with replacement.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import cycle

import harness
import torch
from torch import Tensor

from scifm import Batch, couplings
from scifm.couplings.pairing import products, squared

SETS = 3


def points(n: int, dims: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x0, x1 = torch.randn(n, dims, generator=g), torch.randn(n, dims, generator=g)
    if dims == 2:
        angle = torch.randint(0, 8, (n,), generator=g) * torch.pi / 4
        x1 = 5 * torch.stack([angle.cos(), angle.sin()], 1) + 0.3 * x1
    return x0, x1


def turns(function: Callable, sets: list) -> Callable[[], object]:
    """The function on one set after the other."""
    following = cycle(sets)
    return lambda: function(*next(following))


def contestants(n: int, dims: int) -> tuple[dict[str, Callable[[], object]], list[tuple[Tensor, Tensor]]]:
    import ot
    from lap import lapjvr
    from scipy.optimize import linear_sum_assignment
    from torchcfm.optimal_transport import OTPlanSampler

    clouds = [points(n, dims, seed) for seed in range(SETS)]
    costs = [(products(x1, x0),) for x0, x1 in clouds]
    batches = [(x0, Batch(x1)) for x0, x1 in clouds]
    doubles = [(c.double().numpy(),) for (c,) in costs]
    mass, theirs = torch.full((n,), 1 / n, dtype=torch.float64).numpy(), OTPlanSampler("exact")

    def pot(x0: Tensor, x1: Tensor) -> Tensor:
        plan = ot.emd(mass, mass, ot.dist(x1.double().numpy(), x0.double().numpy()))
        return x0[torch.from_numpy(plan.argmax(1))]

    cases = {
        "assign": turns(couplings.assign, costs),
        "ot.emd": turns(lambda c: ot.emd(mass, mass, c), doubles),
        "scipy": turns(lambda c: linear_sum_assignment(c.numpy()), costs),
        "lapjvr": turns(lambda c: lapjvr(c.numpy(), return_cost=False), costs),
        "whole": turns(couplings.OptimalTransport(), batches),
        "whole POT": turns(pot, clouds),
        "whole torchcfm": turns(theirs.sample_plan, clouds),
    }
    if n > 1024:  # seconds each
        del cases["scipy"], cases["lapjvr"]
    return cases, clouds


def excess(clouds: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Largest relative excess cost over the optimum: ours, and POT's with its default cap of iterations."""
    import ot
    from scipy.optimize import linear_sum_assignment

    ours, theirs = 0.0, 0.0
    for x0, x1 in clouds:
        cost = squared(x1, x0).numpy()
        n = len(cost)
        rows, columns = linear_sum_assignment(cost)
        best = cost[rows, columns].sum()
        ours = max(ours, cost[rows, couplings.assign(products(x1, x0)).numpy()].sum() / best - 1)
        mass = torch.full((n,), 1 / n, dtype=torch.float64).numpy()
        theirs = max(theirs, n * (ot.emd(mass, mass, cost) * cost).sum() / best - 1)
    return ours, theirs


def speed(quick: bool) -> str:
    sizes = [(64, 64), (256, 2), (256, 64), (256, 1024)]
    sizes += [] if quick else [(512, 2), (512, 64), (1024, 2), (1024, 64), (1024, 1024), (2048, 2), (2048, 64)]
    solver, whole = [], []
    for n, dims in sizes:
        cases, clouds = contestants(n, dims)
        found = harness.interleaved(cases, repeats=3 if quick or n > 1024 else 6)
        ms = {name: harness.milliseconds(seconds) for name, seconds in found.items()}
        over = [f"{max(e, 0):.0e}" for e in excess(clouds)] if n <= 1024 else ["–", "–"]  # scipy takes a minute there
        at = f"{n} × {dims}"
        solver.append(
            (at, ms["assign"], ms["ot.emd"], ms.get("scipy", "–"), ms.get("lapjvr", "–"))
            + (f"**{found['ot.emd'] / found['assign']:.1f}**", *over)
        )
        ratios = (found[f"whole {name}"] / found["whole"] for name in ("POT", "torchcfm"))
        whole.append((at, ms["whole"], ms["whole POT"], ms["whole torchcfm"], *(f"**{r:.1f}**" for r in ratios)))
    head = ("B × D", "assign", "ot.emd", "scipy", "lapjvr", "ot.emd / ours", "excess, ours", "excess, ot.emd")
    return (
        "### Matrix given\n\n"
        + harness.table(head, solver)
        + "\n\n### Whole pairing\n\n"
        + harness.table(("B × D", "ours", "POT", "torchcfm", "POT / ours", "torchcfm / ours"), whole)
    )


def skew(coupling: Callable[..., Tensor], batches: int, n: int = 256) -> tuple[float, float]:
    """R² of x0 given a condition that the data follow, and the cost of the pairs."""
    g = torch.Generator().manual_seed(0)
    c, x0, cost = [], [], []
    for _ in range(batches):
        c.append(torch.rand(n, generator=g) * 4 - 2)
        x1 = torch.stack([c[-1] + 0.1 * torch.randn(n, generator=g), torch.randn(n, generator=g)], 1)
        pairs = coupling(torch.randn(n, 2, generator=g), Batch(x1, context={"c": c[-1]}), g)
        x0.append(pairs[:, 0])
        cost.append((pairs - x1).square().sum(1).mean())
    return float(torch.corrcoef(torch.stack([torch.cat(c), torch.cat(x0)]))[0, 1] ** 2), float(torch.stack(cost).mean())


def conditions(quick: bool) -> str:
    on = ("c",)
    cases = {
        "independent": couplings.independent,
        "OT that ignores c": couplings.OptimalTransport(ignore=on),
        **{f"C²OT, ratio {r}": couplings.ConditionalTransport(on, ratio=r) for r in (0.2, 0.05, 0.01)},
    }
    rows = [(name, *(f"{v:.3f}" for v in skew(case, 5 if quick else 40))) for name, case in cases.items()]
    return harness.table(("coupling", "R² of x0 given c (should be 0)", "mean squared distance"), rows)


def measure(quick: bool) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ot.emd's notes on its cap of iterations; the excess says the same
        fast, fair = speed(quick), conditions(quick)
    about = str(__doc__).split("\n", 2)[2].strip()
    return f"## Couplings\n\n{about}\n\n{fast}\n\n### A continuous condition\n\n{fair}\n"
