"""LJ13: thirteen Lennard-Jones particles, an equivariant flow whose samples are reweighted to the Boltzmann law.

The prior is white noise on centred sets, the only Gaussian that particles which exchange and turn allow; its scale is
that of the data.  Draws are brought near their data by turning and relabelling them, which the prior allows (Klein,
Krämer and Noé 2023), so paths are short.  The density of the samples is all that is needed to reweight them:

    scifm train lj13 && scifm reweight runs/<the run>

No model's mean negative log-likelihood can be below 16.8 ± 0.1 nats, the entropy of the law itself.  `--system lj55` is
the same story with 55 particles: hours, and samples that are hard to reweight.
"""

from __future__ import annotations

from typing import Literal

from scifm import Flow, Objective, Recipe, couplings, networks, priors
from scifm import times as laws
from scifm.data import load_dataset


def recipe(
    *,
    system: Literal["lj13", "lj55"] = "lj13",
    coupling: Literal["independent", "ot", "equivariant"] = "equivariant",
    times: Literal["uniform", "late"] = "uniform",
    width: int = 64,
    layers: int = 4,
    steps: int = 26000,
    batch_size: int = 128,
    test_samples: int = 200,
):
    """A flow of LJ13 or LJ55.

    system: 13 particles, or 55
    coupling: draws and data paired at random, by optimal transport, or by that of their turned and relabelled copies
    times: all alike, or more of the end of the path, which does better where pairs are independent
    width: features of the network
    layers: of the network
    steps: of the optimiser
    batch_size: clusters per step
    test_samples: clusters of the test split that are scored
    """
    data = getattr(load_dataset(system), system)()
    pairs = {
        "independent": couplings.independent,
        "ot": couplings.OptimalTransport(),
        "equivariant": couplings.EquivariantTransport(),
    }[coupling]
    flow = Flow(
        networks.EGNN(3, width, layers),
        priors.MeanFreeGaussian().fit(data.train),
        coupling=pairs,
        objective=Objective(times=laws.logit_normal(1.0, 1.5) if times == "late" else laws.uniform),
    )
    return Recipe(
        flow,
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=3e-3,
        weight_decay=0.0,
        valid_every=10000,
        checkpoint_every=1000,
        valid_samples=128,  # an exact trace each: 36 derivatives
        test_samples=test_samples,
    )
