"""How many points a sample has: a law on sizes, beside which a prior is the law of positions *given* the size.

For data of variable size the likelihood of a sample is

    log p(x, n) = log p(n) + log p(x | n),

and a flow gives the second term only.  Leaving the first out makes a model look better than it is, by the entropy of
n: about 5 nats for chains of 48 to 256 residues.  Add `Sizes.log_prob(batch.counts)` to `Flow.log_prob(batch)`, both
in nats, and divide by the numbers that flow: bits per dimension of a set of samples are −Σ log p / (log 2 · Σ dims),
which is not the mean of the ratios.

Sizes that were not seen have probability zero, unless the counts are smoothed.  Here each observed size m spreads by a
discrete Laplace kernel, k(n − m) ∝ exp(−|n − m|/h), restricted to possible sizes and normalised for each m; h is
given, or the one under which each count is likeliest given all others.  References: Aitchison and Aitken 1976 (kernels
on integers); Stone 1974 (leaving one out); for log p(n) in the likelihood Hoogeboom et al. 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch

__all__ = ["Sizes"]

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # h to choose from


@dataclass(frozen=True, eq=False)
class Sizes:
    """Probability of each number of points.

    Args:
        probability: (most + 1,) float64, of 0, 1, ..., most points.
        tail: ratio q in [0, 1) of the probabilities of n + 1 and n beyond: p(most + j) = p(most) q^j.

    Raises:
        ValueError: unless all sizes together have the probability 1.

    Example:
        >>> sizes = Sizes.fit(torch.tensor([3, 3, 5]), smoothing=0.0)
        >>> sizes.log_prob(torch.tensor([3, 5, 4])).exp()
        tensor([0.6667, 0.3333, 0.0000], dtype=torch.float64)
    """

    probability: Tensor
    tail: float = 0.0

    def __post_init__(self) -> None:
        p = self.probability
        if p.ndim != 1 or not len(p) or not ((p >= 0) & p.isfinite()).all() or not 0 <= self.tail < 1:
            raise ValueError("Sizes: expected one probability per size from 0 on, not negative, and a tail in [0, 1).")
        whole = float(p.sum() + p[-1] * self.tail / (1 - self.tail))
        if abs(whole - 1) > 1e-6:
            raise ValueError(f"Sizes: the probabilities of all sizes must have the sum 1, got {whole:g}.")

    @staticmethod
    def fit(counts: Tensor, smoothing: float | None = None, least: int = 1) -> Sizes:
        """The law of observed sizes.

        Args:
            counts: (B,) numbers of points, e.g. `batch.counts` of a ragged batch.
            smoothing: h; 0 for the empirical law, None for the h that predicts each count best from the others.
            least: smallest size that can be.
        """
        if counts.ndim != 1 or not len(counts) or counts.is_floating_point() or int(counts.min()) < max(0, least):
            raise ValueError(
                f"Sizes.fit: expected one whole number of at least {least} per sample, (B,), got {counts}."
            )
        counts = counts.cpu().long()
        seen = torch.bincount(counts).double()
        if smoothing is not None:
            if not 0 <= smoothing < float("inf"):
                raise ValueError(f"Sizes.fit: smoothing must be zero or positive, got {smoothing}.")
            if smoothing == 0:
                return Sizes(seen / seen.sum())
            return Sizes(seen @ _kernel(len(seen), smoothing, least) / seen.sum(), math.exp(-1 / smoothing))
        if len(counts) < 2:
            raise ValueError("Sizes.fit: one sample does not say how sizes scatter; give smoothing=.")
        scores = {h: _left_out(seen, h, least) for h in WIDTHS}
        best = max(scores, key=lambda h: scores[h])
        return Sizes.fit(counts, best, least)

    def sample(self, number: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw sizes, (number,) int64."""
        device = self.probability.device if generator is None else generator.device
        u = torch.rand(number, generator=generator, dtype=torch.float64, device=device).to(self.probability.device)
        p = self.probability.double()
        last = int(p.nonzero()[-1])
        found = torch.searchsorted(p.cumsum(0)[:last].contiguous(), u, right=True)
        if self.tail == 0 or last < len(p) - 1:  # a tail of nothing is nothing
            return found
        # What is left of u beyond the size before the last falls off geometrically.
        rest = ((1 - u) / (1 - p[:last].sum())).clamp(torch.finfo(u.dtype).tiny, 1)
        beyond = (rest.log() / math.log(self.tail)).floor().long()
        return torch.where(found == last, last + beyond, found)

    def log_prob(self, counts: Tensor) -> Tensor:
        """log p(n) in nats, (B,) float64; −inf for sizes that cannot be."""
        p = self.probability.double().to(counts.device)
        beyond = (counts - (len(p) - 1)).clamp(min=0).double()
        log = p[counts.clamp(0, len(p) - 1).long()].log()
        log = log + torch.where(beyond > 0, beyond * (math.log(self.tail) if self.tail else -math.inf), 0.0)
        return torch.where(counts >= 0, log, -math.inf)

    def like(
        self,
        number: int,
        coordinates: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Batch:
        """A ragged layout of `number` samples of drawn sizes, for `Flow.sample`: zeros (N, coordinates)."""
        counts = self.sample(number, generator)
        index = torch.repeat_interleave(torch.arange(number, device=counts.device), counts)
        return Batch(torch.zeros(len(index), coordinates, dtype=dtype, device=index.device), index, number)


def _kernel(sizes: int, h: float, least: int) -> Tensor:
    """Probability of n = 0..sizes − 1, column, under the kernel of each observed size m, row; (sizes, sizes)."""
    n = torch.arange(sizes, dtype=torch.float64)
    kernel = (-(n - n[:, None]).abs() / h).exp() * (n >= least)
    beyond = kernel[:, -1] / math.expm1(1 / h)  # Σ_j e^(−j/h) of what the last column goes on with
    return kernel / (kernel.sum(1) + beyond).clamp(min=1e-300)[:, None]


def _left_out(seen: Tensor, h: float, least: int) -> float:
    """Log-likelihood of each count under the kernels of all others."""
    kernel = _kernel(len(seen), h, least)
    others = (seen @ kernel - kernel.diagonal()).clamp(min=1e-300)
    return float((seen * others.log())[seen > 0].sum())
