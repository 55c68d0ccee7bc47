"""A forecast of air temperature: the law of tomorrow's map given today's, from a prior that expects persistence.

Maps are anomalies from climatology.  Expected is what is left of today's anomaly after the lead time, cosine mode by
cosine mode, for large scales last and small ones do not; the prior is that plus a Gaussian field with the variance per
mode of what persistence gets wrong: a forecast already, with an exact density.  The network learns how weather moves.
Members are draws with the same conditions.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from scifm import Batch, Flow, Objective, Recipe, networks, priors, times
from scifm.data import Data, load_dataset
from scifm.data.lagged import lagged
from scifm.data.transforms import Climatology
from scifm.priors import spectra
from scifm.priors.spectral import Basis


def recipe(
    *,
    lead: float = 1.0,
    prior: Literal["persistence", "climatology"] = "persistence",
    width: int = 32,
    steps: int = 1500,
    batch_size: int = 16,
    test_samples: int = 64,
):
    """A flow of air temperature given that of some days before.

    lead: days, a multiple of a quarter
    prior: centred on what is left of today's anomaly, or on climatology
    width: channels of the network's finest level
    steps: of the optimiser
    batch_size: maps per step
    test_samples: maps of the test split that are scored
    """
    source = load_dataset("ncep_air").ncep_air()
    anomaly = Climatology(harmonics=3, per="global").fit(source.train)
    pairs = [lagged(split, lead, units=anomaly) for split in (source.train, source.valid, source.test)]
    left = damping(anomaly(pairs[0]).x, pairs[0].context["previous"])
    train, valid, test = (expecting(split, left) for split in pairs)
    summary = f"{source.summary}; {len(train)}, {len(valid)} and {len(test)} of them {lead:g} days after another"
    data = Data(
        "forecast", train, valid, test,
        unit=source.unit, delta=source.delta, files=source.files, export=source.export, summary=summary,
    )  # fmt: skip
    base = priors.SpectralGaussian(train.event, periodic=(False, False), spectrum=spectra.PerMode())
    if prior == "persistence":
        base = priors.Conditional(base, mean="expected")
    conditions = networks.GridConditions(fields={"expected": 1}, calendar=True)
    return Recipe(
        Flow(
            networks.GaussianSkip(networks.UNet(1, (width, 2 * width, 3 * width), stem=2, conditions=conditions)),
            base.fit(anomaly(train)),
            objective=Objective(times=times.stratified),
            transform=anomaly,
        ),
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        valid_every=500,
        checkpoint_every=500,
        valid_samples=16,
        test_samples=test_samples,
    )


def damping(now: Tensor, before: Tensor) -> Tensor:
    """Share of each cosine mode that is left: the regression of now on before, both (B, C, *grid), as (C, *grid)."""
    basis = Basis(now.shape[2:], [False] * (now.ndim - 2))
    now, before = basis.forward(now.double()), basis.forward(before.double())
    return ((now * before).sum(0) / before.square().sum(0)).clamp(0, 1)


def expecting(pairs: Batch, left: Tensor) -> Batch:
    """Pairs with the expected anomaly in place of the previous one."""
    context = {name: value for name, value in pairs.context.items() if name != "previous"}
    basis, before = Basis(left.shape[1:], [False] * (left.ndim - 1)), pairs.context["previous"]
    expected = basis.inverse(left * basis.forward(before.double())).to(before)
    return Batch(pairs.x, context={**context, "expected": expected})
