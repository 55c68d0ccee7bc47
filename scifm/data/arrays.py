"""The door for plain arrays: sets of points as lists or padded, in and out.

[(n_1, d), (n_2, d), ...]   or   (B, n_max, d) with counts (B,)     ->  ragged Batch  ->  the same
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.bonds import both_ways
from scifm.data.molecules import check_bonds, check_molecules

__all__ = ["from_arrays", "to_arrays", "to_padded"]


def from_arrays(
    x: Any,
    counts: Any = None,
    *,
    z: Any = None,
    bonds: Sequence[Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Batch:
    """A ragged batch from arrays or tensors; molecules if atomic numbers are given.

    Args:
        x: a list of (n, d), or one padded (B, n_max, d). Floats, kept as they are.
        counts: (B,) points of each set in a padded x; all of them if None.
        z: atomic numbers, laid out like x without its last axis, or one (n,) for sets that all have n points. With z
            the sets are checked as molecules in Å (`scifm.data.molecules`).
        bonds: a list of (E, 2) or (E, 3) integers, numbers of two points of the set and the bond's class (0 single,
            1 double, 2 triple, 3 aromatic, 4 other), each bond once.
        context: what does not flow, one entry per set, by name.

    Raises:
        ValueError, TypeError: for lists without sets, shapes or dtypes that disagree, points that are not finite,
            sets without points; with z also what `check_molecules` raises.

    Example:
        >>> batch = from_arrays([np.zeros((2, 3)), np.ones((1, 3))])
        >>> batch.x.dtype, batch.counts.tolist()
        (torch.float64, [2, 1])
    """
    sets = _sets(x, counts)
    sizes = torch.tensor([len(s) for s in sets])
    rows = torch.cat(sets)
    if not rows.isfinite().all():
        bad = next(b for b, s in enumerate(sets) if not s.isfinite().all())
        raise ValueError(f"from_arrays: set {bad} holds NaN or infinity; leave such points or sets out.")
    index = torch.arange(len(sets)).repeat_interleave(sizes)
    nodes = {} if z is None else {"z": torch.cat(_species(z, sizes))}
    edge_index, edges = (None, {}) if bonds is None else _bonds(bonds, sizes)
    entries = {k: _tensor(v, f"context[{k!r}]") for k, v in (context or {}).items()}
    batch = Batch(rows, index, len(sets), entries, nodes, edge_index, edges)
    return check_bonds(batch, "from_arrays") if z is None else check_molecules(batch, "from_arrays")


def to_arrays(batch: Batch) -> dict[str, list[np.ndarray]]:
    """The sets one by one: "x" a list of (n, d), and what points have by its name.

    Example:
        >>> to_arrays(from_arrays([np.zeros((2, 3)), np.ones((1, 3))]))["x"][1]
        array([[1., 1., 1.]])
    """
    points = batch.points
    sizes = points.counts.tolist()
    fields = {"x": points.x, **points.nodes}
    return {k: [part.detach().cpu().numpy() for part in v.split(sizes)] for k, v in fields.items()}


def to_padded(batch: Batch) -> dict[str, np.ndarray]:
    """The sets side by side: "x" (B, n_max, d), zeros beyond each set's points, "counts" (B,), and what points have.

    Example:
        >>> padded = to_padded(from_arrays([np.zeros((2, 3)), np.ones((1, 3))]))
        >>> padded["x"].shape, padded["counts"].tolist()
        ((2, 2, 3), [2, 1])
    """
    from torch.nn.utils.rnn import pad_sequence

    points = batch.points
    sizes = points.counts.tolist()
    fields = {"x": points.x, **points.nodes}
    padded = {k: pad_sequence(list(v.split(sizes)), batch_first=True).detach().cpu().numpy() for k, v in fields.items()}
    return {**padded, "counts": points.counts.cpu().numpy()}


def _tensor(value: Any, what: str) -> Tensor:
    """A tensor of whatever numbers came, in any layout and order of bytes."""
    if isinstance(value, Tensor):
        return value
    if np.ma.is_masked(value):
        raise ValueError(f"from_arrays: {what} has masked entries, whose numbers mean nothing; leave these points out.")
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        cure = (
            "atomic numbers of symbols are scifm.data.elements.numbers(['O', 'H'])" if what == "z" else "numbers only"
        )
        raise TypeError(f"from_arrays: {what} holds {array.dtype}, expected numbers; {cure}.")
    native = array.dtype.newbyteorder("=")
    native = np.dtype(np.float64) if native.itemsize > 8 and native.kind == "f" else native  # no longer ones in torch
    shared = array.dtype == native and array.flags.writeable and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if shared else np.array(array, native, order="C"))


def _sets(x: Any, counts: Any) -> list[Tensor]:
    """The sets of points, each a floating (n, d) of one d and dtype."""
    if isinstance(x, Mapping) or not isinstance(x, Iterable):
        raise TypeError(f"from_arrays: expected a list of arrays or one padded array, got {type(x).__name__}.")
    if isinstance(x, Tensor) or (isinstance(x, np.ndarray) and x.dtype != object):
        sets = _unpadded(_tensor(x, "x"), counts)
    elif counts is not None:
        raise ValueError("from_arrays: counts belong to one padded array (B, n_max, d); a list of arrays needs none.")
    else:
        sets = [_set(s, f"set {b}") for b, s in enumerate(x)]
    if not sets:
        raise ValueError("from_arrays: expected at least one set of points, got an empty list.")
    first = sets[0]
    for b, s in enumerate(sets):
        if s.ndim != 2:
            raise ValueError(f"from_arrays: set {b} must be (n, d), got {tuple(s.shape)}; one set alone is [x].")
        if not s.is_floating_point():
            raise TypeError(f"from_arrays: set {b} holds {s.dtype}; convert coordinates to floats.")
        if s.shape[0] == 0:
            raise ValueError(f"from_arrays: set {b} has no points; leave it out.")
        if s.shape[1] != first.shape[1] or s.dtype != first.dtype:
            raise ValueError(
                f"from_arrays: set {b} is {s.dtype} (n, {s.shape[1]}), set 0 is {first.dtype} (n, {first.shape[1]}); "
                "all must have one dtype and number of coordinates."
            )
    return sets


def _set(value: Any, what: str) -> Tensor:
    if isinstance(value, list | tuple):
        try:
            return torch.as_tensor(value)  # Python's floats are of torch's default dtype
        except (TypeError, ValueError):
            pass
    return _tensor(value, what)


def _unpadded(x: Tensor, counts: Any) -> list[Tensor]:
    if x.ndim != 3:
        raise ValueError(f"from_arrays: expected one padded array (B, n_max, d), got {tuple(x.shape)}.")
    if counts is None:
        return list(x)
    sizes = _tensor(counts, "counts")
    if sizes.shape != x.shape[:1] or sizes.is_floating_point():
        raise ValueError(
            f"from_arrays: counts must be {len(x)} integers, one per set, got {sizes.dtype} {tuple(sizes.shape)}."
        )
    if ((sizes < 0) | (sizes > x.shape[1])).any():
        worst = int(((sizes < 0) | (sizes > x.shape[1])).nonzero()[0])
        raise ValueError(f"from_arrays: set {worst} has count {int(sizes[worst])}, outside 0..{x.shape[1]}.")
    return [s[:n] for s, n in zip(x, sizes.tolist(), strict=True)]


def _species(z: Any, sizes: Tensor) -> list[Tensor]:
    if isinstance(z, Tensor | np.ndarray) or all(isinstance(k, int | np.integer) for k in z):
        whole = _tensor(z, "z")
        rows = [whole] * len(sizes) if whole.ndim == 1 else [r[:n] for r, n in zip(whole, sizes.tolist(), strict=False)]
    else:
        rows = [_tensor(r, "z") for r in z]
    if len(rows) != len(sizes):
        raise ValueError(f"from_arrays: z is given for {len(rows)} sets, x for {len(sizes)}.")
    for b, (row, n) in enumerate(zip(rows, sizes.tolist(), strict=True)):
        if row.shape != (n,):
            raise ValueError(f"from_arrays: set {b} has {n} points but species of shape {tuple(row.shape)}.")
    return [row if row.is_floating_point() else row.long() for row in rows]


def _bonds(bonds: Sequence[Any], sizes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    if len(bonds) != len(sizes):
        raise ValueError(f"from_arrays: bonds are given for {len(bonds)} sets, x for {len(sizes)}.")
    starts, parts = (sizes.cumsum(0) - sizes).tolist(), []
    for b, (given, n, start) in enumerate(zip(bonds, sizes.tolist(), starts, strict=True)):
        table = _tensor(given, f"bonds of set {b}")
        if table.numel() == 0:
            continue
        if table.ndim != 2 or table.shape[1] not in (2, 3) or table.is_floating_point():
            raise ValueError(
                f"from_arrays: bonds of set {b} must be integers (E, 2) or (E, 3), got {table.dtype} "
                f"{tuple(table.shape)}."
            )
        low, high = int(table[:, :2].min()), int(table[:, :2].max())
        if low < 0 or high >= n:
            wrong = high if high >= n else low
            raise ValueError(
                f"from_arrays: a bond of set {b} leads to point {wrong}, but its points are 0..{n - 1}; numbers begin "
                "at 0."
            )
        kind = table[:, 2] if table.shape[1] == 3 else torch.zeros(len(table))
        parts.append(torch.stack([table[:, 0] + start, table[:, 1] + start, kind.long()]).long())
    i, j, kind = torch.cat([torch.zeros(3, 0, dtype=torch.long), *parts], 1)
    edge_index, kind = both_ways(i, j, kind)
    return edge_index, {"bond": kind}
