"""Out: a batch as the file had it, or samples in its likeness.

Packed files hold integers k, and values x = k · scale_factor + add_offset: a lattice.  A density of such values needs
the width of its cells, δ = |scale_factor| (negative factors do occur); continuous draws go back onto the lattice by
rounding, which undoes uniform dequantisation exactly.  Draws may leave the range of the packed integers, where they
would wrap around: then plain floats are written.  How a file was cut into chunks says nothing about another number of
samples, so encodings hold dtype, packing, marks of missing values and the units of times, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scifm.batch import Batch
from scifm.data.grids.calendar import from_days
from scifm.data.grids.references import REFERENCES, drawn, free_name, plain
from scifm.data.grids.spec import GridSpec, Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["to_xarray"]

_PACKING = ("scale_factor", "add_offset", "dtype", "_FillValue", "missing_value", "_Unsigned")


def to_xarray(
    batch: Batch,
    spec: GridSpec,
    sample_dim: str | None = "realization",
    *,
    lattice: bool = True,
    history: str = "",
) -> xr.Dataset:
    """A batch as the file had it: dims in its order, its coordinates, dtypes, units, attributes, calendar and mask.

    Args:
        batch: x (B, C, *grid) in the user's units.
        spec: from `from_xarray`.
        sample_dim: name of the one dim that counts the samples in place of the file's; the file's own name where
            samples keep their times.  What is called "realization" in the file already is not overwritten: then it is
            "draw".  None for all that was read, in its old place: `to_xarray(*from_xarray(source),
            None)` is the source.
        lattice: round to the steps of packed or integer files, and pack again when written, where the range allows it.
        history: a line that goes before the file's history.

    Raises:
        ValueError: where the samples have another shape, or are not all of the file where all are needed.
    """
    import xarray as xr

    if batch.grid("to_xarray") != spec.event:
        raise ValueError(f"to_xarray: expected samples of shape {spec.event} for {spec.channels}, got {batch.event}.")
    sample_dim = None if sample_dim is None else free_name(spec, sample_dim)
    place = _Place(spec, sample_dim, len(batch))
    x = batch.x.detach().cpu().double().numpy()
    arrays, first = {}, 0
    for variable in spec.variables:
        channels = len(spec.channels_of(variable))
        mask = None if spec.mask is None else spec.mask[first : first + channels]
        values, encoding = pack(x[:, first : first + channels], variable, mask, lattice)
        array = xr.DataArray(place.values(values, variable), dims=place.dims(variable), attrs=dict(variable.attrs))
        array = array.transpose(*place.order(variable))
        array.encoding = encoding
        arrays[variable.name] = array
        first += channels
    found = xr.Dataset(arrays, _coordinates(batch, spec, sample_dim), dict(spec.attrs))
    for name, coordinate in spec.coords.items():
        stored = {k: v for k, v in coordinate.encoding.items() if k not in REFERENCES}
        if name == sample_dim != spec.roles.get("time"):
            continue  # a count of its own: there may be more than the file's integers hold
        if name in found.coords and found[name].dims == coordinate.dims:
            found[name].encoding = stored
        elif name in found.coords:  # times along another dim, which are counted as the file counts them
            kept = {k: v for k, v in stored.items() if k in ("units", "calendar", "dtype")}
            if np.dtype(kept.get("dtype", float)).kind not in "iuf":  # dates as text become numbers
                del kept["dtype"]
            found[name].encoding = kept
    if sample_dim is None:
        found.encoding = {k: set(v) for k, v in spec.encoding.items()}
    else:
        found = drawn(found, spec)
    if history:
        found.attrs["history"] = "\n".join(filter(None, [history, str(found.attrs.get("history", ""))]))
    return found


class _Place:
    """Where samples go: the file's own dims, or one of a given name."""

    def __init__(self, spec: GridSpec, sample_dim: str | None, size: int):
        self.spec, self.size = spec, size
        self.names = spec.samples if sample_dim is None else (sample_dim,)
        total = int(np.prod([spec.sizes[d] for d in spec.samples]))
        self.total, wanted = total, total if spec.rows is None else len(spec.rows)
        if sample_dim is None and size != wanted:
            raise ValueError(
                f"to_xarray: {size} samples are not the {wanted} of the file; give sample_dim, "
                f'"realization" for draws or {spec.samples[0]!r} for a part of the file.'
            )
        if sample_dim in spec.sizes and sample_dim not in spec.samples:
            raise ValueError(f"to_xarray: {sample_dim!r} is a dim of the grid or its levels; give another sample_dim.")
        self.whole = sample_dim is None

    def values(self, values: np.ndarray, variable: Variable) -> np.ndarray:
        spec = self.spec
        if self.whole and spec.rows is not None:  # samples that were dropped come back as missing
            every = np.full((self.total, *values.shape[1:]), np.nan, dtype=values.dtype)
            every[spec.rows] = values
            values = every
        samples = [spec.sizes[d] for d in self.names] if self.whole else [self.size]
        return values.reshape(*samples, *[spec.sizes[d] for d in (*spec.levels(variable), *spec.grid)])

    def dims(self, variable: Variable) -> list[str]:
        return [*self.names, *self.spec.levels(variable), *self.spec.grid]

    def order(self, variable: Variable) -> list[str]:
        """The file's order; one dim of samples stands where the first of the file's stood."""
        if self.whole:
            return list(variable.dims)
        return list(dict.fromkeys(self.names[0] if d in self.spec.samples else d for d in variable.dims))


def pack(
    values: np.ndarray, variable: Variable, mask: np.ndarray | None, lattice: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """Values in the file's dtype with NaN outside the mask, and the encoding with which they can be written."""
    dtype, encoding = np.dtype(variable.dtype), _consistent(variable.encoding)
    if variable.lattice is None or not lattice:
        # a file of whole numbers takes fractions only as floats
        found = values.astype(dtype if dtype.kind == "f" else np.float64)
        continuous = {} if variable.lattice is not None else encoding
        return _masked(found, mask), continuous
    scale, offset = variable.lattice
    k = np.rint((values - offset) / scale)
    k = k if mask is None else np.where(mask, k, 0)
    fits, encoding = _fits(k, variable, encoding, mask)
    if dtype.kind in "iu":
        return (k.astype(dtype) if fits else k), encoding if fits else {}
    restored = k.astype(dtype) * dtype.type(scale) + dtype.type(offset)
    return _masked(restored, mask), encoding if fits else {}


def _masked(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    return values if mask is None else np.where(mask, values, values.dtype.type(np.nan))


def _consistent(encoding: Mapping[str, Any]) -> dict[str, Any]:
    """Only what xarray writes: two marks of missing values that differ are one too many, and NaN says nothing."""
    found = {k: v for k, v in encoding.items() if k in _PACKING}
    one, two = found.get("_FillValue"), found.get("missing_value")
    if one is not None and two is not None and not (one == two or (one != one and two != two)):
        found["_FillValue"] = two if one != one else one
        del found["missing_value"]
    return found


def _fits(
    k: np.ndarray, variable: Variable, encoding: dict[str, Any], mask: np.ndarray | None
) -> tuple[bool, dict[str, Any]]:
    """Whether whole numbers can be stored as the file stores them, and with which encoding."""
    stored = np.dtype(encoding.get("dtype", variable.dtype))
    unsigned = str(encoding.get("_Unsigned", "")).lower() == "true"
    limits = np.iinfo(np.dtype(f"u{stored.itemsize}") if unsigned else stored)
    inside = (k >= limits.min) & (k <= limits.max)
    marks = [int(encoding[n]) % 2 ** (8 * stored.itemsize) if unsigned else encoding[n] for n in _marks(encoding)]
    clash = np.isin(k, marks) if marks else np.zeros(k.shape, dtype=bool)
    if mask is not None:
        clash &= mask
    if not inside.all() or clash.any():
        return False, {}
    if np.dtype(variable.dtype).kind == "f" and not marks and not (k == limits.min).any():
        encoding = {**encoding, "_FillValue": limits.min}  # unused, but xarray warns of floats packed without one
    return True, encoding


def _marks(encoding: Mapping[str, Any]) -> list[str]:
    return [n for n in ("_FillValue", "missing_value") if n in encoding and encoding[n] == encoding[n]]


# -- coordinates ---------------------------------------------------------------------------------------------


def _coordinates(batch: Batch, spec: GridSpec, sample_dim: str | None) -> dict[str, Any]:
    """The file's, but of those along its samples only what the samples know: their time."""
    along = {n for n, c in spec.coords.items() if set(c.dims) & set(spec.samples)}
    if sample_dim is None:
        return {n: plain(c) for n, c in spec.coords.items()}
    found: dict[str, Any] = {n: plain(c) for n, c in spec.coords.items() if n not in along}
    time = spec.roles.get("time", "")
    if "time" in batch.context and spec.calendar is not None and time in spec.coords:
        attrs = {
            k: v for k, v in spec.coords[time].attrs.items() if k not in ("units", "calendar", "bounds", "climatology")
        }
        found[time] = (sample_dim, from_days(batch.context["time"].cpu().numpy(), spec.calendar), attrs)
    if sample_dim not in spec.samples or sample_dim == "realization":
        found[sample_dim] = (sample_dim, np.arange(len(batch)), {"standard_name": "realization", "units": "1"})
    return found
