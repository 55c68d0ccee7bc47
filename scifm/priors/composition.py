"""What is there before anything flows: sizes, species, bonds and labels, drawn from the training data.

A flow of positions is conditional on composition: p(x | elements, bonds, label).  To sample molecules one has to have
elements and bonds first, and the best law of these that needs no model is that of the data themselves.  Whole samples
are drawn, since a size from one molecule and bonds from another belong to nothing.  It has no density on compositions
that were not seen; likelihoods are given the composition.
"""

from __future__ import annotations

import torch

from scifm.batch import Batch

__all__ = ["Composition"]


class Composition:
    """Layouts for `Flow.sample`: all that does not flow, as in samples drawn from `data` with replacement; x is zero.

    Args:
        data: samples with their context, nodes and edges, dense or ragged; x is not kept.

    Example:
        >>> data = Batch(torch.randn(3, 3), torch.tensor([0, 0, 1]), 2, nodes={"z": torch.tensor([8, 1, 2])})
        >>> like = Composition(data)(4, torch.Generator().manual_seed(1))
        >>> len(like), set(like.nodes)
        (4, {'z'})
    """

    def __init__(self, data: Batch):
        if len(data) == 0:
            raise ValueError("Composition: data is empty; give the training samples.")
        self.data = data.replace(torch.zeros_like(data.x))

    def __call__(self, number: int, generator: torch.Generator | None = None) -> Batch:
        """A batch of `number` samples; all randomness comes from `generator`."""
        if number < 1:
            raise ValueError(f"Composition: number must be at least 1, got {number}.")
        device = self.data.x.device if generator is None else generator.device
        chosen = torch.randint(len(self.data), (number,), generator=generator, device=device)
        return self.data.select(chosen.to(self.data.x.device))
