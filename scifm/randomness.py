"""Every random state of a process, to be saved and brought back: what a bit-for-bit resume needs.

scifm itself draws from generators that are passed in.  Dropout draws from torch's global state, and a user's network
or transform may use NumPy's or Python's.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["restore_states", "states"]


def states(generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain values that hold the state of `generator`, torch (CPU and CUDA), NumPy and Python."""
    tensors = {"generator": generator.get_state(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    name, keys, position, has_normal, normal = np.random.get_state(legacy=True)
    numpy = [name, np.asarray(keys).tolist(), position, has_normal, normal]
    version, words, following = random.getstate()
    return tensors, {"numpy": numpy, "python": [version, list(words), following]}


def restore_states(generator: torch.Generator, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Bring back what `states` gave."""
    generator.set_state(tensors["generator"])
    torch.set_rng_state(tensors["torch"])
    cuda = [tensors[k] for k in sorted(k for k in tensors if k.startswith("cuda."))]
    if cuda and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
    name, keys, position, has_normal, normal = plain["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_normal, normal))
    version, words, following = plain["python"]
    random.setstate((version, tuple(words), following))
