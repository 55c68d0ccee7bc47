"""The course of a training run as JSON lines: the record that is there even when tracking is not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scifm.disk import atomic

__all__ = ["History"]


class History:
    """Means over the steps since the last line, to a file and to a tracker.

    Args:
        path: of the JSON-lines file.
        tracker: has `log(metrics, step)`, or None.
        step: where training starts; lines past it, from before an interruption, are dropped.
    """

    def __init__(self, path: Path, tracker: Any, step: int):
        self.path, self.tracker = path, tracker
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        kept = []
        if path.exists() and step:  # lines past the checkpoint will be written again
            kept = [row for row in path.read_text(encoding="utf-8").splitlines() if _step(row) <= step]
        with atomic(path) as temporary:  # a kill in between must not cost the rows that are there
            temporary.write_text("".join(row + "\n" for row in kept), encoding="utf-8")

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Take note of a step: loss (B,) and gradient norm ()."""
        self.losses.append(loss.detach().mean())
        self.norms.append(norm.detach())

    def write(self, step: int, more: dict[str, float]) -> dict[str, float]:
        """Write `more` and the means so far as one line; returns it."""
        row = dict(more)
        if self.losses:
            row["train/loss"] = float(torch.stack(self.losses).mean())
            row["train/gradient_norm"] = float(torch.stack(self.norms).mean())
            self.losses, self.norms = [], []
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")
        if self.tracker is not None:
            self.tracker.log(row, step)
        return row


def _step(row: str) -> float:
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError, TypeError):  # a line that a kill cut short
        return math.inf
