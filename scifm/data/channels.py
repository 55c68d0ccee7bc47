"""Transforms of fields with several channels, and of fields on part of a grid.

Each channel has units of its own, and land belongs to none: channel c's values inside the mask go through a transform
of their own, as vectors (B, n_c); outside the mask model units are zero, whatever was there.

    y_c = T_c(x_c | mask_c),     y = 0 outside,     log |det| = Σ_c log |det T_c|

so a density counts the values inside the mask only, which is where priors on a mask live.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.data.transforms import Transform

__all__ = ["PerChannel"]


class PerChannel(Transform):
    """One transform per channel, inside a mask.

    Args:
        transforms: one per channel; each sees vectors (B, n_c) of the channel's values inside the mask.
        mask: bool (C, *grid), True where values exist; None where all do.

    Raises:
        ValueError: for another number of channels than transforms, or another grid than the mask's.

    Example:
        >>> from scifm.data.transforms import Affine
        >>> mask = torch.tensor([[[True, False]], [[True, True]]])
        >>> each = PerChannel([Affine(scale=10.0), Affine(shift=-1.0)], mask)
        >>> each(Batch(torch.ones(1, 2, 1, 2))).x
        tensor([[[[10.,  0.]],
        <BLANKLINE>
                 [[ 0.,  0.]]]])
    """

    def __init__(self, transforms: Sequence[Transform], mask: Tensor | None = None):
        super().__init__()
        if mask is not None and (mask.dtype != torch.bool or len(mask) != len(transforms)):
            raise ValueError(
                f"PerChannel: mask must be bool with a row per transform, {len(transforms)}, got {mask.dtype} "
                f"{tuple(mask.shape)}."
            )
        if not transforms or not all(isinstance(t, Transform) for t in transforms):
            raise TypeError(f"PerChannel: expected a Transform per channel, got {list(transforms)!r}.")
        self.transforms = nn.ModuleList(transforms)
        self.mask: Tensor | None
        self.register_buffer("mask", mask, persistent=False)

    def fit(self, batch: Batch) -> PerChannel:
        for c in range(len(self._checked(batch))):
            self._one(c).fit(self._part(batch, c))
        return self

    def forward(self, batch: Batch) -> Batch:
        return self._each(batch, inverse=False)

    def inverse(self, batch: Batch) -> Batch:
        return self._each(batch, inverse=True)

    def log_det(self, batch: Batch) -> Tensor:
        parts = [self._one(c).log_det(self._part(batch, c)) for c in range(len(self._checked(batch)))]
        return torch.stack(parts).sum(0)

    def _each(self, batch: Batch, inverse: bool) -> Batch:
        channels = []
        for c in range(len(self._checked(batch))):
            part, one = self._part(batch, c), self._one(c)
            values = (one.inverse(part) if inverse else one(part)).x
            channels.append(self._back(values, batch, c))
        return batch.replace(torch.stack(channels, 1))

    def _one(self, channel: int) -> Transform:
        return self.transforms[channel]  # type: ignore[return-value]

    def _part(self, batch: Batch, channel: int) -> Batch:
        flat = batch.x[:, channel].flatten(1)
        return batch.replace(flat if self.mask is None else flat[:, self._inside(channel)])

    def _back(self, values: Tensor, batch: Batch, channel: int) -> Tensor:
        if self.mask is None:
            return values.reshape(batch.x[:, channel].shape)
        zero = values.new_zeros(len(batch), self.mask[channel].numel())
        return zero.index_copy(1, self._inside(channel), values).reshape(batch.x[:, channel].shape)

    def _inside(self, channel: int) -> Tensor:
        assert self.mask is not None
        return self.mask[channel].flatten().nonzero()[:, 0]

    def _checked(self, batch: Batch) -> nn.ModuleList:
        event = batch.grid("PerChannel")
        if not event or event[0] != len(self.transforms) or (self.mask is not None and self.mask.shape != event):
            made = len(self.transforms) if self.mask is None else tuple(self.mask.shape)
            raise ValueError(f"PerChannel: made for samples of {made} channels, got {event}.")
        return self.transforms
