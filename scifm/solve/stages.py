"""The stages of a Runge–Kutta step and their weighted sums.

Without a graph all stages lie in one buffer, so that each sum is one matrix-vector product instead of a product and an
addition per stage.  Under autograd nothing may be overwritten: the stages stay apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scifm.tableaus import Tableau

__all__ = ["Stages", "Weights", "combine"]


class Weights:
    """The rows of a tableau as numbers and as tensors, by number of the stage, or "b", "error" or "dense"."""

    def __init__(self, tableau: Tableau, like: Tensor):
        self.count = len(tableau.c)
        ends = {"b": tableau.b, "error": tableau.error or (), "dense": tableau.dense or ()}
        self.rows: dict[int | str, tuple[float, ...]] = dict(enumerate(tableau.a)) | ends
        padded = [[*row, *[0.0] * (self.count - len(row))] for row in self.rows.values()]
        table = torch.tensor(padded, dtype=torch.float64).to(like).unbind()
        self.lines = {k: line[: len(row)] for (k, row), line in zip(self.rows.items(), table, strict=True)}


class Stages:
    """k_0, k_1, ... of one step, all shaped like `first`, which is k_0.

    Attributes:
        kept: the stages, of which those behind the last `put` are void.
    """

    def __init__(self, weights: Weights, first: Tensor, graph: bool):
        self.weights, self.graph, self.shape = weights, graph, first.shape
        self.kept: list[Tensor] = []
        if not graph:
            buffer = first.new_empty((weights.count, first.numel()))
            self.kept = list(buffer.view(weights.count, *first.shape).unbind())
            turned = buffer.t()
            self.columns = [turned[:, :n] for n in range(weights.count + 1)]
        self.put(0, first)

    def cut(self, index: Tensor) -> Stages:
        """The first stage of some rows, in a buffer of their own."""
        return Stages(self.weights, self.kept[0][index], self.graph)

    def put(self, i: int, stage: Tensor) -> None:
        """Stage i."""
        if self.graph:
            self.kept = [*self.kept[:i], stage]
        else:
            self.kept[i].copy_(stage)

    def mix(self, row: int | str) -> Tensor:
        """Σ weights · stages: for stage number `row`, or for "b", "error" or "dense"."""
        if self.graph:
            return combine(self.weights.rows[row], self.kept)
        line = self.weights.lines[row]
        return torch.mv(self.columns[len(line)], line).view(self.shape)


def combine(weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    """Σ weights · stages, leaving out the zeros."""
    total = None
    for w, stage in zip(weights, stages, strict=False):
        if w != 0:
            total = w * stage if total is None else torch.add(total, stage, alpha=w)
    return torch.zeros_like(stages[0]) if total is None else total
