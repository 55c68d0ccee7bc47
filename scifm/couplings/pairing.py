"""What all couplings of a batch share: who may exchange draws, what is refused, and in which metric cost is measured.

Draws are exchanged only between samples of one group, `Batch.groups`: of the same size, with equal conditions.  A
pairing across conditions would bias p(x0 | condition), from which sampling starts: the velocity would learn to flow
from another law than it is given (Cheng and Schwing 2025).

A cost ‖x1 − x0‖² in the prior's own metric, ‖C^-½ (x1 − x0)‖², weighs small scales as much as large ones.  It goes with
a flow that learns in that metric; in the plain metric the few largest scales decide alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.couplings.assignment import finite
from scifm.priors.base import Prior

__all__ = ["Choose", "check_draws", "pair", "products", "squared"]

#: (data (n, d), draws (n, d), samples (n,)) -> (n,): which draw each sample of the group gets
Choose = Callable[[Tensor, Tensor, Tensor], Tensor]


@torch.no_grad()
def pair(
    who: str, x0: Tensor, batch: Batch, choose: Choose, ignore: Sequence[str] = (), prior: Prior | None = None
) -> Tensor:
    """x0 re-paired with `batch.x` group by group, in the data's order.

    Args:
        who: named in errors.
        choose: decides within a group, from rows that hold whole samples, whitened if a prior is given.
        ignore: names of context that does not tell groups apart.
        prior: measures in its own metric.

    Raises:
        ValueError: where x0 differs from the data in shape, dtype or device, or either is empty or not finite;
            where the prior's law depends on context that is ignored.
    """
    check_draws(who, x0, batch, ignore, prior)
    groups = batch.groups(ignore)
    if len(batch) > 1 and all(len(g) == 1 for g in groups):
        warnings.warn(
            f"{who}: no two samples of the batch share their size and conditions "
            f"({', '.join(batch.context) or 'rows and edges'}), so there is nothing to pair; name context that the "
            "velocity does not look at in ignore=, or use couplings.independent, ConditionalTransport for numbers that "
            "vary, or coarser conditions.",
            stacklevel=3,
        )
        return x0
    data, draws = batch.x.detach(), x0.detach()
    if prior is not None:
        data, draws = prior.whiten(data, batch), prior.whiten(draws, batch)
    source = torch.arange(len(batch), device=batch.x.device)
    for samples in groups:
        a, b = batch.stack(data, samples), batch.stack(draws, samples)
        if len(samples) > 1 and a.numel():
            source[samples] = samples[choose(a, b, samples)]
    return batch.replace(x0).select(source).x  # sample i gets the draw of sample source[i], which has as many rows


def check_draws(who: str, x0: Tensor, batch: Batch, ignore: Sequence[str] = (), prior: Prior | None = None) -> None:
    """Refuse draws that are not like the data, nothing to pair, NaN, and conditions that must not be ignored."""
    if isinstance(ignore, str):
        raise ValueError(f'{who}: ignore must be a tuple of names, e.g. ("{ignore}",), got {ignore!r}.')
    got, wanted = (x0.dtype, x0.device, tuple(x0.shape)), (batch.x.dtype, batch.x.device, tuple(batch.x.shape))
    if got != wanted:
        raise ValueError(
            f"{who}: x0 ({got[0]}, {got[1]}, {got[2]}) must be shaped like the data ({wanted[0]}, {wanted[1]}, "
            f"{wanted[2]}), and be of the same type on the same device; draw it with prior.sample(batch)."
        )
    if not len(batch):
        raise ValueError(f"{who}: the batch is empty, there is nothing to pair.")
    if not finite(x0) or not finite(batch.x):
        raise ValueError(f"{who}: data or prior draws are not finite (NaN or infinity in the batch).")
    told = sorted(set(ignore) & set(() if prior is None else prior.conditional))
    if told:
        raise ValueError(
            f"{who}: the law of {type(prior).__name__} depends on {', '.join(told)}, so a draw belongs to a sample "
            "with its condition and must not be exchanged across it; leave it out of ignore= and on=."
        )


def products(data: Tensor, draws: Tensor) -> Tensor:
    """(n, n) −2⟨x1_i − x̄1, x0_j − x̄0⟩: the squared distance but for terms of a row or of a column alone.

    Such terms are the same for all plans with given marginals, and leaving them out, with both clouds centred, keeps
    float32 from cancelling.
    """
    if data.dtype not in (torch.float32, torch.float64):
        data, draws = data.float(), draws.float()
    return (data - data.mean(0)).mul_(-2) @ (draws - draws.mean(0)).T


def squared(data: Tensor, draws: Tensor) -> Tensor:
    """(n, n) ‖x1_i − x0_j‖² in float64, for plans in which terms of rows and columns do matter."""
    data, draws = data.double(), draws.double()
    middle = data.mean(0)
    a, b = data - middle, draws - middle
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    return torch.addmm(norms, a, b.T, alpha=-2).clamp_(min=0)
