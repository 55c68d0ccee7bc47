"""The door for graphs: `torch_geometric` data in, ragged batches through, `torch_geometric` data out."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from scifm.batch import Batch

__all__ = ["from_pyg", "to_pyg"]


def from_pyg(data: Any, x: str = "pos") -> Batch:
    """A ragged batch from a `torch_geometric.data.Data` or `Batch`; `x` names the field that flows.

    PyG decides by name and by length what belongs to a node, an edge or a graph; so do we here, once, at the door.
    A tensor that fits none of the three is refused.
    """
    from torch_geometric.data import Batch as PygBatch

    if not hasattr(data, "batch") or data.batch is None:
        data = PygBatch.from_data_list([data])
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
