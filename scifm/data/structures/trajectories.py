"""Frames of XTC, TRR and DCD files, in Å, read by biotite.

XTC and TRR hold nanometres, DCD Å; biotite gives Å for all of them.  Its reader in C takes what is there of a DCD
file that was cut short without a word, so the frames are counted against the header.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from scifm.data.structures.atoms import TRAJECTORIES

__all__ = ["frames_of"]


def frames_of(path: Path, **which: Any) -> np.ndarray:
    """(frames, atoms, 3) Å float32."""
    kind = path.suffix.lower()
    if kind not in TRAJECTORIES:
        raise ValueError(f"{path.name}: expected a trajectory ({', '.join(TRAJECTORIES)}), like the others.")
    if not path.stat().st_size:
        raise ValueError(f"{path.name}: is empty (0 bytes).")
    if kind == ".xtc":
        from biotite.structure.io.xtc import XTCFile as File
    elif kind == ".trr":
        from biotite.structure.io.trr import TRRFile as File
    else:
        from biotite.structure.io.dcd import DCDFile as File
    try:
        found = File.read(str(path), **which).get_coord()
    except Exception as error:  # readers in C raise whatever they like for damaged bytes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ValueError(
            f"{path.name}: is no {kind[1:].upper()} trajectory, or damaged or cut short ({reason})."
        ) from error
    if found is None or not len(found):
        raise ValueError(f"{path.name}: holds no frames.")
    if kind == ".dcd" and "stop" not in which:
        _check_dcd(path, len(found), which.get("step", 1))
    return found


def _check_dcd(path: Path, found: int, stride: int) -> None:
    """The reader takes what is there without a word; the header promises a number of frames (0 while it is written)."""
    with open(path, "rb") as file:
        head = file.read(12)
    order = "<" if head[:4] == struct.pack("<i", 84) else ">"
    promised = struct.unpack(f"{order}i", head[8:12])[0]
    if -(-promised // stride) > found:
        raise ValueError(
            f"{path.name}: is cut short: its header promises {promised} frames, {found} were read with stride "
            f"{stride}; copy it again."
        )
