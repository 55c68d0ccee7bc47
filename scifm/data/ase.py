"""The door for ASE: `ase.Atoms` in, molecules or periodic structures through, `ase.Atoms` out.

ASE is imported on first use; scifm does not depend on it.  Coordinates are Å in both worlds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.molecules import check_molecules

__all__ = ["from_ase", "to_ase"]


def from_ase(atoms: Any, dtype: torch.dtype = torch.float32) -> Batch:
    """A ragged batch, x (N, 3) in Å and nodes["z"], of `ase.Atoms` or a list of them, such as `ase.io.read(path, ":")`.

    If all are periodic, context["cell"] (B, 3, 3) holds the cell vectors as rows, in Å, and context["pbc"] (B, 3) bool
    along which of them; a cell without periodicity is dropped. Velocities, charges, tags, constraints, `info` and
    results are not kept.

    Raises:
        ValueError, TypeError: for what is not `Atoms`, none of them, some periodic and some not, or malformed molecules
            (`scifm.data.molecules`).

    Example:
        >>> from ase import Atoms
        >>> from_ase(Atoms("OH2", [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])).nodes["z"]
        tensor([8, 1, 1])
    """
    ase = _ase("from_ase")
    frames = [atoms] if isinstance(atoms, ase.Atoms) else list(atoms)
    wrong = [type(a).__name__ for a in frames if not isinstance(a, ase.Atoms)]
    if wrong:
        raise TypeError(f"from_ase: expected ase.Atoms, got {wrong[0]}; ase.io.read(path, ':') reads all frames.")
    if not frames:
        raise ValueError("from_ase: expected at least one ase.Atoms, got an empty list.")
    periodic = [bool(a.pbc.any()) for a in frames]
    if any(periodic) != all(periodic):
        raise ValueError(
            f"from_ase: {sum(periodic)} of {len(frames)} structures are periodic and the others are not; a flow lives "
            "on a torus or in open space. Separate them, or set atoms.pbc = False on all."
        )
    context = {}
    if all(periodic):
        cell = np.stack([a.cell.array for a in frames])
        flat = (np.abs(np.linalg.det(cell)) < 1e-9) & np.stack([a.pbc for a in frames]).all(1)
        if flat.any():
            raise ValueError(f"from_ase: structure {int(flat.argmax())} is periodic, but its cell has no volume.")
        context = {"cell": torch.from_numpy(cell).to(dtype), "pbc": torch.from_numpy(np.stack([a.pbc for a in frames]))}
    sizes = torch.tensor([len(a) for a in frames])
    batch = Batch(
        torch.from_numpy(np.concatenate([a.positions for a in frames])).to(dtype),
        torch.arange(len(frames)).repeat_interleave(sizes),
        len(frames),
        context=context,
        nodes={"z": torch.from_numpy(np.concatenate([a.numbers for a in frames])).long()},
    )
    return check_molecules(batch, "from_ase")


def to_ase(batch: Batch, log_prob: Tensor | Sequence[float] | None = None) -> list[Any]:
    """One `ase.Atoms` per molecule, with atoms.info["log_prob"] in nats if given, and the batch's cell and pbc if any.

    Numbers in the context, one per molecule, go to `info` under their names.

    Args:
        batch: ragged, x (N, 3) in Å, nodes["z"].
        log_prob: (B,).

    Raises:
        ValueError, TypeError: see `scifm.data.molecules`; for log-densities of another number.
    """
    ase = _ase("to_ase")
    check_molecules(batch, "to_ase", apart=False)
    told = None if log_prob is None else torch.as_tensor(log_prob).detach()
    if told is not None and told.shape != (len(batch),):
        got = len(told) if told.ndim == 1 else tuple(told.shape)
        raise ValueError(f"to_ase: expected a log-density per molecule ({len(batch)}), got {got}.")
    sizes = batch.counts.tolist()
    x, z = (v.detach().cpu().split(sizes) for v in (batch.x, batch.nodes["z"]))
    plain = {k: v.cpu() for k, v in batch.context.items()}
    cell, pbc = plain.pop("cell", None), plain.pop("pbc", None)
    frames = []
    for b in range(len(batch)):
        info = {k: v[b].item() for k, v in plain.items() if v[b].numel() == 1}
        info |= {} if told is None else {"log_prob": float(told[b])}
        box = {} if cell is None else {"cell": cell[b].double().numpy(), "pbc": True if pbc is None else pbc[b].numpy()}
        frames.append(ase.Atoms(z[b].numpy(), x[b].double().numpy(), info=info, **box))
    return frames


def _ase(who: str) -> Any:
    try:
        import ase
    except ImportError as error:
        raise ImportError(f"{who}: ASE is not installed; pip install ase.") from error
    return ase
