"""What a prior (base distribution, p0) must be able to do.

A subclass defines `sample` and `log_prob`, which must agree: `scifm.testing.check_prior` tells whether they do.
Everything else has a default that follows from these two.

A density may live on a linear subspace, the same for all samples of one layout: sets whose centre is at the origin,
fields that vanish on land.  Then `dims` is its dimension and `project` the orthogonal projection onto it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from scifm.batch import Batch

__all__ = ["Prior"]


class Prior(nn.Module, ABC):
    """Base distribution p0 of a flow, with samples and an exact density.

    Shapes follow the batch: x is (B, *event) when `like` is dense, (N, *event) when it is ragged.
    `like` gives layout, dtype, device and whatever does not flow (conditions); its values are not looked at.

    Attributes:
        metric: the coordinates in which a flow on this prior learns unless told otherwise: "plain", the data's
            own, or "prior", whitened by the prior.  For informed priors this decides the likelihood.
        symmetries: transformations that leave the density unchanged, e.g. {"permutation", "rotation"}; "automorphism",
            which permutation implies, is relabelling that keeps nodes and bonds (see `scifm.symmetries`).
        gaussian: whether the log-density is known to be quadratic in x, so that the score is affine.
        has_density: whether `log_prob` and `score` exist; without them a flow can be trained and sampled, not scored.
        conditional: names in `context` (or `nodes`) on which the law depends.
    """

    metric: Literal["plain", "prior"] = "plain"
    symmetries: frozenset[str] = frozenset()
    gaussian: bool = False
    has_density: bool = True
    conditional: tuple[str, ...] = ()

    @abstractmethod
    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Draw x0, shaped, typed and placed like `like.x`. All randomness comes from `generator`."""

    @abstractmethod
    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        """Log-density of each sample in nats, (B,)."""

    def score(self, x: Tensor, like: Batch) -> Tensor:
        """Gradient of the log-density, shaped like x. The default differentiates `log_prob`."""
        if torch.is_inference_mode_enabled():
            raise RuntimeError("A score needs derivatives: use torch.no_grad(), not torch.inference_mode().")
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.log_prob(x, like).sum(), x)[0]

    def dims(self, like: Batch) -> Tensor:
        """Degrees of freedom of each sample, (B,): the dimension of the space on which the density lives."""
        return like.dims

    def project(self, x: Tensor, like: Batch) -> Tensor:
        """Orthogonal projection onto the linear subspace on which the density lives: x itself where that is all.

        Its rank is `dims`.  Samples and scores lie in the subspace, and velocities and probes must be projected.
        """
        return x

    @property
    def whitens(self) -> bool:
        """Whether `whiten` and `colour` are there: a flow may learn in the metric "prior"."""
        return type(self).whiten is not Prior.whiten

    def fit(self, batch: Batch) -> Prior:
        """Set the parameters from data in model units; returns self."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to fit: give its parameters when you make it.")

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        """Affine map to coordinates in which the prior is standard normal, on the subspace where it lives on one."""
        raise NotImplementedError(f'{type(self).__name__} does not whiten: use Objective(metric="plain").')

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        """The inverse of `whiten`."""
        raise NotImplementedError(f'{type(self).__name__} does not colour: use Objective(metric="plain").')
