"""Another file, read as the data of a run were: the same variables, grid, units and calendar, or an error.

    fields = read_alike(file, spec, dtype)      x (B, C, *grid) in the units of the run, NaN in gaps
    fields.maps(x)                              members (M, B, C, *grid) as the file has its own: order, units, packing
    fields.beside({"log_prob": (values, {})})   numbers per sample along the file's own sample dims

A unit that differs is converted where `convert_units` knows both.  What lies outside of the mask of the run (land)
plays no part, whatever the file holds there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.grids.files import open_file
from scifm.data.grids.lattices import continuous
from scifm.data.grids.likeness import check_coordinates, check_dims, lattice_of, unit_of
from scifm.data.grids.marks import check_marks
from scifm.data.grids.reading import from_xarray
from scifm.data.grids.references import drawn, without_dangling
from scifm.data.grids.spec import Coordinate, GridSpec
from scifm.data.grids.writing import to_xarray
from scifm.data.transforms import Affine

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Fields", "read_alike"]


@dataclass(frozen=True, eq=False)
class Fields:
    """Samples of a file on the grid of a run.

    Attributes:
        batch: in the units of the run; NaN where values are missing inside the mask, zero outside of it.
        spec: what the file says of itself, with the mask of the run.
        units: from the file's unit to the run's, for each channel.
        deltas: width of the lattice of each channel in the units of the run; None for a continuous one.
        name: of the file.
    """

    batch: Batch
    spec: GridSpec
    units: tuple[Affine, ...]
    deltas: tuple[float | None, ...]
    name: str

    @property
    def inside(self) -> Tensor:
        """bool (C, *grid): where the run has values."""
        mask = self.spec.mask
        return torch.ones(self.spec.event, dtype=torch.bool) if mask is None else torch.from_numpy(mask)

    @property
    def observed(self) -> Tensor:
        """bool (B, C, *grid): values that are there, inside the mask."""
        return self.inside & ~self.batch.x.isnan()

    @property
    def delta(self) -> float | None:
        """The lattice of all channels; None where they differ or one is continuous."""
        return self.deltas[0] if len(set(self.deltas)) == 1 else None

    def complete(self) -> Batch:
        """The samples for a score, in which nothing may be missing.

        Channels on different lattices are made continuous, as `scifm.data.grids.read` does.

        Raises:
            ValueError: where something is missing.
        """
        gaps = self.inside & self.batch.x.isnan()
        if gaps.any():
            bad = gaps.flatten(1).any(1)
            raise ValueError(
                f"{self.name}: {int(gaps.sum())} values are missing (NaN) in {int(bad.sum())} of {len(bad)} samples, "
                f"the first is {int(bad.nonzero()[0])}; a likelihood of missing values is not defined. Drop them, "
                "or fill them with `scifm fill`."
            )
        mixed = self.delta is None and any(self.deltas)
        return self.batch.replace(continuous(self.batch.x, self.deltas, self.spec.mask)) if mixed else self.batch

    def maps(self, x: Tensor) -> xr.Dataset:
        """Members (M, B, C, *grid), in the units of the run, as the file has its fields, along one more dim."""
        spec, (m, b) = self._wide(len(x)), x.shape[:2]
        flat = x.reshape(m * b, *x.shape[2:]).double()
        channels = [u.inverse(Batch(flat[:, c : c + 1])).x for c, u in enumerate(self.units)]
        return drawn(to_xarray(Batch(torch.cat(channels, 1)), spec, None), spec)

    def beside(self, found: Mapping[str, tuple[Tensor, dict[str, Any]]], base: xr.Dataset | None = None) -> xr.Dataset:
        """Numbers per sample, (B,) or (M, B) for members, as variables on the file's own sample dims and coordinates.

        Args:
            found: name -> values and attributes.
            base: what they are put beside; only the coordinates of the samples if None.
        """
        import xarray as xr

        spec, made = self.spec, xr.Dataset() if base is None else base
        sizes, along = [spec.sizes[d] for d in spec.samples], {}
        for name, (values, attrs) in found.items():
            lead = [self.member] if values.ndim == 2 else []
            shaped = values.reshape(*values.shape[: len(lead)], *sizes).cpu().numpy()
            free = name if name not in made.variables else f"scifm_{name}"
            along[free] = xr.DataArray(shaped, dims=[*lead, *spec.samples], attrs=attrs)
        made = made.assign(along)
        for name, c in spec.coords.items():
            if set(c.dims) <= set(spec.samples) and name not in made.coords:
                there = {*made.variables, *spec.coords}
                made = made.assign_coords({name: (c.dims, c.values, without_dangling(c.attrs, there))})
                made[name].encoding = dict(c.encoding)
        return made

    @property
    def member(self) -> str:
        """Name of the dim that counts members: realization, if the file has none of its own."""
        taken = {*self.spec.sizes, *self.spec.coords}
        return next(n for n in ("realization", "filling", "scifm_member") if n not in taken)

    def _wide(self, members: int) -> GridSpec:
        spec, name = self.spec, self.member
        counts = Coordinate((name,), np.arange(members), {"standard_name": "realization", "units": "1"})
        return replace(
            spec,
            variables=tuple(replace(v, dims=(name, *v.dims)) for v in spec.variables),
            samples=(name, *spec.samples),
            sizes={name: members, **spec.sizes},
            coords={name: counts, **spec.coords},
            days=None if spec.days is None else np.tile(spec.days, members),
        )


def read_alike(file: str | Path, spec: GridSpec, dtype: torch.dtype = torch.float32) -> Fields:
    """Samples of a file that is like one that was read before.

    Args:
        file: netCDF, Zarr, GRIB where cfgrib is there; its time and other sample dims are its own.
        spec: of the data that it shall be like.
        dtype: of the samples.

    Raises:
        FileNotFoundError, ValueError: where variables, grid, levels, units, calendar or times are not the spec's.
    """
    file = Path(file)
    dataset = open_file(file)
    names = [v.name for v in spec.variables]
    if lacking := [n for n in names if n not in dataset.data_vars]:
        have = ", ".join(map(str, dataset.data_vars)) or "none"
        raise ValueError(f"{file.name}: there is no variable {lacking[0]!r}, which the run has; there are: {have}.")
    for v in spec.variables:
        check_dims(file.name, dataset[v.name], v, spec)
    samples = [str(d) for d in dataset[names[0]].dims if d not in (*spec.grid, *spec.levels(spec.variables[0]))]
    roles = {r: n for r, n in spec.roles.items() if n in dataset.variables or n in dataset.sizes}
    batch, found = from_xarray(dataset, names, samples, torch.float64, dims=roles, missing="keep")
    check_coordinates(file.name, found, spec)
    first = 0
    for v in found.variables:
        part = slice(first, first := first + len(found.channels_of(v)))
        x = batch.x[:, part].numpy()
        check_marks(v.name, x, v, np.isnan(x) | (False if spec.mask is None else ~spec.mask[part]))
    pairs = zip(found.variables, spec.variables, strict=True)
    units = tuple(u for v, w in pairs for u in [unit_of(file.name, v, w)] * len(spec.channels_of(w)))
    inside = torch.ones(spec.event, dtype=torch.bool) if spec.mask is None else torch.from_numpy(spec.mask)
    x = torch.cat([u(Batch(batch.x[:, c : c + 1].nan_to_num(0.0))).x for c, u in enumerate(units)], 1)
    x = torch.where(batch.x.isnan(), torch.nan, x).where(inside, 0.0)
    steps = [None if d is None else d * abs(float(u.scale)) for d, u in zip(found.deltas, units, strict=True)]
    deltas = tuple(lattice_of(x[:, c][:, inside[c]], d, spec.deltas[c]) for c, d in enumerate(steps))
    context = batch.context if spec.days is not None else {}
    return Fields(Batch(x.to(dtype), context=context), replace(found, mask=spec.mask), units, deltas, file.name)
