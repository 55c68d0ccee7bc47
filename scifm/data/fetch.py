"""Find a data file on this machine, or download it once.

Looked for in this order, so that a run can be repeated anywhere, tests need no network, and users need no set-up:

1. the folders of `search_path` (a run's own copies),
2. `$SCIFM_DATA/<dataset>/<file>`,
3. the user's cache, `$XDG_CACHE_HOME/scifm/<dataset>/<file>` or `~/.cache/scifm/...`,
4. the network: into the cache, checked before it gets its name, so that a broken download is never found again.

Sets that are made rather than downloaded go into the same cache, by `keep`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import ndarray

__all__ = ["cache", "find", "keep", "search_path", "sha256_of"]

search_path: ContextVar[tuple[Path, ...]] = ContextVar("search_path", default=())
"""Folders that are searched first, each for `<dataset>/<file>`."""

CHUNK = 1 << 18  # bytes


def find(
    dataset: str,
    name: str,
    *,
    url: str | None = None,
    sha256: str | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Path of a dataset's file, downloaded on first use.

    Args:
        dataset: name of the set, a folder under `$SCIFM_DATA` and in the cache.
        name: of the file.
        url: where it can be had; None for a file that nobody offers.
        sha256: of the file at `url`.
        check: raises ValueError where the content of a download is not what it should be. The caller looks at a copy
            found elsewhere, which may be packed differently, when reading it.

    Raises:
        FileNotFoundError: where the file is nowhere and cannot be downloaded.
        ValueError: where the download is damaged.
    """
    if not name or not dataset or Path(name).name != name or Path(dataset).name != dataset:
        raise ValueError(f"find: expected the plain names of a dataset and a file, got {dataset!r} and {name!r}.")
    places = [folder / dataset / name for folder in search_path.get()]
    if root := os.environ.get("SCIFM_DATA"):
        if not Path(root).is_dir():
            raise FileNotFoundError(f"SCIFM_DATA={root} is not a folder; correct the variable or unset it.")
        places.append(Path(root) / dataset / name)
    places.append(cache() / dataset / name)
    for path in places:
        if path.is_file():
            return path
    where = f"Put it at {places[-1]}, or set SCIFM_DATA to a folder that holds {dataset}/{name}."
    if url is None:
        raise FileNotFoundError(f"{dataset}: {name} is not on this machine. {where}")
    return _download(url, places[-1], sha256, check, where)


def cache() -> Path:
    """Folder for downloads of this user."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "scifm"


def keep(dataset: str, values: Mapping[str, ndarray]) -> list[Path]:
    """Write arrays as .npy files into the user's cache, where `find` finds them.

    Args:
        dataset: name of the set.
        values: by name of the file.

    Returns:
        their paths; none where the cache cannot be written.

    Warns:
        UserWarning: in that case, since they will have to be made again.
    """
    import numpy as np

    folder = cache() / dataset
    paths = [folder / name for name in values]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, value in zip(paths, values.values(), strict=True):
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
                part = Path(file.name)
                try:
                    np.save(file, value, allow_pickle=False)
                    os.replace(part, path)  # the whole of it or nothing
                finally:
                    part.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"{dataset}: what was made cannot be kept in {folder} ({error.strerror}) and will be made anew next time; "
            "set XDG_CACHE_HOME to a folder that can be written.",
            stacklevel=5,
        )
        return []
    return paths


def sha256_of(path: Path) -> str:
    """Checksum in hexadecimal of a file, or of a folder such as a Zarr store: of its files' names and contents."""
    if path.is_dir():
        digest = hashlib.sha256()
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{part.relative_to(path).as_posix()} {sha256_of(part)}\n".encode())
        return digest.hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, to: Path, sha256: str | None, check: Callable[[Path], None] | None, where: str) -> Path:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the rename at the end is atomic; two processes at once do not disturb each other.
        handle, temporary = tempfile.mkstemp(prefix=f".{to.name}.", suffix=".part", dir=to.parent)
    except OSError as error:
        raise FileNotFoundError(
            f"{to.name} is not on this machine and cannot be downloaded, since {to.parent} cannot be written "
            f"({error.strerror}); set XDG_CACHE_HOME to a folder that can. {where}"
        ) from error
    part = Path(temporary)
    try:
        with os.fdopen(handle, "wb") as file:
            _copy(url, file, to.name, where)
        found = sha256_of(part)
        if sha256 is not None and found != sha256:
            raise ValueError(
                f"{to.name}: {url} gave a file of another content (sha256 {found[:12]} instead of {sha256[:12]}); "
                f"try again, it may have changed on the way. {where}"
            )
        if check is not None:
            check(part)
        os.replace(part, to)
    finally:
        part.unlink(missing_ok=True)
    return to


def _copy(url: str, file: Any, name: str, where: str) -> None:
    from http.client import HTTPException
    from urllib.request import urlopen

    from tqdm import tqdm

    try:
        with urlopen(url, timeout=30) as source:
            expected = int(source.headers.get("Content-Length") or 0)
            received = 0
            # disable=None: the bar is drawn on a terminal only
            with tqdm(total=expected or None, unit="B", unit_scale=True, desc=name, disable=None) as bar:
                while chunk := source.read(CHUNK):
                    file.write(chunk)
                    received += len(chunk)
                    bar.update(len(chunk))
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise FileNotFoundError(f"{name} is not on this machine and {url} cannot be had ({reason}). {where}") from error
    if received < expected:
        raise ValueError(f"{name}: the download ended after {received} of {expected} bytes; try again. {where}")
