"""Whole numbers as bytes: so many bits each, or entropy coded.

What comes off a wire is as long as the reader says beforehand, or it is refused: the entropy coder
is liblzma's LZMA2 without a container, so that a message says neither how large it will be nor how
much memory it wants.
"""

import lzma

import numpy as np
from numpy.typing import NDArray

from fedkd.errors import MessageError

Symbols = NDArray[np.uint16]
_FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "dict_size": 1 << 16,
        # No byte says what the next will be, nor does its place.
        "lc": 0,
        "lp": 0,
        "pb": 0,
        "mode": lzma.MODE_NORMAL,
        "mf": lzma.MF_BT4,
        "nice_len": 273,
    }
]
_CHUNK, _OVERHEAD = 1 << 15, 8
"""Bytes that fit into any of LZMA2's chunks, and more than it adds to one that does not shrink."""


def packed(symbols: Symbols, bits: int) -> bytes:
    """Numbers below 2^bits, `bits` each, the least significant first."""
    each = (symbols[:, None] >> np.arange(bits, dtype=np.uint16)) & 1
    return np.packbits(each.astype(np.uint8).ravel(), bitorder="little").tobytes()


def unpacked(data: bytes, count: int, bits: int) -> Symbols:
    """What `packed` made of `count` numbers; `data` is as long as `packed_size` says."""
    found = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little")
    places = np.uint16(1) << np.arange(bits, dtype=np.uint16)
    symbols: Symbols = (found.reshape(count, bits) * places).sum(axis=1, dtype=np.uint16)
    return symbols


def packed_size(count: int, bits: int) -> int:
    """Bytes that `packed` takes for `count` numbers."""
    return -(-count * bits // 8)


def planes(symbols: Symbols, bits: int) -> bytes:
    """Numbers below 2^bits a byte each, from 9 bits on all low bytes before all high ones."""
    low = (symbols & 255).astype(np.uint8).tobytes()
    return low if bits <= 8 else low + (symbols >> 8).astype(np.uint8).tobytes()


def from_planes(data: bytes, bits: int) -> Symbols:
    """What `planes` made."""
    found = np.frombuffer(data, np.uint8).astype(np.uint16)
    if bits <= 8:
        return found
    low, high = found.reshape(2, -1)
    symbols: Symbols = low | (high << np.uint16(8))
    return symbols


def squeezed(data: bytes) -> bytes:
    """Data entropy coded; the same data gives the same bytes, by one version of liblzma."""
    return lzma.compress(data, format=lzma.FORMAT_RAW, filters=_FILTERS)


def most_squeezed(size: int) -> int:
    """The most bytes that `squeezed` takes for `size` bytes."""
    return size + _OVERHEAD * (2 + size // _CHUNK)


def restored(data: bytes, size: int) -> bytes:
    """The `size` bytes that `squeezed` was given.

    No more than these are ever made, whatever a stranger sent.

    Raises:
        MessageError: it is not what `squeezed` makes of so many bytes.
    """
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        found = decoder.decompress(data, max_length=size)
        rest = b"" if decoder.eof else decoder.decompress(b"", max_length=1)
    except (lzma.LZMAError, EOFError) as error:
        raise MessageError("is not what the entropy coder makes") from error
    if len(found) != size or rest or not decoder.eof or decoder.unused_data:
        raise MessageError("is not what the entropy coder makes")
    return found
