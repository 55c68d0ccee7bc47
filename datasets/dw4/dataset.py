"""DW4: four points in the plane with a double well between each pair; see README.md beside this file."""

from __future__ import annotations

import torch

from scifm.data.equilibrium import File, Made, System, load
from scifm.data.source import Data
from scifm.energies import DoubleWell, MonteCarlo

ENERGY = DoubleWell()
BASE = "https://raw.githubusercontent.com/jarridrb/DEM/8e9531987b0bfe4e770d5009c10a56b8434c0f0a/data/"
PUBLISHED = {
    "train": ("train_split_DW4.npy", 100_000, "03e4cd085b52bf021cebc7f5f6d05aec0cdccff890a476b36595c2e343b1c58a"),
    "valid": ("val_split_DW4.npy", 10_000, "05683af2442aea8c358d35482a1c6877fc53796e46c9f5335fa92aa4f3670de6"),
    "test": ("test_split_DW4.npy", 10_000, "ef4466793b3502b2fe405aad22d3ae43b34827971594c5bab28684771d828244"),
}
FILES = {split: (File(name, rows, sha256, BASE + name),) for split, (name, rows, sha256) in PUBLISHED.items()}
MADE = Made(2.5, (2000, 200, 200), MonteCarlo(burn_in=400, saves=50, thin=10))
SYSTEM = System("dw4", ENERGY, 4, 2, FILES, MADE)


def dw4(*, source: str = "auto", seed: int = 0, dtype: torch.dtype = torch.float32) -> Data:
    """DW4 in reduced units, x (B, 4, 2), centred; its energy is `ENERGY`, in kT.

    Args:
        source: "published" reads the published files, downloading them where needed; "made" samples the energy, which
            takes half a minute and is kept; "auto" reads files where all of them are on this machine, and else makes
            them.
        seed: of what is made.
        dtype: of the values.

    Raises:
        FileNotFoundError: where files are missing that are asked for.
        ValueError: for an unknown source, or a file of another content.
    """
    return load(SYSTEM, source, seed, dtype)
