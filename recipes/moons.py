"""Two moons: flow matching in the plane, in half a minute, with or without optimal-transport pairs."""

from __future__ import annotations

from typing import Literal

from scifm import Flow, Recipe, couplings, data, networks, priors


def recipe(
    *,
    shape: Literal["moons", "eight_gaussians", "rings", "checkerboard"] = "moons",
    coupling: Literal["independent", "ot"] = "ot",
    steps: int = 2000,
    batch_size: int = 256,
    width: int = 128,
):
    """A flow in the plane.

    shape: of the data
    coupling: how draws of the prior are paired with data: at random, or by optimal transport within the batch
    steps: of the optimiser
    batch_size: points per step
    width: of the network's three layers
    """
    points = {
        "moons": data.moons,
        "eight_gaussians": data.eight_gaussians,
        "rings": data.rings,
        "checkerboard": data.checkerboard,
    }[shape]()
    flow = Flow(
        networks.MLP(2, hidden=(width, width, width)),
        priors.Gaussian(),
        coupling=couplings.OptimalTransport() if coupling == "ot" else couplings.independent,
    )
    return Recipe(flow, points, steps=steps, batch_size=batch_size, valid_samples=256, test_samples=1000)
