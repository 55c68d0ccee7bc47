"""Are generated molecules molecules?  Bond lengths and valences say it, without a chemistry package.

*Stable*, as in EDM (Hoogeboom et al. 2022): read the order of every pair of atoms from its distance
(`scifm.data.bonds.orders`); an atom is stable if its orders sum to a valence of its element, a molecule if all its
atoms are.  The data themselves do not reach 100 %: QM9 has 99.0 % stable atoms and 95.2 % stable molecules in the
paper, and aromatic or charged molecules beyond QM9 do badly: no typical length is aromatic, no valence knows a charge.

*Valid* here: stable and in one piece.  EDM's "valid" asks RDKit instead, so the two are not to be compared.

*Recovered*, where elements and bonds were given and only the coordinates made: the covalent radii find exactly the
given bonds, none missing, none too many.  It needs no table of orders and holds for aromatic rings and ions alike.

Valences are those of EDM, and 2 and 6 for sulfur, which does not occur in QM9 and has 4 alone there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.bonds import MARGINS, bonds_agree, both_ways, close_pairs, orders, typical_lengths
from scifm.data.constitution import constitution, fragments
from scifm.data.elements import SYMBOLS
from scifm.data.molecules import check_molecules

__all__ = ["VALENCES", "Validity", "bonds_recovered", "by_length", "stable_atoms", "stable_molecules", "validity"]

VALENCES: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {1: (1,), 5: (3,), 6: (4,), 7: (3,), 8: (2,), 9: (1,), 13: (3,), 14: (4,), 15: (3, 5), 16: (2, 4, 6), 17: (1,)}
    | {33: (3,), 35: (1,), 53: (1,), 80: (1, 2), 83: (3, 5)}
)
"""Valences of neutral atoms by atomic number."""


@dataclass(frozen=True)
class Validity:
    """Shares of a set of molecules, each from 0 to 1.

    Attributes:
        molecules: how many there are.
        atom_stable, molecule_stable: EDM's.
        connected: in one piece.
        valid: stable and connected.
        unique: different among the valid, by elements and bonds; NaN if none is valid.
    """

    molecules: int
    atom_stable: float
    molecule_stable: float
    connected: float
    valid: float
    unique: float

    def __str__(self) -> str:
        shares = {k.replace("_", "-"): v for k, v in vars(self).items() if k != "molecules"}
        return f"{self.molecules} molecules: " + ", ".join(f"{100 * v:.1f} % {k}" for k, v in shares.items())


def by_length(batch: Batch) -> Batch:
    """The same molecules with the bonds that their lengths tell: edge_index both ways, edges["bond"] order − 1.

    Pairs of elements without a typical length are not bonded.
    """
    z = batch.nodes["z"]
    known = typical_lengths()[0].to(batch.x)
    inside = z[z < len(known)].unique()
    longest = known[inside][:, inside].amax() if len(inside) else known.new_zeros(())
    reach = (longest + MARGINS[0]).clamp(min=0) / 2
    i, j, distance = close_pairs(batch, reach.expand(len(z)))
    order = orders(z[i], z[j], distance)
    bonded = order > 0
    edge_index, kind = both_ways(i[bonded], j[bonded], order[bonded] - 1)
    return replace(batch, edge_index=edge_index, edges={"bond": kind})


def stable_atoms(batch: Batch, valences: Mapping[int, tuple[int, ...]] = VALENCES) -> Tensor:
    """Whether the bond orders of each atom sum to a valence of its element, (N,) bool.

    Args:
        batch: ragged, x (N, 3) in Å, nodes["z"]; bonds, if there are any, are not looked at.
        valences: by atomic number; elements that are missing are never stable.

    Example:
        >>> corners = 0.63 * torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
        >>> z = torch.tensor([6, 1, 1, 1, 1])
        >>> stable_atoms(Batch(corners, torch.zeros_like(z), 1, nodes={"z": z}))  # methane
        tensor([True, True, True, True, True])
    """
    return _stable_atoms(by_length(check_molecules(batch, "stable_atoms", apart=False)), valences)


def _stable_atoms(bonded: Batch, valences: Mapping[int, tuple[int, ...]]) -> Tensor:
    assert bonded.edge_index is not None
    z = bonded.nodes["z"]
    most = max((max(sums) for sums in valences.values()), default=0)
    allowed = torch.zeros(len(SYMBOLS), most + 2, dtype=torch.bool, device=z.device)  # the last column is for more
    for number, sums in valences.items():
        allowed[number, list(sums)] = True
    total = torch.zeros_like(z).index_add(0, bonded.edge_index[0], bonded.edges["bond"] + 1)
    return allowed[z, total.clamp(max=most + 1)]


def stable_molecules(batch: Batch, valences: Mapping[int, tuple[int, ...]] = VALENCES) -> Tensor:
    """Whether all atoms of a molecule are stable, (B,) bool; see `stable_atoms`."""
    return batch.total((~stable_atoms(batch, valences)).double()) == 0


def bonds_recovered(batch: Batch) -> Tensor:
    """Whether distances tell exactly the bonds that were given, whatever their classes, (B,) bool.

    Args:
        batch: ragged, x (N, 3) in Å, nodes["z"], edge_index in both directions.

    Raises:
        ValueError: without bonds.
    """
    check_molecules(batch, "bonds_recovered", apart=False)
    if batch.edge_index is None:
        raise ValueError("bonds_recovered: these molecules came without bonds; see stable_molecules.")
    return bonds_agree(batch)


def validity(batch: Batch, valences: Mapping[int, tuple[int, ...]] = VALENCES) -> Validity:
    """EDM's shares of stable atoms and molecules, and how many are in one piece and different.

    Args:
        batch, valences: see `stable_atoms`.
    """
    bonded = by_length(check_molecules(batch, "validity", apart=False))
    atoms = _stable_atoms(bonded, valences)
    molecules = batch.total((~atoms).double()) == 0
    connected = fragments(bonded) == 1
    valid = molecules & connected
    keys = constitution(bonded)[valid]
    unique = len(keys.unique()) / len(keys) if len(keys) else float("nan")
    share = [float(v.double().mean()) for v in (atoms, molecules, connected, valid)]
    return Validity(len(batch), share[0], share[1], share[2], share[3], unique)
