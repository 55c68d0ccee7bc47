"""Samples as a Dataset by the CF conventions: what the user brought, and what was drawn and how.

    realization    counts the samples, with its standard_name
    log_prob       natural logarithm of the density in the user's units, with its standard error where probes give one
    history        one line before the file's own: version, seed, solver, tolerances, evaluations
    scifm_...      the same, one by one

Reference: CF conventions 1.11.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scifm import __version__
from scifm.batch import Batch

if TYPE_CHECKING:
    import xarray as xr

    from scifm.data import Data
    from scifm.samples import Drawn

__all__ = ["Told", "dataset", "density_of", "exported", "history", "is_store", "units_of", "with_density"]


def history(verb: str, about: Mapping[str, Any], before: str, nfe: float | None = None) -> dict[str, Any]:
    """Attributes of a file that say how it was made.

    Args:
        verb: the command.
        about: plain values; run, seed, solver and tolerances go into the line of the history.
        before: the history until now.
        nfe: evaluations per sample.
    """
    named = {k: about.get(k) for k in ("run", "seed", "solver", "tolerances")}
    said = [f"{k} {v}" for k, v in named.items() if v not in (None, "")]
    said += [] if nfe is None else [f"NFE {nfe:.4g} per sample"]
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S%z')}: scifm {__version__} {verb}"
    line += f": {', '.join(said)}" if said else ""
    plain = {f"scifm_{k}": v for k, v in about.items() if isinstance(v, str | int | float)}
    attrs = {"Conventions": "CF-1.11", "history": f"{line}\n{before}".strip(), **plain}
    return attrs if nfe is None else {**attrs, "scifm_nfe": nfe}


class Told:
    """What is said of all samples together; it keeps a few numbers per sample and none of the samples.

    Args:
        about: seed, run, solver and the like: plain values.
    """

    def __init__(self, data: Data, about: Mapping[str, Any]):
        self.data, self.about, self.probes = data, about, 0
        # plain numbers: small tensors kept while chunks come and go leave holes between them, and the heap grows
        self._nfe: list[float] = []
        self._logs: list[float] = []
        self._dims: list[float] = []

    def add(self, drawn: Drawn) -> None:
        """Count one more chunk in."""
        self.probes = drawn.probes
        for kept, found in ((self._nfe, drawn.nfe), (self._logs, drawn.log_prob), (self._dims, drawn.dims)):
            if found is not None:
                kept.extend(found.tolist())

    def of_file(self, before: str, whole: bool = True) -> dict[str, Any]:
        """Attributes of the file.

        Args:
            before: its history until now.
            whole: with what is known when all samples are there.
        """
        nfe = float(_double(self._nfe).mean()) if self._nfe and whole else None
        return history("sample", self.about, before, nfe)

    def of_density(self, whole: bool = True) -> dict[str, Any]:
        """Attributes of `log_prob`; `whole` as for `of_file`."""
        attrs: dict[str, Any] = {
            "units": "1",  # nats are no unit of UDUNITS
            "long_name": "natural logarithm of the probability density of the sample, in nats",
            "trace": str(self.about.get("trace", "")),
            "probes": self.probes,
            "comment": units_of(self.data),
        }
        if self._dims and self._logs and whole:
            degrees = _double(self._dims)
            attrs["degrees_of_freedom"] = float(degrees.mean())
            attrs["bits_per_dim"] = float((-_double(self._logs) / (degrees * math.log(2))).mean())
        return attrs


def _double(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def dataset(chunks: Iterable[Drawn], data: Data, about: Mapping[str, Any]) -> xr.Dataset:
    """All samples as the data set's export labels them, with their log-density and their history.

    Args:
        about: seed, run, solver and the like: plain values.
    """
    told, drawn = Told(data, about), list(chunks)
    for one in drawn:
        told.add(one)
    whole = joined(drawn)
    made = with_density(exported(data, whole.batch), whole)
    if whole.log_prob is not None:
        made[density_of(made)].attrs |= told.of_density()
    return made.assign_attrs(told.of_file(str(made.attrs.get("history", ""))))


def joined(drawn: Sequence[Drawn]) -> Drawn:
    """Chunks as one, without what was counted."""
    logs = [d.log_prob for d in drawn if d.log_prob is not None]
    errors = [d.stderr for d in drawn if d.stderr is not None]
    return replace(
        drawn[0],
        batch=Batch.join([d.batch for d in drawn]),
        log_prob=torch.cat(logs) if logs else None,
        stderr=torch.cat(errors) if errors else None,
    )


def exported(data: Data, batch: Batch) -> xr.Dataset:
    """What the data set makes of a batch, as a Dataset."""
    import xarray as xr

    assert data.export is not None
    made = data.export(batch)
    return made.to_dataset(name=made.name or "samples", promote_attrs=True) if isinstance(made, xr.DataArray) else made


def with_density(made: xr.Dataset, drawn: Drawn, dim: str | None = None) -> xr.Dataset:
    """The Dataset with the log-densities of its samples, where they have any.

    Args:
        dim: that counts the samples; found by its name and size if None.
    """
    if drawn.log_prob is None:
        return made
    count = len(drawn.log_prob)
    if dim is None:
        from scifm.data.grids import SAMPLE_DIMS

        usual = [d for d in ("realization", *SAMPLE_DIMS) if d in made.sizes]
        fits = [d for d in [*usual, *made.sizes] if made.sizes[d] == count]
        dim = str(fits[0]) if fits else "log_prob_sample"  # an export that counts its samples in no dim
    name = "log_prob" if "log_prob" not in made else "scifm_log_prob"
    found: dict[str, Any] = {name: (dim, drawn.log_prob.numpy(), {"units": "1"})}
    if drawn.stderr is not None:
        told = {"units": "1", "long_name": "standard error of the log-density in nats, from the spread of its probes"}
        found[f"{name}_stderr"] = (dim, drawn.stderr.numpy(), told)
    return made.assign(found)


def density_of(made: xr.Dataset) -> str:
    """The name that `with_density` gave."""
    return "scifm_log_prob" if "scifm_log_prob" in made else "log_prob"


def units_of(data: Data) -> str:
    """What a density is per, in words."""
    per = f"Density in the units of the data, per ({data.unit})^D." if data.unit else "Density in the data's own units."
    return per if data.delta is None else f"{per} Of the sample before it was rounded to steps of {data.delta:g}."


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).exists() for name in ("zarr.json", ".zgroup"))
