"""Ctrl-C and a polite kill as a flag, for loops that want to finish the step they are in."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interruptions"]


@contextmanager
def interruptions() -> Iterator[threading.Event]:
    """Turn Ctrl-C and a polite kill into a flag, so that a step is never cut in two; a second one acts at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handler(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for s, old in before.items():
            signal.signal(s, old)
