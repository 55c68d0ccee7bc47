"""Files that are whole or not there: written beside their place and moved, locked, complained about before the work.

A reader or a crash never sees half of a file that was written through `atomic`.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["atomic", "check_output", "is_locked", "locked", "read_json", "write_json"]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path to write to, moved to `path` when all went well and removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are private, an ordinary file is not
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a file for this process; the system lets go of it whatever kills the process.

    Raises:
        RuntimeError: with the message `busy`, where another process holds it.
    """
    fcntl = _fcntl()
    with open(path, "a") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RuntimeError(busy) from error
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds a file by `locked`."""
    fcntl = _fcntl()
    if fcntl is None or not path.exists():
        return False
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def check_output(path: Path) -> None:
    """Complain before the work that a file, or a folder with its parents, cannot be made at a path.

    Raises:
        ValueError: the message names the path and the reason.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        parent = next(p for p in Path(os.path.abspath(path)).parents if os.path.lexists(p))
        if not parent.is_dir():
            raise NotADirectoryError(0, f"{parent} is not a folder")
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}.") from error


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _fcntl() -> Any:
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return None
    return fcntl
