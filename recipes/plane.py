"""The plane: from a normal law to one of several shapes, with a choice of pairs and of path, in a minute.

What pairs and path are worth, seen in the likelihood and in the number of evaluations that it takes:

    scifm train plane --target scurve --coupling ot --path linear

`benchmarks/path_table.py moons` runs them all, with several seeds, and makes a table; `benchmarks/toy_table.py` goes
from data to data as well.
"""

from __future__ import annotations

from typing import Literal

from scifm import Flow, Recipe, couplings, data, networks, paths, priors


def recipe(
    *,
    target: Literal["moons", "eight_gaussians", "scurve", "rings", "checkerboard"] = "moons",
    coupling: Literal["independent", "ot"] = "independent",
    path: Literal["linear", "vp", "trigonometric"] = "linear",
    steps: int = 4000,
    batch_size: int = 256,
    width: int = 64,
):
    """A flow from a normal law to a law in the plane.

    target: law of the data
    coupling: how draws of the prior are paired with data: at random, or by optimal transport within the batch
    path: straight, variance preserving, or a quarter of a circle
    steps: of the optimiser
    batch_size: points per step
    width: of the network's three layers
    """
    points = {
        "moons": data.moons,
        "eight_gaussians": data.eight_gaussians,
        "scurve": data.scurve,
        "rings": data.rings,
        "checkerboard": data.checkerboard,
    }[target]()
    flow = Flow(
        networks.MLP(2, hidden=(width, width, width)),
        priors.Gaussian().fit(points.train),
        coupling=couplings.OptimalTransport() if coupling == "ot" else couplings.independent,
        path={"linear": paths.Linear, "vp": paths.VariancePreserving, "trigonometric": paths.Trigonometric}[path](),
    )
    return Recipe(flow, points, steps=steps, batch_size=batch_size, valid_samples=256, test_samples=1000)
