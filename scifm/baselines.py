"""Closed-form Gaussians beside a flow: without them a likelihood looks good and may not be.

A full-covariance Gaussian fitted in seconds can beat a hardly trained flow by half a bit per dimension; the ladder
prior, white noise, best Gaussian shows what the network has learnt.  `scifm.gaussians` says which there are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scifm import trace as traces
from scifm.batch import Batch
from scifm.gaussians import candidates, white
from scifm.likelihood import Estimate, estimate, mixture
from scifm.noise import Noise, dequantise
from scifm.priors import Prior
from scifm.support import log_det

if TYPE_CHECKING:
    from scifm.flow import Flow

__all__ = ["baselines", "closed_form"]


def baselines(
    flow: Flow,
    train: Batch,
    test: Batch,
    *,
    delta: float | None = None,
    draws: int = 1,
    generator: torch.Generator | None = None,
    largest: int = 3000,
) -> dict[str, Estimate]:
    """Closed-form Gaussians beside a flow, in the same units, on the same space and the same data, bits per dimension.

    - "prior": the flow's own prior, as it is.
    - "white": white noise with the mean and variance of the training data, in model units.
    - "best Gaussian": the best of per-value, spectral, EOF and full-covariance Gaussians, for centred sets of those of
      chains and bonds, by the likelihood of the last fifth of the training data, fitted again on all of it.  Full
      covariances up to `largest` dimensions, EOFs up to `largest` dimensions or samples.

    Where the prior lives on a subspace that we do not know, it stands alone.

    Args:
        train, test: data in the user's units.
        delta, draws: as for `bits_per_dim`.
    """
    model = flow.transform(dequantise(train, delta, generator))
    cut = max(1, len(model) - len(model) // 5)
    head, tail = model.select(range(cut)), model.select(range(min(cut, len(model) - 1), len(model)))
    scores = {}
    makers = candidates(flow.prior, model, largest)
    for name, make in makers.items():
        try:
            scores[name] = float(make().fit(head).log_prob(tail.x, tail).mean())
        except (ValueError, NotImplementedError):
            continue  # too few samples for this one
    noise_alone = white(flow.prior, model)
    found = {"prior": flow.prior} | ({} if noise_alone is None else {"white": noise_alone})
    if scores:
        best = max(scores, key=lambda name: scores[name])
        found[f"best Gaussian ({best})"] = makers[best]().fit(model)
    device = torch.device("cpu") if generator is None else generator.device
    base = int(torch.randint(2**31, (), generator=generator, device=device))
    noise = Noise(base, delta, draws, traces.Exact())
    return {name: _estimate(flow, prior, test, noise) for name, prior in found.items()}


def _estimate(flow: Flow, prior: Prior, test: Batch, noise: Noise) -> Estimate:
    return estimate(-closed_form(flow, prior, test, noise) / (prior.dims(test).double().cpu() * math.log(2)))


@torch.no_grad()
def closed_form(flow: Flow, prior: Prior, test: Batch, noise: Noise) -> Tensor:
    """log P of each sample under a prior in the flow's model units, (B,) float64 on the CPU, in the user's units.

    Args:
        noise: of the score beside which it is to stand; of the bin where it has a delta, else a density.
    """
    logs, dims = [], prior.dims(test).double().cpu()
    for data in noise(test, range(len(test)))[0]:
        model = flow.transform(data)
        logs.append((prior.log_prob(model.x, model).double() + log_det(flow.transform, data, flow.prior)).cpu())
    return mixture(torch.stack(logs), dims, noise.delta)
