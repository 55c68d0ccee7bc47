"""Samples as a Dataset by the CF conventions: what the user brought, and what was drawn and how.

    realization    counts the samples, with its standard_name
    log_prob       natural logarithm of the density in the user's units, with its standard error where probes give one
    history        one line before the file's own: version, seed, solver, tolerances, evaluations
    scifm_...      the same, one by one

Encodings are those of the export, which writes draws that leave the range of packed integers as floats.
Reference: CF conventions 1.11.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scifm import __version__
from scifm.batch import Batch
from scifm.run import atomic

if TYPE_CHECKING:
    import xarray as xr

    from scifm.data import Data
    from scifm.samples import Drawn

__all__ = ["dataset", "is_store", "save", "stamp", "units_of", "write_store"]


def dataset(chunks: Iterable[Drawn], data: Data, about: Mapping[str, Any]) -> xr.Dataset:
    """All samples as the data set's export labels them, with their log-density and their history.

    Args:
        about: seed, run, solver and the like: plain values.
    """
    import xarray as xr

    assert data.export is not None
    drawn = list(chunks)
    made = data.export(Batch.join([d.batch for d in drawn]))
    if isinstance(made, xr.DataArray):
        made = made.to_dataset(name=made.name or "samples", promote_attrs=True)
    counts = [d.nfe for d in drawn if d.nfe is not None]
    stamp(made, "sample", about, float(torch.cat(counts).double().mean()) if counts else None)
    return _with_density(made, drawn, data, about)


def stamp(made: xr.Dataset, verb: str, about: Mapping[str, Any], nfe: float | None = None) -> None:
    """Put into a dataset's attributes how it was made, and a line into its history.

    Args:
        verb: the command.
        about: plain values; run, seed, solver and tolerances go into the line.
        nfe: evaluations per sample.
    """
    said = [f"{k} {about[k]}" for k in ("run", "seed", "solver", "tolerances") if about.get(k) not in (None, "")]
    said += [] if nfe is None else [f"NFE {nfe:.4g} per sample"]
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S%z')}: scifm {__version__} {verb}" + (
        f": {', '.join(said)}" if said else ""
    )
    made.attrs["Conventions"] = "CF-1.11"
    made.attrs["history"] = f"{line}\n{made.attrs.get('history', '')}".strip()
    made.attrs |= {f"scifm_{k}": v for k, v in about.items() if isinstance(v, str | int | float)}
    if nfe is not None:
        made.attrs["scifm_nfe"] = nfe


def save(made: xr.Dataset, path: Path) -> None:
    """A dataset as .nc or .zarr, made beside its place and moved there whole."""
    if path.suffix == ".zarr":
        write_store(made, path)
        return
    with atomic(path) as temporary:
        made.to_netcdf(temporary, engine="h5netcdf")


def _with_density(made: xr.Dataset, drawn: list[Drawn], data: Data, about: Mapping[str, Any]) -> xr.Dataset:
    logs = [d.log_prob for d in drawn if d.log_prob is not None]
    if not logs:
        return made
    log_prob = torch.cat(logs)
    attrs: dict[str, Any] = {
        "units": "nats",
        "long_name": "natural logarithm of the probability density of the sample",
        "trace": str(about.get("trace", "")),
        "probes": drawn[0].probes,
        "comment": units_of(data),
    }
    dims = [d.dims for d in drawn if d.dims is not None]
    if dims:
        degrees = torch.cat(dims).double()
        attrs["degrees_of_freedom"] = float(degrees.mean())
        attrs["bits_per_dim"] = float((-log_prob / (degrees * math.log(2))).mean())
    errors = [d.stderr for d in drawn if d.stderr is not None]
    return _beside(made, log_prob.numpy(), torch.cat(errors).numpy() if errors else None, attrs)


def units_of(data: Data) -> str:
    """What a density is per, in words."""
    per = f"Density in the units of the data, per ({data.unit})^D." if data.unit else "Density in the data's own units."
    return per if data.delta is None else f"{per} Of the sample before it was rounded to steps of {data.delta:g}."


def _beside(made: xr.Dataset, log_prob: np.ndarray, stderr: np.ndarray | None, attrs: Mapping[str, Any]) -> xr.Dataset:
    """The dataset with log-densities along the dim that counts the samples."""
    from scifm.data.grids import SAMPLE_DIMS

    usual = [d for d in ("realization", *SAMPLE_DIMS) if d in made.sizes]
    fits = [d for d in [*usual, *made.sizes] if made.sizes[d] == len(log_prob)]
    dim = fits[0] if fits else "log_prob_sample"  # an export that counts its samples in no dim
    name = "log_prob" if "log_prob" not in made else "scifm_log_prob"
    found = {name: (dim, log_prob, dict(attrs))}
    if stderr is not None:
        told = {"units": "nats", "long_name": "standard error of the log-density from the spread of its probes"}
        found[f"{name}_stderr"] = (dim, stderr, told)
    return made.assign(found)


# -- Zarr ------------------------------------------------------------------------------------------------


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).exists() for name in ("zarr.json", ".zgroup"))


def write_store(made: xr.Dataset, path: Path) -> None:
    """A Zarr store, made beside its place and moved there whole; what was there is replaced.

    Raises:
        ValueError: where the package is not there.
    """
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{path.name} is a Zarr store, which needs one more package: pip install zarr.") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made.to_zarr(Path(folder, "store"), zarr_format=3, consolidated=False)
        if path.exists():
            shutil.rmtree(path)
        os.replace(Path(folder, "store"), path)
