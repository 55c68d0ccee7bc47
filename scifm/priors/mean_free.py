"""White noise on point sets whose centre is at the origin: for energies that do not change under translations.

A set x in R^(n×d) with Σ_i x_i = 0 lives on a subspace of (n − 1) d dimensions, where

    log p(x) = −|x|²/2σ² − ((n − 1) d / 2) log 2πσ²,     x = σ P ε,     P = 1 − 11ᵀ/n.

The constant counts (n − 1) d dimensions, not n d: a good part of the literature gets this wrong.  It depends on n, so
it cannot be left out for sets of several sizes.  For exchangeable particles this is the only Gaussian that is invariant
under permutations and rotations; its scale is all there is to choose.  References: Köhler, Klein and Noé 2020
(equivariant flows on centred sets); Satorras et al. 2021 (E(n) flows).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.subspace import centred, free_of_centre, inside

__all__ = ["MeanFreeGaussian"]


class MeanFreeGaussian(Prior):
    """Isotropic Gaussian on centred sets of points: ragged rows (d,), or dense events (n, d).

    The last axis is that of the coordinates; a sample's centre is its mean over everything else.  A sample of one point
    has no degree of freedom and the log-density 0.

    Args:
        std: σ per coordinate before centring, in model units, positive.

    Example:
        >>> like = Batch(torch.zeros(5, 3), torch.tensor([0, 0, 0, 1, 1]), 2)
        >>> MeanFreeGaussian(2.0).dims(like)
        tensor([6., 3.])
    """

    gaussian = True
    symmetries = frozenset({"permutation", "rotation", "reflection"})

    def __init__(self, std: float = 1.0):
        super().__init__()
        self.std: Tensor
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float64))
        if self.std.ndim or not 0 < float(self.std) < math.inf:
            raise ValueError(f"MeanFreeGaussian: std must be one positive number, got {std}.")

    def fit(self, batch: Batch) -> MeanFreeGaussian:
        """The most likely σ: root of the squares per degree of freedom of centred data."""
        x = self._centred(batch.x.double(), batch)
        dims = self.dims(batch).double().sum()
        if not dims > 0 or not x.isfinite().all() or not x.square().sum() > 0:
            raise ValueError("MeanFreeGaussian.fit: expected finite sets of at least two points that differ.")
        self.std = (x.square().sum() / dims).sqrt().to(self.std)
        return self

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        z = self.whiten(x, like)
        constant = (self.std.log() + 0.5 * math.log(2 * math.pi)).to(x)
        return -0.5 * like.total(z.square()) - constant * self.dims(like).to(x)

    def score(self, x: Tensor, like: Batch) -> Tensor:
        return -self.project(x, like) / self.std.square().to(x)

    def dims(self, like: Batch) -> Tensor:
        return free_of_centre("MeanFreeGaussian", like)

    def project(self, x: Tensor, like: Batch) -> Tensor:
        """x minus the centre of each sample."""
        return centred("MeanFreeGaussian", x, like)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        return self._centred(x, like) / self.std.to(x)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        return self.project(z, like) * self.std.to(z)

    def _centred(self, x: Tensor, like: Batch) -> Tensor:
        return inside("MeanFreeGaussian", "sets must have their centre at the origin", x, self.project(x, like), like)
