"""The stages of a Runge–Kutta step and their weighted sums.

Without a graph all stages lie in one buffer, so that each sum is one matrix-vector product instead of a product and an
addition per stage.  Under autograd nothing may be overwritten: the stages stay apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.tableaus import Tableau

__all__ = ["Stages", "combine"]


class Stages:
    """k_0, k_1, ... of one step, all shaped like `first`, which is k_0."""

    def __init__(self, tableau: Tableau, first: Tensor, graph: bool):
        self.graph, self.shape = graph, first.shape
        self.kept: list[Tensor] = []
        names = {"b": tableau.b, "error": tableau.error or (), "dense": tableau.dense or ()}
        self.weights: dict[int | str, tuple[float, ...]] = dict(enumerate(tableau.a)) | names
        if not graph:
            count = len(tableau.c)
            buffer = first.new_empty((count, first.numel()))
            self.kept = [k.view(first.shape) for k in buffer]
            self.columns = [buffer[:n].t() for n in range(count + 1)]
            table = torch.zeros((len(self.weights), count), dtype=torch.float64)
            for line, row in zip(table, self.weights.values(), strict=True):
                line[: len(row)] = torch.tensor(row, dtype=torch.float64)
            table = table.to(first)
            self.lines = {k: line[: len(self.weights[k])] for k, line in zip(self.weights, table, strict=True)}
        self.put(0, first)

    def put(self, i: int, stage: Tensor) -> None:
        """Stage i; those behind it are void."""
        if self.graph:
            self.kept = [*self.kept[:i], stage]
        else:
            self.kept[i].copy_(stage)

    def mix(self, row: int | str) -> Tensor:
        """Σ weights · stages: for stage number `row`, or for "b", "error" or "dense"."""
        if self.graph:
            return combine(self.weights[row], self.kept)
        line = self.lines[row]
        return torch.mv(self.columns[len(line)], line).view(self.shape)


def combine(weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    """Σ weights · stages, leaving out the zeros."""
    total = None
    for w, stage in zip(weights, stages, strict=False):
        if w != 0:
            total = w * stage if total is None else torch.add(total, stage, alpha=w)
    return torch.zeros_like(stages[0]) if total is None else total
