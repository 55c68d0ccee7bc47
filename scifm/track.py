"""Tracking with MLflow that training never waits for.

All calls put a note into a queue and return; one background thread imports MLflow (seconds), makes the store (more
seconds, the first time) and sends the notes in batches.  A server that is missing, slow or dies midway costs tracking
and nothing else: it is said once on stderr, what could not be sent is kept and tried again, a last time at the end.
The run's own `metrics.jsonl` is complete in any case.

The store is SQLite under the folder of the runs, unless MLFLOW_TRACKING_URI names another:

    runs/mlflow.db                  mlflow ui --backend-store-uri sqlite:///runs/mlflow.db
    runs/artifacts/<experiment>/
    runs/<run>/mlflow.json          which MLflow run this is, so that a resumed run goes on with it
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import sys
import threading
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Mlflow", "Nothing", "Tracker", "open_tracker"]

# MLflow's own defaults would hold a notebook for many minutes when the server is gone; these give up in seconds.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # MLflow would otherwise report its use to its makers: from a machine without network that is a delay.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_STATUSES = ("FINISHED", "FAILED", "KILLED")


class Tracker(ABC):
    """Where a run's numbers go besides its folder. No method raises or blocks, whatever happens outside."""

    @abstractmethod
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings of the run. One that was logged before, in a run that is resumed, keeps its first value."""

    @abstractmethod
    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers of a training step."""

    @abstractmethod
    def artifact(self, path: Path) -> None:
        """A file, or a folder with its files, to keep."""

    @abstractmethod
    def close(self, status: str = "FINISHED") -> None:
        """Send the rest, for at most a minute; status is FINISHED, FAILED or KILLED."""


class Nothing(Tracker):
    """No tracking."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Does nothing."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Does nothing."""

    def artifact(self, path: Path) -> None:
        """Does nothing."""

    def close(self, status: str = "FINISHED") -> None:
        """Does nothing."""


def open_tracker(kind: str, experiment: str, run_name: str, folder: Path | str, run_id: str | None = None) -> Tracker:
    """A tracker for a run.

    Args:
        kind: "mlflow" or "none".
        experiment: MLflow's name for a group of runs: the recipe's name.
        run_name: shown in MLflow.
        folder: the run's folder; the local store lies beside it.
        run_id: MLflow run to go on with; None takes the one noted in the folder, if any.
    """
    if kind == "none":
        return Nothing()
    if kind != "mlflow":
        raise ValueError(f'tracking must be "mlflow" or "none", got {kind!r}.')
    return Mlflow(experiment, run_name, Path(folder), run_id)


@dataclass
class _Notes:
    """What waits to be sent."""

    params: dict[str, Any] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)  # name, value, milliseconds, step
    artifacts: list[Path] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.params or self.metrics or self.artifacts)


class Mlflow(Tracker):
    """An MLflow run, written by a background thread; see `open_tracker`.

    Args:
        experiment, run_name, folder, run_id: as for `open_tracker`.
        every: seconds between two batches.
        patience: seconds that `close` waits for the thread.
    """

    def __init__(
        self,
        experiment: str,
        run_name: str,
        folder: Path,
        run_id: str | None = None,
        *,
        every: float = 5.0,
        patience: float = 60.0,
    ):
        self.experiment, self.run_name, self.folder = experiment, run_name, folder
        self.every, self.patience = every, patience
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or _sqlite(folder.resolve().parent / "mlflow.db")
        self.run_id = run_id or _noted(folder, self.uri)
        self.failure: str | None = None  # the last one; None when all is well
        self._said, self._client, self._ready = False, None, False
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Queue settings; names are made such as MLflow accepts, values cut to 6000 characters."""
        self._queue.put(("params", dict(params)))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue numbers with the time of the call; a NaN is left out, not every store can hold it."""
        now = int(time.time() * 1000)
        rows = [(k, float(v), now, int(step)) for k, v in metrics.items() if not math.isnan(float(v))]
        self._queue.put(("metrics", rows))

    def artifact(self, path: Path) -> None:
        """Queue a file or folder; one that does not exist when its turn comes is passed over."""
        self._queue.put(("artifacts", Path(path)))

    def close(self, status: str = "FINISHED") -> None:
        """Wait for the thread to send the rest, for at most `patience` seconds. Raises ValueError for no status."""
        if status not in _STATUSES:
            raise ValueError(f"status must be one of {', '.join(_STATUSES)}, got {status!r}.")
        self._queue.put(("close", status))
        self._thread.join(self.patience)
        if self._thread.is_alive():
            self._say(f"no answer for {self.patience:.0f} s")

    # -- in the thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        notes, status = _Notes(), None
        due, pause = 0.0, self.every
        while status is None:
            status = self._take(notes, due - time.monotonic())
            if status is None and time.monotonic() >= due:
                # A dead server is asked ever more rarely, so that a long run does not spend its time on it.
                pause = self.every if self._send(notes) else min(2 * pause, 300.0)
                due = time.monotonic() + pause
        self._send(notes, status)

    def _take(self, notes: _Notes, wait: float) -> str | None:
        """Move what has been queued to `notes`, waiting for the first at most `wait` seconds; the closing status."""
        try:
            kind, value = self._queue.get(timeout=max(0.05, wait))
            while True:
                if kind == "close":
                    return value
                if kind == "params":
                    notes.params |= value
                elif kind == "metrics":
                    notes.metrics += value
                else:
                    notes.artifacts.append(value)
                kind, value = self._queue.get_nowait()
        except queue.Empty:
            return None

    def _send(self, notes: _Notes, status: str | None = None) -> bool:
        """Try to send all; what was not sent stays in `notes`."""
        try:
            client = self._connect()
            self._send_params(client, notes)
            while notes.metrics:
                self._send_metrics(client, notes.metrics[:1000])
                del notes.metrics[:1000]
            while notes.artifacts:
                path = notes.artifacts[0]
                if path.is_dir():
                    client.log_artifacts(self.run_id, str(path), path.name)
                elif path.exists():
                    client.log_artifact(self.run_id, str(path))
                del notes.artifacts[0]
            if status is not None:
                client.set_terminated(self.run_id, status)
        except Exception as error:
            self.failure = f"{type(error).__name__}: {_first_line(error)}"
            self._say(self.failure)
            return False
        self.failure = None
        return True

    def _send_params(self, client: Any, notes: _Notes) -> None:
        from mlflow.entities import Param

        if not notes.params:
            return
        # A parameter cannot change in MLflow; a resumed run on another device keeps the first.
        known = client.get_run(self.run_id).data.params
        new = [Param(_name(k), str(v)[:6000]) for k, v in notes.params.items() if _name(k) not in known]
        for i in range(0, len(new), 100):
            client.log_batch(self.run_id, params=new[i : i + 100], synchronous=True)
        notes.params.clear()

    def _send_metrics(self, client: Any, rows: Iterable[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(_name(name), value, when, step) for name, value, when, step in rows]
        client.log_batch(self.run_id, metrics, synchronous=True)

    def _connect(self) -> Any:
        """The client, with its run made or taken up; every part that succeeded is not done again."""
        if self._ready:
            return self._client
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        with _quiet():
            from mlflow import MlflowClient

            with _alone(self.uri):
                self._client = self._client or MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                experiment_id = self._experiment(self._client)
        if self.run_id is not None:
            try:
                self._client.update_run(self.run_id, status="RUNNING")
            except Exception as error:
                if "not found" not in str(error).lower():
                    raise
                self.run_id = None  # the store was deleted meanwhile: begin anew
        if self.run_id is None:
            run = self._client.create_run(experiment_id, run_name=self.run_name)
            self.run_id = run.info.run_id
            self._note()
        self._ready = True
        return self._client

    def _experiment(self, client: Any) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            where = None
            if self.uri.startswith("sqlite:"):
                place = self.folder.resolve().parent / "artifacts" / urllib.parse.quote(self.experiment, safe="")
                where = place.as_uri()
            try:
                return client.create_experiment(self.experiment, artifact_location=where)
            except Exception:
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _note(self) -> None:
        temporary = self.folder / ".mlflow.json.tmp"
        note = {"uri": self.uri, "experiment": self.experiment, "run_id": self.run_id}
        temporary.write_text(json.dumps(note, indent=1), encoding="utf-8")
        os.replace(temporary, self.folder / "mlflow.json")

    def _say(self, reason: str) -> None:
        if self._said:
            return
        self._said = True
        print(
            f"\nwarning: MLflow at {self.uri} cannot be reached ({reason}); the run goes on, its metrics are in "
            f"{self.folder / 'metrics.jsonl'}.",
            file=sys.stderr,
            flush=True,
        )


def _sqlite(path: Path) -> str:
    return f"sqlite:///{path}"


def _noted(folder: Path, uri: str) -> str | None:
    """The MLflow run that was noted in a run's folder, if it lives in the same store."""
    try:
        note = json.loads((folder / "mlflow.json").read_text(encoding="utf-8"))
        return note["run_id"] if note["uri"] == uri else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _name(text: str) -> str:
    """A name that MLflow accepts."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in text)[:250]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= 160 else lines[0][:157] + "..."


@contextmanager
def _quiet() -> Any:
    """Keep MLflow's and its database tool's talk about tables off the terminal."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    import mlflow  # noqa: F401  its import sets levels of its own

    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _alone(uri: str) -> Any:
    """Let one process at a time make a new SQLite store: two that create its tables at once leave it broken."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
