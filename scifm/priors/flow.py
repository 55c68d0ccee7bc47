"""A trained zuko flow as a prior: start where another density model ends.

A zuko flow is a *lazy distribution*, a module that returns a distribution when called with a context, or without.  So
would any other module do that returns a distribution over the event with `sample` and `log_prob`; zuko itself is not
imported.  Reference: Rozet et al. 2022 (zuko).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.frozen import Frozen
from scifm.priors.lent import lent, local

__all__ = ["FromZuko"]


class FromZuko(Prior):
    """A frozen copy of a lazy flow over flattened events, dense batches only, exact density.

    It computes in the dtype of its own parameters, single as zuko makes them; give flow.double() for more digits.

    Args:
        flow: e.g. zuko.flows.NSF(features=D, context=C), trained beforehand.
        context: name in `like.context` that the flow is called with, (B,) or (B, C); None calls it without.
    """

    def __init__(self, flow: nn.Module, context: str | None = None):
        super().__init__()
        if not isinstance(flow, nn.Module):
            raise TypeError(f"FromZuko: expected a zuko flow, a module such as zuko.flows.NSF(2); got {flow!r}.")
        self.flow, self.context = Frozen(flow), context
        self.conditional = () if context is None else (context,)
        if context is None:
            self._try(type(flow).__name__)

    def _try(self, name: str) -> None:
        device = next((p.device for p in self.flow.parameters()), torch.device("cpu"))
        try:
            with torch.no_grad(), lent(torch.Generator(device).manual_seed(0)):
                law = self.flow()
                law.log_prob(law.sample())
        except (TypeError, RuntimeError, AttributeError, NotImplementedError, ValueError) as error:
            raise ValueError(
                f"FromZuko: {name} gives no distribution with sample and log_prob when called without context "
                f"({error}); a conditional flow needs context=, the name of its condition in the batch."
            ) from error

    @torch.no_grad()
    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        law = self._law(like)
        weight = next(self.flow.parameters(), like.x)
        with lent(local(generator, weight.device)):
            x = law.sample((len(like),)) if self.context is None else law.sample()
        return x.reshape(like.x.shape).to(like.x)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        law = self._law(like)
        return law.log_prob(x.reshape(len(like), *law.event_shape).to(self.flow.dtype(x.dtype))).to(x)

    def _law(self, like: Batch) -> Any:
        event = like.grid("FromZuko")
        if self.context is None:
            law, batch = self.flow(), ()
        else:
            if self.context not in like.context:
                raise ValueError(
                    f"FromZuko: the flow's condition {self.context!r} is not in the context {sorted(like.context)}."
                )
            c = like.context[self.context].to(self.flow.dtype(like.x.dtype))
            law, batch = self.flow(c.reshape(len(like), -1)), (len(like),)
        if math.prod(law.event_shape) != math.prod(event) or tuple(law.batch_shape) != batch:
            raise ValueError(
                f"FromZuko: events have shape {event} and the batch {batch}, the flow is over "
                f"{math.prod(law.event_shape)} features and gave a batch {tuple(law.batch_shape)}."
            )
        return law
