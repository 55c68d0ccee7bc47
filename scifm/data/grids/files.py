"""Files as Datasets: netCDF, Zarr of both versions, GRIB; errors say what to do."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["groups_of", "open_file", "origin"]

_GRIB = (".grib", ".grib2", ".grb", ".grb2")


def open_file(path: str | Path, lazy: bool = False) -> xr.Dataset:
    """All of a file that xarray can read, in memory.

    Times that xarray cannot decode are left as numbers; `scifm.data.grids.calendar` reads what can be read.

    Args:
        lazy: leave values in the file, which stays open, until they are asked for.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a damaged file, or one that needs a package which is not there.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    engine = _engine(path)
    try:
        try:
            return _load(path, engine, lazy)
        except ValueError as error:
            if "decode time" not in str(error):
                raise
            return _without_times(path, engine, lazy)
    except Exception as error:  # backends raise whatever they like for a damaged file
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        cure = "It may be damaged or cut short: fetch it again, or open it with xarray yourself and pass the Dataset."
        raise ValueError(f"{path.name} cannot be read ({type(error).__name__}: {first[:200]}). {cure}") from error


def origin(source: Path | xr.Dataset | xr.DataArray) -> tuple[str, str, tuple[Path, ...]]:
    """What to call data, what to call their file, and which file there is to keep: a Dataset may have none."""
    if isinstance(source, str | Path):
        return Path(source).stem, Path(source).name, (Path(source),)
    known = source.encoding.get("source")
    path = Path(known) if isinstance(known, str | Path) and Path(known).exists() else None
    return (path.stem, path.name, (path,)) if path is not None else ("dataset", "Dataset", ())


def groups_of(dataset: xr.Dataset) -> list[str]:
    """Groups of the file of a Dataset that hold variables, `product: t2m, tp`; none where nobody can tell."""
    import xarray as xr

    path = dataset.encoding.get("source")
    if not isinstance(path, str | Path) or not Path(path).exists():
        return []
    try:  # what there is to be read may be damaged, and older versions of xarray do not know of groups
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            groups = xr.open_groups(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError):
        return []
    found = [f"{name.strip('/')}: {', '.join(map(str, g.data_vars))}" for name, g in groups.items() if g.data_vars]
    for group in groups.values():
        group.close()
    return [text for text in found if not text.startswith(":")][:8]


def _load(path: Path, engine: str | None, lazy: bool, **settings: Any) -> xr.Dataset:
    import xarray as xr

    with warnings.catch_warnings():
        # of reference dates without leading zeros, and of fill values that are named twice: both are understood
        warnings.filterwarnings("ignore", category=xr.SerializationWarning)
        warnings.filterwarnings("ignore", message=".*multiple fill values.*")
        warnings.filterwarnings("ignore", message=".*consolidated metadata.*")
        if lazy:
            return xr.open_dataset(path, engine=engine, **settings)  # type: ignore[arg-type]
        with xr.open_dataset(path, engine=engine, **settings) as dataset:  # type: ignore[arg-type]
            return dataset.load()


def _without_times(path: Path, engine: str | None, lazy: bool) -> xr.Dataset:
    """The file with those times decoded that can be."""
    import xarray as xr

    dataset = _load(path, engine, lazy, decode_times=False)
    for name, variable in list(dataset.variables.items()):
        if " since " not in str(variable.attrs.get("units", "")):
            continue
        try:
            dataset = dataset.assign({name: xr.decode_cf(dataset[[name]])[name]})
        except (ValueError, OverflowError, ImportError):
            continue
    return dataset


def _engine(path: Path) -> str | None:
    """xarray's word for the format, where it does not find it alone or would not say what is missing."""
    if path.is_dir() or path.name.endswith((".zarr", ".zarr.zip")):
        if find_spec("zarr") is None:
            raise ValueError(f"{path.name} is a Zarr store, which needs one more package: pip install zarr.")
        if path.is_dir() and not any((path / n).exists() for n in (".zgroup", ".zmetadata", "zarr.json")):
            raise ValueError(f"{path} is a folder and no Zarr store; name a file in it.")
        return "zarr"
    if path.suffix in _GRIB:
        if find_spec("cfgrib") is None:
            raise ValueError(
                f"{path.name} is GRIB, which needs one more package: pip install cfgrib. Or convert it once to netCDF, "
                "grib_to_netcdf or cdo -f nc copy."
            )
        return "cfgrib"
    return None
