"""The door for graphs: `torch_geometric` data in, ragged batches through, `torch_geometric` data out."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from scifm.batch import Batch

__all__ = ["from_pyg", "to_pyg"]


def from_pyg(data: Any, x: str = "pos") -> Batch:
    """A ragged batch from a `torch_geometric.data.Data`, `Batch`, a list of `Data` or a `Dataset`; `x` names the field
    that flows.

    PyG decides by name and by length what belongs to a node, an edge or a graph; so do we here, once, at the door.
    Where lengths fit several of them over the whole batch, they are counted graph by graph, and where that does not
    tell either (two atoms and both ways of their bond), what is called `bond` or has `edge` in its name is of edges.
    A tensor that fits none of the three is refused; texts and other objects are not kept.

    Raises:
        ValueError, TypeError: for what is no graph, no graphs, graphs that differ in their fields or dtypes, a field
            that belongs nowhere, an array that is no tensor, or an x that is not finite.
    """
    data = _batched(data)
    for name in data.keys():
        entry = data[name][0] if isinstance(data[name], list) and data[name] else data[name]
        if isinstance(entry, np.ndarray) and entry.dtype.kind in "biuf":
            raise TypeError(f"from_pyg: {name!r} holds NumPy arrays, which PyG does not batch; torch.as_tensor them.")
    if data.get(x) is None:
        raise ValueError(f"from_pyg: no field {x!r} to flow; the data hold {sorted(data.keys())}. Name one by x=.")
    _check_flowing(data[x], x)
    index = data.batch
    graphs = int(data.num_graphs) if "ptr" in data else int(index.max()) + 1 if len(index) else 0
    kept: dict[str, dict[str, Tensor]] = {"nodes": {}, "edges": {}, "context": {}}
    for name in data.keys():
        value = data[name]
        if name in (x, "batch", "ptr", "edge_index") or not isinstance(value, Tensor):
            continue
        kept[_owner(data, name, data[x].shape[0], graphs)][name] = value
    return Batch(data[x], index, graphs, kept["context"], kept["nodes"], data.get("edge_index"), kept["edges"])


def _check_flowing(value: Any, x: str) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        what = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"from_pyg: {x!r} flows, so it must be a tensor of floats, got {what}; convert it.")
    if not value.isfinite().all():
        raise ValueError(
            f"from_pyg: {x!r} holds NaN or infinity, first in row {int((~value.isfinite()).nonzero()[0, 0])}; leave "
            "such graphs out."
        )


def _owner(data: Any, name: str, rows: int, graphs: int) -> str:
    """Whether a field belongs to nodes, edges or graphs ("context")."""
    value = data[name]
    counts = {"nodes": rows, "context": graphs}
    if data.get("edge_index") is not None:
        counts = {"nodes": rows, "edges": data.edge_index.shape[1], "context": graphs}
    along = data.__cat_dim__(name, value)  # PyG lays `face` (3, F) side by side, so it has no entry per anything
    length = value.shape[0] if value.ndim and along % value.ndim == 0 else -1
    fits = [k for k, n in counts.items() if n == length]
    if len(fits) > 1 and "ptr" in data:
        each = data.to_data_list()
        fits = [k for k in fits if all(_count(graph, k) == _length(graph[name]) for graph in each)]
    if "edges" in fits and (name == "bond" or "edge" in name):
        return "edges"
    if not fits:
        raise ValueError(
            f"from_pyg: {name!r} {value.dtype} {tuple(value.shape)} has neither one entry per node ({rows}), "
            f"per edge nor per graph ({graphs})."
        )
    return fits[0]


def _count(graph: Any, owner: str) -> int:
    return {"nodes": graph.num_nodes, "edges": graph.num_edges, "context": 1}[owner]


def _length(value: Any) -> int:
    return value.shape[0] if isinstance(value, Tensor) and value.ndim else 1


def _batched(data: Any) -> Any:
    """One PyG batch of whatever graphs came."""
    from torch_geometric.data import Batch as PygBatch
    from torch_geometric.data import Data, Dataset

    if isinstance(data, list | tuple | Dataset):
        graphs = list(data)
        if not graphs:
            raise ValueError("from_pyg: expected at least one graph, got an empty list.")
        for k, graph in enumerate(graphs):
            if not isinstance(graph, Data):
                raise TypeError(f"from_pyg: entry {k} is {type(graph).__name__}, expected torch_geometric.data.Data.")
            _alike(k, graph, graphs[0])
        return PygBatch.from_data_list(graphs)
    if not hasattr(data, "batch") or data.batch is None:
        if not isinstance(data, Data):
            raise TypeError(
                f"from_pyg: expected torch_geometric Data, Batch, Dataset or a list of Data, got {type(data).__name__}."
            )
        return PygBatch.from_data_list([data])
    return data


def _alike(k: int, graph: Any, first: Any) -> None:
    """Refuse graphs that PyG would join with a field missing (KeyError) or convert to another dtype (silently)."""
    mine, theirs = ({n: _kind(v) for n, v in g.to_dict().items()} for g in (graph, first))
    if mine != theirs:
        name = sorted(n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n))[0]
        raise ValueError(
            f"from_pyg: graph {k} has {name!r} as {mine.get(name, 'nothing')}, graph 0 as "
            f"{theirs.get(name, 'nothing')}; all must have the same fields and dtypes."
        )


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype
    return "number" if isinstance(value, int | float) else type(value).__name__


def to_pyg(batch: Batch, x: str = "pos") -> Any:
    """The samples as a `torch_geometric.data.Batch`, one graph each, with x (n, *event) under the name `x`."""
    from torch_geometric.data import Batch as PygBatch
    from torch_geometric.data import Data

    if batch.dense:
        raise ValueError("to_pyg: a dense batch holds grids, not graphs; it has no nodes to give to PyG.")
    items = []
    for b in range(batch.size):
        part = batch.select([b])
        fields = {x: part.x, "num_nodes": part.x.shape[0], **part.nodes, **part.edges, **part.context}
        if part.edge_index is not None:
            fields["edge_index"] = part.edge_index
        items.append(Data(**fields))
    return PygBatch.from_data_list(items)
