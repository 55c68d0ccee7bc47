"""One step of the optimiser: loss, gradient, clipping, AdamW and averaged weights.

For small networks a step is a millisecond, most of it the calls and not the arithmetic, so each thing is done once:
lists of weights are made before the first step, one number tells whether loss and gradient are finite, gradients are
scaled only where they are too long.  Clipping bounds the norm over all weights (Pascanu et al. 2013); the averaged
weights are those that are validated, sampled and scored (Polyak and Juditsky 1992).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scifm.batch import Batch
from scifm.flow import Flow
from scifm.schedule import draw, learning_rate

if TYPE_CHECKING:
    from scifm.recipe import Recipe

__all__ = ["State", "TrainingError", "processes", "update"]


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and batch, and what usually cures it."""


@dataclass
class State:
    """What changes while training, and what a checkpoint holds.

    Weights are listed once: walking through the modules at each step takes longer than averaging what they hold.
    """

    flow: Flow
    ema: Flow
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    seed: int

    def __post_init__(self) -> None:
        self.rank, self.world = processes()
        self.trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.weights = [p.detach() for p in self.flow.velocity.parameters()]
        self.averaged: list[Tensor] = list(self.ema.velocity.parameters())
        # Running statistics. Prior and transform have none, and their buffers may be large.
        self.statistics = list(zip(self.ema.velocity.buffers(), self.flow.velocity.buffers(), strict=True))

    @classmethod
    def start(cls, recipe: Recipe, seed: int = 0, device: str = "cpu") -> State:
        """Before the first step: averaged weights equal to the weights, no moments."""
        flow = recipe.flow.to(device).train()
        ema = copy.deepcopy(flow).requires_grad_(False).eval()
        return cls(flow, ema, _optimiser(flow, recipe), torch.Generator().manual_seed(seed), seed)


def update(state: State, recipe: Recipe, step: int, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the optimiser; returns the mean loss and the norm of the gradient before clipping, both ().

    Raises:
        TrainingError: where one of them is not finite, before it reaches the weights.
    """
    loss = state.flow.loss(batch, state.generator, x0)
    mean = loss.mean()
    for weight in state.trained:
        weight.grad = None
    mean.backward()
    gradients = [p.grad for p in state.trained if p.grad is not None]
    mean = mean.detach() if state.world == 1 else _share(gradients, mean.detach(), state.world)
    norm = torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))
    length = float(norm)  # the one wait for the device
    if not math.isfinite(length + float(mean)):
        raise _error(loss.detach(), length, batch, recipe, step, state)
    if length > recipe.clip:
        for gradient in gradients:
            gradient.mul_(recipe.clip / length)
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(step, recipe)
    state.optimiser.step()
    _average(state, recipe.ema, step)
    return mean, norm


def processes() -> tuple[int, int]:
    """Rank of this process among those that train together, and their number: (0, 1) without torch.distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _share(gradients: list[Tensor], loss: Tensor, world: int) -> Tensor:
    """Average gradients, in place, and the loss over the processes: so all see what is not finite, and stop alike."""
    flat = torch.cat([loss[None], *(g.flatten() for g in gradients)])
    distributed.all_reduce(flat)
    loss, *parts = (flat / world).split([1, *(g.numel() for g in gradients)])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return loss[0]


def _optimiser(flow: Flow, recipe: Recipe) -> torch.optim.AdamW:
    parameters = [p for p in flow.velocity.parameters() if p.requires_grad]
    if not parameters:
        raise TrainingError("train: the flow has no parameters to train; its velocity must be a network.")
    for name, part in (("prior", flow.prior), ("transform", flow.transform)):
        if any(p.requires_grad for p in part.parameters()):
            raise TrainingError(
                f"train: the {name} has parameters that ask for gradients, and the flow-matching loss would collapse "
                "them (a narrow prior is easy to flow from); keep its numbers as buffers and set them in fit."
            )
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    try:
        return torch.optim.AdamW(parameters, fused=True, **settings)
    except RuntimeError:  # this device or dtype has no fused kernel
        return torch.optim.AdamW(parameters, **settings)


_mean = lru_cache(maxsize=2)(get_ema_multi_avg_fn)  # to make one takes longer than a call of it


@torch.no_grad()
def _average(state: State, decay: float, step: int) -> None:
    """Move the averaged weights; the average is short at first, or it would remember the initial weights."""
    average = _mean(min(decay, (1 + step) / (10 + step)))
    average(state.averaged, state.weights, step)
    for mean, now in state.statistics:
        mean.copy_(now)


def _error(loss: Tensor, norm: float, batch: Batch, recipe: Recipe, step: int, state: State) -> TrainingError:
    """What to say of a step that is not finite."""
    data = recipe.data
    samples = draw(len(data.train), recipe.batch_size, step, state.seed, data.stretches)[state.rank :: state.world]
    bad_data = batch.total((~batch.x.isfinite()).double()) > 0
    bad_loss = ~loss.isfinite()
    who = samples[(bad_data | bad_loss).cpu()].tolist()
    if bad_data.any():
        cure = "These samples hold NaN or infinity: fill or drop them."
    else:
        cure = "The data are finite, so the network diverged: lower learning_rate, or raise warmup."
    return TrainingError(
        f"train: loss {float(loss.mean()):.4g}, gradient norm {norm:.4g} at step {step + 1}, in the "
        f"batch of training samples {samples[:6].tolist()}{'...' if len(samples) > 6 else ''}; "
        f"not finite for {who[:6] or 'the gradient only'}. {cure} The last checkpoint is untouched."
    )
