"""A file larger than memory as data for training: samples are read while they are used, chunk by chunk.

What training needs in memory is a few chunks of the file (`scifm.data.stored`).  Validation and test samples are read
once, at most so many, evenly spaced.  All chunks of the training blocks are looked at before the training, so that
missing values, which would stop it in the middle, are known first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data.grids.alike import read_alike
from scifm.data.grids.blocks import blocks
from scifm.data.grids.dims import Axes, find_axes
from scifm.data.grids.files import open_file, origin
from scifm.data.grids.lattices import continuous
from scifm.data.grids.reading import chosen, from_xarray
from scifm.data.grids.remember import remember, times_of
from scifm.data.grids.spec import GridSpec
from scifm.data.grids.standing import stand_in
from scifm.data.grids.writing import to_xarray
from scifm.data.source import Data
from scifm.data.stored import MEMORY, Stored

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["stream"]

CHUNK = 2**24  # bytes that are read at a time from a file that is not cut into chunks


def stream(
    file: Path | xr.Dataset,
    variable: str | Sequence[str] | None = None,
    samples: str | Sequence[str] | None = None,
    *,
    dims: Mapping[str, str] | None = None,
    missing: Literal["refuse", "drop"] = "refuse",
    held: int = 512,
    memory: int = MEMORY,
    check: bool = True,
) -> tuple[Data, GridSpec]:
    """Variables of a file as `read` gives them, but training samples stay in the file.

    Args:
        file: Zarr, or netCDF that is cut into chunks along the samples; or a Dataset that was opened lazily, from
            whatever xarray opens, such as a store in the cloud.
        variable, dims: as for `from_xarray`.
        samples: the one dim whose entries are samples.
        missing: "refuse"; which samples to drop is not known before all are read.
        held: validation samples, and test samples, that are held in memory.
        memory: bytes of the file that are kept at hand, at least three chunks.
        check: look at all training samples first.

    Raises:
        FileNotFoundError, ValueError: see `from_xarray`; for several dims of samples; for a mask that changes.
    """
    if missing != "refuse":
        raise ValueError(
            f'stream: missing must be "refuse", got {missing!r}: samples are not dropped while they are read; read the '
            "file into memory, or drop them in a copy of it."
        )
    if (alone := stand_in(file, (held, memory))) is not None:
        return alone
    opened = open_file(file, lazy=True) if isinstance(file, str | Path) else file
    (name, label, files), (dataset, names) = origin(file), chosen(opened, variable or None)
    axes = find_axes(dataset, names, samples or None, dims)
    if len(axes.samples) != 1:
        raise ValueError(
            f"stream: the samples lie along {len(axes.samples)} dims, {', '.join(axes.samples)}; name the one that is "
            "to be streamed, the others become channels."
        )
    (dim,) = axes.samples
    start, spec = _piece(dataset, names, dim, dims, 0, min(2, dataset.sizes[dim]), None)
    dtype = _float(spec)
    start = start.replace(start.x.to(dtype))
    mask = np.ones(spec.event, dtype=bool) if spec.mask is None else spec.mask
    full = remember(dataset, names, axes, mask, times_of(dataset, axes), None)
    reader = partial(_read, dataset, names, dim, dims, spec, dtype)
    count = dataset.sizes[dim]
    rows, gaps = blocks(full)
    chunk = _chunk(dataset, names, axes, start)
    train = Stored(reader, count, chunk, rows["train"], memory)
    if check:
        train.check()
    valid, test = (Stored(reader, count, chunk, rows[split], memory).some(held) for split in ("valid", "test"))
    kept = f"{len(train)} training, {len(valid)} validation and {len(test)} test samples in blocks {gaps}"
    return Data(
        name,
        train,
        valid,
        test,
        unit=full.unit,
        delta=full.delta,
        files=files,
        export=partial(to_xarray, spec=full),
        read=partial(read_alike, spec=full, dtype=train.head.x.dtype),
        spec=full,
        summary=f"{label}: {full.describe()}. {kept}; training samples are read in chunks of {chunk}",
    ), full


def _piece(
    dataset: xr.Dataset, names: list[str], dim: str, dims: Any, first: int, last: int, dtype: torch.dtype | None
) -> tuple[Batch, GridSpec]:
    return from_xarray(dataset.isel({dim: slice(first, last)}), names, dim, dtype, dims=dims)


def _read(
    dataset: xr.Dataset,
    names: list[str],
    dim: str,
    dims: Any,
    like: GridSpec,
    dtype: torch.dtype,
    first: int,
    last: int,
) -> Batch:
    try:
        batch, spec = _piece(dataset, names, dim, dims, first, last, dtype)
    except ValueError as error:
        raise ValueError(f"samples {first} to {last - 1}: {error} A stream drops no samples.") from error
    if not np.array_equal(_mask(spec), _mask(like)):
        now, then = (int((~_mask(s)).sum()) for s in (spec, like))
        raise ValueError(
            f"samples {first} to {last - 1}: {now} values are missing in all of them, and {then} in the file's first "
            "samples; fill what is missing now and then, or read the file into memory with missing='drop'."
        )
    if spec.delta is not None:
        return batch
    return batch.replace(continuous(batch.x, spec.deltas, spec.mask, first).to(torch.float32))


def _float(spec: GridSpec) -> torch.dtype:
    """float32 where whatever the file can hold survives it; a look at some samples says nothing about the others."""
    for variable in spec.variables:
        stored = np.dtype(variable.encoding.get("dtype", variable.dtype))
        if variable.lattice is None:
            if np.dtype(variable.dtype).itemsize > 4:
                return torch.float64
            continue
        unsigned = str(variable.encoding.get("_Unsigned", "")).lower() == "true"
        limits = np.iinfo(np.dtype(f"u{stored.itemsize}") if unsigned else stored)
        scale, offset = variable.lattice
        largest = max(abs(limit * scale + offset) for limit in (limits.min, limits.max))
        if np.spacing(np.float32(largest)) > 0.01 * abs(scale):
            return torch.float64
    return torch.float32


def _mask(spec: GridSpec) -> np.ndarray:
    return np.ones(spec.event, dtype=bool) if spec.mask is None else spec.mask


def _chunk(dataset: xr.Dataset, names: list[str], axes: Axes, start: Batch) -> int:
    """Samples in a piece of the file; of a file in one piece, or in small ones, so many as are worth a reading."""
    (dim,) = axes.samples
    sizes = [int(dataset[n].encoding.get("preferred_chunks", {}).get(dim, 0)) for n in names]
    found = max(sizes)
    each = start.x[0].numel() * start.x.element_size()
    count = dataset.sizes[dim]
    if found and found < count:
        return found * max(1, CHUNK // (4 * found * each))
    return max(1, min(count, CHUNK // each))
