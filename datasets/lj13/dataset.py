"""LJ13: a cluster of 13 Lennard-Jones points on springs to its centre; see README.md beside this file."""

from __future__ import annotations

import torch

from scifm.data.equilibrium import File, Made, System, load
from scifm.data.source import Data
from scifm.energies import LennardJones, MonteCarlo

ENERGY = LennardJones(each_pair=2)  # the virial of the published files: 36 with 2, 27 with 1
BASE = "https://raw.githubusercontent.com/jarridrb/DEM/8e9531987b0bfe4e770d5009c10a56b8434c0f0a/data/"
TRAIN, VALID, TEST = (f"{split}_split_LJ13-1000.npy" for split in ("train", "val", "test"))
FILES = {
    "train": (File(TRAIN, 100_000, None, BASE + TRAIN), File("train_hmc_90k.npy", 90_000)),
    "valid": (File(VALID, 10_000, "77a051cd50b16bec41e8fa056f6f77e21804d530a7461369f3a3ee985a576eb7", BASE + VALID),),
    "test": (File(TEST, 10_000, "c5064a56282e96441f1ff2f1babb13c241a99cd1077aee3667951d06055a785b", BASE + TEST),),
}
MADE = Made(1.1, (2000, 200, 200), MonteCarlo(burn_in=400, saves=50, thin=15))
SYSTEM = System("lj13", ENERGY, 13, 3, FILES, MADE)


def lj13(*, source: str = "auto", seed: int = 0, dtype: torch.dtype = torch.float32) -> Data:
    """LJ13 in reduced units, x (B, 13, 3), centred; its energy is `ENERGY`, in kT.

    Args:
        source: "published" reads the published files, downloading them where needed; "made" samples the energy, which
            takes some minutes and is kept; "auto" reads files where all of them are on this machine, and else makes
            them.
        seed: of what is made.
        dtype: of the values.

    Raises:
        FileNotFoundError: where files are missing that are asked for.
        ValueError: for an unknown source, or a file of another content.
    """
    return load(SYSTEM, source, seed, dtype)
