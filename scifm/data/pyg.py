"""The door for graphs: `torch_geometric` data in, ragged batches through, `torch_geometric` data out."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from scifm.batch import Batch

__all__ = ["from_pyg", "to_pyg"]


def from_pyg(data: Any, x: str = "pos") -> Batch:
    """A ragged batch from a `torch_geometric.data.Data`, `Batch`, a list of `Data` or a `Dataset`; `x` names the field
    that flows.

    PyG decides by name and by length what belongs to a node, an edge or a graph; so do we here, once, at the door.
    A tensor that fits none of the three is refused; texts and other objects are not kept.

    Raises:
        ValueError, TypeError: for what is no graph, no graphs, graphs that differ in their fields or dtypes, or a field
            that belongs nowhere.
    """
    data = _batched(data)
    if x not in data:
        raise ValueError(f"from_pyg: no field {x!r} to flow; the data hold {sorted(data.keys())}. Name one by x=.")
    rows, graphs = data[x].shape[0], int(data.num_graphs)
    edge_index = data.get("edge_index")
    context, nodes, edges = {}, {}, {}
    for name in data.keys():
        value = data[name]
        if name in (x, "batch", "ptr", "edge_index") or not isinstance(value, Tensor):
            continue
        if data.is_node_attr(name) and value.shape[0] == rows:
            nodes[name] = value
        elif edge_index is not None and data.is_edge_attr(name):
            edges[name] = value
        elif value.ndim and value.shape[0] == graphs:
            context[name] = value
        else:
            raise ValueError(
                f"from_pyg: {name!r} {value.dtype} {tuple(value.shape)} has neither one entry per node ({rows}), "
                f"per edge nor per graph ({graphs})."
            )
    return Batch(data[x], data.batch, graphs, context, nodes, edge_index, edges)


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
    mine, theirs = ({n: v.dtype for n, v in g.to_dict().items() if isinstance(v, Tensor)} for g in (graph, first))
    if mine != theirs:
        name = sorted(n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n))[0]
        raise ValueError(
            f"from_pyg: graph {k} has {name!r} as {mine.get(name, 'nothing')}, graph 0 as "
            f"{theirs.get(name, 'nothing')}; all must have the same fields and dtypes."
        )


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
