"""Any `torch.distributions.Distribution` with a density as a prior: heavy tails, boxes, mixtures, copulas.

The numbers that define it become buffers in double precision: they are saved in checkpoints and follow `.to(device)`.
For each call the distribution is made anew with these in the dtype and place of x.  Its draws come from the generator,
although distributions know only the global random state; see `scifm.priors.lent`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform
from torch.distributions.constraints import Constraint

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.lent import lent

__all__ = ["FromTorch"]


class FromTorch(Prior):
    """A distribution over one row: a whole sample of a dense batch, a point of a ragged one, points independently.

    Outside the support log_prob is −inf, without a warning and whatever the distribution would say.

    Args:
        distribution: continuous, with batch_shape + event_shape equal to the event; values along its batch_shape are
            independent.  It is copied and its parameters do not learn.

    Example:
        >>> from torch.distributions import StudentT
        >>> heavy = FromTorch(StudentT(5.0).expand((3,)))
        >>> heavy.log_prob(torch.zeros(1, 3), Batch(torch.zeros(1, 3)))
        tensor([-2.9059])
    """

    def __init__(self, distribution: Distribution):
        super().__init__()
        if not isinstance(distribution, Distribution):
            raise TypeError(
                f"FromTorch: expected a torch.distributions.Distribution, got {type(distribution).__name__}; a zuko "
                "flow goes into FromZuko, and a class must be made, e.g. Normal(0.0, 1.0)."
            )
        name = type(distribution).__name__
        self.event = tuple(distribution.batch_shape + distribution.event_shape)
        if not self.event:
            raise ValueError(f"FromTorch: {name} is a law of single numbers; say of how many, with .expand(event).")
        self.template = copy.deepcopy(distribution, {id(v): v.detach().clone() for v in _tensors(distribution)})
        for i, value in enumerate(_tensors(self.template)):
            self.register_buffer(f"parameter{i}", value.double() if value.is_floating_point() else value)
        self._try(name)

    def _try(self, name: str) -> None:
        cure = "wrap a distribution that has log_prob and a known support, or derive from Prior."
        try:
            with lent(torch.Generator().manual_seed(0)):
                law = self._made(torch.float64, torch.device("cpu"))
                point = law.sample()
            if getattr(law.support, "is_discrete", False):
                raise ValueError(f"FromTorch: {name} is discrete, and a flow needs a density; dequantise it.")
            _support(law).check(point)
            finite = law.log_prob(point).isfinite().all()
        except NotImplementedError as error:
            raise ValueError(f"FromTorch: {name} cannot be a prior, since something is not there: {cure}") from error
        if point.shape != self.event or not finite:
            raise ValueError(f"FromTorch: {name} has no finite density at a draw of its own; {cure}")
        self.point: Tensor
        self.register_buffer("point", point)  # somewhere inside the support

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        self._fits(like.x)
        # Where the generator lives, so that one on the CPU gives the same numbers on every device.
        device = like.x.device if generator is None else generator.device
        with lent(generator), torch.no_grad():
            return self._made(like.x.dtype, device).sample(like.x.shape[:1]).to(like.x)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        self._fits(x)
        if not len(x):  # no rows, of which torch's constraints make an error
            return like.total(x)
        law = self._made(x.dtype, x.device)
        inside = _support(law).check(x)  # (rows, *batch_shape)
        spread = inside.reshape(*inside.shape, *[1] * (x.ndim - inside.ndim))
        value = law.log_prob(torch.where(spread, x, self.point.to(x)))
        # A NaN is not outside but unknown, and the gradient of a constant density is zero: both by adding 0 · x.
        return like.total(torch.where(inside, value, -math.inf).to(x)) + 0 * like.total(x.clamp(-1, 1))

    def _made(self, dtype: torch.dtype, device: torch.device) -> Distribution:
        """The distribution with its parameters there: a deep copy that is told what the copies of tensors are."""
        moved = {}
        for i, value in enumerate(_tensors(self.template)):
            kept = self.get_buffer(f"parameter{i}")
            moved[id(value)] = kept.to(device, dtype) if value.is_floating_point() else kept.to(device)
        return copy.deepcopy(self.template, moved)

    def _fits(self, x: Tensor) -> None:
        if x.shape[1:] != self.event:
            raise ValueError(
                f"FromTorch: the distribution is over events of shape {self.event} (batch_shape + event_shape), got "
                f"rows of shape {tuple(x.shape[1:])}; .expand the distribution to that."
            )


def _support(law: Distribution) -> Constraint:
    support = law.support
    if support is None:
        raise NotImplementedError
    return support


def _tensors(thing: object) -> list[Tensor]:
    """The tensors that define a distribution, each once, always in the same order."""
    return [t for t in _walk(thing, set()) if isinstance(t, Tensor)]


def _walk(thing: object, seen: set[int]) -> Iterator[Tensor | Distribution | Transform]:
    if id(thing) in seen:
        return
    if isinstance(thing, (Tensor, Distribution, Transform)):
        seen.add(id(thing))
        yield thing
    if isinstance(thing, (Distribution, Transform)):
        thing = list(vars(thing).values())
    for part in thing if isinstance(thing, (list, tuple)) else ():
        yield from _walk(part, seen)
