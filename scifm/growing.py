"""A netCDF file or a Zarr store that grows along one dim, and can be opened by others between two steps.

The first piece decides how everything is stored: dtype, packing, marks of missing values, units of times, and the size
of the chunks on the disk, some of the file's own but never those of the file that a Dataset was read from, which fit
nothing here.  What comes after is encoded in the same way and put behind it; what cannot be is a `Misfit`.

HDF5 does not survive a disk that is full when it closes a file: it takes file and process with it.  So the place
is taken before, and what was there stays readable.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Growing", "Misfit", "remove"]

_KEPT = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "units", "calendar")
_PACKED = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "dtype")
_YEARS = "Ambiguous reference date string"  # 1-1-1 is the year 1: the units are the file's own
_PIECE = 2**20  # bytes of a chunk on the disk, of which one can be read alone


class Misfit(Exception):
    """A variable of a later piece cannot be stored as that of the first one is.

    Attributes:
        name: of the variable.
        dtype: that holds the values of both.
    """

    def __init__(self, name: str, dtype: np.dtype):
        super().__init__(name)
        self.name, self.dtype = name, dtype


class Growing:
    """A file that begins with a Dataset; what is there under its name is replaced.

    Args:
        path: ends in .nc or .zarr.
        first: the beginning.  Times along `dim` are stored in seconds unless its encoding says otherwise.
        dim: along which it grows; None for what is whole already.
    """

    def __init__(self, path: Path, first: xr.Dataset, dim: str | None):
        import xarray as xr

        remove(path)
        self.path, self.dim, self.size = path, dim, 0 if dim is None else first.sizes[dim]
        made, netcdf = first.copy(), path.suffix == ".nc"
        made.encoding = {}
        for name in [n for n, v in made.variables.items() if v.dtype.kind == "U" and dim in v.dims]:
            made[name] = made[name].astype(object)  # of any length: later ones may be longer
        for name, array in made.variables.items():
            kept = {k: v for k, v in array.encoding.items() if k in _KEPT}
            if dim in array.dims:
                if _is_time(array) and "units" not in kept:
                    kept |= {"units": "seconds since 1970-01-01", "dtype": np.dtype("int64")}
                kept["chunksizes" if netcdf else "chunks"] = _pieces(array, dim)
            made[name].encoding = kept
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_YEARS)
            if netcdf:
                _make_place(path, sum(_bytes(v, dim) for v in made.variables.values()))
                made.to_netcdf(path, engine="h5netcdf", unlimited_dims=[] if dim is None else [dim])
            else:
                made.to_zarr(path, zarr_format=3, consolidated=False)
        self._forms = {n: _form(v) for n, v in first.variables.items() if dim in v.dims}
        with xr.open_dataset(path, engine="h5netcdf" if netcdf else "zarr", decode_cf=False, **_plain(netcdf)) as raw:
            self._stored = {
                n: {k: raw[n].attrs[k] for k in _KEPT if k in raw[n].attrs and k not in first[n].attrs}
                | ({} if first[n].dtype.kind in "bOUS" and not _is_time(first[n]) else {"dtype": raw[n].dtype})
                for n in self._forms
            }

    def append(self, more: xr.Dataset) -> None:
        """Put a Dataset behind what is there.

        Raises:
            Misfit: and nothing is written.
            ValueError: where it has other variables along the dim.
        """
        if self._forms.keys() != (found := {n for n, v in more.variables.items() if self.dim in v.dims}):
            before, now = (", ".join(sorted(map(str, names))) for names in (self._forms, found))
            raise ValueError(f"an export gave {before} for some samples and {now} for others; it must give the same.")
        encoded = {name: self._encode(name, more[name].variable) for name in self._forms}
        end = self.size + more.sizes[self.dim]
        with self._opened(sum(_bytes(v, self.dim) for v in encoded.values())) as file:
            if self.path.suffix == ".nc":
                file.resize_dimension(self.dim, end)
            for name, array in encoded.items():
                where = tuple(slice(self.size, end) if d == self.dim else slice(None) for d in array.dims)
                stored = file.variables[name] if self.path.suffix == ".nc" else file[name]
                if self.path.suffix == ".zarr":
                    stored.resize([end if d == self.dim else n for d, n in zip(array.dims, array.shape, strict=True)])
                values = np.asarray(array.values)
                stored[where] = values.astype(object) if values.dtype.kind == "U" else values
        self.size = end

    def annotate(self, attrs: Mapping[str, Any], variables: Mapping[str, Mapping[str, Any]]) -> None:
        """Give attributes to the file and to some of its variables, by name."""
        with self._opened() as file:
            file.attrs.update(attrs)
            for name, told in variables.items():
                (file.variables[name] if self.path.suffix == ".nc" else file[name]).attrs.update(told)

    def move(self, path: Path) -> None:
        """Give the whole file its name; what was there is replaced."""
        if self.path.suffix == ".nc":
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
        else:
            _consolidate(self.path)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(self.path, path)

    def _encode(self, name: Any, array: Any) -> Any:
        """The values as they are stored."""
        from xarray.conventions import encode_cf_variable

        if (form := _form(array)) != self._forms[name]:
            raise Misfit(name, _common(form[0], self._forms[name][0]))
        array = array.copy(deep=False)
        array.encoding = dict(self._stored[name])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Times can't be serialized faithfully")  # noticed below
            warnings.filterwarnings("ignore", message=_YEARS)
            encoded = encode_cf_variable(array, name=name)
        if _is_time(array) and encoded.attrs.get("units") != self._stored[name]["units"]:
            raise Misfit(name, array.dtype)
        return encoded

    @contextlib.contextmanager
    def _opened(self, more: int = 0) -> Iterator[Any]:
        """The file for writing: closed in between, so that others can read it; and their reading stops nobody here.

        Args:
            more: bytes that are to be written.
        """
        if self.path.suffix == ".nc":
            import h5netcdf

            _take_place(self.path, more)
            with h5netcdf.File(self.path, "r+", locking=False) as file:
                yield file
        else:
            import zarr

            yield zarr.open_group(self.path, mode="r+", use_consolidated=False)


def _bytes(array: Any, dim: Any) -> int:
    """Of an array in its file; its last chunk is stored whole."""
    last = int(np.prod(_pieces(array, dim))) if dim in array.dims else 0
    return (array.size + last) * (64 if array.dtype == object else array.dtype.itemsize)


def _make_place(path: Path, bytes_: int) -> None:
    """See whether a file can be that long."""
    path.touch()
    try:
        _take_place(path, bytes_)
    except OSError:
        path.unlink()
        raise


def _take_place(path: Path, more: int) -> None:
    """Make a file longer by so many bytes, and some for what HDF5 says of them; it cuts off what it does not need.

    Raises:
        OSError: where the disk, or what the user may have of it, is full; the file is then as it was.
    """
    size = path.stat().st_size
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), size, more + more // 50 + 2**16)
    except OSError as error:
        os.truncate(path, size)
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise


def _consolidate(path: Path) -> None:
    """All metadata of a store in one place, where xarray looks for them; they must not change any more."""
    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(path)


def remove(path: Path) -> None:
    """Remove a file or a store, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _plain(netcdf: bool) -> dict[str, Any]:
    return {} if netcdf else {"consolidated": False}


def _is_time(array: Any) -> bool:
    kind = array.dtype.kind
    return kind in "mM" or (kind == "O" and array.size > 0 and not isinstance(np.ravel(array.values)[0], str | bytes))


def _form(array: Any) -> tuple[np.dtype | str, Any]:
    """What must be the same in all pieces: dtype of the values, and how they are packed."""
    kind = array.dtype.kind
    if kind in "OUS":
        return "text", None
    if kind in "mM":
        return "time", None
    packed = {k: v for k, v in array.encoding.items() if k in _PACKED}
    return array.dtype, sorted((k, str(v)) for k, v in packed.items())


def _common(one: Any, two: Any) -> Any:
    return np.result_type(one, two) if isinstance(one, np.dtype) and isinstance(two, np.dtype) else np.dtype(object)


def _pieces(array: Any, dim: Any) -> tuple[int, ...]:
    """Shape of the chunks on the disk: whole along all dims but this one."""
    count = array.sizes[dim]
    each = max(1, array.dtype.itemsize * array.size // count)
    many = max(1, min(_PIECE // each, max(count, 2**13 // each)))
    return tuple(many if d == dim else n for d, n in zip(array.dims, array.shape, strict=True))
