"""What a dataset gives to training: three splits in the user's units, and what is known about their numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scifm.batch import Batch

__all__ = ["Data"]


@dataclass(frozen=True, eq=False)
class Data:
    """Training, validation and test data.

    Args:
        name: of the set.
        train, valid, test: batches in the user's units.
        unit: of the values, e.g. "K".
        delta: width of the lattice the values lie on, in the user's units; None for continuous data.
        files: what was read; a run keeps copies.
        export: a batch in the user's units -> what the user brought, e.g. an `xr.Dataset`.
        summary: what was understood, printed before training.

    Raises:
        ValueError: for an empty split, values that are not finite, or splits that differ in shape or dtype.
    """

    name: str
    train: Batch
    valid: Batch
    test: Batch
    unit: str = ""
    delta: float | None = None
    files: tuple[Path, ...] = ()
    export: Callable[[Batch], Any] | None = None
    summary: str = ""

    def __post_init__(self) -> None:
        first = self.train.x
        for split in ("train", "valid", "test"):
            batch: Batch = getattr(self, split)
            if len(batch) == 0:
                raise ValueError(f"Data {self.name!r}: the {split} split is empty; choose other blocks or more data.")
            x = batch.x
            if not x.is_floating_point():
                raise ValueError(
                    f"Data {self.name!r}: {split} holds {x.dtype}; convert to floats, with delta=1 for integers."
                )
            bad = batch.total((~x.isfinite()).double()) > 0
            if bad.any():
                raise ValueError(
                    f"Data {self.name!r}: {int(bad.sum())} samples of {split} hold NaN or infinity, the first is "
                    f"{int(bad.nonzero()[0])}; fill or drop them before training."
                )
            if x.shape[1:] != first.shape[1:] or x.dtype != first.dtype:
                raise ValueError(
                    f"Data {self.name!r}: {split} is {x.dtype} {tuple(x.shape[1:])} per row, "
                    f"train is {first.dtype} {tuple(first.shape[1:])}."
                )
        if self.delta is not None and not 0 < self.delta < float("inf"):
            raise ValueError(f"Data {self.name!r}: delta must be positive, got {self.delta}; None for continuous data.")
