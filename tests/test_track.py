"""Tracking: numbers arrive in MLflow, and a server that is missing or dies costs nothing but tracking."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scifm.track import Mlflow, Nothing, open_tracker


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = tmp_path / "runs" / "a run"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def dead_uri(monkeypatch) -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{s.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def client_of(tracker: Mlflow) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracker.uri)


def test_none_does_nothing(folder: Path) -> None:
    tracker = open_tracker("none", "e", "r", folder)
    assert isinstance(tracker, Nothing)
    tracker.log({"a": 1.0}, 1)
    tracker.close()
    assert list(folder.parent.iterdir()) == [folder] and not list(folder.iterdir())


def test_an_unknown_kind_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match='"mlflow" or "none", got \'wandb\''):
        open_tracker("wandb", "e", "r", folder)


def test_everything_arrives_and_a_resumed_run_goes_on(folder: Path, capfd) -> None:
    tracker = Mlflow("moons (new)", "moons-0", folder)
    tracker.log_params({"steps": 3, "odd(name)": "x" * 9000})
    for step in range(1200):  # more than MLflow takes at once
        tracker.log({"train/loss": 1 / (step + 1), "train/nan": math.nan}, step)
    (folder / "figures").mkdir()
    for path in (folder / "figures" / "loss.png", folder / "score.json"):
        path.write_text("{}")
    tracker.artifact(folder / "figures")
    tracker.artifact(folder / "score.json")
    tracker.artifact(folder / "never written.txt")
    tracker.close()
    assert tracker.failure is None
    client, run_id = client_of(tracker), tracker.run_id
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.params["steps"] == "3"
    history = client.get_metric_history(run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(s, 1 / (s + 1)) for s in range(1200)]
    assert {a.path for a in client.list_artifacts(run_id)} == {"figures", "score.json"}

    again = open_tracker("mlflow", "moons (new)", "moons-0", folder)
    again.log_params({"steps": 4, "threads": 2})  # the first value of a parameter stays
    again.log({"train/loss": 7.0}, 5000)
    again.close("KILLED")
    assert isinstance(again, Mlflow) and again.run_id == run_id and again.failure is None
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params["steps"], run.data.params["threads"]) == ("KILLED", "3", "2")
    assert run.data.metrics["train/loss"] == 7.0

    # all of it lies beside the run, and nothing was said on the way
    assert {p.name for p in folder.parent.iterdir()} >= {"mlflow.db", "artifacts"}
    assert (folder.parent / "artifacts").resolve().as_uri() in run.info.artifact_uri
    captured = capfd.readouterr()
    assert "warning" not in captured.err and "INFO" not in captured.err and captured.out == ""


def test_a_store_that_was_deleted_begins_anew(folder: Path) -> None:
    first = Mlflow("e", "r", folder)
    first.close()
    note = json.loads((folder / "mlflow.json").read_text())
    (folder / "mlflow.json").write_text(json.dumps({**note, "run_id": "0" * 32}))
    again = Mlflow("e", "r", folder)
    again.log({"a": 1.0}, 1)
    again.close()
    assert again.failure is None and again.run_id not in (None, "0" * 32)
    assert client_of(again).get_run(again.run_id).data.metrics == {"a": 1.0}


def test_a_missing_server_is_said_once_and_blocks_nothing(folder: Path, dead_uri: str, capfd) -> None:
    tracker = Mlflow("e", "r", folder, every=0.1)
    for step in range(500):
        tracker.log({"a": 1.0}, step)
    tracker.artifact(folder)
    tracker.close("FAILED")
    assert tracker.failure is not None and not tracker._thread.is_alive()
    said = capfd.readouterr().err
    assert said.count("warning: MLflow") == 1 and dead_uri in said and "metrics.jsonl" in said


class Server(BaseHTTPRequestHandler):
    """As much of MLflow's REST interface as a run needs."""

    rows: list[dict] = []
    seen = threading.Event()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply: dict[str, Any] = {}
        info = {"run_id": "7" * 32, "experiment_id": "1", "status": "RUNNING", "artifact_uri": "file:///nowhere"}
        if "experiments/get-by-name" in self.path:
            reply = {"experiment": {"experiment_id": "1", "name": "e", "lifecycle_stage": "active"}}
        elif "runs/" in self.path and "log-batch" not in self.path:
            reply = {"run": {"info": info, "data": {}}, "run_info": info}
        elif "log-batch" in self.path:
            self.rows.extend(json.loads(body).get("metrics", []))
            self.seen.set()
        content = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def server(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    Server.rows, Server.seen = [], threading.Event()
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{made.server_address[1]}")
    yield made
    made.shutdown()
    made.server_close()


def test_a_server_that_dies_and_comes_back_loses_nothing(folder: Path, server, capfd) -> None:
    tracker = Mlflow("e", "r", folder, every=0.1)
    tracker.log({"a": 1.0}, 1)
    assert Server.seen.wait(60)
    server.shutdown()
    server.server_close()
    tracker.log({"a": 2.0}, 2)
    for _ in range(600):
        if tracker.failure is not None:
            break
        threading.Event().wait(0.05)
    assert tracker.failure is not None
    back = ThreadingHTTPServer(server.server_address, Server)
    threading.Thread(target=back.serve_forever, daemon=True).start()
    tracker.log({"a": 3.0}, 3)
    tracker.close()
    back.shutdown()
    back.server_close()
    assert tracker.failure is None
    assert sorted({(row["step"], row["value"]) for row in Server.rows}) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert capfd.readouterr().err.count("warning: MLflow") == 1


def test_a_server_that_dies_for_good_is_said_once(folder: Path, server, capfd) -> None:
    tracker = Mlflow("e", "r", folder, every=0.1)
    tracker.log({"a": 1.0}, 1)
    assert Server.seen.wait(60)
    server.shutdown()
    server.server_close()
    for step in range(2, 50):
        tracker.log({"a": float(step)}, step)
    tracker.close()
    assert not tracker._thread.is_alive() and tracker.failure is not None
    assert capfd.readouterr().err.count("warning: MLflow") == 1


def test_a_thread_that_hangs_is_left_behind(folder: Path, monkeypatch, capfd) -> None:
    release = threading.Event()
    monkeypatch.setattr(Mlflow, "_connect", lambda self: release.wait(60))
    tracker = Mlflow("e", "r", folder, every=0.1, patience=0.2)
    tracker.log({"a": 1.0}, 1)
    tracker.close()
    assert tracker._thread.is_alive() and "no answer" in capfd.readouterr().err
    release.set()
    tracker._thread.join(10)
