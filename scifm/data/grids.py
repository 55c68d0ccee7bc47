"""Grids in, grids out: xarray at the door, `Batch` in the house.

`from_xarray` turns a variable of a file, a Dataset or a DataArray into a dense batch (B, C, *grid) and a `GridSpec`,
which remembers what a tensor forgets: the order of the dims, coordinates, dtype, units, attributes and packing.
`to_xarray` puts samples back into that form.

Packed files hold integers k, and values x = k · scale_factor + add_offset: a lattice.  A density of such values needs
the width of its cells, δ = |scale_factor| (negative factors do occur); continuous draws go back onto the lattice by
rounding, which undoes uniform dequantisation exactly.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scifm.batch import Batch

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["GridSpec", "from_xarray", "open_file", "to_xarray"]

SAMPLE_DIMS = ("time", "realization", "number", "member", "sample", "ensemble", "valid_time")
PACKING = ("dtype", "scale_factor", "add_offset", "_FillValue")
DAY = np.timedelta64(1, "D")
EPOCH = np.datetime64("1970-01-01", "ms")


@dataclass(frozen=True)
class GridSpec:
    """What a file says about a variable, in plain values that JSON can hold.

    Args:
        variable: its name.
        dims: of the variable in the file's order, `sample_dim` among them.
        sample_dim: whose entries became samples.
        shape: length of the other dims, in order.
        dtype: of the values as xarray decodes them.
        attrs: of the variable, units for one.
        coords: coordinates of the other dims by name: dims, values, dtype, attrs.
        file_attrs: of the whole file.
        packing: dtype, scale_factor, add_offset and _FillValue as stored, where they are known.
        sample_attrs: attributes of the coordinate of `sample_dim`.
    """

    variable: str
    dims: tuple[str, ...]
    sample_dim: str
    shape: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    file_attrs: Mapping[str, Any] = field(default_factory=dict)
    packing: Mapping[str, Any] = field(default_factory=dict)
    sample_attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def event(self) -> tuple[int, ...]:
        """Shape (C, *grid) of a sample: the last two dims (or the only one) are the grid, all before are channels."""
        grid = self.shape[-2:]
        return (int(np.prod(self.shape[: -len(grid)], dtype=int)), *grid)

    @property
    def unit(self) -> str:
        return str(self.attrs.get("units", ""))

    @property
    def delta(self) -> float | None:
        """Width of the lattice in the user's units; None for continuous values."""
        return None if self.lattice is None else abs(self.lattice[0])

    @property
    def lattice(self) -> tuple[float, float] | None:
        """(scale, offset) of x = k · scale + offset with whole k, or None."""
        stored = np.dtype(self.packing.get("dtype", self.dtype))
        if stored.kind not in "iu":
            return None
        return float(self.packing.get("scale_factor", 1.0)), float(self.packing.get("add_offset", 0.0))

    @property
    def periodic(self) -> tuple[bool, ...]:
        """For each grid axis: is it a longitude that closes the circle, n · step = 360 within half a step?"""
        rest = [d for d in self.dims if d != self.sample_dim]
        return tuple(self._closes(dim) for dim in rest[-2:])

    def _closes(self, dim: str) -> bool:
        coord = self.coords.get(dim)
        if coord is None or len(coord["values"]) < 3:
            return False
        unit = str(coord["attrs"].get("units", "")).lower()
        if dim.lower() not in ("lon", "longitude") and not unit.startswith(("degrees_e", "degree_e")):
            return False
        steps = np.diff(np.asarray(coord["values"], dtype=float))
        step = abs(float(np.median(steps)))
        return bool(np.allclose(abs(steps), step, rtol=0.01) and abs(len(steps) * step + step - 360) < step / 2)

    def describe(self) -> str:
        """What was understood, in one line for the user to check."""
        rest = [d for d in self.dims if d != self.sample_dim]
        parts = []
        for number, dim in enumerate(rest):
            text = f"{dim} {self.shape[number]}"
            values = self.coords.get(dim, {}).get("values", ())
            if len(values) and not isinstance(values[0], str):
                text += f" ({values[0]:g} .. {values[-1]:g})"
            if dim in rest[-2:] and self.periodic[rest[-2:].index(dim)]:
                text += " periodic"
            parts.append(text)
        lattice = "continuous" if self.delta is None else f"steps of {self.delta:g}"
        what = f"{self.variable} [{self.unit or 'no unit'}, {lattice}]"
        return f"{what} on {', '.join(parts)}; samples along {self.sample_dim}"

    def to_json(self) -> str:
        """The spec as text; `from_json` gives back an equal one."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> GridSpec:
        """Raises ValueError for a text that is no spec."""
        try:
            values: dict[str, Any] = json.loads(text)
            values.update(dims=tuple(values["dims"]), shape=tuple(values["shape"]))
            return GridSpec(**values)
        except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"GridSpec.from_json: expected what to_json wrote, got {text[:60]!r} ({error})."
            ) from error


# -- in ------------------------------------------------------------------------------------------------------------


def open_file(path: str | Path) -> xr.Dataset:
    """All of a file that xarray can read (netCDF, Zarr), in memory, with errors that say what to do."""
    import xarray as xr

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with xr.open_dataset(path) as dataset:
            return dataset.load()
    except Exception as error:  # backends raise whatever they like for a damaged file
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        cure = "It may be damaged or cut short: fetch it again, or open it with xarray yourself and pass the Dataset."
        if "cftime" in first:
            cure = "Its calendar needs one more package: pip install cftime."
        raise ValueError(f"{path.name} cannot be read ({type(error).__name__}: {first[:200]}). {cure}") from error


def from_xarray(
    source: xr.Dataset | xr.DataArray | str | Path,
    variable: str | None = None,
    sample_dim: str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Batch, GridSpec]:
    """A variable as a dense batch x (B, C, *grid), in the file's units.

    The last two dims are the grid (the only one, where there is one), all others but `sample_dim` are channels.
    Samples along a time axis carry `context["time"]`, days since 1970-01-01 (B,) float64.

    Args:
        source: a file, a Dataset or a DataArray.
        variable: needed where a Dataset has more than one on a grid.
        sample_dim: whose entries become samples; by default time, realization, number, member ... or the first dim.
        dtype: of x; by default float32 where the values survive it (to a hundredth of a lattice step), else float64.

    Raises:
        FileNotFoundError, ValueError: for a file that is missing or damaged, an unknown name, values that are missing.
    """
    import xarray as xr

    opened = open_file(source) if isinstance(source, str | Path) else source
    if isinstance(opened, xr.DataArray):
        array, file_attrs = opened.rename(opened.name or "x"), {}
    elif isinstance(opened, xr.Dataset):
        array, file_attrs = opened[_choose(opened, variable)], dict(opened.attrs)
    else:
        raise TypeError(f"from_xarray: expected a path, a Dataset or a DataArray, got {type(opened).__name__}.")
    sample = _sample_dim(array, sample_dim)
    spec = _describe(array, sample, file_attrs)
    values = array.transpose(sample, *[d for d in array.dims if d != sample]).values
    if values.dtype.kind not in "iuf":
        raise ValueError(f"from_xarray: {spec.variable!r} holds {values.dtype}, expected numbers.")
    missing = ~np.isfinite(values)
    if missing.any():
        raise ValueError(
            f"from_xarray: {int(missing.sum())} of {values.size} values of {spec.variable!r} are missing or infinite, "
            f"in {int(missing.any(axis=tuple(range(1, missing.ndim))).sum())} of {len(values)} samples; fill them "
            "(xarray's fillna, interpolate_na) or cut them away before."
        )
    x = torch.from_numpy(np.ascontiguousarray(values.astype(np.float64))).to(dtype or _float(values, spec))
    context = {}
    if sample in array.coords and array[sample].dtype.kind == "M":
        days = (array[sample].values.astype("datetime64[ms]") - EPOCH) / DAY
        context["time"] = torch.from_numpy(np.asarray(days, dtype=np.float64))
        if bad := int(context["time"].isnan().sum()):
            raise ValueError(
                f"from_xarray: {bad} of {len(values)} samples have no date in {sample!r} (NaT); drop them."
            )
    return Batch(x.reshape(len(values), *spec.event), context=context), spec


def _choose(source: xr.Dataset, variable: str | None) -> str:
    if variable is not None:
        if variable not in source.data_vars:
            near = difflib.get_close_matches(variable, [str(n) for n in source.data_vars], 1)
            hint = f"did you mean {near[0]!r}? There are" if near else "there are"
            raise ValueError(f"from_xarray: there is no variable {variable!r}; {hint} {_names(source)}.")
        return variable
    bounds = {v.attrs.get("bounds") for v in source.variables.values()}
    gridded = [n for n, v in source.data_vars.items() if v.ndim >= 2 and v.dtype.kind in "iuf" and n not in bounds]
    if len(gridded) != 1:
        raise ValueError(
            f"from_xarray: expected one variable on a grid, found {len(gridded)}: {_names(source)}; name it."
        )
    return str(gridded[0])


def _names(source: xr.Dataset) -> str:
    return ", ".join(f"{n} {v.dims}" for n, v in source.data_vars.items()) or "none"


def _sample_dim(array: xr.DataArray, wanted: str | None) -> str:
    dims = [str(d) for d in array.dims]
    if array.size == 0 or not dims:
        raise ValueError(f"from_xarray: {array.name!r} is empty, {dict(array.sizes)}.")
    if wanted is None:
        known = [d for d in SAMPLE_DIMS if d in dims]
        if not known and len(dims) < 3:
            raise ValueError(
                f"from_xarray: which dim of {array.name!r} {tuple(dims)} counts the samples? Give sample_dim."
            )
        wanted = known[0] if known else dims[0]
    if wanted not in dims:
        raise ValueError(f"from_xarray: {array.name!r} has no dim {wanted!r}; it has {', '.join(dims)}.")
    if len(dims) < 2:
        raise ValueError(f"from_xarray: {array.name!r} has one number per {wanted}, no grid.")
    return wanted


def _describe(array: xr.DataArray, sample: str, file_attrs: Mapping) -> GridSpec:
    rest = [str(d) for d in array.dims if d != sample]
    coords = {
        str(name): {
            "dims": [str(d) for d in c.dims],
            "values": _plain(c.values),
            "dtype": c.dtype.str if c.dtype.kind != "O" else "O",
            "attrs": _plain(c.attrs),
        }
        for name, c in array.coords.items()
        if sample not in c.dims
    }
    # some writers make lists of one number of the packing
    packing = {
        k: np.dtype(v).str if k == "dtype" else _plain(np.asarray(v).reshape(-1)[0])
        for k, v in array.encoding.items()
        if k in PACKING and v is not None
    }
    return GridSpec(
        variable=str(array.name),
        dims=tuple(str(d) for d in array.dims),
        sample_dim=sample,
        shape=tuple(array.sizes[d] for d in rest),
        dtype=array.dtype.str,
        attrs=_plain(array.attrs),
        coords=coords,
        file_attrs=_plain(file_attrs),
        packing=packing,
        sample_attrs=_plain(array[sample].attrs) if sample in array.coords else {},
    )


def _plain(value: Any) -> Any:
    """Numbers, text and lists of them.  An array among attributes comes back as a list, which netCDF treats alike."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        kind = value.dtype.kind
        return (value.astype("datetime64[ms]").astype(np.int64) if kind in "mM" else value).tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _float(values: np.ndarray, spec: GridSpec) -> torch.dtype:
    if spec.delta is None:
        return torch.float32 if values.dtype.itemsize <= 4 else torch.float64
    largest = np.float32(np.abs(values).max())
    return torch.float32 if np.spacing(largest) <= 0.01 * spec.delta else torch.float64


# -- out -----------------------------------------------------------------------------------------------------------


def to_xarray(
    batch: Batch,
    spec: GridSpec,
    sample_dim: str = "realization",
    *,
    lattice: bool = True,
    history: str = "",
) -> xr.Dataset:
    """Samples as the file had them: dims in its order, its coordinates, dtype, units and attributes.

    Args:
        batch: x (B, C, *grid) in the user's units.
        spec: from `from_xarray`.
        sample_dim: name of the sample axis, which takes the place of the file's; the file's own name restores it.
        lattice: round to the steps of packed or integer files, and pack again when written, where the range allows it.
        history: appended to the file's history.

    Raises:
        ValueError: where the samples have another shape.
    """
    import xarray as xr

    if batch.grid("to_xarray") != spec.event:
        raise ValueError(f"to_xarray: expected samples of shape {spec.event} for {spec.variable!r}, got {batch.event}.")
    values = batch.x.detach().cpu().double().numpy().reshape(len(batch), *spec.shape)
    values, encoding = _pack(values, spec, lattice)
    rest = [d for d in spec.dims if d != spec.sample_dim]
    names = [sample_dim if d == spec.sample_dim else d for d in spec.dims]
    array = xr.DataArray(values, dims=[sample_dim, *rest], attrs=dict(spec.attrs)).transpose(*names)
    array.encoding = encoding
    coords: dict[str, Any] = {n: _coordinate(c) for n, c in spec.coords.items()}
    if "time" in batch.context:
        coords[spec.sample_dim] = (sample_dim, _dates(batch.context["time"]), dict(spec.sample_attrs))
    if sample_dim != spec.sample_dim:
        coords[sample_dim] = (sample_dim, np.arange(len(batch)), {"standard_name": "realization"})
    attrs = dict(spec.file_attrs)
    if history:
        attrs["history"] = "\n".join(filter(None, [str(attrs.get("history", "")), history]))
    return xr.Dataset({spec.variable: array}, coords, attrs)


def _pack(values: np.ndarray, spec: GridSpec, lattice: bool) -> tuple[np.ndarray, dict[str, Any]]:
    dtype = np.dtype(spec.dtype)
    if spec.lattice is None or not lattice:
        # a file of whole numbers takes fractions only as floats
        return values.astype(dtype if dtype.kind == "f" else np.float64), {}
    scale, offset = spec.lattice
    k = np.rint((values - offset) / scale)
    stored = np.dtype(spec.packing.get("dtype", spec.dtype))
    limits = np.iinfo(stored)
    fill = spec.packing.get("_FillValue")
    fits = bool((k >= limits.min).all() and (k <= limits.max).all() and not (fill is not None and (k == fill).any()))
    if dtype.kind in "iu":
        return (k.astype(dtype) if fits else k), {}
    restored = k.astype(dtype) * dtype.type(scale) + dtype.type(offset)
    # Draws may leave the range of the packed integers, where they would wrap around: then write plain floats.
    if not fits:
        return restored, {}
    # a factor in float32 makes xarray decode to float32, one in float64 to float64: write what was there
    encoding = {n: dtype.type(v) if n in ("scale_factor", "add_offset") else v for n, v in spec.packing.items()}
    encoding["dtype"] = stored
    if fill is None and not (k == limits.min).any():
        encoding["_FillValue"] = limits.min  # unused, but xarray warns of floats packed without one
    return restored, encoding


def _coordinate(c: Mapping[str, Any]) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    dtype = np.dtype(c["dtype"])
    if dtype.kind in "mM":
        values = np.asarray(c["values"], dtype=np.int64).astype(f"{dtype.kind}8[ms]").astype(dtype)
    else:
        values = np.asarray(c["values"], dtype=dtype)
    return list(c["dims"]), values, dict(c["attrs"])


def _dates(days: torch.Tensor) -> np.ndarray:
    ms = torch.round(days.detach().cpu().double() * 86_400_000).long().numpy()
    return (EPOCH + ms.astype("timedelta64[ms]")).astype("datetime64[ns]")
