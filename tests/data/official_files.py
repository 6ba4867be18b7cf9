"""Tiny data sets in the very form of official files: CIFAR, SVHN, EMNIST and Tiny-ImageNet."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from published import idx_bytes
from scipy.io import savemat

from fedkd.data.readers.published.cifar import CifarSet
from fedkd.data.readers.published.emnist import SPLITS, EmnistSplit
from fedkd.data.readers.published.official import Archive, OfficialFile
from fedkd.data.readers.published.svhn import SVHN, HouseNumbers
from fedkd.data.readers.published.tiny_imagenet import TINY_IMAGENET, TinyImages

DRAW = np.random.default_rng(22)


class _AsPython2(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes as Python 2 did, in which CIFAR's batches were written: texts are bytes."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, text: bytes | str) -> None:
        content = text.encode() if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_text


def python2_pickle(value: Any) -> bytes:
    stream = io.BytesIO()
    _AsPython2(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def as_files(folder: Path, contents: dict[str, bytes]) -> None:
    for file, content in contents.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)


def as_archive(contents: dict[str, bytes], file: str, url: str) -> tuple[bytes, Archive]:
    stream = io.BytesIO()
    if file.endswith(".zip"):
        with zipfile.ZipFile(stream, "w") as packing:
            for name, content in contents.items():
                packing.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as packing:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packing.addfile(member, io.BytesIO(content))
    packed = stream.getvalue()
    return packed, Archive(f"{url}/{file}", len(packed), hashlib.sha256(packed).hexdigest())


def batch(images: NDArray[np.uint8], labels: list[int], key: str) -> bytes:
    rows = images.reshape(len(images), -1)
    return python2_pickle({"batch_label": "one of some", key: labels, "data": rows})


def small_cifar(
    like: CifarSet, images: int = 3
) -> tuple[CifarSet, dict[str, bytes], NDArray[np.uint8], list[int]]:
    """A set like CIFAR-10 or CIFAR-100 of a few images a batch; the last batch is for testing."""
    parts = (*like.train, *like.test)
    shape = (len(parts) * images, 3, 32, 32)
    x = DRAW.integers(0, 256, shape, np.uint8)
    y = DRAW.integers(0, len(like.class_names), len(x)).tolist()
    spans = [slice(n * images, (n + 1) * images) for n in range(len(parts))]
    contents = {
        part.file: batch(x[span], y[span], like.labels.decode())
        for part, span in zip(parts, spans, strict=True)
    }
    known = [OfficialFile(f, hashlib.md5(c).hexdigest()) for f, c in contents.items()]
    small = replace(like, train=(*known[:-1],), test=(known[-1],), images=(images, images))
    return small, contents, x, y


def small_svhn(url: str) -> tuple[HouseNumbers, dict[str, bytes], NDArray[np.uint8]]:
    """Twelve and four house numbers; the labels are 1 to 10, 1 and 2, and those of the tests."""
    x = DRAW.integers(0, 256, (32, 32, 3, 16), np.uint8)
    y = np.array([*range(1, 11), 1, 2, 10, 9, 8, 7], np.uint8)[:, None]
    contents = {}
    parts = []
    for part, span in zip(SVHN.parts, (slice(0, 12), slice(12, 16)), strict=True):
        stream = io.BytesIO()
        savemat(stream, {"X": x[..., span], "y": y[span]}, do_compression=True)
        contents[part.file] = content = stream.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        parts.append(Archive(f"{url}/{part.file}", len(content), digest))
    return HouseNumbers((parts[0], parts[1]), (12, 4)), contents, x


def small_emnist(split: str) -> tuple[EmnistSplit, NDArray[np.uint8], NDArray[np.uint8]]:
    """The description of a split with nine and four characters, upright images and labels."""
    like = next(each for each in SPLITS if each.split == split)
    x = DRAW.integers(0, 256, (13, 28, 28), np.uint8)
    y = DRAW.integers(0, len(like.class_names), 13, np.uint8)
    return replace(like, images=(9, 4)), x, y


def emnist_idx(small: EmnistSplit, x: NDArray[np.uint8], y: NDArray[np.uint8]) -> dict[str, bytes]:
    lying = np.ascontiguousarray(x.transpose(0, 2, 1))
    return {
        f"gzip/{small.name}-{part}-{kind}-ubyte.gz": gzip.compress(idx_bytes(values))
        for part, span in (("train", slice(0, 9)), ("test", slice(9, 13)))
        for kind, values in (
            ("images-idx3", lying[span]),
            ("labels-idx1", y[span] + np.uint8(small.first)),
        )
    }


def emnist_matlab(
    small: EmnistSplit, x: NDArray[np.uint8], y: NDArray[np.uint8], writers: list[int]
) -> dict[str, bytes]:
    rows = x.transpose(0, 2, 1).reshape(len(x), -1)
    parts = {
        part: {
            "images": rows[span],
            "labels": (y[span] + np.uint8(small.first))[:, None],
            "writers": np.array(writers, float)[span, None],
        }
        for part, span in (("train", slice(0, 9)), ("test", slice(9, 13)))
    }
    stream = io.BytesIO()
    mapping = np.array([[n, ord(name)] for n, name in enumerate(small.class_names)])
    savemat(stream, {"dataset": {**parts, "mapping": mapping}}, do_compression=True)
    return {f"matlab/{small.name}.mat": stream.getvalue()}


def small_imagenet() -> tuple[TinyImages, dict[str, bytes]]:
    """Two classes of two and one pictures of 8x8 pixels: the first of each class is grey."""
    wnids = ("n02124075", "n01443537")  # as in the official file, in no order
    contents = {
        "wnids.txt": "\n".join(wnids).encode() + b"\n",
        "words.txt": b"n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\n"
        b"n02124075\tEgyptian cat\n",
        "val/val_annotations.txt": b"val_0.JPEG\tn02124075\t0\t32\t44\t62\n"
        b"val_1.JPEG\tn01443537\t52\t55\t57\t59\n",
        "val/images/val_0.JPEG": _jpeg(200),
        "val/images/val_1.JPEG": _jpeg(100),
    }
    for place, wnid in enumerate(wnids):
        contents[f"train/{wnid}/images/{wnid}_0.JPEG"] = _jpeg(60 * (place + 1))
        contents[f"train/{wnid}/images/{wnid}_1.JPEG"] = _jpeg((20, 90, 220))
    inside = {f"tiny-imagenet-200/{file}": content for file, content in contents.items()}
    return replace(TINY_IMAGENET, classes=2, images=(2, 1), side=8), inside


def _jpeg(colour: int | tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    mode = "L" if isinstance(colour, int) else "RGB"
    Image.new(mode, (8, 8), colour).save(stream, "JPEG", quality=95)
    return stream.getvalue()
