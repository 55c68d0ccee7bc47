"""Samples travelling together: the only module that knows a dense grid from a ragged set.

Everything that flow matching needs of the layout is four operations: `spread` a number per sample over
its values, `total` what belongs to a sample, probe every coordinate once (`slots`), and `split` back into
samples.  All other code (paths, solver, trace, likelihood, training) is written with these four and never
asks which layout it has.

    dense   x (B, *event)              one row per sample
    ragged  x (N, *event), index (N,)  the rows of all samples one after the other, N = sum of their sizes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

__all__ = ["Batch"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples travelling together.

    Args:
        x: what flows. Dense (B, *event); ragged (N, *event), the rows of all samples one after the other.
        index: (N,) sorted sample number of each row; None when dense.
        size: B. Needed when ragged, since the last samples may be empty; inferred when dense.
        context: what does not flow, one entry per sample, by name: (B, ...). Labels, calendar, conditions.
        nodes: what does not flow, one entry per row, by name: (N, ...). Species. Ragged batches only.
        edge_index: (2, E) row numbers joined by an edge. Ragged batches only.
        edges: what does not flow, one entry per edge, by name: (E, ...).

    Raises:
        ValueError: where shapes disagree, rows are unsorted, or a number of rows is missing.

    Example:
        >>> batch = Batch(torch.zeros(5, 3), index=torch.tensor([0, 0, 0, 1, 1]), size=2)
        >>> batch.counts.tolist(), batch.dims.tolist()
        ([3, 2], [9.0, 6.0])
    """

    x: Tensor
    index: Tensor | None = None
    size: int = None  # type: ignore[assignment]  # filled in below
    context: Mapping[str, Tensor] = field(default_factory=dict)
    nodes: Mapping[str, Tensor] = field(default_factory=dict)
    edge_index: Tensor | None = None
    edges: Mapping[str, Tensor] = field(default_factory=dict)
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)  # made once for a layout

    def __post_init__(self) -> None:
        if not isinstance(self.x, Tensor) or self.x.ndim == 0:
            raise ValueError(f"Batch: x must be a tensor with at least one axis, got {_describe(self.x)}.")
        if self.index is None:
            if self.size is not None and self.size != self.x.shape[0]:
                raise ValueError(
                    f"Batch: dense x has {self.x.shape[0]} samples but size={self.size}. "
                    "A ragged batch needs index, the sample number of each row."
                )
            if self.nodes or self.edges or self.edge_index is not None:
                raise ValueError(
                    "Batch: nodes and edges belong to a ragged batch; a dense one has context only. "
                    "Give index, the sample number of each row."
                )
            object.__setattr__(self, "size", self.x.shape[0])
        else:
            self._check_ragged(self.index)
        for name, value in self.context.items():
            if value.ndim == 0 or value.shape[0] != self.size:
                raise ValueError(
                    f"Batch: context[{name!r}] must have one entry per sample ({self.size}), "
                    f"got {_describe(value)}. What belongs to a row goes to nodes."
                )

    def _check_ragged(self, index: Tensor) -> None:
        if index.shape != self.x.shape[:1] or index.dtype != torch.long:
            raise ValueError(
                f"Batch: index must be int64 of shape ({self.x.shape[0]},), one per row of x, got {_describe(index)}."
            )
        if self.size is None:
            raise ValueError("Batch: a ragged batch needs size, the number of samples (the last may be empty).")
        if index.numel() and (index.diff() < 0).any():
            raise ValueError("Batch: index must be sorted, so that a sample's rows lie together; sort the rows first.")
        if index.numel() and not 0 <= int(index[0]) <= int(index[-1]) < self.size:
            raise ValueError(
                f"Batch: index runs from {int(index[0])} to {int(index[-1])}, outside 0..{self.size - 1} "
                f"for size={self.size}."
            )
        for name, value in self.nodes.items():
            if value.shape[:1] != self.x.shape[:1]:
                raise ValueError(
                    f"Batch: nodes[{name!r}] must have one entry per row ({self.x.shape[0]}), got {_describe(value)}."
                )
        if self.edge_index is None:
            if self.edges:
                raise ValueError("Batch: edges need edge_index of shape (2, E).")
            return
        if self.edge_index.ndim != 2 or self.edge_index.shape[0] != 2 or self.edge_index.dtype != torch.long:
            raise ValueError(f"Batch: edge_index must be int64 of shape (2, E), got {_describe(self.edge_index)}.")
        if self.edge_index.numel():
            low, high = int(self.edge_index.min()), int(self.edge_index.max())
            if low < 0 or high >= len(index) or not torch.equal(*index[self.edge_index]):
                raise ValueError(
                    f"Batch: edges must join rows of one sample; edge_index runs from {low} to {high} for "
                    f"{len(index)} rows, or an edge crosses from one sample to another."
                )
        for name, value in self.edges.items():
            if value.shape[0] != self.edge_index.shape[1]:
                raise ValueError(
                    f"Batch: edges[{name!r}] must have one entry per edge ({self.edge_index.shape[1]}), "
                    f"got {_describe(value)}."
                )

    # -- shape -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.size

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of one row: a whole sample when dense, a point when ragged."""
        return tuple(self.x.shape[1:])

    @property
    def dense(self) -> bool:
        """Whether each sample is one row."""
        return self.index is None

    @property
    def points(self) -> Batch:
        """The samples as sets of points, ragged rows (N, d): itself, or dense events (n, d) or (d,) as rows."""
        if self.index is not None:
            return self
        if not 1 <= len(self.event) <= 2:
            raise ValueError(f"Batch.points: expected samples of n points, (n, d) each, got events {self.event}.")
        n = self.event[0] if len(self.event) == 2 else 1
        rows = self.x.reshape(self.size * n, self.event[-1])

        def lay_out() -> Batch:
            index = torch.arange(self.size, device=rows.device).repeat_interleave(n)
            nothing = torch.zeros((), dtype=rows.dtype, device=rows.device).expand(rows.shape)
            return Batch(nothing, index, self.size, self.context)

        return self.keep(("points", n), lay_out).replace(rows)

    def keep(self, name: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for a layout and shared by all that `replace` makes; it must not depend on x."""
        if name not in self._kept:
            # out of inference mode, or it could not serve a later gradient, and out of torch.func's transforms, or
            # it would be wrapped for the one that is running and be dead after it
            with torch.inference_mode(False), temporarily_clear_interpreter_stack():
                self._kept[name] = make()
        return self._kept[name]

    @property
    def counts(self) -> Tensor:
        """(B,) rows of each sample; ones when dense."""
        if self.index is None:
            return torch.ones(self.size, dtype=torch.long, device=self.x.device)
        index = self.index
        return self.keep("counts", lambda: torch.bincount(index, minlength=self.size))

    @property
    def dims(self) -> Tensor:
        """(B,) numbers that flow in each sample, in the dtype of x.

        As integers they would drag `dims * math.log(...)` down to float32, whatever the data's precision.
        """
        if self.index is None:
            return torch.full((self.size,), _width(self.event), dtype=self.x.dtype, device=self.x.device)
        return (self.counts * _width(self.event)).to(self.x.dtype)

    def grid(self, who: str) -> tuple[int, ...]:
        """Event shape of a dense batch; a ValueError that names `who` when ragged."""
        if self.index is not None:
            raise ValueError(f"{who} works on dense batches (B, *event); this batch is ragged, with an index per row.")
        return self.event

    # -- the four layout operations --------------------------------------------------------------------

    def spread(self, value: Tensor) -> Tensor:
        """A number per sample (B,) -> a tensor that broadcasts against x."""
        if value.shape != (self.size,):
            raise ValueError(
                f"Batch.spread: expected one number per sample, shape ({self.size},), got {_describe(value)}."
            )
        rows = value if self.index is None else value[self.index]
        return rows.reshape(-1, *[1] * (self.x.ndim - 1))

    def total(self, value: Tensor) -> Tensor:
        """Sum over everything that belongs to a sample: (rows, ...) -> (B,)."""
        rows = value.reshape(value.shape[0], _width(value.shape[1:])).sum(1)
        if self.index is None:
            return rows
        return rows.new_zeros(self.size).index_add(0, self.index, rows)

    def slots(self, block: int = 1) -> Iterator[Tensor]:
        """One-hot probes, `block` at a time: yields (k, *x.shape) with k <= block.

        The j-th probe is one at the j-th coordinate of *every* sample at once, so a batch needs as many
        probes as its largest sample has numbers, not as the batch has.
        """
        width = _width(self.event)
        row = torch.zeros(self.x.shape[0], dtype=torch.long, device=self.x.device)
        if self.index is not None:
            starts = self.counts.cumsum(0) - self.counts
            row = torch.arange(self.x.shape[0], device=self.x.device) - starts[self.index]
        number = row[:, None] * width + torch.arange(width, device=self.x.device)  # (rows, width)
        last = int(number.max()) + 1 if number.numel() else 0
        for first in range(0, last, block):
            wanted = torch.arange(first, min(first + block, last), device=self.x.device)
            yield (number == wanted[:, None, None]).to(self.x.dtype).reshape(-1, *self.x.shape)

    def split(self) -> list[Tensor]:
        """The samples one by one: event-shaped when dense, (n, *event) when ragged."""
        if self.index is None:
            return list(self.x.unbind(0))
        return list(self.x.split(self.counts.tolist()))

    # -- choosing and joining --------------------------------------------------------------------------

    def select(self, samples: Tensor | Sequence[int]) -> Batch:
        """The chosen samples, in the order given, with all that belongs to them."""
        samples = torch.as_tensor(samples, device=self.x.device)
        samples = samples.nonzero().flatten() if samples.dtype == torch.bool else samples.long()
        context = {k: v[samples.to(v.device)] for k, v in self.context.items()}
        if self.index is None:
            return Batch(self.x[samples], context=context)
        rows, index = self._rows(samples)
        nodes = {k: v[rows] for k, v in self.nodes.items()}
        if self.edge_index is None:
            return Batch(self.x[rows], index, len(samples), context, nodes)
        return self._select_edges(samples, rows, index, context, nodes)

    def _rows(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        return _gather(self.counts, samples)

    def _select_edges(self, samples: Tensor, rows: Tensor, index: Tensor, context: dict, nodes: dict) -> Batch:
        assert self.edge_index is not None and self.index is not None
        order, per_sample = self.keep("edges by sample", self._edges_by_sample)
        position, new = _gather(per_sample, samples)
        edge, counts = order[position], self.counts
        before = (counts.cumsum(0) - counts)[samples]  # first row of each chosen sample, then and now
        now = counts[samples].cumsum(0) - counts[samples]
        edge_index = self.edge_index[:, edge] + (now - before)[new]
        edges = {k: v[edge] for k, v in self.edges.items()}
        return Batch(self.x[rows], index, len(samples), context, nodes, edge_index, edges)

    def _edges_by_sample(self) -> tuple[Tensor, Tensor]:
        """Edges sorted by their sample, and how many each has: sorted once, since training selects at each step."""
        assert self.edge_index is not None and self.index is not None
        owner = self.index[self.edge_index[0]]
        return torch.argsort(owner, stable=True), torch.bincount(owner, minlength=self.size)

    @staticmethod
    def join(batches: Sequence[Batch]) -> Batch:
        """Several batches of the same layout and names as one."""
        if not batches:
            raise ValueError("Batch.join: expected at least one batch, got none.")
        first = batches[0]
        names = [(b.dense, set(b.context), set(b.nodes), set(b.edges), b.edge_index is None, b.event) for b in batches]
        if any(n != names[0] for n in names):
            raise ValueError(
                "Batch.join: the batches differ in layout, event shape, or in the names of what does not flow."
            )
        x = torch.cat([b.x for b in batches])
        context = {k: torch.cat([b.context[k] for b in batches]) for k in first.context}
        if first.index is None:
            return Batch(x, context=context)
        sizes = list(accumulate((b.size for b in batches), initial=0))
        rows = list(accumulate((b.x.shape[0] for b in batches), initial=0))
        shifted = [b.index + n for b, n in zip(batches, sizes, strict=False) if b.index is not None]
        nodes = {k: torch.cat([b.nodes[k] for b in batches]) for k in first.nodes}
        ends = [b.edge_index + n for b, n in zip(batches, rows, strict=False) if b.edge_index is not None]
        edges = {k: torch.cat([b.edges[k] for b in batches]) for k in first.edges}
        return Batch(x, torch.cat(shifted), sizes[-1], context, nodes, torch.cat(ends, 1) if ends else None, edges)

    def groups(self, ignore: Sequence[str] = ()) -> list[Tensor]:
        """Sample numbers that may exchange their x: same number of rows and all that does not flow equal.

        Args:
            ignore: names in context that do not tell samples apart.

        Returns:
            long tensors (n_g,) that partition 0..B-1. A coupling never pairs across two groups.
        """
        told = [(v.cpu().numpy(), range(self.size + 1)) for k, v in sorted(self.context.items()) if k not in ignore]
        if self.index is None and not told and self.size:
            return [torch.arange(self.size, device=self.x.device)]  # at once, for it is asked at every step
        rows = [0, *accumulate(self.counts.tolist())]  # where each sample begins
        told += [(v.cpu().numpy(), rows) for _, v in sorted(self.nodes.items())]
        if self.edge_index is not None and self.index is not None:
            owner = self.index[self.edge_index[0]]
            order, ends = owner.argsort(stable=True), [0, *accumulate(owner.bincount(minlength=self.size).tolist())]
            own = self.edge_index - torch.tensor(rows, device=owner.device)[owner]
            told += [(v[order].cpu().numpy(), ends) for v in (own.T, *(v for _, v in sorted(self.edges.items())))]
        keys: dict[tuple, list[int]] = {}
        for b in range(self.size):
            key = (rows[b + 1] - rows[b], *(v[at[b] : at[b + 1]].tobytes() for v, at in told))
            keys.setdefault(key, []).append(b)
        return [torch.tensor(v, device=self.x.device) for v in keys.values()]

    def stack(self, x: Tensor, samples: Tensor) -> Tensor:
        """Rows of `samples`, which have equal counts, side by side: (n, numbers of a sample); may be a view of x."""
        if self.index is None:
            part = x if torch.equal(samples, torch.arange(self.size, device=samples.device)) else x[samples]
        else:
            part = x[self._rows(samples)[0]]
        return part.reshape(len(samples), _width(part.shape) // max(1, len(samples)))

    def place(self, x: Tensor, samples: Tensor, values: Tensor) -> Tensor:
        """A copy of x with `samples` overwritten by `values` (n, numbers of a sample): undoes `stack`."""
        rows = samples if self.index is None else self._rows(samples)[0]
        return x.index_copy(0, rows, values.reshape(len(rows), *x.shape[1:]))

    # -- values ----------------------------------------------------------------------------------------

    def replace(self, x: Tensor) -> Batch:
        """The same samples with other values (rows, *any event)."""
        if x.shape[:1] != self.x.shape[:1]:
            raise ValueError(f"Batch.replace: expected {self.x.shape[0]} rows, got {_describe(x)}.")
        # All else was checked when this batch was made; and velocities call this often, where copy() is slow.
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__, x=x)
        return new

    def randn(self, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise shaped, typed and placed like x.

        It is drawn where the generator lives, so a CPU generator gives the same numbers on every device.
        """
        device = self.x.device if generator is None else generator.device
        noise = torch.randn(self.x.shape, generator=generator, dtype=self.x.dtype, device=device)
        return noise.to(self.x.device)

    def to(self, *args: Any) -> Batch:
        """Another device and/or dtype. The dtype applies to floating-point values only."""

        def move(value: Tensor) -> Tensor:
            if value.is_floating_point():
                return value.to(*args)
            return value.to(*[a for a in args if not isinstance(a, torch.dtype)])

        def every(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {k: move(v) for k, v in values.items()}

        index = None if self.index is None else move(self.index)
        edge_index = None if self.edge_index is None else move(self.edge_index)
        return Batch(
            move(self.x),
            index,
            self.size,
            every(self.context),
            every(self.nodes),
            edge_index,
            every(self.edges),
        )

    # -- PyG at the door -------------------------------------------------------------------------------

    @staticmethod
    def from_pyg(data: Any, x: str = "pos") -> Batch:
        """A ragged batch from a `torch_geometric.data.Data` or `Batch`; `x` names the field that flows."""
        from scifm.data.pyg import from_pyg

        return from_pyg(data, x)

    def to_pyg(self, x: str = "pos") -> Any:
        """The samples as a `torch_geometric.data.Batch`, one graph each, with x under the name `x`."""
        from scifm.data.pyg import to_pyg

        return to_pyg(self, x)


def _gather(counts: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of all entries of `samples` in a list sorted by sample, and the new sample number of each."""
    taken, starts = counts[samples], (counts.cumsum(0) - counts)[samples]
    new = torch.repeat_interleave(torch.arange(len(samples), device=counts.device), taken)
    within = torch.arange(len(new), device=counts.device) - (taken.cumsum(0) - taken)[new]
    return starts[new] + within, new


def _width(event: Sequence[int]) -> int:
    width = 1
    for n in event:
        width *= n
    return width


def _describe(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__}"
