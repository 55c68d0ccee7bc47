"""Where files are looked for, in which order, and that a broken download is never found again."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scifm.data import fetch

CONTENT = b"numbers " * 1000


@pytest.fixture
def places(tmp_path, monkeypatch) -> dict[str, Path]:
    """Folders of the four places, all empty; the network is a file: URL."""
    found = {name: tmp_path / name for name in ("run", "shared", "cache", "network")}
    for folder in found.values():
        folder.mkdir()
    monkeypatch.setenv("SCIFM_DATA", str(found["shared"]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(found["cache"]))
    token = fetch.search_path.set((found["run"],))
    yield found
    fetch.search_path.reset(token)


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_run_comes_before_shared_data_before_the_cache_before_the_network(places):
    url = put(places["network"] / "a.nc", b"network").as_uri()
    cached = places["cache"] / "scifm" / "set" / "a.nc"
    for expected in (cached, places["shared"] / "set" / "a.nc", places["run"] / "set" / "a.nc"):
        assert fetch.find("set", "a.nc", url=url).read_bytes() == (b"network" if expected == cached else b"before")
        put(expected, b"this one")
        found = fetch.find("set", "a.nc", url=url)
        assert found == expected and found.read_bytes() == b"this one"
        put(expected, b"before")


def test_a_run_s_copy_of_another_set_is_not_taken(places):
    put(places["run"] / "other" / "a.nc", b"other")
    mine = put(places["cache"] / "scifm" / "set" / "a.nc", b"mine")
    assert fetch.find("set", "a.nc") == mine


def test_a_download_is_made_once(places):
    source = put(places["network"] / "a.nc")
    path = fetch.find("set", "a.nc", url=source.as_uri(), sha256=fetch.sha256_of(source))
    assert path == fetch.cache() / "set" / "a.nc" and path.read_bytes() == CONTENT
    source.unlink()
    assert fetch.find("set", "a.nc", url=source.as_uri()) == path
    assert [p.name for p in path.parent.iterdir()] == ["a.nc"]


def test_without_variables_the_cache_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch.cache() == tmp_path / ".cache" / "scifm"


def nothing_cached(places) -> bool:
    return not [p for p in places["cache"].rglob("*") if p.is_file()]


def test_another_content_is_refused_and_forgotten(places):
    url = put(places["network"] / "a.nc").as_uri()
    with pytest.raises(ValueError, match=r"another content \(sha256 \w{12} instead of 000000000000\)"):
        fetch.find("set", "a.nc", url=url, sha256="0" * 64)
    assert nothing_cached(places)


def test_a_check_that_fails_refuses_and_forgets(places):
    def check(path):
        raise ValueError(f"{len(path.read_bytes())} bytes are no grid")

    url = put(places["network"] / "a.nc").as_uri()
    with pytest.raises(ValueError, match="8000 bytes are no grid"):
        fetch.find("set", "a.nc", url=url, check=check)
    assert nothing_cached(places)


class Cut(BaseHTTPRequestHandler):
    """A server that promises more than it sends, or has nothing."""

    def do_GET(self):
        if self.path == "/none":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(2 * len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Cut)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


def test_a_download_cut_short_is_refused_and_forgotten(places, server):
    with pytest.raises(ValueError, match="ended after 8000 of 16000 bytes"):
        fetch.find("set", "a.nc", url=f"{server}/a.nc")
    assert nothing_cached(places)


@pytest.mark.parametrize("url", ["{server}/none", "http://127.0.0.1:9/a.nc", "file:///nowhere/a.nc"])
def test_out_of_reach_says_where_the_file_may_be_put(places, server, url):
    with pytest.raises(FileNotFoundError, match=r"a\.nc is not on this machine.*SCIFM_DATA.*set/a\.nc"):
        fetch.find("set", "a.nc", url=url.format(server=server))
    assert nothing_cached(places)


def test_a_cache_that_cannot_be_written(places, monkeypatch):
    url = put(places["network"] / "a.nc").as_uri()
    monkeypatch.setenv("XDG_CACHE_HOME", str(put(places["cache"] / "a file")))
    with pytest.raises(FileNotFoundError, match=r"a\.nc is not on this machine.*cannot be written.*XDG_CACHE_HOME"):
        fetch.find("set", "a.nc", url=url)


def test_a_file_that_nobody_offers(places):
    with pytest.raises(FileNotFoundError, match=r"set: a\.nc is not on this machine\. Put it at"):
        fetch.find("set", "a.nc")


def test_a_wrong_variable_is_named(places, monkeypatch):
    monkeypatch.setenv("SCIFM_DATA", str(places["run"] / "missing"))
    with pytest.raises(FileNotFoundError, match=r"SCIFM_DATA=.*missing is not a folder"):
        fetch.find("set", "a.nc")


@pytest.mark.parametrize(("dataset", "name"), [("set", "../a.nc"), ("../set", "a.nc"), ("set", "")])
def test_names_stay_inside_their_folders(places, dataset, name):
    with pytest.raises(ValueError, match="plain names"):
        fetch.find(dataset, name)
