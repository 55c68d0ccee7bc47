"""Negative log-likelihoods of whole samples, in nats, with the convention in plain sight.

    NLL = E[−log q(x)]  ≥  E[U/T] + log Z         over samples of exp(−U/T)/Z, with equality for q = exp(−U/T)/Z

The floor on the right is what no model can be below, but for the sampling noise that both sides share.

Two conventions are mixed in the literature on particles.  Flows of bgflow, and with them the tables of Klein, Krämer
and Noé (2023), leave out the constant of their prior, (D/2) log 2πσ²; EDM, DEM and scifm include it.  For DW4, D = 6
and σ = 1, that is 5.51 nats: 1.68 there is 7.19 here.  A density has a unit too: in another unit of length u, the NLL
is lower by D log u.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.bits import BitsPerDim, Estimate
from scifm.energies.base import Energy
from scifm.likelihood import estimate

__all__ = ["Nats", "entropy_floor", "nats"]


@dataclass(frozen=True)
class Nats:
    """NLL per sample with every constant.

    Attributes:
        value, stderr: of the mean.
        samples: how many.
        dims: mean degrees of freedom of a sample, those of the space on which the density lives.
        numbers: mean numbers of a sample.
        unit: of the coordinates; empty for reduced units.
    """

    value: float
    stderr: float
    samples: int
    dims: float
    numbers: float
    unit: str = ""

    def without_constant(self, std: float) -> float:
        """What the no-constant convention prints for a prior of width σ: lower by (D/2) log 2πσ²."""
        if not 0 < std < math.inf:
            raise ValueError(f"Nats.without_constant: std must be positive and finite, got {std}.")
        return self.value - 0.5 * self.dims * math.log(2 * math.pi * std**2)

    def __str__(self) -> str:
        space = "" if self.dims == self.numbers else f" (a subspace of {self.numbers:g})"
        return (
            f"NLL {Estimate(self.value, self.stderr)} nats per sample of {self.dims:g} dimensions{space}, coordinates "
            f"in {self.unit or 'reduced units'}, every constant included ({self.samples} samples)"
        )


def nats(bits: BitsPerDim, batch: Batch, dims: Tensor, unit: str = "") -> Nats:
    """The result of `Flow.bits_per_dim` on continuous data in nats per sample.

    Args:
        bits: the result for `batch`.
        dims: (B,) degrees of freedom of its samples, `flow.prior.dims(batch)`.
        unit: of the coordinates, `Data.unit`.

    Raises:
        ValueError: for other numbers of samples, or probabilities of bins, which are no densities.
    """
    if bits.delta is not None or not len(batch) == len(dims) == bits.samples:
        raise ValueError(
            f"nats: expected a score of continuous data, {bits.samples} samples, with dims for each, got delta="
            f"{bits.delta}, {len(batch)} samples and {len(dims)} dims."
        )
    dims = dims.double().cpu()
    found = estimate(torch.tensor(bits.per_sample, dtype=torch.float64) * dims * math.log(2))
    return Nats(found.value, found.stderr, bits.samples, float(dims.mean()), float(batch.dims.double().mean()), unit)


def entropy_floor(energy: Energy, batch: Batch, log_z: Estimate) -> Estimate:
    """E[U/T] + log Z over samples of the energy: no model's NLL on them is below it, but for noise both share.

    Example:
        >>> from scifm.energies import HarmonicCluster
        >>> from scifm.priors import MeanFreeGaussian
        >>> like, energy = Batch(torch.zeros(2000, 3, 2)), HarmonicCluster()
        >>> x = like.replace(MeanFreeGaussian().sample(like, torch.Generator().manual_seed(0)))
        >>> print(entropy_floor(energy, x, Estimate(float(energy.log_z(like)[0]), 0.0)))  # 2 (1 + log 2π) = 5.676
        5.6... ± 0.03...
    """
    found = estimate(energy.of(batch).double())
    return Estimate(found.value + log_z.value, math.hypot(found.stderr, log_z.stderr))
