"""What every test shares: one thread, and real data where the machine has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# On a shared machine two OpenMP threads are slower than one, and results would depend on the number of cores.
# The variables serve the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

torch.set_num_threads(1)


@pytest.fixture
def scifm_data() -> Callable[[str], Path]:
    """scifm_data(name) -> folder of a real data set under $SCIFM_DATA; skips, with the reason, without it."""

    def find(name: str) -> Path:
        root = os.environ.get("SCIFM_DATA")
        if not root:
            pytest.skip(f"SCIFM_DATA is not set, so the real data set {name} is out of reach")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"SCIFM_DATA={root} holds no folder {name}")
        return folder

    return find
