"""LJ55: a cluster of 55 Lennard-Jones points on springs to its centre; see README.md beside this file."""

from __future__ import annotations

import torch

from scifm.data.equilibrium import File, Made, System, load
from scifm.data.source import Data
from scifm.energies import LennardJones, MonteCarlo

ENERGY = LennardJones(each_pair=2)
SPLITS = {"train": "train", "valid": "val", "test": "test"}  # and what the published files call them
BASE = "https://raw.githubusercontent.com/jarridrb/DEM/8e9531987b0bfe4e770d5009c10a56b8434c0f0a/data/"
NAMES = {split: f"{word}_split_LJ55-1000-part1.npy" for split, word in SPLITS.items()}
FILES = {split: (File(name, None, None, BASE + name),) for split, name in NAMES.items()}
INSTEAD = {"train": (File("train_hmc.npy", 10_800),), "test": (File("test_hmc.npy", 2_000),)}
MADE = Made(1.1, (250, 20, 50), MonteCarlo(burn_in=500, saves=40, thin=12, leapfrog=12))
SYSTEM = System("lj55", ENERGY, 55, 3, FILES, MADE, held=800, instead=INSTEAD)


def lj55(*, source: str = "auto", seed: int = 0, dtype: torch.dtype = torch.float32) -> Data:
    """LJ55 in reduced units, x (B, 55, 3), centred; its energy is `ENERGY`, in kT.

    Args:
        source: "published" reads the published files, downloading them where needed; "made" samples the energy, which
            takes some minutes and is kept; "auto" reads the published files where all of them are on this machine, else
            the two of the README, and else makes them.
        seed: of what is made.
        dtype: of the values.

    Raises:
        FileNotFoundError: where files are missing that are asked for.
        ValueError: for an unknown source, or a file of another content.
    """
    return load(SYSTEM, source, seed, dtype)
