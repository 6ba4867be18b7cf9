"""The tiny published data set on disk, behind a web server on this machine, and an empty cache."""

import functools
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from published import Published, publish


@pytest.fixture
def published(tmp_path: Path) -> Published:
    folder = tmp_path / "published"
    folder.mkdir()
    return publish(folder)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the answers under way

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up early is part of a test."""


@pytest.fixture
def served(published: Published, monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    """The same with a URL that answers."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(_Quiet, directory=str(published.folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield replace(published, source=replace(published.source, url=url))
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no folder of the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda app: str(folder))
    monkeypatch.delenv("FEDKD_DATA", raising=False)
    return folder
