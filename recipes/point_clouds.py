"""Point clouds: surfaces in space or digits in the plane, made of points in any order.

The data are parametric shapes with a class label, which conditions the flow; `--source digits` takes MNIST, a folder
takes your own meshes or point files.  Points exchange, so each draw of the prior is relabelled to lie near its cloud.
The straightest pairs need not be the easiest to learn: `--noise` mixes fresh noise into the draws (Hui et al. 2025).

    scifm train point_clouds && scifm sample runs/<the run> -n 20 -o clouds.ply
"""

from __future__ import annotations

from typing import Literal

from scifm import Flow, Recipe, couplings, networks, priors
from scifm.data import load_dataset


def recipe(
    *,
    source: str = "shapes",
    kinds: str = "",
    points: tuple[int, ...] = (64,),
    prior: Literal["gaussian", "ball"] = "gaussian",
    coupling: Literal["transport", "independent"] = "transport",
    width: int = 64,
    layers: int = 4,
    steps: int = 3000,
    batch_size: int = 32,
    test_samples: int = 100,
):
    """A flow of clouds.

    source: shapes, digits, or a folder of meshes or point files
    kinds: of shapes, separated by commas; all of them if none is given
    points: of each cloud; two numbers for sizes from the first to the second
    prior: independent normal points, or points that fill a ball
    coupling: points of a draw paired with points of its cloud by optimal transport, or at random
    width: features of the network
    layers: of the network
    steps: of the optimiser
    batch_size: clouds per step
    test_samples: clouds of the test split that are scored
    """
    sizes = points[0] if len(points) == 1 else (points[0], points[-1])
    data = load_dataset("clouds").clouds(source, points=sizes, kinds=kinds)
    base = (priors.Gaussian() if prior == "gaussian" else priors.Ball()).fit(data.train)
    dim, labels = data.train.event[-1], int(data.train.context["label"].max()) + 1
    velocity = networks.SetTransformer(dim, width, layers, wavelengths=(2.0, 1.0, 0.5), context={"label": labels})
    flow = Flow(
        networks.GaussianSkip(velocity),
        base,
        coupling=couplings.Aligned(rotation=False) if coupling == "transport" else couplings.independent,
    )
    return Recipe(
        flow,
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        valid_every=1000,
        checkpoint_every=500,
        valid_samples=32,
        test_samples=test_samples,
    )
