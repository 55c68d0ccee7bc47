"""What a score of sets of points says of whole samples, besides bits per dimension.

    nats    −log q per sample on the space of its density, every constant included, where the data know their energy
    floor   E[U/T] + log Z of the same samples, which no model is below but for their noise, where log Z is known
    sizes   −log p(n) per sample, by `priors.Sizes` of the training split

Samples of several sizes are scored *given* their sizes: log p(x, n) = log p(n) + log p(x | n), and a flow has the
second term only.  So the score says that they are given, and what the first term adds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.bits import BitsPerDim, Estimate, plain
from scifm.data.stored import some
from scifm.likelihood import estimate

if TYPE_CHECKING:
    from scifm.data import Data
    from scifm.energies import Energy
    from scifm.metrics import Nats
    from scifm.priors import Prior

__all__ = ["Whole", "whole"]

LARGEST = 2048  # points of a set up to which the law of sizes is fitted, on a matrix of their square


@dataclass(frozen=True)
class Whole:
    """Nats of whole samples; each part is None where it is not known or does not apply.

    Attributes:
        nats: NLL per sample of the flow.
        floor: what no model's NLL on these samples is below.
        log_z: of the energy, which the floor rests on.
        given: what the score is conditional on: "sizes" where samples differ in it.
        sizes: −log p(n) per sample, to be added for sets whose sizes are not given.
    """

    nats: Nats | None = None
    floor: Estimate | None = None
    log_z: Estimate | None = None
    given: tuple[str, ...] = ()
    sizes: Estimate | None = None

    def lines(self) -> list[str]:
        """What is known, a line each, without the bar that joins lines in a score."""
        found = [] if self.nats is None else [str(self.nats)]
        if self.floor is not None:
            found.append(f"floor {self.floor} nats per sample: mean U/T of these samples + log Z, {self.log_z}")
        if "sizes" in self.given:
            more = "" if self.sizes is None else f"; sizes: {self.sizes} nats per sample, not included"
            found.append(f"given the sizes: the number of points has no part in the likelihood{more}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values of what is known, ready for JSON."""
        return {k: plain(v) for k, v in asdict(self).items() if v is not None}


def whole(prior: Prior, data: Data, scored: Batch, bits: BitsPerDim) -> Whole:
    """What a score says of whole samples.

    Args:
        prior: of the flow, for the space that its density lives on.
        data: that `scored` is a part of, with unit and energy.
        scored: the samples of the score, in the order of the score, on the device of the prior.
        bits: their score.
    """
    from scifm.metrics import entropy_floor, nats

    given, sizes = _sizes(some(data.train).counts, scored.counts)
    if data.energy is None or bits.delta is not None:
        return Whole(given=given, sizes=sizes)
    dims = prior.dims(scored)
    found = nats(bits, scored, dims, data.unit)
    log_z = _log_z(data.energy, scored, dims)
    floor = None if log_z is None else entropy_floor(data.energy, scored, log_z)
    return Whole(found, floor, log_z, given, sizes)


def _log_z(energy: Energy, scored: Batch, dims: Tensor) -> Estimate | None:
    """Where it is known, sets are of one size, and the flow's density is on the space of the energy."""
    points = scored.points
    n = int(points.counts[0])
    if bool((points.counts != n).any()) or not torch.equal(dims.double(), energy.dims(scored).double()):
        return None
    return energy.known_log_z(n, points.event[-1])


def _sizes(train: Tensor, scored: Tensor) -> tuple[tuple[str, ...], Estimate | None]:
    """Whether sizes are given, which they are where they differ, and −log p(n) by the training split's law."""
    from scifm.priors import Sizes

    if len(torch.cat([train, scored.to(train.device)]).unique()) < 2:
        return (), None
    if len(train) < 2 or int(train.min()) < 1 or int(train.max()) > LARGEST:
        return ("sizes",), None
    return ("sizes",), estimate(-Sizes.fit(train).log_prob(scored.cpu()))
