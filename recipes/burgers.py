"""Burgers' equation backward: the wave at t = 0, given the wave at t = 1.

Viscosity forgets: many first waves end in nearly the same one, so the answer is a law and not a wave.  The network sees
the last wave as a second channel; the prior is a Gaussian field on the ring with the spectrum of first waves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scifm import Batch, Flow, Objective, Recipe, networks, priors, times
from scifm.data import load_dataset
from scifm.data.transforms import Standardise
from scifm.priors import spectra


class Given(nn.Module):
    """A velocity of x (B, C, *grid) that sees a field of the context beside it, divided by its spread in `batch`."""

    symmetries = frozenset()

    def __init__(self, network: nn.Module, name: str, batch: Batch):
        super().__init__()
        self.network, self.name = network, name
        self.register_buffer("scale", 1 / batch.context[name].std())

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        both = torch.cat([x, self.scale.to(x) * batch.context[self.name].to(x)], 1)
        return self.network(t, both, Batch(both))[:, : x.shape[1]]


def recipe(*, width: int = 32, steps: int = 3000, batch_size: int = 64, test_samples: int = 400):
    """A flow of first waves given the last.

    width: of the network's finest level
    steps: of the optimiser
    batch_size: waves per step
    test_samples: waves of the test split that are scored
    """
    data = load_dataset("burgers").burgers("initial")
    scale = Standardise().fit(data.train)
    ring = priors.SpectralGaussian(data.train.event, periodic=True, spectrum=spectra.PerMode())
    network = networks.UNet(2, widths=(width, 2 * width), padding=("circular",))
    return Recipe(
        Flow(
            Given(network, "final", data.train),
            ring.fit(scale(data.train)),
            objective=Objective(times=times.stratified),
            transform=scale,
        ),
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        valid_every=500,
        test_samples=test_samples,
    )
