"""Gaussian sets of points with a variance per mode, on the subspace of sets whose centre is at the origin.

With the orthonormal modes U of a chain or a graph (`scifm.priors.modes`) and a variance S_k for each but the centre
(`scifm.priors.variances`), a set x in R^(n×d) is

    x = U √S Uᵀ ε,      log p(x) = −½ Σ_(k>0) ( |c_k|²/S_k + d log 2πS_k ),      c = Uᵀ x.

It is the grids' spectral prior on points: diagonal in a known basis, the zero mode taken out.  The sum has n − 1 modes
of d numbers, so densities are those of the (n − 1)d-dimensional subspace, whatever the sizes in a batch.  All
coordinates share S, hence the law is invariant under rotations and reflections; points are numbered, so it is not
under permutations, unless S is the same for all modes.  Whitening is the symmetric root U S^−½ Uᵀ, which leaves each
point where it is in the order.

The two terms of log p(x) are cheap and exact for any n; there is nothing to invert.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.modes import Modes
from scifm.priors.subspace import centred, coordinates, free_of_centre, inside
from scifm.priors.variances import At, Isotropic, VarianceLaw

__all__ = ["SpectralPoints"]

PAIRS = 4_000_000  # Σ n² of what a fit looks at in one piece: its matrices take 8 bytes each


class SpectralPoints(Prior, ABC):
    """Centred Gaussian sets of points, ragged rows (d,) or dense events (n, d); a subclass says of which modes.

    Args:
        law: variance of a mode, one of `scifm.priors.variances`.

    Attributes:
        theta: (k,) float64, the numbers of the law; `numbers` gives them by name.
    """

    gaussian = True
    symmetries = frozenset({"rotation", "reflection"})

    def __init__(self, law: VarianceLaw):
        super().__init__()
        self.law = law
        self.theta: Tensor
        self.register_buffer("theta", law.start())
        if isinstance(law, Isotropic):
            self.symmetries = self.symmetries | {"permutation"}

    @abstractmethod
    def modes(self, points: Batch) -> Modes:
        """Modes of ragged `points`, which must not depend on where the points are."""

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers of the law by name."""
        return dict(zip(self.law.names, self.theta.tolist(), strict=True))

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        points = self._points(self._inside(x, like), like)
        modes, quadratic, logdet = self.modes(points), points.x.new_zeros(len(like)), points.x.new_zeros(len(like))
        for part, S in zip(modes, self._variance(modes), strict=True):
            own = part.block.samples
            c = part.analyse(points.x)
            quadratic = quadratic.index_copy(0, own, (c.square() / S.to(c)[:, :, None]).sum((1, 2)))
            logdet = logdet.index_copy(0, own, torch.where(part.free, S.log(), 0.0).sum(1).to(c))
        d = coordinates(type(self).__name__, like)
        return -0.5 * (quadratic + d * logdet + math.log(2 * math.pi) * self.dims(like).to(x))

    def score(self, x: Tensor, like: Batch) -> Tensor:
        return -self._scaled(x, like, -1.0)

    def dims(self, like: Batch) -> Tensor:
        return free_of_centre(type(self).__name__, like)

    def project(self, x: Tensor, like: Batch) -> Tensor:
        """x minus the centre of each sample."""
        return centred(type(self).__name__, x, like)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        return self._scaled(self._inside(x, like), like, -0.5)

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        return self._scaled(z, like, 0.5)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _learn(self, batch: Batch) -> None:
        """Fit the law to centred data."""
        who = type(self).__name__
        if not len(batch):
            raise ValueError(f"{who}.fit: the batch is empty; give the training samples, sets of at least two points.")
        found = [self._powers(part) for part in _pieces(batch)]
        at = At(*(torch.cat([getattr(f[0], name) for f in found]) for name in ("lam", "points", "number")))
        power = torch.cat([f[1] for f in found])
        if not len(power) or not power.isfinite().all() or not (power > 0).any():
            raise ValueError(f"{who}.fit: expected finite sets of at least two points that differ.")
        theta = self.law.fit(at, power)
        if not theta.isfinite().all():
            raise ValueError(
                f"{who}.fit: some modes of the data have no variance, or too much; the fit is {theta.tolist()}."
            )
        self.theta = theta.to(self.theta)

    def _powers(self, batch: Batch) -> tuple[At, Tensor]:
        batch = batch.to(torch.float64)
        points = self._points(self._inside(batch.x, batch), batch)
        ats, powers = [], []
        for part in self.modes(points):
            wide = (v.expand(part.free.shape)[part.free] for v in (part.lam, part.points, _number(part.free)))
            ats.append(At(*wide))
            powers.append(part.analyse(points.x).square().mean(2)[part.free])
        at = At(*(torch.cat([getattr(a, name) for a in ats]) for name in ("lam", "points", "number")))
        return at, torch.cat(powers)

    def _variance(self, modes: Modes) -> list[Tensor]:
        """S (b, n) of each block, float64; 1 where there is no mode."""
        if self.theta.isnan().any():
            raise ValueError(
                f"{type(self).__name__}: the law {type(self.law).__name__} is made from data; call .fit(batch) before "
                "using the prior."
            )
        log = [self.law.log(self.theta.to(m.lam), At(m.lam, m.points, _number(m.free))) for m in modes]
        found = [torch.where(m.free, v, 0.0).exp() for m, v in zip(modes, log, strict=True)]
        for S, m in zip(found, modes, strict=True):
            if not bool(((S > 0) & S.isfinite()).all()):
                bad = ~((S > 0) & S.isfinite()).all(1)
                raise ValueError(
                    f"{type(self).__name__}: {type(self.law).__name__} gives modes of sample "
                    f"{int(m.block.samples[bad][0])} no positive variance. It was made for sets of other sizes, or "
                    "with other numbers; PowerLaw() and Harmonic() hold everywhere."
                )
        return found

    def _scaled(self, x: Tensor, like: Batch, power: float) -> Tensor:
        """Covariance to the given power, applied to x; the centre goes."""
        points = self._points(x, like)
        modes = self.modes(points)
        return modes.scale(points.x, [S.pow(power) for S in self._variance(modes)]).reshape(x.shape)

    def _points(self, x: Tensor, like: Batch) -> Batch:
        coordinates(type(self).__name__, like)
        return like.replace(x).points

    def _inside(self, x: Tensor, like: Batch) -> Tensor:
        return inside(type(self).__name__, "sets must have their centre at the origin", x, self.project(x, like), like)


def _number(free: Tensor) -> Tensor:
    return torch.arange(free.shape[1], device=free.device)


def _pieces(batch: Batch) -> Iterator[Batch]:
    """The samples in pieces small enough that their matrices fit into memory."""
    count = batch.points.counts if len(batch) else batch.counts
    piece = (count.square().cumsum(0) // PAIRS).cpu()
    for number in piece.unique():
        yield batch.select((piece == number).nonzero()[:, 0])
