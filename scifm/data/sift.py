"""Which molecules to keep, and how many are left out for which reason.

Each molecule is counted under the first reason that holds, in the order of `REASONS`, so the counts add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.bonds import TOO_CLOSE, bonds_agree, close_pairs
from scifm.data.constitution import fragments
from scifm.data.elements import SYMBOLS, numbers

__all__ = ["REASONS", "Sifted", "sift"]

REASONS = (
    "without atoms",
    "with missing coordinates",
    "with unknown elements",
    "with metals",
    "with other elements",
    "too small",
    "too large",
    "in several pieces",
    "with atoms in one place",
    "with bonds that distances deny",
)

_NONMETALS = "H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Sb Te I Xe At Rn"


@dataclass(frozen=True, eq=False)
class Sifted:
    """What `sift` found.

    Attributes:
        kept: numbers of the molecules that stay, ascending.
        total: how many there were.
        left_out: how many went, by reason; reasons that never held are absent.
    """

    kept: Tensor
    total: int
    left_out: dict[str, int]

    def __str__(self) -> str:
        why = "; ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return f"kept {len(self.kept)} of {self.total} molecules" + (f", left out {why}" if why else "")


def sift(
    batch: Batch, elements: Sequence[str], min_atoms: int = 1, max_atoms: int = 10**9, *, before: Sifted | None = None
) -> Sifted:
    """Molecules of the given elements and sizes, whole, with coordinates that agree with their bonds.

    Args:
        batch: ragged, x (N, 3) in Å, NaN for what is missing, nodes["z"], 0 for unknown elements; bonds if any.
        elements: symbols that may occur.
        min_atoms, max_atoms: sizes, both included.
        before: what was left out already; `batch` then holds what stayed, and the result counts from the beginning.

    Raises:
        ValueError: where nothing is left; the message says why.

    Example:
        >>> z = torch.tensor([8, 1, 1, 26])
        >>> x = torch.tensor([[0.0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48], [0, 0, 0]])
        >>> print(sift(Batch(x, torch.tensor([0, 0, 0, 1]), 2, nodes={"z": z}), ["H", "O"]))
        kept 1 of 2 molecules, left out 1 with metals
    """
    if not 1 <= min_atoms <= max_atoms:
        raise ValueError(f"sift: expected 1 <= min_atoms <= max_atoms, got {min_atoms} and {max_atoms}.")
    z, counts = batch.nodes["z"], batch.counts
    metal, wanted = torch.ones(len(SYMBOLS), dtype=torch.bool), torch.zeros(len(SYMBOLS), dtype=torch.bool)
    metal[[0, *numbers(_NONMETALS.split()).tolist()]] = False
    wanted[numbers(elements, "sift")] = True
    finite = batch.x.isfinite().all(1)
    faults = {
        "without atoms": counts == 0,
        "with missing coordinates": _any(batch, ~finite),
        "with unknown elements": _any(batch, z == 0),
        "with metals": _any(batch, (metal & ~wanted).to(z.device)[z]),
        "with other elements": _any(batch, ~wanted.to(z.device)[z]),
        "too small": counts < min_atoms,
        "too large": counts > max_atoms,
    }
    stays = torch.ones(len(batch), dtype=torch.bool, device=z.device)
    left_out = {} if before is None else dict(before.left_out)
    kept = torch.arange(len(batch), device=z.device)
    for reason, fault in faults.items():
        left_out[reason] = int((stays & fault).sum())
        stays &= ~fault
    kept = kept[stays]
    # Distances are most of the work, so they come last.
    slow: list[tuple[str, Callable[[Batch], Tensor]]] = [("with atoms in one place", _coincident)]
    if batch.edge_index is not None:
        slow = [("in several pieces", lambda b: fragments(b) > 1), *slow]
        slow += [("with bonds that distances deny", lambda b: ~bonds_agree(b))]
    for reason, faulty in slow:
        if len(kept):
            fault = faulty(batch.select(kept))
            left_out[reason] = int(fault.sum())
            kept = kept[~fault]
    total = len(batch) if before is None else before.total
    found = Sifted(kept, total, {reason: count for reason, count in left_out.items() if count})
    if len(kept) == 0:
        raise ValueError(f"sift: {found}; loosen the filters.")
    return found


def _any(batch: Batch, row: Tensor) -> Tensor:
    return batch.total(row.double()) > 0


def _coincident(batch: Batch) -> Tensor:
    i, _, _ = close_pairs(batch, torch.full_like(batch.x[:, 0], TOO_CLOSE / 2))
    row = torch.zeros(len(batch.x), dtype=torch.bool, device=batch.x.device)
    row[i] = True
    return _any(batch, row)
