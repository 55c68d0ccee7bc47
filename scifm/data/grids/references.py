"""What attributes of a file say of other variables in it, and of the values that it held.

    bounds, climatology            one name                         edges of the cells of a coordinate
    grid_mapping                   one name, or "crs: x y ..."      the projection
    cell_measures, formula_terms   "area: areacella ..."            areas; what a vertical coordinate is made of
    ancillary_variables, coordinates   names

Samples are written with the projection, the edges of the grid's cells and their areas.  A reference to anything that is
not there is worse than none, and so is a range that held for the values of the file but not for draws: readers hide
what lies outside of `valid_range`.

Reference: CF conventions 1.11, sections 2.5.1, 3.4, 5.6, 7.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scifm.data.grids.spec import Coordinate, GridSpec

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["REFERENCES", "drawn", "free_name", "named", "plain", "standing", "without_dangling"]

REFERENCES = (
    "bounds", "climatology", "grid_mapping", "cell_measures", "formula_terms", "ancillary_variables", "coordinates",
)  # fmt: skip
_PAIRS = ("cell_measures", "formula_terms")  # of a word and a name
_RANGES = ("valid_range", "valid_min", "valid_max", "actual_range")


def named(key: str, text: Any) -> list[str]:
    """Names of the variables in an attribute.

    Example:
        >>> named("cell_measures", "area: areacella"), named("grid_mapping", "crs: x y")
        (['areacella'], ['crs', 'x', 'y'])
    """
    words = str(text).split()
    return [w for w in words if not w.endswith(":")] if key in _PAIRS else [w.removesuffix(":") for w in words]


def standing(dataset: xr.Dataset, variables: Iterable[str], samples: Iterable[str]) -> list[str]:
    """Variables, the same for all samples, that some others need: projection, areas, edges of the cells.

    Args:
        variables: that are read.
        samples: dims of the samples.
    """
    variables, told = list(variables), []
    part = dataset[variables]
    for key in ("grid_mapping", "cell_measures"):
        told += [n for v in variables for n in named(key, _said(dataset[v], key))]
    told += [n for c in part.coords.values() for n in named("bounds", _said(c, "bounds"))]
    found = [n for n in dict.fromkeys(told) if n in dataset.variables and n not in part.variables]
    return [n for n in found if not set(map(str, dataset[n].dims)) & set(samples)]


def _said(array: Any, key: str) -> str:
    """xarray keeps some references in the encoding, as it was opened."""
    return str(array.attrs.get(key, array.encoding.get(key, "")))


def _without_ranges(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Without ranges: those of the file need not hold for what is drawn."""
    return {k: v for k, v in attrs.items() if k not in _RANGES}


def without_dangling(attrs: Mapping[str, Any], there: Container[str]) -> dict[str, Any]:
    """Attributes without references to variables that are not there.

    Example:
        >>> without_dangling({"cell_measures": "area: a volume: v", "bounds": "b"}, {"a"})
        {'cell_measures': 'area: a'}
    """
    found = dict(attrs)
    for key in REFERENCES:
        if key not in found or all(n in there for n in named(key, found[key])):
            continue
        pairs = re.findall(r"(\S+:)\s+(\S+)", str(found[key]))
        if key == "cell_measures":
            kept = [f"{word} {name}" for word, name in pairs if name in there]
        else:  # half of a list of names says something, half of a formula or of a projection does not
            kept = [n for n in named(key, found[key]) if n in there] if key == "ancillary_variables" else []
        found |= {key: " ".join(kept)}
        if not kept:
            del found[key]
    return found


def drawn(made: xr.Dataset, spec: GridSpec) -> xr.Dataset:
    """The file's form as that of samples: with what it refers to, without what holds for the file alone."""
    for name, c in spec.beside.items():
        if name not in made.variables and all(made.sizes.get(d, n) == n for d, n in _sizes(c).items()):
            made[name] = plain(c)
            made[name].encoding = {k: v for k, v in c.encoding.items() if k not in REFERENCES}
    for name in {n for v in spec.variables for n in named("grid_mapping", _said(v, "grid_mapping"))} & set(
        made.variables
    ):
        if made[name].ndim == 0 and made[name].dtype.kind not in "iuf":
            # the value of a projection says nothing, and of a char, which it often is, Zarr knows little
            made[name] = ((), np.int32(0), made[name].attrs)
    there = {*map(str, made.variables), *str(made.attrs.get("external_variables", "")).split()}
    told = {v.name: v.encoding for v in spec.variables} | {n: c.encoding for n, c in spec.coords.items()}
    for name, array in made.variables.items():
        refers = {k: v for k, v in told.get(str(name), {}).items() if k in REFERENCES}
        if name in spec.beside:  # edges and areas are what they were
            array.attrs = without_dangling(array.attrs, there)
        else:
            array.attrs = without_dangling(_without_ranges({**array.attrs, **refers}), there)
    return made


def _sizes(c: Coordinate) -> dict[str, int]:
    return dict(zip(c.dims, c.values.shape, strict=True))


def free_name(spec: GridSpec, wanted: str) -> str:
    """A name for the dim of the samples that nothing else has; a dim of the grid that was asked for stays."""
    taken = {v.name for v in spec.variables} | set(spec.beside)
    taken |= {n for n, c in spec.coords.items() if c.dims and not set(c.dims) & set(spec.samples)} - set(spec.sizes)
    if wanted == "realization":
        taken |= set(spec.sizes) - set(spec.samples)
    return next(n for n in (wanted, "draw", "scifm_draw", "scifm_sample") if n not in taken)


def plain(c: Coordinate) -> tuple[tuple[str, ...], np.ndarray, dict[str, Any]]:
    """As xarray takes it."""
    return c.dims, c.values, dict(c.attrs)
