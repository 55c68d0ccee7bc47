"""The backbone torsions of proteins (Ramachandran, Ramakrishnan and Sasisekharan 1963).

    φ_i = torsion of C_(i−1), N_i, Cα_i, C_i
    ψ_i = torsion of N_i, Cα_i, C_i, N_(i+1)
    ω_i = torsion of Cα_i, C_i, N_(i+1), Cα_(i+1)

A right-handed α-helix is near φ, ψ = −60°, −45°; its mirror image near +60°, +45°, where of all residues only glycine
is often found.  ω is near 180°, and near 0° before some prolines.  The first residue of a chain has no φ, the last no ψ
and no ω.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.geometry import joined as follows_in
from scifm.geometry import norm, runs, torsions

__all__ = ["Ramachandran", "backbone_of", "ramachandran"]

BOND = 2.0  # Å; a C–N distance beyond it is no peptide bond (they are 1.33 ± 0.02)


@dataclass(frozen=True, eq=False)
class Ramachandran:
    """Backbone torsions, radians in [−π, π]; NaN where a residue has none.

    Attributes:
        phi, psi, omega: (..., L), one of each per residue; ω is that of the bond to the next.
    """

    phi: Tensor
    psi: Tensor
    omega: Tensor

    @property
    def pairs(self) -> Tensor:
        """(m, 2) φ and ψ of all residues that have both."""
        both = torch.stack([self.phi, self.psi], -1).reshape(-1, 2)
        return both[both.isfinite().all(-1)]


def ramachandran(backbone: Tensor, joined: Tensor | None = None) -> Ramachandran:
    """Backbone torsions of chains.

    Args:
        backbone: (..., L, a, 3), a ≥ 3, the atoms N, Cα, C first, in Å. `backbone_of` makes it of a batch.
        joined: (..., L − 1) bool, whether residue i + 1 follows residue i; by the distance from C to N, below 2 Å, if
            None. Padding follows nothing.

    Raises:
        ValueError: where shapes do not fit.

    Example:
        >>> ramachandran(torch.randn(7, 3, 3), torch.ones(6, dtype=torch.bool)).phi.isnan().tolist()
        [True, False, False, False, False, False, False]
    """
    if backbone.ndim < 3 or backbone.shape[-1] != 3 or backbone.shape[-2] < 3:
        raise ValueError(
            f"ramachandran: expected backbones (..., residues, atoms N CA C ..., 3), got {tuple(backbone.shape)}."
        )
    n, ca, c = backbone[..., :3, :].unbind(-2)
    if joined is None:
        joined = norm(n[..., 1:, :] - c[..., :-1, :]) < BOND
    if joined.shape != (*backbone.shape[:-3], max(backbone.shape[-3] - 1, 0)):
        raise ValueError(
            f"ramachandran: expected joined of shape {(*backbone.shape[:-3], max(backbone.shape[-3] - 1, 0))}, one per "
            f"neighbouring pair of residues, got {tuple(joined.shape)}."
        )
    nothing = torch.full_like(n[..., :1, 0], torch.nan)

    def between(*atoms: Tensor) -> Tensor:
        angle = torsions(torch.stack(atoms, -2))[..., 0]
        return torch.where(joined, angle, torch.nan)

    phi = between(c[..., :-1, :], n[..., 1:, :], ca[..., 1:, :], c[..., 1:, :])
    psi = between(n[..., :-1, :], ca[..., :-1, :], c[..., :-1, :], n[..., 1:, :])
    omega = between(ca[..., :-1, :], c[..., :-1, :], n[..., 1:, :], ca[..., 1:, :])
    if not backbone.shape[-3]:
        return Ramachandran(*(v[..., :0] for v in (phi, psi, omega)))
    return Ramachandran(torch.cat([nothing, phi], -1), torch.cat([psi, nothing], -1), torch.cat([omega, nothing], -1))


def backbone_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """The arguments of `ramachandran` for a batch whose rows are atoms: all residues, one sample after the other.

    Args:
        batch: ragged, with nodes["atom"] 0 N, 1 Cα, 2 C and others, in this order in each residue.

    Returns:
        backbone (R, 3, 3) and joined (R − 1,), by position, chain and sample.

    Raises:
        ValueError: where atoms are not told apart, or a Cα does not lie between N and C of its residue.
    """
    if "atom" not in batch.nodes:
        raise ValueError("backbone_of: expected nodes['atom'], 0 N, 1 CA, 2 C; load backbones with atoms='backbone'.")
    row, atom, place = runs(batch, 1)[0], batch.nodes["atom"], batch.nodes.get("position")
    around = row[:, None] + torch.arange(-1, 2, device=row.device)
    inside = ((around >= 0) & (around < len(atom))).all()
    if not bool(inside) or not bool((atom[around] == torch.arange(3, device=row.device)).all()):
        raise ValueError("backbone_of: expected the rows N, CA, C of each residue next to each other.")
    if place is not None and not bool((place[around] == place[row][:, None]).all()):
        raise ValueError("backbone_of: the rows around a CA belong to other residues (nodes['position'] differs).")
    return batch.x[around], follows_in(batch)
