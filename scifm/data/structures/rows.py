"""What a batch says about the rows that are written: names of atoms, residues and chains, numbers, log-densities.

`nodes["atom"]` 0 .. 3 are N, CA, C, O, without it every row is a CA; `nodes["residue"]` 20, or none, is unknown;
without `nodes["position"]` residues are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from scifm.batch import Batch
from scifm.data.structures.residues import NAMES, SITES

__all__ = ["RESIDUES", "Rows", "check_rows", "log_densities", "rows_of", "words"]

RESIDUES = (*NAMES, "UNK")


@dataclass(frozen=True, eq=False)
class Rows:
    """One sample, row by row: xyz (n, 3) float64, and (n,) each of what a row is; z None where nobody says."""

    xyz: np.ndarray
    atom: np.ndarray
    residue: np.ndarray
    chain: np.ndarray
    position: np.ndarray
    z: np.ndarray | None


def rows_of(batch: Batch) -> Iterator[Rows]:
    """The samples, one after the other."""
    points = batch.points
    xyz = points.x.detach().cpu().double().numpy()
    size = len(xyz)
    nodes = {k: v.cpu().numpy() for k, v in points.nodes.items()}
    ends = np.cumsum(points.counts.cpu().numpy())
    for a, b in zip(ends - points.counts.cpu().numpy(), ends, strict=True):
        within = np.arange(b - a) // (len(SITES) if "atom" in nodes else 1)
        yield Rows(
            xyz[a:b],
            nodes.get("atom", np.ones(size, int))[a:b],
            nodes.get("residue", np.full(size, len(NAMES)))[a:b],
            nodes.get("chain", np.zeros(size, int))[a:b],
            nodes["position"][a:b] if "position" in nodes else within,
            nodes["z"][a:b] if "z" in nodes else None,
        )


def log_densities(batch: Batch, log_prob: Tensor | None) -> list[float] | None:
    """One plain number per sample; ValueError where there are others."""
    if log_prob is None:
        return None
    if log_prob.shape != (len(batch),):
        raise ValueError(f"log_prob: expected one number per sample, ({len(batch)},), got {tuple(log_prob.shape)}.")
    return log_prob.detach().cpu().double().tolist()


def check_rows(batch: Batch, who: str) -> None:
    """Refuse rows that are no points in space, or not finite, or of sites and residues that are none."""
    points = batch.points
    if points.event != (3,):
        raise ValueError(f"{who}: expected points in space, rows of 3 numbers, got rows of shape {points.event}.")
    bad = points.total((~points.x.isfinite()).double()) > 0
    if bad.any():
        raise ValueError(f"{who}: {int(bad.sum())} samples hold NaN or infinity, the first is {int(bad.nonzero()[0])}.")
    for name, most in (("atom", len(SITES)), ("residue", len(RESIDUES))):
        value = points.nodes.get(name)
        if value is not None and value.numel() and not (0 <= int(value.min()) and int(value.max()) < most):
            raise ValueError(
                f"{who}: nodes[{name!r}] must be 0 .. {most - 1}, got {int(value.min())} .. {int(value.max())}."
            )


def words(value: object) -> str:
    """A plain value in one line."""
    return " ".join(str(value).split())
