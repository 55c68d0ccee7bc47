"""Gaussian fields that know what the rows before say: a Markov chain of rows, on a mask or on the whole grid.

    log p(x) = Σ_i log N( x_i ;  m_i + A_i (x_{<i} − m_{<i}),  D_i ),     x_{<i} the `order` rows before row i,
    A_i = C_{i,<} C_{<,<}⁻¹,     D_i = C_{ii} − A_i C_{<,i},

with C = (1 − a) Ĉ + a C_S for the values inside the mask: the data's covariance, shrunk to that of a spectral field, as
in `FullGaussian`.  Only blocks of order + 1 rows of C are ever made, so a globe of 2°, whose full covariance would take
a gigabyte, takes tens of megabytes; the density is exact, and that of the full covariance if x_i depends on no more
rows than these.  With few samples it is often *better* than the full one, since there is less to be estimated.

With the lower Cholesky factor of such a block, L = [[L₁₁, 0], [L₂₁, L₂₂]], the rows before first: A = L₂₁ L₁₁⁻¹ and
D = L₂₂ L₂₂ᵀ.  The blocks of C_S follow from one field per row, since C_S is diagonal along the row too: where the row
closes, from the covariance with its first value, turned; else from that with the sum of all cosine modes.

Whitening goes from row to row, z_i = D_i^-½ (x_i − m_i − A_i (x − m)_{<i}), and colouring back: each value stays in its
place, and the root is symmetric within a row, not across rows.

References: Vecchia 1988 (conditioning on few neighbours); Rue and Held 2005 (Gaussian Markov random fields).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.priors.choice import halves
from scifm.priors.spectra import Isotropic, Spectrum
from scifm.priors.spectral import SpectralGaussian, dct_matrix
from scifm.priors.subspace import inside

__all__ = ["RowGaussian"]

_NOT_DEFINITE = "RowGaussian.fit: a row has no variance of its own; do some values never vary, or repeat others?"


class RowGaussian(Prior):
    """Gaussian fields (C, H, W) whose rows depend on the rows before; made by `fit`. Dense batches only.

    A row is all values of one latitude, of all channels; rows without any are skipped.  Samples are zero outside the
    mask.

    Args:
        shape: (C, H, W) of one sample.
        mask: bool (C, H, W), True where values flow; all if None.
        periodic: per grid axis, as for `SpectralGaussian`.
        spectrum: of the field that `fit` shrinks to.
        order: rows before that are looked at.
        shrink: weights a to choose from by the likelihood of the last fifth of the data; `chosen` is the one taken.

    Example:
        >>> from scifm import priors
        >>> sea = torch.ones(1, 6, 8, dtype=torch.bool).tril(3)
        >>> data = Batch(torch.randn(40, 1, 6, 8).cumsum(-1) * sea)
        >>> prior = RowGaussian((1, 6, 8), sea).fit(data)
        >>> prior.dims(data)[0].item(), bool(prior.sample(data)[:, ~sea].any())
        (38.0, False)
    """

    metric = "prior"
    gaussian = True

    def __init__(
        self,
        shape: Sequence[int],
        mask: Tensor | None = None,
        periodic: bool | Sequence[bool] = False,
        spectrum: Spectrum = Isotropic(),
        order: int = 2,
        shrink: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6),
    ):
        super().__init__()
        self.shape, self.order, self.shrink = tuple(shape), int(order), tuple(shrink)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"RowGaussian: shape must be (channels, rows, columns), got {self.shape}.")
        if order < 1 or not self.shrink or not all(0 < a <= 1 for a in self.shrink):
            raise ValueError(
                f"RowGaussian: order must be at least 1 and each shrink in (0, 1], got {order} and {self.shrink}."
            )
        mask = torch.ones(self.shape, dtype=torch.bool) if mask is None else mask
        if mask.dtype != torch.bool or mask.shape != self.shape or not mask.any():
            raise ValueError(
                f"RowGaussian: mask must be bool {self.shape} with at least one True (True where values flow), got "
                f"{mask.dtype} {tuple(mask.shape)} with {int(mask.count_nonzero())}."
            )
        self.target = SpectralGaussian(self.shape, periodic, spectrum)
        self.mask: Tensor
        self.mean: Tensor
        self.register_buffer("mask", mask.clone())
        self.register_buffer("mean", torch.zeros(self.shape, dtype=torch.float64))
        # places of the values of each row in a flattened field, and of the rows that it depends on
        rows = [self._places(i) for i in range(self.shape[1])]
        self.rows = [r for r in rows if len(r)]
        self.before = [torch.cat([rows[0][:0], *self.rows[max(0, i - self.order) : i]]) for i in range(len(self.rows))]
        for i, (r, b) in enumerate(zip(self.rows, self.before, strict=True)):
            blank = torch.full((len(r), len(r)), torch.nan, dtype=torch.float64)  # NaN marks "not fitted yet"
            self.register_buffer(f"gain{i}", blank.new_full((len(r), len(b)), torch.nan))
            self.register_buffer(f"modes{i}", blank)
            self.register_buffer(f"variance{i}", blank[0].clone())
        self.chosen: Tensor
        self.register_buffer("chosen", torch.tensor(torch.nan, dtype=torch.float64))

    def _places(self, i: int) -> Tensor:
        row = torch.zeros_like(self.mask)
        row[:, i] = self.mask[:, i]
        return row.flatten().nonzero()[:, 0]

    # -- fitting -----------------------------------------------------------------------------------------

    def fit(self, batch: Batch) -> RowGaussian:
        """Mean and covariances of `batch` (B, C, H, W); the shrinkage from its last fifth, held out with a gap.

        Outside of the mask anything may stand, NaN too.
        """
        x = self.project(batch.x, batch).double()
        if len(x) < 10 or not x.isfinite().all():
            raise ValueError(f"RowGaussian.fit: expected at least 10 finite samples, got {len(x)}{_spoilt(x)}.")
        first, last = (rows.to(x.device) for rows in halves(batch))
        late = (x[last] - x[first].mean(0)).flatten(1)
        scores = dict.fromkeys(self.shrink, 0.0)
        for b, r, empirical, structured in self._blocks(x[first]):
            there = late[:, torch.cat([b, r])]
            for a in self.shrink:
                scores[a] += _score((1 - a) * empirical + a * structured, len(b), there)
        a = min(scores, key=lambda a: scores[a])
        found: dict[str, Tensor] = {}
        for i, (b, _, empirical, structured) in enumerate(self._blocks(x)):
            gain, covariance = _regression((1 - a) * empirical + a * structured, len(b))
            found[f"gain{i}"] = gain
            found[f"variance{i}"], found[f"modes{i}"] = torch.linalg.eigh(covariance)
        least = 1e-14 * max(float(v.amax()) for name, v in found.items() if name.startswith("variance"))
        if not all((v > least).all() for name, v in found.items() if name.startswith("variance")):
            raise ValueError(_NOT_DEFINITE)
        # Laid out as a checkpoint will hold it, so that one read back gives the same bytes.
        found = {name: v.contiguous() for name, v in found.items()}
        for name, v in (found | {"mean": x.mean(0), "chosen": x.new_tensor(a)}).items():
            setattr(self, name, v.to(self.mean))
        return self

    def _blocks(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each row: places before, its places, and their covariance in the data and under the target, scaled."""
        y = x - x.mean(0)
        self.target.fit(Batch(y))
        each = self._each(y)
        places = [torch.cat([b, r]) for _, r, b in each]
        structured = []
        for (i, _, _), k in zip(each, places, strict=True):
            recent = each[max(0, i - self.order) : i + 1]
            structured.append(torch.cat([self._covariance(r, k) for _, r, _ in recent]))
        own = sum(float(S.diagonal()[len(b) :].sum()) for (_, _, b), S in zip(each, structured, strict=True))
        scale = float(y.square().mean(0).sum()) / own  # the target saw zeros outside the mask
        y = y.flatten(1)
        for (_, r, b), k, S in zip(each, places, structured, strict=True):
            part = y[:, k]
            yield b, r, part.T @ part / len(part), scale * S

    def _covariance(self, row: Tensor, others: Tensor) -> Tensor:
        """The target's, of values of one row (n,) with others (m,): (n, m)."""
        _, H, W = self.shape
        basis, variance, closed = self.target.basis, self.target.variance, self.target.basis.periodic[-1]
        field, waves = variance.new_zeros(1, *self.shape), dct_matrix(W, variance.dtype, variance.device)
        field[:, :, row[0] // W % H] = torch.eye(W).to(field)[0] if closed else waves.sum(0)
        c = basis.inverse(basis.forward(field) * variance)[0]
        channel, height, column = others // (H * W), others // W % H, others % W
        if closed:
            c = c[channel, height, (column - row[:, None]) % W]
        else:
            c = waves[:, row % W].T @ ((c @ waves.T)[channel, height].T * waves[:, column])
        return c * (row[:, None] // (H * W) == channel)  # its channels are independent

    # -- the law -----------------------------------------------------------------------------------------

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.colour(like.randn(generator), like)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        z = self.whiten(x, like)
        logdet = sum(self._of("variance", i).log().sum() for i in range(len(self.rows)))
        constant = 0.5 * (logdet + math.log(2 * math.pi) * int(self.mask.sum()))
        return -0.5 * like.total(z.square()) - torch.as_tensor(constant).to(x)

    def score(self, x: Tensor, like: Batch) -> Tensor:
        y = (self.project(x, like) - self.mean.to(x)).flatten(1)
        found = torch.zeros_like(y)
        for i, r, b in self._each(y):
            gain = self._of("gain", i).to(y)
            z = self._root(i, y[:, r] - y[:, b] @ gain.T, -1.0)
            found[:, r] -= z
            found[:, b] += z @ gain
        return found.reshape(x.shape)

    def dims(self, like: Batch) -> Tensor:
        return torch.full_like(like.dims, float(self.mask.sum()))

    def project(self, x: Tensor, like: Batch) -> Tensor:
        """Zeros outside the mask, whatever was there, NaN too."""
        if like.grid("RowGaussian") != self.shape or x.shape[1:] != self.shape:
            raise ValueError(f"RowGaussian: made for samples of shape {self.shape}, got {tuple(x.shape[1:])}.")
        return torch.where(self.mask, x, 0.0)

    def whiten(self, x: Tensor, like: Batch) -> Tensor:
        inside("RowGaussian", "values outside the mask must be zero", x, self.project(x, like), like)
        y = (x - self.mean.to(x)).flatten(1)
        found = [self._root(i, y[:, r] - y[:, b] @ self._of("gain", i).to(y).T, -0.5) for i, r, b in self._each(y)]
        return self._field(torch.cat(found, 1))

    def colour(self, z: Tensor, like: Batch) -> Tensor:
        flat, found = self.project(z, like).flatten(1), []
        for i, r, b in self._each(flat):
            new = self._root(i, flat[:, r], 0.5)
            if len(b):
                before = torch.cat(found[max(0, i - self.order) : i], 1)
                new = new + before @ self._of("gain", i).to(z).T
            found.append(new)
        return self.mean.to(z) + self._field(torch.cat(found, 1))

    def _each(self, y: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        pairs = zip(self.rows, self.before, strict=True)
        return [(i, r.to(y.device), b.to(y.device)) for i, (r, b) in enumerate(pairs)]

    def _root(self, i: int, y: Tensor, power: float) -> Tensor:
        modes, scale = self._of("modes", i).to(y), self._of("variance", i).pow(power).to(y)
        return (y @ modes * scale) @ modes.T

    def _of(self, name: str, i: int) -> Tensor:
        found = self.get_buffer(f"{name}{i}")
        if name == "variance" and found[0].isnan():
            raise ValueError("RowGaussian: its covariances are made from data; call .fit(batch) before using it.")
        return found

    def _field(self, values: Tensor) -> Tensor:
        """(B, D) in the order of the rows -> (B, C, H, W), zeros outside the mask."""
        where = torch.cat(self.rows).to(values.device)
        return values.new_zeros(len(values), self.mask.numel()).index_copy(1, where, values).reshape(-1, *self.shape)


def _regression(C: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """A and D of a row given the n values before, from their covariance C."""
    L, info = torch.linalg.cholesky_ex(C)
    if info.any():
        raise ValueError(_NOT_DEFINITE)
    return torch.linalg.solve_triangular(L[:n, :n], L[n:, :n], upper=False, left=False), L[n:, n:] @ L[n:, n:].T


def _score(C: Tensor, n: int, late: Tensor) -> float:
    """−log N of a row given the n values before, mean over samples (B, n + row), without constants."""
    L, info = torch.linalg.cholesky_ex(C)
    if info.any():
        return math.inf
    z = torch.linalg.solve_triangular(L, late.T, upper=False)[n:]
    return float(0.5 * z.square().sum(0).mean() + L.diagonal()[n:].log().sum())


def _spoilt(x: Tensor) -> str:
    return "" if x.isfinite().all() else " with NaN or infinite values inside the mask; fill or drop them"
