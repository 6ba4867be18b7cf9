"""Fetching one published file into the cache: all of it and verified, or nothing."""

import http.client
import logging
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from fedkd.data.readers import idx
from fedkd.errors import DataError

_log = logging.getLogger(__name__)

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20


def download(url: str, part: idx.IdxFile, folder: Path) -> None:
    """Fetch `url`, check that it holds `part`, and put it into `folder` under its official name.

    The file appears under its name only when it is complete and verified.

    Raises:
        DataError: what came is not `part`; nothing is kept.
        OSError, http.client.HTTPException: the network or the folder failed; nothing is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{part.file}.", delete=False) as file:
        partial = Path(file.name)
        try:
            _receive(url, file, limit=2 * part.size + _CHUNK)
            file.close()
            idx.read(partial, part)
            partial.replace(folder / part.file)
        except DataError as error:
            raise DataError(f"{url} sent a wrong file, nothing was kept: {error}") from error
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
        # The URLs are constants of this package (https), never a user's text.
        response: http.client.HTTPResponse = urllib.request.urlopen(url, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()  # a refusal such as 404 holds its connection open
        raise
    return response
