"""The noise of a score: dequantisation and probes, from a seed per sample.

Sample i's noise comes from a generator of its own, whatever its chunk, so that a score does not depend on how the work
was cut.  A score may ask for further turns of probes: they come with the same dequantised data.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.trace import Trace

__all__ = ["Noise", "dequantise"]


def dequantise(batch: Batch, delta: float | None, generator: torch.Generator | None = None) -> Batch:
    """Uniform noise on [−δ/2, δ/2) added to every value; the batch itself where delta is None."""
    if delta is None:
        return batch
    if not 0 < delta < math.inf:
        raise ValueError(f"dequantise: the bin width delta must be positive and finite, got {delta}.")
    device = batch.x.device if generator is None else generator.device
    u = torch.rand(batch.x.shape, generator=generator, dtype=batch.x.dtype, device=device)
    return batch.replace(batch.x + delta * (u.to(batch.x.device) - 0.5))


@dataclass
class Noise:
    """All randomness of a score: sample i's comes from the seed base + i, its further probes from a hash of that."""

    base: int
    delta: float | None
    draws: int
    trace: Trace
    probes: int = 0

    def __call__(self, batch: Batch, samples: range, turn: int = 0) -> tuple[list[Batch], list[Tensor | None]]:
        """For each draw, the dequantised samples and their probes."""
        data: list[list[Batch]] = [[] for _ in range(self.draws)]
        probes: list[list[Tensor]] = [[] for _ in range(self.draws)]
        part = batch.select(samples)
        for number, i in enumerate(samples):
            generator = torch.Generator().manual_seed(self.base + i)
            later = _generator(self.base + i, turn) if turn else None
            one = part.select([number])
            for k in range(self.draws):
                data[k].append(dequantise(one, self.delta, generator))
                probe = self.trace.draw(one, generator)  # in later turns too, or their data would be others
                if probe is not None:
                    probe = probe if later is None else self.trace.draw(one, later)
                    assert probe is not None
                    probes[k].append(probe)
                    self.probes = len(probe)
        return [Batch.join(d) for d in data], [torch.cat(p, 1) if p else None for p in probes]


def _generator(seed: int, turn: int) -> torch.Generator:
    # A sum would not do: torch's generator looks at the lowest 32 bits of a seed only, where neighbours would meet.
    digest = hashlib.sha256(f"{seed}/{turn}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
