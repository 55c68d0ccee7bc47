"""Files that `scifm sample` wrote, as batches, and what they say of their values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scifm.batch import Batch
from scifm.report.labels import Labels

if TYPE_CHECKING:
    import xarray as xr

    from scifm.data import Data
    from scifm.data.grids import GridSpec

__all__ = ["read_batch", "read_labels", "read_samples"]


def read_samples(path: Path, event: Sequence[int] | None = None) -> np.ndarray:
    """Values of a file that `scifm sample` wrote: (n, *event), or (rows, *event) of a ragged set.

    Args:
        event: shape of a sample, where it is known; it tells the dim that counts the samples, whatever an export
            calls it.  Without it, or where no dim fits, that is `realization`, a usual name, or the first.

    Raises:
        ValueError: where the file holds no variable on a grid, or several that share no grid.
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return file["x"]
    from scifm.data.grids import open_file

    found = _understood(open_file(path), event)
    if found is None:
        raise ValueError(f"{path.name} holds no samples.")
    return found[0].x.numpy()


def read_batch(path: Path, like: Batch) -> Batch:
    """Samples of a file that `scifm sample` wrote, with what does not flow where the file holds it.

    Args:
        like: a split of the data they are samples of, for layout and shape.

    Raises:
        ValueError: as `read_samples`; and for ragged sets that are not in an .npz, which keeps their sizes.
    """
    if like.dense:
        return Batch(torch.from_numpy(np.ascontiguousarray(read_samples(path, like.event))))
    if path.suffix != ".npz":
        raise ValueError(f"{path.name} does not tell which rows make a set; ragged samples are drawn from .npz files")
    with np.load(path, allow_pickle=False) as file:
        found = {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind in "biuf"}
    named: dict[str, dict[str, Any]] = {"context": {}, "nodes": {}, "edges": {}}
    for name, value in found.items():
        group, _, rest = name.partition(".")
        if rest and group in named:
            named[group][rest] = value
    index = torch.arange(len(found["count"])).repeat_interleave(found["count"])
    return Batch(found["x"], index, len(found["count"]), edge_index=found.get("edge_index"), **named)


def read_labels(path: Path | None, data: Data) -> Labels:
    """What is known of the values of fields: from the file of the samples, or else as the data set exports one.

    Args:
        path: None for nothing but the data set.
        data: of fields on a grid.

    Raises:
        ValueError: where there is a file or an export with labels, and it cannot be understood.
    """
    from scifm.data.stored import some
    from scifm.verbs import evenly

    spec, ordered, event = None, False, data.test.event
    if path is not None and path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            # files without this line were made at the end of a training, from the test split
            ordered = "about" not in file or "conditions=train" not in file["about"].tolist()
    elif path is not None:
        from scifm.data.grids import open_file

        with open_file(path, lazy=True) as dataset:
            spec, ordered = _spec(dataset, event), dataset.attrs.get("scifm_conditions") != "train"
    if spec is None and data.export is not None:
        spec = _spec(_dataset(data.export(data.test.select([0]))), event)
    if spec is None:
        return Labels.plain(event, data.unit, ordered)
    level = evenly(some(data.train, 256), 256).x.double().mean(0)
    return Labels.of(spec, data.unit, level, ordered)


def _dataset(made: xr.Dataset | xr.DataArray) -> xr.Dataset:
    import xarray as xr

    return made.to_dataset(name=made.name or "x") if isinstance(made, xr.DataArray) else made


def _spec(dataset: xr.Dataset, event: Sequence[int]) -> GridSpec | None:
    """Of the first sample, which says all but the values; None where the fields have another shape."""
    found = _understood(dataset, event, slice(0, 1))
    return found[1] if found is not None and found[1].event == tuple(event) else None


def _understood(
    dataset: xr.Dataset, event: Sequence[int] | None, part: slice = slice(None)
) -> tuple[Batch, GridSpec] | None:
    from scifm.data.grids import SAMPLE_DIMS, from_xarray, gridded

    dims = [str(d) for d in max((v.dims for v in dataset.data_vars.values()), key=len, default=())]
    usual = [d for d in ("realization", *SAMPLE_DIMS) if d in dims]
    first = None
    for dim in dict.fromkeys([*usual, *dims]):
        found = from_xarray(dataset.isel({dim: part}), gridded(dataset) or None, dim)
        if event is None or found[0].event == tuple(event):
            return found
        first = found if first is None else first
    return first
