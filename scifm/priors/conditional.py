"""A prior that the conditions move and scale: climatology, persistence, a deterministic forecast.

    x = m(c) + s(c) · b,   b ~ base,      log p(x | c) = log p_b((x − m)/s) − Σ_i log s_i(c)

What is known beforehand need not be learnt: the flow then starts at the season's mean, at the field of an hour ago, or
at a deterministic model's forecast, with the spread to be expected there.  The second term is the classic bug: without
it all likelihoods are wrong by an amount that changes with the condition.  Fit the base to the residuals with `fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.frozen import Frozen
from scifm.priors.gaussian import Gaussian

__all__ = ["Conditional"]

Source = Callable[[Batch], Tensor] | str | None


class Conditional(Prior):
    """x = mean + scale · base draw, with mean and scale from what does not flow; all in model units.

    Args:
        base: law of the residuals, white noise when None.
        mean: name in context or nodes, or function of a batch (whose x is zeros); None for zero.  A module is copied
            and frozen.
        scale: the same, positive; None for one.
        names: what the functions read, so that draws are not exchanged between conditions.

    A function returns (rows, *event), or axes of 1 in place of some event axes: (B, 1) is a number per sample.  A named
    value in context may also be (B,).

    Raises:
        ValueError: on use, naming the sample, where mean is not finite or scale not positive.

    Example:
        >>> like = Batch(torch.zeros(2, 3), context={"previous": torch.ones(2, 3), "spread": torch.tensor([0.1, 2.0])})
        >>> Conditional(mean="previous", scale="spread").log_prob(torch.ones(2, 3), like)
        tensor([ 4.1509, -4.8363])
    """

    def __init__(self, base: Prior | None = None, mean: Source = None, scale: Source = None, names: Sequence[str] = ()):
        super().__init__()
        if mean is None and scale is None:
            raise ValueError("Conditional: give mean=, scale= or both; without them it is the base itself.")
        for what, source in (("mean", mean), ("scale", scale)):
            if source is not None and not isinstance(source, str) and not callable(source):
                raise TypeError(
                    f"Conditional: {what} must be a name in context or a function of a batch, got "
                    f"{type(source).__name__}; a fixed mean and std belong to Gaussian."
                )
            if callable(source) and not names:
                raise ValueError(
                    f"Conditional: {what} is a function, so say in names= which values of context or nodes it reads."
                )
        self.base = Gaussian() if base is None else base
        self.mean = Frozen(mean) if isinstance(mean, nn.Module) else mean
        self.scale = Frozen(scale) if isinstance(scale, nn.Module) else scale
        read = [*(s for s in (mean, scale) if isinstance(s, str)), *names, *self.base.conditional]
        self.conditional = tuple(dict.fromkeys(read))
        self.gaussian, self.has_density = self.base.gaussian, self.base.has_density
        # White in residuals over their scale is what a network learns best from, where the base can whiten them.
        self.metric = "prior" if self.base.whitens else "plain"

    @property
    def whitens(self) -> bool:
        return self.base.whitens

    def fit(self, batch: Batch) -> Conditional:
        """Fit the base to the residuals (x − m)/s of `batch`."""
        m, s = self._moments(batch)
        self.base.fit(batch.replace((batch.x - m) / s))
        return self

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        m, s = self._moments(like)
        return m + s * self.base.sample(like, generator)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        m, s = self._moments(like)
        if self._subspace(like) and _one_number(s, like):
            logdet = self.base.dims(like).to(x) * like.total(s.log()) / like.dims.clamp(min=1)
        else:  # of what is not masked
            logdet = like.total(self.base.project(s.log(), like))
        return self.base.log_prob((x - m) / s, like) - logdet

    def score(self, x: Tensor, like: Batch) -> Tensor:
        m, s = self._moments(like)
        return self.base.score((x - m) / s, like) / s

    def dims(self, like: Batch) -> Tensor:
        return self.base.dims(like)

    def project(self, x: Tensor, like: Batch) -> Tensor:
        return self.base.project(x, like)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        m, s = self._moments(like)
        return self.base.whiten((x - m) / s, like)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        m, s = self._moments(like)
        return m + s * self.base.colour(z, like)

    # -- mean and scale --------------------------------------------------------------------------------

    def _moments(self, like: Batch) -> tuple[Tensor, Tensor]:
        """m and s, shaped like x; m in the subspace of the base."""
        missing = [n for n in self.conditional if n not in like.context and n not in like.nodes]
        if missing:
            raise ValueError(
                f"Conditional: the batch lacks {missing}, of which mean or scale is made; its context holds "
                f"{sorted(like.context)}, its nodes {sorted(like.nodes)}."
            )
        m = torch.zeros_like(like.x) if self.mean is None else _value("mean", self.mean, like)
        m = self.base.project(m, like)
        s = torch.ones_like(like.x) if self.scale is None else _value("scale", self.scale, like)
        for what, wrong in (
            ("mean must be finite", ~m.isfinite()),
            ("scale must be positive", ~((s > 0) & (1 / s > 0))),
        ):
            if wrong.any():
                b = int(like.total(wrong.to(like.x)).nonzero()[0])
                raise ValueError(f"Conditional: {what}; it is not for sample {b}, in model units.")
        if self._subspace(like) and not _one_number(s, like):
            # Values may differ in scale where the subspace is a mask, a projection that treats each value by itself.
            probe, one = like.randn(torch.Generator().manual_seed(0)), torch.ones_like(s)
            if not torch.allclose(self.base.project(probe, like), self.base.project(one, like) * probe, atol=1e-6):
                raise ValueError(
                    f"Conditional: this scale leads out of the subspace on which {type(self.base).__name__} lives; "
                    "give one number per sample."
                )
        return m, s

    def _subspace(self, like: Batch) -> bool:
        return bool((self.base.dims(like) < like.dims).any())


def _one_number(s: Tensor, like: Batch) -> bool:
    """Whether all values of a sample have the same scale."""
    mean = like.total(s) / like.dims.clamp(min=1)
    return torch.allclose(like.spread(mean).expand_as(s), s, rtol=1e-5, atol=0.0)


def _value(what: str, source: Callable[[Batch], Tensor] | str, like: Batch) -> Tensor:
    """Mean or scale, shaped, typed and placed like x."""
    if isinstance(source, str):
        value = like.nodes[source] if source in like.nodes else like.context[source]
        if source not in like.nodes:  # an entry per sample becomes one per row
            owner = like.spread(torch.arange(len(like), device=value.device)).flatten()
            value = value[owner]
        value = value.reshape(-1, *[1] * (like.x.ndim - 1)) if value.ndim == 1 else value
    else:
        blank = like.replace(torch.zeros_like(like.x))  # so that no law can look at the values that flow
        value = source(blank.to(source.dtype(like.x.dtype)) if isinstance(source, Frozen) else blank)
    # Without a row axis, or with B equal to a dimension, broadcasting would go wrong without a word.
    wanted = like.x.shape
    fits = value.ndim == len(wanted) and value.shape[0] == wanted[0]
    if not fits or any(v not in (1, w) for v, w in zip(value.shape[1:], wanted[1:], strict=True)):
        raise ValueError(
            f"Conditional: {what} must be {tuple(wanted)}, with 1 in place of any axis but the first, got "
            f"{tuple(value.shape)}; a number per sample is {(wanted[0], *[1] * (len(wanted) - 1))}."
        )
    return value.to(like.x).expand(wanted)
