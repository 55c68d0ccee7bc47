"""The training step: ours, with clipping, averaged weights and its checks, beside the loops that the peers show.

All train the same network, torchcfm's MLP, on the same points, from choosing samples to the step of the optimiser.  The
peers' loops are those of their examples: Adam, no clipping, no averaged weights.  For a U-Net, what optimal transport
adds to a step, without and with the thread that pairs ahead, for one batch and for a pool of eight.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch
from harness import interleaved, milliseconds, table
from torch import Tensor, nn

from scifm import Batch, Flow, Recipe, couplings, networks, priors
from scifm.data import Data, moons
from scifm.data.transforms import Standardise
from scifm.pairs import Pairs
from scifm.priors import spectra
from scifm.step import State, update

POOL = 8
Step = Callable[[], object]


class Wrapped(nn.Module):
    """torchcfm's MLP as a velocity of ours."""

    def __init__(self, width: int):
        super().__init__()
        self.net = mlp(width)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        return self.net(torch.cat([x, t[:, None]], 1))


def mlp(width: int) -> nn.Module:
    from torchcfm.models import MLP

    torch.manual_seed(0)
    return MLP(dim=2, w=width, time_varying=True)


def ours(recipe: Recipe, ahead: bool = True, steps: int = 1) -> tuple[Step, Pairs]:
    """`steps` steps of `scifm.train`, which adds the bar and the lines of the log to them."""
    state, pairs, number = State.start(recipe), Pairs(recipe, 0, ahead=ahead), count()

    def step() -> None:
        for _ in range(steps):
            k = next(number)
            update(state, recipe, k, *pairs.at(k))

    return step, pairs


def torchcfm(x: Tensor, batch: int, width: int, transport: bool) -> Step:
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher

    matcher = ExactOptimalTransportConditionalFlowMatcher(0.0) if transport else ConditionalFlowMatcher(0.0)
    net = mlp(width)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)

    def step() -> None:
        optimiser.zero_grad()
        x1 = x[torch.randint(len(x), (batch,))]
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        v_t = net(torch.cat([x_t, t[:, None]], dim=-1))
        torch.mean((v_t - u_t) ** 2).backward()
        optimiser.step()

    return step


def flow_matching(x: Tensor, batch: int, width: int) -> Step:
    from flow_matching.path import AffineProbPath
    from flow_matching.path.scheduler import CondOTScheduler

    path, net = AffineProbPath(scheduler=CondOTScheduler()), mlp(width)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)

    def step() -> None:
        optimiser.zero_grad()
        x1 = x[torch.randint(len(x), (batch,))]
        sample = path.sample(t=torch.rand(len(x1)), x_0=torch.randn_like(x1), x_1=x1)
        v_t = net(torch.cat([sample.x_t, sample.t[:, None]], dim=-1))
        torch.pow(v_t - sample.dx_t, 2).mean().backward()
        optimiser.step()

    return step


def points(batch: int, width: int, quick: bool) -> list[list[str]]:
    """Rows of the first table, for one size."""
    data = moons(20_000)
    mine, threads = {}, []
    for name, coupling in (("ours", couplings.independent), ("ours, OT", couplings.OptimalTransport())):
        recipe = Recipe(Flow(Wrapped(width), priors.Gaussian(), coupling=coupling), data, batch_size=batch, steps=10**9)
        mine[name], pairs = ours(recipe)
        threads.append(pairs)
    x = data.train.x
    plain = {"ours": mine["ours"], "torchcfm": torchcfm(x, batch, width, False), "fm": flow_matching(x, batch, width)}
    seconds = interleaved(plain, 3 if quick else 21, 0.05 if quick else 0.2)
    rows = [[seconds[k] for k in plain]]
    if batch <= 256 or not quick:  # torchcfm's assignment of 4096 takes seconds
        transport = {"ours": mine["ours, OT"], "torchcfm": torchcfm(x, batch, width, True)}
        seconds = interleaved(transport, 3 if batch > 256 or quick else 11, 0.2)
        rows.append([seconds[k] for k in transport])
    for pairs in threads:
        pairs.close()
    cells = []
    for name, (mean, *peers) in zip(("independent", "OT"), rows, strict=False):
        ratios = [f"{mean / peer:.2f}" for peer in peers]
        times = [milliseconds(s) for s in (mean, *peers)] + ["-"] * (2 - len(peers))
        cells.append([f"{name}, B={batch}, W={width}", *times, *ratios, *["-"] * (2 - len(peers))])
    return cells


def fields(shape: tuple[int, ...], quick: bool) -> list[str]:
    """A row of the second table: a U-Net step by how its pairs are made."""
    g = torch.Generator().manual_seed(0)
    x = (torch.randn(640, *shape, generator=g).cumsum(-1) / shape[-1] ** 0.5).cumsum(-2)
    train, valid, test = (Batch(part) for part in x.split([512, 64, 64]))
    scale = Standardise().fit(train)
    prior = priors.SpectralGaussian(shape, spectrum=spectra.PerMode()).fit(scale(train))
    transport = couplings.OptimalTransport()
    cases = {
        "independent": (couplings.independent, 1, True),
        "OT": (transport, 1, False),
        "OT, ahead": (transport, 1, True),
        f"OT of {POOL}": (transport, POOL, False),
        f"OT of {POOL}, ahead": (transport, POOL, True),
    }
    steps, threads = {}, []
    for name, (coupling, pool, ahead) in cases.items():
        torch.manual_seed(0)
        velocity = networks.UNet(shape[0], widths=(32, 64, 96), stem=2)
        flow = Flow(velocity, prior, coupling=coupling, transform=scale)
        recipe = Recipe(flow, Data("fields", train, valid, test), batch_size=32, pool=pool, steps=10**9)
        steps[name], pairs = ours(recipe, ahead, 1 if quick else POOL)
        threads.append(pairs)
    seconds = interleaved(steps, 1 if quick else 11)
    for pairs in threads:
        pairs.close()
    base = seconds["independent"]
    cells = [milliseconds(base if quick else base / POOL), *(f"{seconds[name] / base:.3f}" for name in list(cases)[1:])]
    return ["x".join(map(str, shape)), *cells]


def measure(quick: bool) -> str:
    sizes = [(b, w) for b in (256, 4096) for w in (64, 256)]
    rows = [row for b, w in (sizes[:1] if quick else sizes) for row in points(b, w, quick)]
    head = ["step", "ours", "torchcfm", "flow_matching", "ours / torchcfm", "ours / flow_matching"]
    ahead = ["U-Net, B=32", "independent", "OT", "OT, ahead", f"OT of {POOL}", f"OT of {POOL}, ahead"]
    shapes = [(1, 32, 32), (1, 25, 53)]
    return "\n\n".join(
        [
            "## The training step",
            "Points in two dimensions, torchcfm's MLP of width W, B samples; ours has clipping, averaged weights and a "
            "check for what is not finite, the peers have none. With OT, torchcfm samples pairs from the plan with "
            "replacement; ours uses each draw once and pairs in a thread ahead of the step.",
            table(head, rows),
            "A U-Net step as in the quickstart with a spectral prior, in units of the step with independent pairs: "
            f"optimal transport in the batch and over a pool of {POOL} batches, in line and in a thread ahead.",
            table(ahead, [fields(shape, quick) for shape in (shapes[:1] if quick else shapes)]),
        ]
    )
