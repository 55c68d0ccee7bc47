"""Bonds from distances: which atoms are joined, and how often.

Two atoms are joined where they are closer than their covalent radii allow,

    0.4 Å < d_ij < r_i + r_j + 0.45 Å                         (the rule of Open Babel, O'Boyle et al. 2011)

with the radii of `scifm.data.elements`.  How often follows from typical lengths ℓ of single, double and triple bonds:

    order = the largest k with d_ij < ℓ_k + m_k,   m = 10, 5, 3 pm      (the convention of EDM, Hoogeboom et al. 2022)

This is what EDM's tables of stable atoms and molecules rest on.  It was tuned on QM9; it knows no aromatic bonds, whose
1.39 Å lies on the boundary of single and double.  The lengths are those of Huheey, Keiter and Keiter 1993 (Inorganic
Chemistry, 4th ed., app. E), as collected on wiredchemist.com, in whole picometres.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.blocks import blocks
from scifm.data.elements import COVALENT_RADII, SYMBOLS, check_numbers, numbers

__all__ = ["MARGINS", "bonds_agree", "both_ways", "close_pairs", "orders", "perceive", "typical_lengths"]

TOLERANCE = 0.45  # Å beyond the sum of the radii
TOO_CLOSE = 0.4  # Å; nearer atoms are on top of each other, not bonded
MARGINS = (0.10, 0.05, 0.03)  # Å beyond the typical single, double and triple bond
PAIRS = 2**22  # that are looked at together

_LENGTHS = (  # picometres
    "H-H 74 H-C 109 H-N 101 H-O 96 H-F 92 H-B 119 H-Si 148 H-P 144 H-As 152 H-S 134 H-Cl 127 H-Br 141 H-I 161 "
    "C-C 154 C-N 147 C-O 143 C-F 135 C-Si 185 C-P 184 C-S 182 C-Cl 177 C-Br 194 C-I 214 "
    "N-N 145 N-O 140 N-F 136 N-P 177 N-S 168 N-Cl 175 N-Br 214 N-I 222 "
    "O-O 148 O-F 142 O-Si 163 O-P 163 O-S 151 O-Cl 164 O-Br 172 O-I 194 "
    "F-F 142 F-Si 160 F-P 156 F-S 158 F-Cl 166 F-Br 178 F-I 187 B-Cl 175 "
    "Si-Si 233 Si-S 200 Si-Cl 202 Si-Br 215 Si-I 243 P-P 221 P-S 210 P-Cl 203 P-Br 222 "
    "S-S 204 S-Cl 207 S-Br 225 S-I 234 Cl-Cl 199 Cl-Br 214 Br-Br 228 I-I 266",
    "C-C 134 C-N 129 C-O 120 C-S 160 N-N 125 N-O 121 O-O 121 O-P 150 P-S 186",
    "C-C 120 C-N 116 C-O 113 N-N 110",
)


@lru_cache(maxsize=1)
def typical_lengths() -> Tensor:
    """(3, 97, 97) typical lengths in Å of single, double and triple bonds, by atomic numbers; −inf where none is known.

    Example:
        >>> typical_lengths()[:, 6, 8]  # C-O, C=O and carbon monoxide
        tensor([1.4300, 1.2000, 1.1300])
    """
    table = torch.full((3, len(COVALENT_RADII), len(COVALENT_RADII)), -torch.inf)
    for order, text in enumerate(_LENGTHS):
        words = text.split()
        for pair, length in zip(words[::2], words[1::2], strict=True):
            i, j = numbers(pair.split("-")).tolist()
            table[order, i, j] = table[order, j, i] = int(length) / 100
    return table


def close_pairs(points: Batch, reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of points of one sample that are closer than their reaches together, |x_i − x_j| < reach_i + reach_j.

    Args:
        points: ragged, x (N, d).
        reach: (N,) of each point, in the unit of x.

    Returns:
        i, j: (P,) rows, i < j, sorted by i and then j.
        distance: (P,).

    Example:
        >>> line = Batch(torch.tensor([[0.0], [1.0], [3.0]]), torch.zeros(3, dtype=torch.long), 1)
        >>> close_pairs(line, torch.full((3,), 0.6))
        (tensor([0]), tensor([1]), tensor([1.]))
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for block in blocks(points):
        n = block.row.shape[1]
        upper = torch.ones(n, n, dtype=torch.bool, device=points.x.device).triu(1)
        at_once = max(1, PAIRS // max(1, n * n))
        x, far = block.pad(points.x), block.pad(reach)
        for rows, mask, y, r in zip(*(v.split(at_once) for v in (block.row, block.mask, x, far)), strict=True):
            # Coordinate by coordinate: differences do not cancel, and no (b, n, n, d) is formed.
            square = y.new_zeros(len(y), n, n)
            for c in y.unbind(-1):
                square += (c[:, :, None] - c[:, None]).square()
            close = square.sqrt() < r[:, :, None] + r[:, None]
            b, i, j = (close & upper & mask[:, :, None] & mask[:, None]).nonzero(as_tuple=True)
            found.append((rows[b, i], rows[b, j], square[b, i, j].sqrt()))
    i, j, distance = (torch.cat(v) for v in zip(*found, strict=True))
    order = torch.argsort(i * len(points.x) + j)
    return i[order], j[order], distance[order]


def orders(z_i: Tensor, z_j: Tensor, distance: Tensor) -> Tensor:
    """0, 1, 2 or 3: how often atoms at these distances in Å are bonded by EDM's convention, (P,) long.

    Pairs of elements without a typical length are not bonded.

    Example:
        >>> orders(torch.tensor([6, 6, 1]), torch.tensor([6, 8, 1]), torch.tensor([1.54, 1.21, 1.78]))
        tensor([1, 2, 0])
    """
    known = typical_lengths().to(distance)
    inside = (z_i < known.shape[1]) & (z_j < known.shape[1])
    lengths = known[:, z_i * inside, z_j * inside]  # (3, P); row 0 of the table knows no bond
    margins = distance.new_tensor(MARGINS)[:, None]
    within = distance < lengths + margins
    # A pair that is close enough for a triple bond is close enough for the others, where both are known.
    return (within * torch.tensor([1, 2, 3], device=distance.device)[:, None]).amax(0)


def perceive(batch: Batch, tolerance: float = TOLERANCE) -> Batch:
    """The same molecules with the bonds that their distances tell: edge_index in both directions and edges["bond"].

    The class is order − 1 where a typical length is known, else 0, single; there is no aromatic class. Ions and metals
    in contact count as bonded. On the 46,546 organic compounds of biotite's dictionary 7 in a million bonds are missed,
    and 3 in ten thousand of those found are not in the dictionary.

    Args:
        batch: ragged, x (N, 3) in Å, nodes["z"].
        tolerance: Å beyond the sum of the covalent radii.

    Raises:
        ValueError: without atomic numbers, or for a tolerance that is negative or not finite.

    Example:
        >>> water = torch.tensor([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
        >>> water = Batch(water, torch.zeros(3, dtype=torch.long), 1, nodes={"z": torch.tensor([8, 1, 1])})
        >>> perceive(water).edge_index
        tensor([[0, 0, 1, 2],
                [1, 2, 0, 0]])
    """
    z, i, j, distance = _within_radii(batch, tolerance)
    apart = distance > TOO_CLOSE
    i, j, distance = i[apart], j[apart], distance[apart]
    kind = (orders(z[i], z[j], distance) - 1).clamp(min=0)
    edge_index, kind = both_ways(i, j, kind)
    return replace(batch, edge_index=edge_index, edges={"bond": kind})


def bonds_agree(batch: Batch, tolerance: float = TOLERANCE) -> Tensor:
    """Whether distances tell exactly the bonds that a molecule has, whatever their classes, (B,) bool.

    Atoms on top of each other are never right.

    Args:
        batch: as for `perceive`, with edge_index in both directions.

    Example:
        >>> edges = torch.tensor([[0, 1], [1, 0]])
        >>> z = torch.tensor([1, 1])
        >>> far = Batch(torch.eye(2, 3) * 5, torch.zeros_like(z), 1, nodes={"z": z}, edge_index=edges)
        >>> bonds_agree(far)
        tensor([False])
    """
    if batch.edge_index is None:
        raise ValueError("bonds_agree: expected edge_index, the bonds to compare with distances.")
    _, i, j, distance = _within_radii(batch, tolerance)
    rows = len(batch.x)
    given = batch.edge_index[0] * rows + batch.edge_index[1]
    told = torch.cat([i * rows + j, j * rows + i])
    missed, extra = (~torch.isin(a, b, assume_unique=True) for a, b in ((given, told), (told, given)))
    wrong = torch.div(torch.cat([given[missed], told[extra]]), max(1, rows), rounding_mode="floor")
    bad = batch.x.new_zeros(rows).index_fill(0, torch.cat([wrong, i[distance <= TOO_CLOSE]]), 1.0)
    return batch.total(bad) == 0


def _within_radii(batch: Batch, tolerance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Atomic numbers, and pairs closer than their covalent radii and the tolerance: z, i, j, distance."""
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"bonds.perceive: tolerance must be finite and not negative, got {tolerance} Å.")
    z = batch.nodes.get("z")
    if z is None:
        raise ValueError(f'bonds.perceive: expected nodes["z"], the atomic numbers; there are {sorted(batch.nodes)}.')
    check_numbers(z, "bonds.perceive")
    z = z.long()
    table = batch.x.new_tensor([*COVALENT_RADII, *[0.0] * (len(SYMBOLS) - len(COVALENT_RADII))])
    radius = table[z]
    return z, *close_pairs(batch, torch.where(radius > 0, radius + tolerance / 2, -torch.inf))


def both_ways(i: Tensor, j: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Each edge in both directions, sorted by its first and then its second end: edge_index (2, 2E), and the values."""
    first, second = torch.cat([i, j]), torch.cat([j, i])
    order = torch.argsort(first * (int(second.max()) + 1 if len(second) else 1) + second)
    return torch.stack([first, second])[:, order], *(torch.cat([v, v])[order] for v in values)
