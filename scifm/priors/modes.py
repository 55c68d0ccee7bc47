"""Orthonormal modes of sets of points: those of a chain, of a graph, or of a covariance.

A set x in R^(n×d) of n numbered points has coefficients c = Uᵀ x in any orthonormal basis U (n, n) of its points, the
same for each coordinate.  The natural ones belong to the Laplacian of what binds the points,

    L = Σ_(i,j) w_ij (e_i − e_j)(e_i − e_j)ᵀ,     L u_k = λ_k u_k,     λ_0 = 0,  u_0 = 1/√n,

from λ small, where whole parts move against each other, to λ large, where neighbours do.  It is what a Fourier basis
is to a field.  u_0 is the centre, which is left out: centred sets live on the other n − 1 modes.

A chain whose links are alike is a path graph, whose modes are a discrete cosine transform, with nothing to
diagonalise: λ_k = 4 sin²(πk/2n).  A chain with gaps or several pieces and a graph of bonds are diagonalised, one
matrix per sample or, where all are the same, one for all.  The modes of a layout are made once and kept with
it.  References: Rouse 1953; Chung 1997 (spectral graph theory); Strang 1999 (the DCT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.blocks import Block, Blocks, blocks
from scifm.priors.spectral import dct_matrix

__all__ = ["ModeBlock", "Modes", "laplacian_modes", "path_modes"]


@dataclass(frozen=True, eq=False)
class ModeBlock:
    """Modes of the samples of a block.

    Attributes:
        block: the samples, padded to n points.
        vectors: (b, n, n), a mode in each column, zeros where there is no point; or (n, n), the same for all.
        lam: (b, n) float64 eigenvalue of each mode, 1 where `free` is false.
        free: (b, n) whether there is such a mode; false for the centre, which comes first.
    """

    block: Block
    vectors: Tensor
    lam: Tensor
    free: Tensor

    def analyse(self, rows: Tensor) -> Tensor:
        """Points (N, d) -> coefficients (b, n, d), zeros where there is no mode."""
        indices = "nk,bnd->bkd" if self.vectors.ndim == 2 else "bnk,bnd->bkd"
        return torch.einsum(indices, self.vectors, self.block.pad(rows)) * self.free[:, :, None]

    def synthesise(self, c: Tensor) -> Tensor:
        """Coefficients (b, n, d) -> padded points (b, n, d)."""
        return torch.einsum("nk,bkd->bnd" if self.vectors.ndim == 2 else "bnk,bkd->bnd", self.vectors, c)

    @property
    def points(self) -> Tensor:
        """(b, 1) number of points of each sample, float64."""
        return self.block.mask.sum(1, keepdim=True).to(self.lam)


@dataclass(frozen=True, eq=False)
class Modes:
    """Modes of all samples of a layout; iterate over their blocks."""

    blocks: Blocks
    parts: tuple[ModeBlock, ...]

    def __iter__(self):
        return iter(self.parts)

    def scale(self, rows: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Multiply each mode of the points (N, d) by its factor, (b, n) per block; the centre goes."""
        scaled = [
            m.synthesise(m.analyse(rows) * f.to(rows)[:, :, None]) for m, f in zip(self.parts, factors, strict=True)
        ]
        return self.blocks.rows(scaled)


def path_modes(points: Batch) -> Modes:
    """Modes of chains that run through the points of each sample in order, all links alike."""
    return points.keep(
        ("path modes", points.x.dtype), lambda: _modes(points, [_path(b, points.x.dtype) for b in blocks(points)])
    )


def laplacian_modes(who: str, points: Batch, laplacians: Sequence[Tensor], weak: float = 0.0) -> Modes:
    """Modes of given Laplacians.

    Args:
        who: whom to name in an error.
        laplacians: (b, n, n) float64 per block, zeros where there is no point.
        weak: added to all eigenvalues but that of the centre: a weak spring from every point to the centre.

    Raises:
        ValueError: naming the sample, where a graph falls into pieces and nothing weak holds them together.
    """
    dtype = points.x.dtype
    return _modes(points, [_diagonal(who, b, L, weak, dtype) for b, L in zip(blocks(points), laplacians, strict=True)])


# -- one block -----------------------------------------------------------------------------------------------------


def _modes(points: Batch, parts: list[ModeBlock]) -> Modes:
    return Modes(blocks(points), tuple(parts))


def _path(block: Block, dtype: torch.dtype) -> ModeBlock:
    (b, n), device = block.mask.shape, block.mask.device
    count, k = block.mask.sum(1, keepdim=True), torch.arange(n, dtype=torch.float64, device=device)
    free = (k > 0) & (k < count)
    lam = torch.where(free, 4 * torch.sin(0.5 * torch.pi * k / count).square(), 1.0)
    if block.full:
        return ModeBlock(block, dct_matrix(n, dtype, device).T, lam, free)
    vectors = torch.zeros(b, n, n, dtype=dtype, device=device)
    for m in count.unique().tolist():
        vectors[(count[:, 0] == m).nonzero()[:, 0], :m, :m] = dct_matrix(m, dtype, device).T
    return ModeBlock(block, vectors, lam, free)


def _diagonal(who: str, block: Block, L: Tensor, weak: float, dtype: torch.dtype) -> ModeBlock:
    mask = block.mask
    n, count = mask.shape[1], mask.sum(1)
    shared = block.full and len(L) > 1 and bool((L == L[:1]).all())
    L, mask, count = (v[:1] if shared else v for v in (L, mask, count))
    if n == 0 or not len(L):
        return ModeBlock(block, L.to(dtype), torch.ones_like(L[..., 0]), block.mask & False)
    # The centre gets the one negative eigenvalue and padding the largest, so that neither mixes with what is between.
    size = L.diagonal(dim1=1, dim2=2).amax(1)
    size = torch.where(size > 0, size, 1.0)[:, None, None]
    both = (mask[:, :, None] & mask[:, None, :]).to(L)
    shifted = L - size * both / count[:, None, None] + torch.diag_embed((~mask) * 4 * size[:, 0])
    lam, vectors = torch.linalg.eigh(shifted)
    k = torch.arange(n, device=mask.device)
    free = (k > 0) & (k < count[:, None])
    lam = lam.clamp(min=0) * (lam > 1e-10 * size[:, 0]) + weak
    loose = free & (lam <= 0)
    if loose.any():
        b = int(loose.any(1).nonzero()[0])
        raise ValueError(
            f"{who}: the graph of sample {int(block.samples[b])} falls into {int(loose[b].sum()) + 1} pieces that "
            "nothing holds together, so there is no density. Give weak=, a weak spring from every point to the centre."
        )
    lam = torch.where(free, lam, 1.0)
    whole = block.mask.shape
    return ModeBlock(block, (vectors[0] if shared else vectors).to(dtype), lam.expand(whole), free.expand(whole))
