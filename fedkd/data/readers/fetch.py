"""Fetching one published file into the cache: all of it and verified, or nothing."""

import http.client
import logging
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fedkd.errors import DataError

_log = logging.getLogger(__name__)

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20
_WHO = {"User-Agent": "fedkd"}
"""Some servers, NIST's among them, refuse whoever calls itself Python's own library."""


@dataclass(frozen=True)
class Remote:
    """A file that is fetched where it is not found.

    Attributes:
        url: of the file itself.
        file: what it is called in the folder.
        limit: how many bytes it has at most.
        check: raises `DataError` unless the file at a path is the one that was published.
    """

    url: str
    file: str
    limit: int
    check: Callable[[Path], object]


def download(remote: Remote, folder: Path) -> None:
    """Fetch a file, check that it is the one that was published, and put it into `folder`.

    The file appears under its name only when it is complete and verified.

    Raises:
        DataError: what came is another file; nothing is kept.
        OSError, http.client.HTTPException: the network or the folder failed; nothing is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{remote.file}.", delete=False) as file:
        partial = Path(file.name)
        try:
            _receive(remote.url, file, limit=remote.limit)
            file.close()
            remote.check(partial)
            partial.replace(folder / remote.file)
        except DataError as error:
            raise DataError(f"{remote.url} sent a wrong file, nothing was kept: {error}") from error
        finally:
            file.close()
            partial.unlink(missing_ok=True)


def _receive(url: str, file: IO[bytes], *, limit: int) -> None:
    """Write what `url` sends into `file`, at most `limit` bytes, logging every mebibyte."""
    _log.info("fetching %s", url)
    received = 0
    with _answer(url) as response:
        expected = response.length or 0  # as announced; reading counts it down
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            if received > limit:
                raise DataError(f"more than {limit} bytes")
            file.write(chunk)
            _log.info("%s: %d of %s bytes", url, received, expected or "unknown")
    if received < expected:
        raise http.client.IncompleteRead(b"", expected - received)


def _answer(url: str) -> http.client.HTTPResponse:
    try:
        # The URLs are constants of this package, never a user's text; what comes is checked.
        request = urllib.request.Request(url, headers=_WHO)  # noqa: S310
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()  # a refusal such as 404 holds its connection open
        raise
    return response
