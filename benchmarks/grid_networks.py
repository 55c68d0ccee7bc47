"""Networks on grids: what a step of training, a velocity and one random probe of a divergence cost.

Times are what one thread computes (`time.process_time`), medians of calls in turn, at batch 16.  train is forward,
backward and AdamW; forward a velocity without gradients; probe forward and one vector-Jacobian product, as a Hutchinson
trace needs it.  On busy machines only ratios mean something.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import harness
import torch
from harness import milliseconds, table
from torch import Tensor, nn

from scifm import Batch
from scifm.networks import FNO, DiT, UNet

interleaved = partial(harness.interleaved, clock=time.process_time)
WALLED = ("replicate", "circular")
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "UNet 32/64/96, stem 2": lambda: UNet(1, (32, 64, 96), padding=WALLED, stem=2),
    "the same, poles": lambda: UNet(1, (32, 64, 96), padding=("pole", "circular"), stem=2),
    "FNO 32, 12 x 12 modes, 4 layers": lambda: FNO(1, 32, 12, 4, WALLED),
    "DiT 128, patch 4, 6 layers": lambda: DiT(1, 4, 128, 6, padding=WALLED),
}
GRIDS = ((25, 53), (64, 128))


def measure(quick: bool) -> str:
    """The tables as Markdown."""
    parts = [on(grid, quick) for grid in (GRIDS[:1] if quick else GRIDS)]
    return "\n\n".join(["## Networks on grids", "Batch 16, one channel.", *parts])


def on(grid: tuple[int, int], quick: bool) -> str:
    batch = Batch(torch.randn(2 if quick else 16, 1, *grid, generator=torch.Generator().manual_seed(0)))
    batch = batch if grid[1] % 2 == 0 else Batch(batch.x[..., 1:])  # poles want longitudes in pairs
    networks = {name: woken(make()) for name, make in NETWORKS.items()}
    kinds = {"train": train, "forward": forward, "probe": probe}
    seconds = {
        kind: interleaved({name: call(net, batch) for name, net in networks.items()}, 1 if quick else 3)
        for kind, call in kinds.items()
    }
    first = next(iter(networks))
    rows = []
    for name, net in networks.items():
        cells = [f"{milliseconds(s[name])} ({s[name] / s[first]:.2f})" for s in seconds.values()]
        rows.append([name, f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M", *cells])
    head = [f"{grid[0]} x {batch.x.shape[3]}, multiples of the first row", "weights", *kinds]
    return table(head, rows)


def woken(network: nn.Module) -> nn.Module:
    """The same network, its head not zero: nothing is saved by zeros."""
    torch.manual_seed(0)
    for p in network.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.02)
    return network


def train(network: nn.Module, batch: Batch) -> Callable[[], None]:
    optimiser, t = torch.optim.AdamW(network.parameters(), 1e-4), torch.full((len(batch),), 0.5)

    def call() -> None:
        optimiser.zero_grad()
        network(t, batch.x, batch).square().mean().backward()
        optimiser.step()

    return call


def forward(network: nn.Module, batch: Batch) -> Callable[[], Tensor]:
    t = torch.full((len(batch),), 0.5)

    def call() -> Tensor:
        with torch.no_grad():
            return network(t, batch.x, batch)

    return call


def probe(network: nn.Module, batch: Batch) -> Callable[[], Tensor]:
    t, signs = torch.full((len(batch),), 0.5), batch.x.sign()

    def call() -> Tensor:
        for p in network.parameters():
            p.requires_grad_(False)
        x = batch.x.clone().requires_grad_()
        return torch.autograd.grad(network(t, x, batch), x, signs)[0]

    return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(measure(quick=False))
