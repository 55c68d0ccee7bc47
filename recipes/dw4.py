"""DW4: four particles in the plane with a double well between each two, an equivariant flow in minutes.

The prior is white noise on centred sets.  Draws are paired with data by optimal transport; turning and relabelling them
too, which the prior allows, makes shorter paths and a worse density here (7.33 nats instead of 7.24).  The density of
the samples is all that is needed to reweight them to the Boltzmann law:

    scifm train dw4 && scifm reweight runs/<the run>

No model's mean negative log-likelihood can be below 7.2 nats, the entropy of the law itself; log Z is 29.66.
"""

from __future__ import annotations

from typing import Literal

from scifm import Flow, Objective, Recipe, couplings, networks, priors
from scifm import times as laws
from scifm.data import load_dataset


def recipe(
    *,
    coupling: Literal["independent", "ot", "equivariant"] = "ot",
    times: Literal["uniform", "late"] = "uniform",
    width: int = 32,
    layers: int = 3,
    steps: int = 15000,
    batch_size: int = 128,
    test_samples: int = 1000,
):
    """A flow of DW4.

    coupling: draws and data paired at random, by optimal transport, or by that of their turned and relabelled copies
    times: all alike, or more of the end of the path, which does better where pairs are independent
    width: features of the network
    layers: of the network
    steps: of the optimiser
    batch_size: sets per step
    test_samples: sets of the test split that are scored
    """
    data = load_dataset("dw4").dw4()
    pairs = {
        "independent": couplings.independent,
        "ot": couplings.OptimalTransport(),
        "equivariant": couplings.EquivariantTransport(),
    }[coupling]
    flow = Flow(
        networks.EGNN(2, width, layers, scale=2.0),
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
        valid_every=2000,
        checkpoint_every=1000,
        valid_samples=256,
        test_samples=test_samples,
    )
