"""Samples go into their .nc or .zarr as they are made; the name that was asked for appears when all are there.

    maps.partial.nc     what is drawn so far; it can be opened, and grows with each chunk
    maps.nc             all of it

The samples lie along that dim of the export which is twice as long for two samples as for one; an export without such a
dim takes all samples at once.  A coordinate that is 0, 1 for the *same* sample given twice counts, and is counted on.

Packed integers hold what lies in their range.  A draw that leaves it makes the whole variable one of floats: then the
file is begun anew from the chunks that are kept.  So it is the same file whether its samples came in one piece or many.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scifm.growing import Growing, Misfit, remove
from scifm.labelled import Told, dataset, density_of, exported, with_density

if TYPE_CHECKING:
    import xarray as xr

    from scifm.batch import Batch
    from scifm.data import Data
    from scifm.samples import Drawn

__all__ = ["explained", "partial_of", "sample_dim", "save", "stream"]


def partial_of(path: Path) -> Path:
    """Where the output grows until it is whole."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def stream(
    source: Callable[[], Iterable[Drawn]],
    data: Data,
    path: Path,
    about: Mapping[str, Any],
    first: Iterable[Drawn] | None = None,
) -> None:
    """Write the chunks, each as it comes, without holding any.

    Args:
        source: gives the chunks, the same at each call.
        path: .nc or .zarr; what is there is replaced at the end.
        first: the chunks while they are made and kept; the partial file stays where this is interrupted.
    """
    _check_packages(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, sheet = partial_of(path), None
    writing = functools.partial(explained, partial, path, first is not None)
    try:
        for drawn in source() if first is None else first:
            if sheet is None:
                sheet = _Sheet(source, data, partial, about, drawn.batch, writing)
                if sheet.dim is None:  # all at once
                    break
            sheet.add(drawn)
            del drawn  # or it would be held while the next is made
        assert sheet is not None
        if sheet.dim is None:
            for _ in first or ():
                pass
            whole = dataset(source(), data, about)
            with writing():
                Growing(partial, whole, None).move(path)
        else:
            with writing():
                sheet.finish().move(path)
    except BaseException:
        if first is None:
            remove(partial)
        raise


@contextlib.contextmanager
def explained(partial: Path, path: Path, kept: bool) -> Iterator[None]:
    """Say which file could not be written, and how to go on.

    Args:
        partial: what is written; the path itself where that has no name to remember.
        path: what it shall be.
        kept: whether the numbers are kept elsewhere, as by `scifm sample`.

    Raises:
        OSError: in place of what the library that writes raises.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "errno" not in str(error):  # HDF5 has both, and ends in them
            raise
        told = getattr(error, "strerror", None) or str(error).splitlines()[0]
        name = partial if partial == path else f"{partial}, which is to become {path.name},"
        go_on = " What was computed so far is kept: make room, and the same command goes on." if kept else ""
        raise OSError(f"{name} cannot be written ({told}).{go_on}") from error


def save(made: xr.Dataset, path: Path) -> None:
    """A dataset as .nc or .zarr, made beside its place and moved there whole; what is there is replaced."""
    _check_packages(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        with explained(partial, path, True):
            Growing(partial, made, None).move(path)
    except BaseException:
        remove(partial)
        raise


class _Sheet:
    """The partial file, and what may have to be changed about it."""

    def __init__(
        self,
        source: Callable[[], Iterable[Drawn]],
        data: Data,
        path: Path,
        about: Mapping[str, Any],
        batch: Batch,
        writing: Callable[[], AbstractContextManager[None]],
    ):
        self.source, self.data, self.path, self.about, self.writing = source, data, path, about, writing
        self.dim, self.counts = sample_dim(data, batch)
        self.told, self.chunks, self.before, self.density = Told(data, about), 0, "", ""
        self.file: Growing | None = None
        self.loose: dict[str, np.dtype] = {}

    def add(self, drawn: Drawn) -> None:
        self.told.add(drawn)
        self.chunks += 1
        try:
            self._put(drawn)
        except Misfit as misfit:
            self._again(misfit)

    def _again(self, misfit: Misfit) -> None:
        """Begin anew, with one variable stored less tightly."""
        self.loose[misfit.name], self.file = misfit.dtype, None
        try:
            for drawn in islice(self.source(), self.chunks):
                self._put(drawn)
        except Misfit as other:
            if other.name in self.loose:
                raise ValueError(
                    f"an export gave values of {other.name!r} of types that no file holds together."
                ) from other
            self._again(other)

    def _put(self, drawn: Drawn) -> None:
        made = self._made(drawn)
        if self.file is not None:
            with self.writing():
                self.file.append(made)
            return
        self.before = str(made.attrs.get("history", ""))
        if drawn.log_prob is not None:
            self.density = density_of(made)
            made[self.density].attrs |= self.told.of_density(whole=False)
        made = made.assign_attrs(self.told.of_file(self.before, whole=False))
        with self.writing():
            self.file = Growing(self.path, made, self.dim)

    def _made(self, drawn: Drawn) -> xr.Dataset:
        made = exported(self.data, drawn.batch)
        start = 0 if self.file is None else self.file.size
        for name in self.counts:
            told = made[name].attrs
            made[name] = made[name] + start
            made[name].attrs = told
        for name, dtype in self.loose.items():
            time = dtype.kind in "mMO"
            array = made[name] if time else made[name].astype(dtype)
            array.encoding = {"units": "milliseconds since 1970-01-01", "dtype": np.dtype("int64")} if time else {}
            made[name] = array
        return with_density(made, drawn, self.dim)

    def finish(self) -> Growing:
        """With all that is only known at the end."""
        assert self.file is not None
        self.file.annotate(
            self.told.of_file(self.before), {self.density: self.told.of_density()} if self.density else {}
        )
        return self.file


def sample_dim(data: Data, batch: Batch) -> tuple[str | None, list[str]]:
    """The dim that counts samples in what a data set exports, and the coordinates that number them; None for no dim."""
    one, two = (exported(data, batch.select([0] * n)) for n in (1, 2))
    dims = [d for d in two.sizes if two.sizes[d] != one.sizes.get(d)]
    if len(dims) != 1 or (one.sizes.get(dims[0]), two.sizes[dims[0]]) != (1, 2):
        return None, []
    along = {str(n): c for n, c in two.variables.items() if c.dims == (dims[0],) and c.dtype.kind in "iu"}
    return str(dims[0]), [n for n, c in along.items() if c.values.tolist() == [0, 1]]


def _check_packages(path: Path) -> None:
    if path.suffix != ".zarr":
        return
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{path.name} is a Zarr store, which needs one more package: pip install zarr.") from error
