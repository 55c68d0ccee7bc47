"""What a dataset gives to training: three splits in the user's units, and what is known about their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.stored import Stored
from scifm.schedule import Stretches

if TYPE_CHECKING:
    from scifm.data.grids.spec import GridSpec
    from scifm.energies import Energy

__all__ = ["Data", "Reader", "Writer"]

Reader = Callable[[Path], Any]
"""reader(path): samples of another file, as `scifm.data.grids.Fields`, understood as the data of the run were."""

Writer = Callable[[Path, Batch, Tensor | None, Mapping[str, Any]], None]
"""writer(path, batch, log_prob, about): samples to a file of one format.

The batch is in the user's units, on the CPU; log_prob (B,) float64 in nats, in the user's units, or None; about holds
plain values: seed, run, and what the log-density is of.  It writes to `path` and to no other place.
"""


@dataclass(frozen=True, eq=False)
class Data:
    """Training, validation and test data.

    Args:
        name: of the set.
        train, valid, test: batches in the user's units; train may be `Stored`, read while it is used.
        unit: of the values, e.g. "K".
        delta: width of the lattice the values lie on, in the user's units; None for continuous data.
        files: what was read; a run keeps copies.
        export: a batch in the user's units -> what the user brought, as an `xr.Dataset`; samples can then go to .nc
            and .zarr.  Nothing of a sample may depend on those beside it, since they are written a few at a time.
        read: another file of the user's on the same grid, for `scifm score --file` and `scifm fill`.
        writers: suffix, e.g. ".pdb" -> `Writer`, for the other formats that samples can go to. An .npz always works.
        summary: what was understood, printed before training.
        spec: what the file of a grid says beside its values; a run keeps it, and can sample without the file.
        energy: U/T of each sample in the user's units, where the data follow exp(−U/T)/Z; samples of a flow can then be
            reweighted to that law.

    Raises:
        ValueError: for an empty split, values that are not finite, splits that differ in shape, dtype or what
            belongs to samples, rows and edges, values that do not lie delta apart, or a writer for what is no suffix.
    """

    name: str
    train: Batch | Stored
    valid: Batch
    test: Batch
    unit: str = ""
    delta: float | None = None
    files: tuple[Path, ...] = ()
    export: Callable[[Batch], Any] | None = None
    read: Reader | None = None
    writers: Mapping[str, Writer] = field(default_factory=dict)
    summary: str = ""
    energy: Energy | None = None
    spec: GridSpec | None = None

    def __post_init__(self) -> None:
        for split in ("train", "valid", "test"):
            batch = getattr(self, split)
            if split == "train" and isinstance(batch, Stored):
                batch = batch.head  # the others are the business of the reader
            if not isinstance(batch, Batch):
                raise TypeError(f"Data {self.name!r}: {split} must be a Batch, got {type(batch).__name__}.")
            self._check(split, batch)
        self._check_writers()
        if self.delta is None:
            return
        if not 0 < self.delta < float("inf"):
            raise ValueError(f"Data {self.name!r}: delta must be positive, got {self.delta}; None for continuous data.")
        object.__setattr__(self, "delta", float(self.delta))  # plain, so that JSON takes it
        for split, batch in (("train", self.first), ("valid", self.valid), ("test", self.test)):
            self._check_lattice(split, batch.x, self.delta)

    @property
    def first(self) -> Batch:
        """Training samples for their layout: all of them, or the first one where they are `Stored`."""
        return self.train.head if isinstance(self.train, Stored) else self.train

    @property
    def stretches(self) -> Stretches | None:
        """How training samples lie in their file, where they are `Stored`."""
        return self.train.stretches if isinstance(self.train, Stored) else None

    def _check(self, split: str, batch: Batch) -> None:
        x, first = batch.x, self.first.x
        if len(batch) == 0 or x.numel() == 0:
            raise ValueError(f"Data {self.name!r}: the {split} split is empty; choose other blocks or more data.")
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
        if _layout(batch) != _layout(self.first):
            raise ValueError(
                f"Data {self.name!r}: {split} ({_layout(batch)}) and train ({_layout(self.first)}) differ in layout "
                "or in the names of what conditions them."
            )

    def _check_writers(self) -> None:
        for suffix, writer in self.writers.items():
            if suffix != Path(f"x{suffix}").suffix.lower() or suffix in (".npz", ".nc", ".zarr"):
                raise ValueError(
                    f"Data {self.name!r}: writers are named by a suffix such as '.pdb', got {suffix!r}; .npz is there "
                    "for all data, .nc and .zarr for those with an export."
                )
            if not callable(writer):
                raise TypeError(
                    f"Data {self.name!r}: the writer of {suffix} must be a function (path, batch, log_prob, about), "
                    f"got {type(writer).__name__}."
                )

    def _check_lattice(self, split: str, x: Tensor, delta: float) -> None:
        # A bin width that is not the data's makes every likelihood wrong by log(true / given), silently.
        steps = (x - x[:1]).double() / delta
        blur = 4 * float(x.abs().max()) * torch.finfo(x.dtype).eps / delta  # of the float type, in steps
        if blur > 0.25:
            cure = (
                "subtract what is common to all of them, or scale them and give no delta"
                if x.dtype == torch.float64
                else "use float64"
            )
            raise ValueError(
                f"Data {self.name!r}: {x.dtype} cannot tell values {delta:g} apart near {float(x.abs().max()):g}; "
                f"{cure}."
            )
        off = (steps - steps.round()).abs() > max(blur, 1e-3)
        if off.any():
            raise ValueError(
                f"Data {self.name!r}: {int(off.sum())} of {x.numel()} values of {split} are not whole steps of "
                f"delta={delta:g} apart; correct delta, or give None for continuous data."
            )


def _layout(batch: Batch) -> str:
    names = {"context": batch.context, "nodes": batch.nodes, "edges": batch.edges}
    bonds = [] if batch.edge_index is None else ["edge_index"]
    told = [f"{kind} {sorted(held) or 'none'}" for kind, held in names.items() if held or kind == "context"]
    return ", ".join(["dense" if batch.dense else "ragged", *told, *bonds])
