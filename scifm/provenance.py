"""What a result depends on: versions, the state of the repository, and the files that were read."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from scifm import __version__
from scifm.data import fetch
from scifm.disk import atomic

__all__ = ["copy_data", "git_state", "versions"]

LARGEST = 64 * 2**20  # bytes of data files that are copied into a run
_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "e3nn",
    "torch-geometric",
    "xarray",
    "POT",
    "mlflow",
    "safetensors",
    "gemmi",
    "biotite",
)


def versions() -> dict[str, str]:
    """Versions of Python, scifm and the packages that results depend on; nothing is imported."""
    found = {"python": platform.python_version(), "scifm": __version__}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_state(folder: Path, exact: bool = False) -> dict[str, Any] | None:
    """Commit of the repository around a folder and whether files differ from it; None outside of one.

    Args:
        exact: only if the folder is the repository's root, and not a site-packages inside someone's project.
    """

    def git(*words: str) -> str | None:
        command = ["git", "--no-optional-locks", "-C", str(folder), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    root, commit = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    if not root or not commit or (exact and Path(root).resolve() != folder.resolve()):
        return None
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def copy_data(files: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """Copy small data files into a run; for the record, each with its checksum and where its copy is.

    A copy is `data/<number>/<folder>/<file>`: two files of one name stay two, and `fetch.find` finds a data set's.
    """
    places = [Path(os.path.abspath(f)) for f in files]
    sizes = [_bytes(p) for p in places]
    small, entries = sum(sizes) <= LARGEST, []
    for number, (place, size) in enumerate(zip(places, sizes, strict=True), start=1):
        copy = Path("data", str(number), place.parent.name or "root", place.name) if small else None
        if copy is not None and place.is_dir():
            shutil.copytree(place, folder / copy)
        elif copy is not None:
            with atomic(folder / copy) as path:
                shutil.copyfile(place, path)
        sha256 = fetch.sha256_of(place if copy is None else folder / copy)
        entries.append({"file": str(place), "bytes": size, "sha256": sha256, "copy": copy and copy.as_posix()})
    return entries


def _bytes(path: Path) -> int:
    """Size of a file, or of all in a folder such as a Zarr store."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
