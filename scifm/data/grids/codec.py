"""Arrays and attributes as JSON, bit for bit.

    text, whole numbers, floats     as they are
    numpy scalars                   {"dtype": "<f4", "value": 0.5}, since netCDF tells float from double
    small arrays                    {"dtype": ..., "shape": ..., "values": [...]}
    large arrays                    {"dtype": ..., "shape": ..., "zlib": base64 of their compressed bytes}
    bytes among objects             {"dtype": "O", "shape": ..., "bytes": [...]}
    cftime dates                    {"calendar": "360_day", "shape": ..., "microseconds": an array}

Attributes of several numbers are arrays in a file; they come back as arrays.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from scifm.data.grids.calendar import dates, microseconds

__all__ = ["from_plain", "to_plain"]

_SMALL = 64


def to_plain(value: Any) -> Any:
    """What JSON can hold of attributes, arrays and plain values; other things become their text."""
    if isinstance(value, Mapping):
        return {"mapping": {str(k): to_plain(v) for k, v in value.items()}}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(v) for v in value]
    if isinstance(value, np.dtype):
        return {"type": value.str}
    if isinstance(value, np.generic):
        return {"dtype": value.dtype.str, "value": _listed(value)}
    if isinstance(value, np.ndarray):
        return _array(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`; tuples come back as lists."""
    if isinstance(value, list):
        return [from_plain(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "mapping" in value:
        return {k: from_plain(v) for k, v in value["mapping"].items()}
    if "type" in value:
        return np.dtype(value["type"])
    if "calendar" in value:
        return dates(from_plain(value["microseconds"]), value["calendar"]).reshape(value["shape"])
    dtype = np.dtype(value["dtype"])
    if "bytes" in value:
        return np.array([v.encode("latin-1") for v in value["bytes"]], dtype=object).reshape(value["shape"])
    if "value" in value:
        return _typed([value["value"]], dtype)[0]
    if "values" in value:
        return _typed(value["values"], dtype).reshape(value["shape"])
    data = zlib.decompress(base64.b64decode(value["zlib"]))
    return np.frombuffer(data, dtype).reshape(value["shape"]).copy()


def _array(value: np.ndarray) -> dict[str, Any]:
    shape = list(value.shape)
    if value.dtype == object:
        first = value.ravel()[0] if value.size else ""
        if isinstance(first, bytes):
            return {"dtype": "O", "shape": shape, "bytes": [v.decode("latin-1") for v in value.ravel()]}
        if not isinstance(first, str):
            calendar = str(first.calendar)
            return {"calendar": calendar, "shape": shape, "microseconds": _array(microseconds(value, calendar))}
        return {"dtype": "O", "shape": shape, "values": [str(v) for v in value.ravel()]}
    if value.size <= _SMALL or value.dtype.kind in "US":
        return {"dtype": value.dtype.str, "shape": shape, "values": _listed(value.ravel())}
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(value).tobytes())).decode()
    return {"dtype": value.dtype.str, "shape": shape, "zlib": packed}


def _listed(value: Any) -> Any:
    """Numbers and text; dates as counts of their own unit."""
    if value.dtype.kind in "mM":
        return value.astype(np.int64).tolist()
    return value.astype(str).tolist() if value.dtype.kind == "S" else value.tolist()


def _typed(values: list[Any], dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "mM":
        return np.asarray(values, dtype=np.int64).astype(dtype)
    return np.asarray(values, dtype=dtype)
