"""Laplacians of what binds the points of a set: links along chains, bonds of a graph.

    L = Σ_(i,j) w_ij (e_i − e_j)(e_i − e_j)ᵀ,      xᵀ L x = Σ_(i,j) w_ij |x_i − x_j|²

They are made for the padded blocks of a layout (`scifm.blocks`), (b, n, n) in float64, zeros where there is no point.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.blocks import blocks

__all__ = ["bond_laplacians", "link_laplacians"]


def link_laplacians(
    who: str, points: Batch, chain: str | None, position: str | None, between: float
) -> list[Tensor] | None:
    """Laplacians (b, n, n) of chains with several pieces and gaps; None where all links of all samples are alike.

    Links over points that are missing are springs in series: over a jump by m positions, m times weaker.  That is the
    exact marginal law of a harmonic chain, apart from where its centre is.

    Raises:
        ValueError: where the batch lacks a name, or positions do not increase along a piece.
    """
    for name in (chain, position):
        if name is not None and name not in points.nodes:
            raise ValueError(
                f"{who}: the batch has no nodes[{name!r}]; its nodes are {sorted(points.nodes) or 'none'}."
            )
    links = []
    for block in blocks(points):
        there = block.mask[:, 1:]
        link = there.double()
        if position is not None:
            jump = block.pad(points.nodes[position]).diff(dim=1).double()
            bad = there & (jump <= 0)
        else:
            jump, bad = torch.ones_like(link), torch.zeros_like(there)
        if chain is not None:
            apart = block.pad(points.nodes[chain]).diff(dim=1) != 0
            link = torch.where(apart & there, between, link)
            jump, bad = torch.where(apart, 1.0, jump), bad & ~apart
        if bad.any():
            b = int(block.samples[bad.any(1)][0])
            raise ValueError(
                f"{who}: nodes[{position!r}] must increase along a chain; in sample {b} it does not. Name the chains "
                'with chain="chain", or number the points anew where one is inserted.'
            )
        links.append(link / jump.clamp(min=1))
    if all(bool((link == block.mask[:, 1:]).all()) for link, block in zip(links, blocks(points), strict=True)):
        return None
    return [_of(torch.diag_embed(link, 1) + torch.diag_embed(link, -1)) for link in links]


def bond_laplacians(who: str, points: Batch, stiffness: str | None) -> list[Tensor]:
    """Laplacians (b, n, n) of the graphs `edge_index`; a bond counts once, in whatever directions it is given.

    Raises:
        ValueError: without edges, without the named stiffness, or where that is not one positive number per bond.
    """
    if points.edge_index is None:
        raise ValueError(f"{who}: the batch has no edge_index; give the bonds, or take a chain prior.")
    weight = torch.ones(points.edge_index.shape[1], dtype=torch.float64, device=points.x.device)
    if stiffness is not None:
        if stiffness not in points.edges:
            raise ValueError(
                f"{who}: the batch has no edges[{stiffness!r}]; its edges are {sorted(points.edges) or 'none'}."
            )
        weight = points.edges[stiffness].double()
        if weight.ndim != 1 or not ((weight > 0) & weight.isfinite()).all():
            raise ValueError(f"{who}: edges[{stiffness!r}] must hold one positive number per edge.")
    made, before, place = [], 0, blocks(points).place[points.edge_index]
    for block in blocks(points):
        b, n = block.mask.shape
        own = (place[0] >= before) & (place[0] < before + b * n)
        i, j = (place[:, own] - before).unbind(0)
        W = weight.new_zeros(b, n, n).index_put((i // max(n, 1), i % max(n, 1), j % max(n, 1)), weight[own])
        back = W.mT
        if ((W != back) & (W > 0) & (back > 0)).any():
            raise ValueError(f"{who}: edges[{stiffness!r}] differs between the two directions of a bond.")
        W = torch.maximum(W, back)
        made.append(_of(W - torch.diag_embed(W.diagonal(dim1=1, dim2=2))))
        before += b * n
    return made


def _of(W: Tensor) -> Tensor:
    """Laplacians of symmetric weights (b, n, n)."""
    return torch.diag_embed(W.sum(2)) - W
