"""Draws from a data set: flows from data to data, such as model output to observations, or one field to the next.

Its law is the set of samples itself, which has no density: a flow on it can be trained and sampled, but not scored.
Where pairs are known (this field belongs to that one), a coupling that keeps them says more than draws at random.
References: Liu et al. 2023 (rectified flow); Tong et al. 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors.base import Prior

__all__ = ["Empirical"]


class Empirical(Prior):
    """Whole samples of `batch`, drawn with replacement; dense, or ragged with equal numbers of rows.

    The data are no part of checkpoints, which would hold them twice over each time: the recipe that made the prior
    makes it again.  They stay where they are (the CPU, say), and draws are moved; copies of the prior share them.

    Args:
        batch: source data in model units.
        match: names in context or nodes that must be equal in a draw and in the sample it is for.  What is not named
            is not looked at.

    Raises:
        ValueError: on use, where no sample of the data has the rows and conditions asked for.
    """

    has_density = False

    def __init__(self, batch: Batch, match: Sequence[str] = ()):
        super().__init__()
        self.batch, self.match, self.conditional = batch, tuple(match), tuple(match)
        if not len(batch) or not batch.x.isfinite().all():
            raise ValueError(f"Empirical: expected finite samples to draw from, got {len(batch)}.")
        numbers: dict[tuple, list[int]] = {}
        for b, key in enumerate(self._keys(batch)):
            numbers.setdefault(key, []).append(b)
        self._found: dict[tuple, Tensor] = {key: torch.tensor(value) for key, value in numbers.items()}

    def __deepcopy__(self, memo: Any) -> Empirical:
        return Empirical(self.batch, self.match)  # a batch is frozen: averaged weights need no second copy of it

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> Tensor:
        if like.event != self.batch.event or like.dense != self.batch.dense:
            layout = {True: "dense", False: "ragged"}
            raise ValueError(
                f"Empirical: the data are {layout[self.batch.dense]} with events {self.batch.event}, the batch is "
                f"{layout[like.dense]} with {like.event}; source and target of a flow have the same shape."
            )
        device = like.x.device if generator is None else generator.device
        u = torch.rand(len(like), generator=generator, dtype=torch.float64, device=device).tolist()
        chosen = []
        for b, key in enumerate(self._keys(like)):
            found = self._found.get(key)
            if found is None:
                raise ValueError(
                    f"Empirical: no sample to draw for sample {b}: none of the {len(self.batch)} has {key[0]} rows and "
                    f"equal {list(self.match)}; give data of that kind, or match less."
                )
            chosen.append(int(found[min(int(u[b] * len(found)), len(found) - 1)]))
        return self.batch.select(chosen).x.to(like.x)

    def log_prob(self, x: Tensor, like: Batch) -> Tensor:
        self._refuse()

    def score(self, x: Tensor, like: Batch) -> Tensor:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            "Empirical: a data set has no density and no score, so a flow on it can be sampled but not scored. Where a "
            "likelihood is wanted use a prior that has one, e.g. FullGaussian or EOFGaussian fitted to these data."
        )

    def _keys(self, batch: Batch) -> list[tuple]:
        """What must be equal, for each sample: its number of rows and the bytes of its conditions."""
        for name in self.match:
            if name not in batch.context and name not in batch.nodes:
                raise ValueError(
                    f"Empirical: match={list(self.match)}, but there is no {name!r} in the context "
                    f"{sorted(batch.context)} or nodes {sorted(batch.nodes)} of a batch."
                )
        counts = batch.counts
        told = [_bytes(batch.context[n], self._type(n), torch.ones_like(counts)) for n in self._of(batch.context)]
        told += [_bytes(batch.nodes[n], self._type(n), counts) for n in self._of(batch.nodes)]
        return list(zip(counts.tolist(), *told, strict=True))

    def _of(self, values: Any) -> list[str]:
        return [name for name in self.match if name in values]

    def _type(self, name: str) -> torch.dtype:
        return (self.batch.context[name] if name in self.batch.context else self.batch.nodes[name]).dtype


def _bytes(value: Tensor, dtype: torch.dtype, counts: Tensor) -> list[bytes]:
    """Entries of each sample as bytes, in the dtype of the data, so that 1.0 in single and double are equal."""
    parts = value.detach().cpu().to(dtype).split(counts.tolist())
    return [(part + 0.0 if part.is_floating_point() else part).numpy().tobytes() for part in parts]  # −0 is 0
