import gzip
import logging
import socketserver
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from published import Published

from fedkd.data.readers import fetch, named
from fedkd.errors import DataError


def test_fetches_what_is_missing_into_the_cache(
    served: Published, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        folder = named.obtain(served.source)
    assert folder == cache / "tiny"
    names = {part.file for part in served.source.parts}
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        assert (folder / name).read_bytes() == (served.folder / name).read_bytes()
        size = (served.folder / name).stat().st_size
        assert f"{served.source.url}/{name}: {size} of {size} bytes" in caplog.text


def test_keeps_what_the_cache_already_has(served: Published, cache: Path) -> None:
    (cache / "tiny").mkdir(parents=True)
    (cache / "tiny" / "images.gz").write_bytes(b"mine")
    named.obtain(served.source)
    assert (cache / "tiny" / "images.gz").read_bytes() == b"mine"


@pytest.mark.parametrize("wrong", [b"not found, sorry", gzip.compress(b"else", mtime=0)])
def test_a_wrong_file_is_refused_and_leaves_nothing(
    wrong: bytes, served: Published, cache: Path
) -> None:
    (served.folder / "images.gz").write_bytes(wrong)
    with pytest.raises(DataError, match=r"/images\.gz sent a wrong file, nothing was kept: .*"):
        named.obtain(served.source)
    assert list((cache / "tiny").iterdir()) == []


def test_a_wrong_checksum_is_refused_and_leaves_nothing(served: Published, tmp_path: Path) -> None:
    part = replace(served.source.parts[0], sha256="0" * 64)
    source = replace(served.source, parts=(part, *served.source.parts[1:]))
    with pytest.raises(DataError, match=r"SHA-256 of the content is .*, expected 000"):
        fetch.download(source.wanted.remotes[0], tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_an_endless_answer_is_cut_off(served: Published, tmp_path: Path) -> None:
    part = served.source.parts[0]
    (served.folder / part.file).write_bytes(bytes(5_000_000))
    with pytest.raises(DataError, match=r"sent a wrong file.*more than \d+ bytes"):
        fetch.download(served.source.wanted.remotes[0], tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


class _Breaks(socketserver.StreamRequestHandler):
    """Announces 1,000 bytes, sends three and hangs up."""

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\nabc")


def test_a_broken_connection_leaves_nothing(
    published: Published, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socketserver.TCPServer(("127.0.0.1", 0), _Breaks) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        source = replace(published.source, url=f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(DataError, match=r"could not be fetched from .*997 more expected"):
            named.obtain(source)
        thread.join()
    assert list((cache / "tiny").iterdir()) == []


@pytest.mark.parametrize("reachable", [True, False])
def test_without_the_file_one_line_says_what_to_put_where(
    reachable: bool, served: Published, cache: Path
) -> None:
    source = served.source
    if reachable:
        (served.folder / "labels.gz").unlink()  # the server answers 404
    else:
        source = replace(source, url="http://127.0.0.1:9")  # "discard": nobody listens
    with pytest.raises(DataError) as caught:
        named.obtain(source)
    message = str(caught.value)
    assert "\n" not in message
    assert "data set 'tiny' is in none of" in message
    assert ("404" if reachable else "refused") in message
    assert (
        f"put images.gz, labels.gz, test-images.gz, test-labels.gz into {cache / 'tiny'}" in message
    )
    assert "$FEDKD_DATA/tiny" in message
