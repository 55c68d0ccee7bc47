"""A weighted mixture of priors: modes that are known beforehand, regimes, a narrow law with wide tails.

    p(x) = Σ_k w_k p_k(x),     ∇ log p(x) = Σ_k r_k(x) ∇ log p_k(x),     r_k = w_k p_k / p

Each sample draws its component.  The r_k are the responsibilities.  Components must live on the same space: beside a
density on all of it, one on a subspace has density zero or infinity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.symmetries import symmetries_of

__all__ = ["Mixture"]


class Mixture(Prior):
    """Mixture of priors, dense or ragged as its components are.

    Args:
        components: priors, fitted where they need it.
        weights: positive numbers, one per component, proportional to w_k; equal when None.

    Raises:
        ValueError: on use, where the components live on different subspaces.

    Example:
        >>> from scifm.priors import Gaussian
        >>> wide = Mixture([Gaussian(std=1.0), Gaussian(std=5.0)], [0.9, 0.1])
        >>> wide.log_prob(torch.zeros(1, 1), Batch(torch.zeros(1, 1)))
        tensor([-1.0023])
    """

    def __init__(self, components: Sequence[Prior], weights: Sequence[float] | Tensor | None = None):
        super().__init__()
        for c in components:
            if not isinstance(c, Prior):
                raise TypeError(f"Mixture: components must be priors, got {type(c).__name__}; see priors.FromTorch.")
        w = torch.as_tensor([1.0] * len(components) if weights is None else weights, dtype=torch.float64).detach()
        if not len(components) or w.shape != (len(components),) or not (w.isfinite().all() and (w > 0).all()):
            raise ValueError(
                f"Mixture: expected one positive weight for each of {len(components)} components, at least one, "
                f"got {weights}."
            )
        self.components = nn.ModuleList(components)
        self.weights: Tensor
        self.register_buffer("weights", w / w.sum())
        self.symmetries = frozenset.intersection(*map(symmetries_of, components))
        self.has_density = all(c.has_density for c in components)
        self.conditional = tuple(dict.fromkeys(name for c in components for name in c.conditional))

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        parts = self._parts(like)
        device = like.x.device if generator is None else generator.device
        u = torch.rand(len(like), generator=generator, dtype=torch.float64, device=device).to(like.x.device)
        number = torch.searchsorted(self.weights.to(u).cumsum(0)[:-1].contiguous(), u, right=True)
        x = torch.zeros_like(like.x)
        for k, part in enumerate(parts):
            chosen = (number == k).nonzero().flatten()
            if len(chosen):
                x = like.place(x, chosen, part.sample(like.select(chosen), generator))
        return x

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        return self._joint(x, like, self._parts(like)).logsumexp(0)

    def score(self, x: Tensor, like: Batch) -> Tensor:
        parts = self._parts(like)
        share = self._joint(x, like, parts).softmax(0)
        total = torch.zeros_like(x)
        for r, part in zip(share, parts, strict=True):
            r = like.spread(r)
            # Where a component has no share its score may not be finite, and counts for nothing.
            total = total + torch.where(r == 0, 0.0, r * part.score(x, like))
        return total

    def dims(self, like: Batch) -> Tensor:
        return self._parts(like)[0].dims(like)

    def project(self, x: Tensor, like: Batch) -> Tensor:
        return self._parts(like)[0].project(x, like)

    def _joint(self, x: Tensor, like: Batch, parts: list[Prior]) -> Tensor:
        """log w_k p_k of each component and sample, (K, B)."""
        return torch.stack([p.log_prob(x, like) for p in parts]) + self.weights.log().to(x)[:, None]

    def _parts(self, like: Batch) -> list[Prior]:
        """The components, once it is clear that they live on one space."""
        parts = [c for c in self.components if isinstance(c, Prior)]
        dims = [p.dims(like) for p in parts]
        same = all(torch.equal(d, dims[0]) for d in dims)
        if same and bool((dims[0] < like.dims).any()):
            # Two projections are equal if they agree on one vector in general position.
            probe = like.randn(torch.Generator().manual_seed(0))
            first, *others = (p.project(probe, like) for p in parts)
            same = all(torch.allclose(o, first, atol=1e-4) for o in others)
        if not same:
            raise ValueError(
                "Mixture: the components live on different subspaces (dims "
                f"{[d[:4].tolist() for d in dims]} for the first samples), so there is no common density; give all of "
                "them the same mask or centring."
            )
        return parts
