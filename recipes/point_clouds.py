"""Point clouds: surfaces in space or digits in the plane, made of points in any order.

The data are parametric shapes with a class label, which conditions the flow; `--source digits` takes MNIST's, and
`--folder` your own meshes or point files.  Points exchange, so each draw of the prior is relabelled to lie near its
cloud.  The straightest pairs need not be the easiest to learn: `--noise` mixes fresh noise into the draws (Hui et al.
2025).

    scifm train point_clouds && scifm sample runs/<the run> -n 20 -o clouds.ply
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from scifm import Flow, Recipe, couplings, networks, priors
from scifm.data import load_dataset


def recipe(
    *,
    source: Literal["shapes", "digits"] = "shapes",
    folder: Path | None = None,
    kinds: str = "",
    points: tuple[int, ...] = (64,),
    prior: Literal["gaussian", "ball"] = "gaussian",
    coupling: Literal["transport", "independent"] = "transport",
    noise: float = 0.0,
    width: int = 64,
    layers: int = 4,
    steps: int = 3000,
    batch_size: int = 32,
    test_samples: int = 100,
):
    """A flow of clouds.

    source: parametric shapes in space, or digits in the plane, where no folder is given
    folder: of meshes or point files of your own; folders within are classes
    kinds: of shapes, separated by commas, such as "sphere,left helix"; without it all, and a wrong name lists them
    points: of each cloud; two numbers, such as 48,64, for sizes from the first to the second
    prior: independent normal points, or points that fill a ball
    coupling: points of a draw paired with points of its cloud by optimal transport, or at random
    noise: share of fresh noise in the draws that were paired by transport, from 0 to 1
    width: features of the network
    layers: of the network
    steps: of the optimiser
    batch_size: clouds per step
    test_samples: clouds of the test split that are scored
    """
    if len(points) not in (1, 2):
        raise ValueError(f"point_clouds: --points takes one number, or the least and the most, got {len(points)}.")
    if folder and source != "shapes":
        raise ValueError(f"point_clouds: --folder and --source {source} are two sources of clouds; leave one out.")
    if noise and coupling == "independent":
        raise ValueError("point_clouds: --noise blurs pairs of transport; --coupling independent has none to blur.")
    sizes = points[0] if len(points) == 1 else (points[0], points[1])
    data = load_dataset("clouds").clouds(folder or source, points=sizes, kinds=kinds)
    base = (priors.Gaussian() if prior == "gaussian" else priors.Ball()).fit(data.train)
    dim = data.train.event[-1]
    labels = 1 + max(int(part.context["label"].max()) for part in (data.train, data.valid, data.test))
    velocity = networks.SetTransformer(dim, width, layers, wavelengths=(2.0, 1.0, 0.5), context={"label": labels})
    pairs = couplings.Aligned(rotation=False) if coupling == "transport" else couplings.independent
    pairs = couplings.Hybrid(base, pairs, noise) if noise else pairs
    return Recipe(
        Flow(networks.GaussianSkip(velocity), base, coupling=pairs),
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        valid_every=1000,
        checkpoint_every=500,
        valid_samples=32,
        test_samples=test_samples,
    )
