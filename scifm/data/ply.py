"""Point clouds as PLY, the format of scanners and mesh viewers; all clouds of a batch in one file.

Each vertex says which cloud it is of, in the property `sample`; the log-densities, in nats, stand in comments of the
header

    comment log_prob 0 -12.5

Programs that know nothing of either show all points at once.  Points of the plane get z = 0.  The body is binary, in
the precision of the data.  Reference: Turk 1994 (the PLY polygon file format).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.structures.rows import log_densities

__all__ = ["write_ply"]


def write_ply(path: Path, batch: Batch, log_prob: Tensor | None = None, about: Mapping[str, Any] | None = None) -> None:
    """Write clouds of points.

    Args:
        batch: dense (B, n, d) or ragged rows (N, d), with d = 2 or 3.
        log_prob: (B,) nats.
        about: plain values, each a comment.

    Raises:
        ValueError: for points of other dimensions, or that are not finite.
    """
    points = batch.points
    if points.event not in ((2,), (3,)):
        raise ValueError(f"write_ply: expected points of the plane or of space, got rows {points.event}.")
    logs = log_densities(batch, log_prob)
    x, index = points.x.detach().cpu(), points.index
    assert index is not None  # points are ragged
    if not x.isfinite().all():
        raise ValueError("write_ply: expected finite points, got NaN or infinity.")
    real = "f8" if x.dtype == torch.float64 else "f4"
    rows = np.zeros(len(x), [("xyz", f"<{real}", (3,)), ("sample", "<i4")])
    rows["xyz"][:, : x.shape[1]] = x.numpy()
    rows["sample"] = index.cpu().numpy()
    told = {k: v for k, v in (about or {}).items() if isinstance(v, str | int | float)}
    kind = {"f8": "double", "f4": "float"}[real]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment scifm: {len(batch)} samples of points in {x.shape[1]} dimensions, log_prob in nats",
        *(f"comment {k}={' '.join(str(v).split())}" for k, v in told.items()),
        *([] if logs is None else [f"comment log_prob {b} {v!r}" for b, v in enumerate(logs)]),
        f"element vertex {len(x)}",
        *(f"property {kind} {axis}" for axis in "xyz"),
        "property int sample",
        "end_header",
    ]
    with open(path, "wb") as file:
        file.write("".join(f"{line}\n" for line in header).encode("utf-8"))
        file.write(rows.tobytes())
