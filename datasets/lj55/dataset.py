"""LJ55: a cluster of 55 Lennard-Jones points on springs to its centre; see README.md beside this file."""

from __future__ import annotations

import torch

from scifm.data.equilibrium import File, System, load
from scifm.data.source import Data
from scifm.energies import LennardJones

ENERGY = LennardJones(each_pair=2)
FILES = {"train": (File("train_hmc.npy", 10_800),), "test": (File("test_hmc.npy", 2_000),)}
SYSTEM = System("lj55", ENERGY, 55, 3, FILES, held=800)


def lj55(*, source: str = "auto", dtype: torch.dtype = torch.float32) -> Data:
    """LJ55 in reduced units, x (B, 55, 3), centred; its energy is `ENERGY`, in kT.

    Args:
        source: "auto": files where they are on this machine.
        dtype: of the values.

    Raises:
        FileNotFoundError: where files are missing.
        ValueError: for an unknown source, or a file of another content.
    """
    return load(SYSTEM, source, dtype)
