"""The virial: a number that every energy knows of its own samples, without sampling.

    E[x · ∇U/T] = D,     D = (n − 1) d for sets that are centred

by partial integration, for every U that holds its points together.  So a wrong pair factor, temperature or unit, or
samples that are not in equilibrium, show in a second: the published LJ13 has 36.0 ± 0.6 with each pair counted twice,
and 27 with each pair once.  For the harmonic cluster it is equipartition.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scifm.batch import Batch
from scifm.energies.base import Energy, per_sample
from scifm.energies.diagnostics import mean

__all__ = ["Virial", "virial"]


@dataclass(frozen=True)
class Virial:
    """E[x · ∇U/T] of samples, its standard error, and what it should be."""

    value: float
    stderr: float
    expected: float

    @property
    def sigmas(self) -> float:
        """Distance from the expected value in standard errors."""
        return abs(self.value - self.expected) / self.stderr if self.stderr > 0 else float("inf")

    def __str__(self) -> str:
        return f"virial {self.value:.3f} ± {self.stderr:.2g}, expected {self.expected:g}"


def virial(energy: Energy, batch: Batch, chains: int = 1) -> Virial:
    """The virial of samples, dense or ragged.

    Args:
        batch: samples, centred where translations change nothing.
        chains: of which they come, if save after save of all chains lies in order, B = saves · chains. The error counts
            the correlation along a chain; with the 1 of a file of unknown making, that along its rows, which sees
            nothing in rows that were shuffled.

    Raises:
        ValueError: for no samples, or a number that is not a multiple of the chains.

    Example:
        >>> from scifm.energies import HarmonicCluster
        >>> x = torch.randn(4000, 3, 2, generator=torch.Generator().manual_seed(0))
        >>> virial(HarmonicCluster(), Batch(x - x.mean(1, keepdim=True))).sigmas < 3
        True
    """
    if len(batch) == 0 or chains < 1 or len(batch) % chains:
        raise ValueError(
            f"virial: expected samples in whole saves of {chains} chain(s), got {len(batch)} samples; leave chains out "
            "where the order is not known."
        )

    def products(x: Tensor, mask: Tensor | None) -> Tensor:
        return (x * energy.gradient(x, mask)).sum((-2, -1))

    dims = energy.dims(batch).double()
    excess = mean((per_sample(products, batch).double() - dims).reshape(-1, chains))
    expected = float(dims.mean())
    return Virial(expected + excess.value, excess.stderr, expected)
