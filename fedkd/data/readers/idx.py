"""A strict reader of idx.gz files, the form in which MNIST and its kin are published."""

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fedkd.errors import DataError

_UNSIGNED_BYTE = 0x08
_CHUNK = 1 << 20
_REMEDY = "fetch the official file again"


@dataclass(frozen=True)
class IdxFile:
    """One file of a published data set.

    Attributes:
        file: its official name, such as `train-images-idx3-ubyte.gz`.
        shape: what its header must say: (N, H, W) for images, (N,) for labels.
        sha256: of the decompressed content, header included, in hexadecimal. Distributors
            compress anew (Debian leaves out the file's name); the content does not differ. None:
            we know none that was published.
    """

    file: str
    shape: tuple[int, ...]
    sha256: str | None

    @property
    def size(self) -> int:
        """The number of values, one byte each."""
        return math.prod(self.shape)


def read(path: Path, part: IdxFile) -> NDArray[np.uint8]:
    """The values in `path`: uint8, of shape `part.shape`.

    Never decompresses more than the header of `part` allows.

    Raises:
        DataError: the file is missing, corrupt, truncated, too long, or not what `part` says.
    """
    try:
        with path.open("rb") as packed:
            return values(str(path), packed, part)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected an idx.gz file") from error


def values(where: str, packed: IO[bytes], part: IdxFile) -> NDArray[np.uint8]:
    """As `read`, of a file that is open, or is in another.

    Raises:
        DataError: as `read`; it names the file by `where`.
    """
    try:
        with gzip.open(packed) as stream:
            content = _content(stream, part)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{where}: corrupt or truncated gzip ({error}); {_REMEDY}") from error
    except ValueError as error:
        raise DataError(f"{where}: {error}; {_REMEDY}") from error
    return np.frombuffer(content, np.uint8, count=part.size).reshape(part.shape)


def _content(stream: gzip.GzipFile, part: IdxFile) -> bytearray:
    """The values without the header; ValueError says what is wrong with them."""
    header = stream.read(4 + 4 * len(part.shape))
    magic = bytes([0, 0, _UNSIGNED_BYTE, len(part.shape)])
    if header[:4] != magic:
        raise ValueError(f"magic number is {header[:4].hex()}, expected {magic.hex()}")
    shape = tuple(np.frombuffer(header[4:], ">u4").tolist()) if len(header) % 4 == 0 else ()
    if shape != part.shape:
        raise ValueError(f"dimensions are {shape}, expected {part.shape}")
    content = bytearray()
    while len(content) < part.size:
        chunk = stream.read(min(_CHUNK, part.size - len(content)))
        if not chunk:
            raise ValueError(f"truncated after {len(content)} of {part.size} values")
        content += chunk
    if stream.read(1):
        raise ValueError(f"bytes trail the {part.size} values that the header announces")
    digest = None if part.sha256 is None else hashlib.sha256(header + content).hexdigest()
    if digest != part.sha256:
        raise ValueError(f"SHA-256 of the content is {digest}, expected {part.sha256}")
    return content
