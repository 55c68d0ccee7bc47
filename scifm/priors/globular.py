"""Globular polymers: chains of fixed link length that are as compact as folded proteins.

    y_i = B y_(i−1) + s z_i,     y_1 = s z_1 / √(1 − B²),     x = y − mean y

An autoregressive chain whose memory B(n) is chosen so that the squared radius of gyration R² = E|x|²/n is (r n^ν)²
for each length, with ν = 0.4 or less for what is folded, where an ideal chain has 1/2.  The idea and the recurrences
are Chroma's (Ingraham et al. 2023).  Two things differ: B solves the equation for R exactly, by bisection, and the
centre is taken out, as in the other chain priors, rather than given a variance of its own.  With links of mean square
length l² in d coordinates s² = l²(1 + B)/2d, and from E|y_i − y_(i+m)|²,

    R² = (l²/n²) Σ_(m=1)^(n−1) (n − m) (1 + B + … + B^(m−1)),

which grows with B up to the ideal chain's at B = 1; a set so small that even this is not enough is an ideal chain.

The covariance of y is s² R_B R_Bᵀ and its inverse Q is tridiagonal.  Without the centre, per coordinate, where Σ x_i =
0,

    log p(x) = −½ |z|² − ½ (n − 1) log 2πs² + ½ log ( n (1 + B) / (2 + (n − 2)(1 − B)) ),
    z = R_B⁻¹ (x − c) / s,       c = B (x_1 + x_n) / (2 + (n − 2)(1 − B)),

c being where the centre of y most likely was.  This z is orthogonal to g = R_B⁻¹ 1, and a reflection that takes g to 1
makes it white noise on centred sets.  Both directions are linear recurrences: no matrices, and any length.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.blocks import Block, blocks
from scifm.priors.base import Prior
from scifm.priors.subspace import centred, coordinates, free_of_centre, inside

__all__ = ["GlobularChain"]


class GlobularChain(Prior):
    """Autoregressive chains of radius of gyration r n^ν, centred; ragged rows (d,) or dense events (n, d).

    A sample is one chain without gaps.

    Args:
        link: root mean square distance l of neighbours, in model units; 3.8 for Cα atoms in Angstrom.
        radius: r, of the radius of gyration r n^ν, in model units.
        exponent: ν.

    Example:
        >>> x = GlobularChain().sample(Batch(torch.zeros(500, 100, 3)), torch.Generator().manual_seed(0))
        >>> x.square().sum(2).mean().sqrt(), 2.2 * 100**0.4
        (tensor(13.9...), 13.8...)
    """

    gaussian = True
    symmetries = frozenset({"rotation", "reflection"})

    def __init__(self, link: float = 3.8, radius: float = 2.2, exponent: float = 0.4):
        super().__init__()
        for name, value in (("link", link), ("radius", radius)):
            if not 0 < value < math.inf:
                raise ValueError(f"GlobularChain: {name} must be positive and finite, got {value}.")
        if not 0 <= exponent <= 0.5:
            raise ValueError(f"GlobularChain: exponent must be between 0 and 1/2 (an ideal chain), got {exponent}.")
        self.theta: Tensor  # link, radius, exponent
        self.register_buffer("theta", torch.tensor([link, radius, exponent], dtype=torch.float64))

    def fit(self, batch: Batch) -> GlobularChain:
        """The most likely link and radius at the given exponent: golden section over their ratio, then closed form.

        Where ideal chains are likelier than any globule, the radius is the least at which all sets are ideal chains.
        """
        wide = batch.to(torch.float64)
        d, dims = coordinates("GlobularChain", wide), self.dims(wide)
        x = self._inside(wide.x, wide)
        if not dims.sum() > 0 or not x.isfinite().all() or not x.square().sum() > 0:
            raise ValueError("GlobularChain.fit: expected finite sets of at least two points that differ.")
        exponent = float(self.theta[2])

        def best(log_ratio: float) -> tuple[float, float]:
            """Negative log-likelihood of the best link for a ratio radius/link, and that link squared."""
            law = GlobularChain(1.0, math.exp(log_ratio), exponent).to(x.device)
            square = wide.total(law.whiten(x, wide).square()).sum() / dims.sum()
            constant = law._constant(wide, d).sum()
            return float(0.5 * dims.sum() * square.log() - constant), float(square)

        n = wide.points.counts.double()
        n, span = n[n > 1], n[n > 1].pow(2 * exponent)
        # Between the ratios at which all sets are white (B = 0) and all are ideal chains (B = 1).
        low, high = ((n - 1) / (2 * n) / span).min().log() / 2, ((n.square() - 1) / (6 * n) / span).max().log() / 2
        log_ratio = _golden(lambda r: best(r)[0], float(low), float(high))
        link = math.sqrt(best(log_ratio)[1])
        self.theta = self.theta.new_tensor([link, link * math.exp(log_ratio), exponent])
        return self

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        d = coordinates("GlobularChain", like)
        return self._constant(like, d).to(x) - 0.5 * like.total(self.whiten(x, like).square())

    def score(self, x: Tensor, like: Batch) -> Tensor:
        points = like.replace(x).points
        return -self._each(points, lambda y, b: self._adjoint(self._into(y, b, points), b, points)).reshape(x.shape)

    def dims(self, like: Batch) -> Tensor:
        return free_of_centre("GlobularChain", like)

    def project(self, x: Tensor, like: Batch) -> Tensor:
        """x minus the centre of each sample."""
        return centred("GlobularChain", x, like)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        points = like.replace(self._inside(x, like)).points
        return self._each(points, lambda y, b: self._into(y, b, points)).reshape(x.shape)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        points = like.replace(self.project(z, like)).points
        return self._each(points, lambda y, b: self._out(y, b, points)).reshape(z.shape)

    # -- padded points (b, n, d) ---------------------------------------------------------------------------------

    def _into(self, x: Tensor, block: Block, points: Batch) -> Tensor:
        """Whitened: the recurrence undone, and g reflected onto 1."""
        B, step = (block.take(v).to(x)[:, None, None] for v in self._chain(points))
        n = block.take(points.counts).to(x)[:, None, None]
        last = x.gather(1, (n.long() - 1).clamp(min=0).expand(-1, 1, x.shape[2]))
        shifted = x - B * (x[:, :1] + last) / (2 + (n - 2) * (1 - B))
        z = torch.cat([(1 - B * B).sqrt() * shifted[:, :1], shifted[:, 1:] - B * shifted[:, :-1]], 1) / step
        return self._reflect(z, block, B, n) * block.mask[:, :, None]

    def _out(self, z: Tensor, block: Block, points: Batch) -> Tensor:
        """Coloured: undoes `_into` on centred sets."""
        B, step = (block.take(v).to(z)[:, None, None] for v in self._chain(points))
        n = block.take(points.counts).to(z)[:, None, None]
        w = step * self._reflect(z, block, B, n) * block.mask[:, :, None]
        # w is orthogonal to g, so its first point follows from the others; at B = 1 too, where y_1 would be infinite.
        y = torch.cat([-w[:, 1:].sum(1, keepdim=True) / (1 + B), w[:, 1:]], 1)
        y, reach, memory = y, 1, B
        while reach < y.shape[1]:  # y_i = Σ_j B^(i−j) w_j, twice as many terms each time
            y = y + memory * torch.nn.functional.pad(y[:, :-reach], (0, 0, reach, 0))
            reach, memory = 2 * reach, memory * memory
        return self._centre(y, block, n)

    def _adjoint(self, z: Tensor, block: Block, points: Batch) -> Tensor:
        """Transpose of `_into`, on centred sets."""
        B, step = (block.take(v).to(z)[:, None, None] for v in self._chain(points))
        n = block.take(points.counts).to(z)[:, None, None]
        w = self._reflect(z, block, B, n) * block.mask[:, :, None] / step
        # w is orthogonal to R⁻¹ 1, so the shift by c has no share in the transpose.
        y = torch.cat([(1 - B * B).sqrt() * w[:, :1], w[:, 1:]], 1)
        y = y - B * torch.nn.functional.pad(w[:, 1:], (0, 0, 0, 1))
        return self._centre(y * block.mask[:, :, None], block, n)

    def _reflect(self, z: Tensor, block: Block, B: Tensor, n: Tensor) -> Tensor:
        """The reflection that exchanges the directions of g = R_B⁻¹ 1 and of 1."""
        mask = block.mask[:, :, None].to(z)
        g = torch.cat([(1 + B).sqrt() * mask[:, :1], (1 - B).sqrt() * mask[:, 1:]], 1)
        way = g / (2 + (n - 2) * (1 - B)).sqrt() - mask / n.sqrt()
        length = way.square().sum(1, keepdim=True)
        return z - way * ((way * z).sum(1, keepdim=True) * torch.where(length > 0, 2 / length, 0.0))

    def _centre(self, y: Tensor, block: Block, n: Tensor) -> Tensor:
        mask = block.mask[:, :, None]
        return (y - (y * mask).sum(1, keepdim=True) / n) * mask

    def _each(self, points: Batch, function: Callable[[Tensor, Block], Tensor]) -> Tensor:
        parts = blocks(points)
        return parts.rows([function(b.pad(points.x), b) for b in parts])

    # -- numbers of a sample -------------------------------------------------------------------------------------

    def _chain(self, points: Batch) -> tuple[Tensor, Tensor]:
        """B and s of each sample, (B,) float64."""
        link, radius, exponent = self.theta.tolist()
        d = points.event[-1]

        def solve() -> tuple[Tensor, Tensor]:
            n, number = points.counts.unique(return_inverse=True)
            n = n.double()
            B = _memory(n, (radius / link * n.pow(exponent)).square())[number]
            return B, link * ((1 + B) / (2 * d)).sqrt()

        return points.keep(("globular", link, radius, exponent, d), solve)

    def _constant(self, like: Batch, d: int) -> Tensor:
        """log p at the origin, (B,) float64."""
        points = like.points
        B, step = self._chain(points)
        n = points.counts.double().clamp(min=1)
        volume = (n * (1 + B) / (2 + (n - 2) * (1 - B))).log()
        return 0.5 * d * (volume - (n - 1) * (2 * math.pi * step.square()).log())

    def _inside(self, x: Tensor, like: Batch) -> Tensor:
        return inside("GlobularChain", "sets must have their centre at the origin", x, self.project(x, like), like)


def _memory(n: Tensor, target: Tensor) -> Tensor:
    """B in [0, 1] for which R²/l² of n points is `target`, or the end that comes nearest."""
    m = torch.arange(1, max(2, int(n.max()) if len(n) else 2), dtype=torch.float64, device=n.device)
    weight = (n[:, None] - m).clamp(min=0) / n[:, None].clamp(min=1).square()
    low, high = torch.zeros_like(n), torch.ones_like(n)
    for _ in range(60):
        B = 0.5 * (low + high)
        size = (weight * B[:, None].pow(m - 1).cumsum(1)).sum(1)
        low, high = torch.where(size < target, B, low), torch.where(size < target, high, B)
    return 0.5 * (low + high)


def _golden(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it, to 1e-6."""
    share = (math.sqrt(5) - 1) / 2
    a, b = high - share * (high - low), low + share * (high - low)
    at_a, at_b = function(a), function(b)
    while high - low > 1e-6:
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - share * (high - low)
            at_a = function(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + share * (high - low)
            at_b = function(b)
    return 0.5 * (low + high)
