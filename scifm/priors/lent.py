"""Randomness for code that knows only the global state: our generator lends its own for a moment.

`torch.distributions` draw from the global generator of their device.  Here its state is put aside, replaced by that of
the generator that was passed in, moved on by the draws, handed back, and the global one restored as it was: equal
generators give equal draws, the generator moves on, and nobody else's random numbers change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["lent", "local"]


@contextmanager
def lent(generator: torch.Generator | None) -> Iterator[None]:
    """The global generator of the generator's device does as `generator` would, inside the block only."""
    own = None if generator is None else _global(generator.device)
    if generator is None or own is generator:
        yield
        return
    assert own is not None
    before = own.get_state()
    own.set_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(own.get_state())
        own.set_state(before)


def local(generator: torch.Generator | None, device: torch.device) -> torch.Generator | None:
    """The generator itself if it lives on that kind of device, else one there that is seeded from it."""
    if generator is None or generator.device.type == device.type:
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))


def _global(device: torch.device) -> torch.Generator:
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "cuda":
        torch.cuda.init()
        return torch.cuda.default_generators[device.index or 0]
    raise ValueError(f"A generator on {device.type} cannot lend its state; pass one on the CPU.")
