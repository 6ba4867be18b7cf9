import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedkd.data.readers import idx
from fedkd.data.readers.idx import IdxFile
from fedkd.errors import DataError

VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
HEADER = b"\0\0\x08\x03" + b"\0\0\0\x02" + b"\0\0\0\x03" + b"\0\0\0\x04"
CONTENT = HEADER + VALUES.tobytes()
PART = IdxFile("values.gz", (2, 3, 4), hashlib.sha256(CONTENT).hexdigest())


@given(values=arrays.arrays(np.uint8, arrays.array_shapes(max_dims=3, max_side=9)))
def test_reads_back_what_was_written(
    values: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("idx") / "values.gz"
    content = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    content += values.tobytes()
    path.write_bytes(gzip.compress(content))
    part = IdxFile("values.gz", values.shape, hashlib.sha256(content).hexdigest())
    np.testing.assert_array_equal(idx.read(path, part), values)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\0\0\x0d\x03" + CONTENT[4:], "magic number is 00000d03, expected 00000803"),
        (b"", "magic number is , expected 00000803"),
        (CONTENT[:10], r"dimensions are \(\), expected \(2, 3, 4\)"),
        (HEADER.replace(b"\x04", b"\x05"), r"dimensions are \(2, 3, 5\), expected \(2, 3, 4\)"),
        (CONTENT[:-1], "truncated after 23 of 24 values"),
        (CONTENT + b"\0", "bytes trail the 24 values"),
        (CONTENT[:-1] + b"\xff", f"SHA-256 of the content is .*, expected {PART.sha256}"),
    ],
)
def test_names_the_file_and_what_is_wrong(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "values.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=f"values.gz: {complaint}.*fetch the official file again"):
        idx.read(path, PART)


@given(cut=st.integers(0, len(gzip.compress(CONTENT)) - 1))
def test_a_file_cut_anywhere_is_refused(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("idx") / "values.gz"
    path.write_bytes(gzip.compress(CONTENT)[:cut])
    with pytest.raises(DataError, match=r"values\.gz: (corrupt or truncated gzip|magic number)"):
        idx.read(path, PART)


def test_what_is_no_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "values.gz"
    path.write_bytes(CONTENT)
    with pytest.raises(DataError, match="corrupt or truncated gzip"):
        idx.read(path, PART)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.gz: No such file"):
        idx.read(tmp_path / "nowhere.gz", PART)


def test_reads_no_further_than_the_header_allows(tmp_path: Path) -> None:
    # Were the whole stream decompressed, the damage at its end would be found first.
    bomb = bytearray(gzip.compress(CONTENT + bytes(50_000_000)))
    bomb[-8:] = b"damaged!"
    path = tmp_path / "values.gz"
    path.write_bytes(bomb)
    with pytest.raises(DataError, match="bytes trail"):
        idx.read(path, PART)
