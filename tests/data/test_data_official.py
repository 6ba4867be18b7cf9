import contextlib
import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from official_files import (
    as_archive,
    as_files,
    batch,
    emnist_idx,
    emnist_matlab,
    python2_pickle,
    small_cifar,
    small_emnist,
    small_imagenet,
    small_svhn,
)

from fedkd import data
from fedkd.config import Data
from fedkd.data.readers import named, places
from fedkd.data.readers.arrays import FaultError
from fedkd.data.readers.published import matlab, official, pickled
from fedkd.data.readers.published.cifar import CIFAR_10, CIFAR_100, CifarSet
from fedkd.data.readers.published.emnist import SPLITS, EmnistSplit
from fedkd.data.readers.published.official import OfficialFile
from fedkd.data.readers.published.svhn import SVHN
from fedkd.data.readers.published.tiny_imagenet import TINY_IMAGENET
from fedkd.errors import DataError
from fedkd.rows import whole

NOBODY = "http://127.0.0.1:9"  # "discard": nobody listens


@pytest.fixture
def mine(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$FEDKD_DATA, empty, and an empty cache."""
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path / "mine"))
    return tmp_path / "mine"


@pytest.mark.parametrize("like", [CIFAR_10, CIFAR_100], ids=["10", "100"])
def test_cifar_is_read_unpacked_and_packed_alike(like: CifarSet, mine: Path) -> None:
    small, contents, x, y = small_cifar(like)
    as_files(mine / like.name, contents)
    unpacked = named.read(small)
    (mine / like.name / next(iter(contents))).unlink()
    packed, archive = as_archive(contents, like.archive.file, NOBODY)
    as_files(mine / like.name, {archive.file: packed})
    for dataset in (unpacked, named.read(replace(small, archive=archive))):
        tests = 3
        assert torch.equal(whole(dataset.train.x), torch.from_numpy(x[:-tests]).float() / 255)
        assert torch.equal(whole(dataset.test.x), torch.from_numpy(x[-tests:]).float() / 255)
        assert [*dataset.train.y.tolist(), *dataset.test.y.tolist()] == y
        assert dataset.shape == (3, 32, 32)
        assert dataset.classes == len(dataset.class_names) == (10 if like is CIFAR_10 else 100)


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (python2_pickle({"data": Evil()}), r"it names \w+\.mkdir; expected plain values and numpy"),
        (pickle.dumps(np.array([Evil()]), 2), r"it names _codecs\.encode"),
        (b"cnumpy\nload\n(S'x'\ntR.", r"it names numpy\.load"),
        (b"cbuiltins\neval\n(S'1'\ntR.", r"it names builtins\.eval"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "it names"),
        (b"cnumpy.core.multiarray\n_reconstruct\n}S'x'\nI1\nsb.", "cannot be read as a pickle"),
        (b"cnumpy\ndtype\nN}S'x'\nI1\ns\x86b.", "cannot be read as a pickle"),
        (b"Pelsewhere\n.", "it names 'elsewhere' outside"),
        (python2_pickle({"data": np.zeros(2)}), "array of type b'f8'; expected unsigned bytes"),
        (python2_pickle({"data": np.array(["a"], object)}), "array of type b'O"),
        (python2_pickle([1]), "holds a list; expected a dictionary"),
        (b"", "cannot be read as a pickle"),
        (b"\x80\x02}q\x00.tail"[:3], "cannot be read as a pickle"),
    ],
)
def test_a_pickle_runs_nothing(
    content: bytes, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FaultError, match=complaint):
        pickled.read(content)
    assert list(tmp_path.iterdir()) == []


GOOD = batch(np.zeros((2, 3, 32, 32), np.uint8), [1, 2], "labels")


@given(place=st.integers(0, len(GOOD) - 6200), value=st.integers(0, 255))
def test_a_damaged_pickle_is_read_or_refused(place: int, value: int) -> None:
    damaged = bytearray(GOOD)
    damaged[place] = value
    with contextlib.suppress(FaultError):
        assert isinstance(pickled.read(bytes(damaged)), dict)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (batch(np.zeros((2, 3, 32, 32), np.uint8), [0, 1], "labels"), r"data are \(2, 3072\)"),
        (batch(np.zeros((3, 3, 32, 32), np.uint8), [0, 1], "labels"), "expected 3 integers"),
        (batch(np.zeros((3, 3, 32, 32), np.uint8), [0, 1, 10], "labels"), "label 2 is of class 10"),
        (batch(np.zeros((3, 3, 32, 32), np.uint8), [0, 1, 2], "fine_labels"), "has no 'labels'"),
        (python2_pickle({"data": "text", "labels": [0, 1, 2]}), "data are bytes"),
        (python2_pickle({"data": np.zeros((3, 3072), "u1"), "labels": "abc"}), "no list of int"),
        (python2_pickle({"data": Evil(), "labels": [0, 1, 2]}), "code is not run"),
    ],
)
def test_a_batch_of_another_form_is_refused(content: bytes, complaint: str, mine: Path) -> None:
    small, contents, _, _ = small_cifar(CIFAR_10)
    file = "cifar-10-batches-py/data_batch_2"
    as_files(mine / "cifar-10", {**contents, file: content})
    train = [
        OfficialFile(p.file, hashlib.md5(content).hexdigest()) if p.file == file else p
        for p in small.train
    ]
    with pytest.raises(DataError, match=f"data_batch_2.*{complaint}.*fetch the official") as caught:
        named.read(replace(small, train=tuple(train)))
    assert "\n" not in str(caught.value)


def test_a_file_of_other_bytes_is_named(mine: Path) -> None:
    small, contents, _, _ = small_cifar(CIFAR_10)
    file = "cifar-10-batches-py/data_batch_4"
    as_files(mine / "cifar-10", {**contents, file: contents[file] + b"."})
    with pytest.raises(DataError, match=r"data_batch_4: MD5 is \w{32}, expected \w{32}; fetch"):
        named.read(small)
    # The real data set asks for the real batches.
    with pytest.raises(DataError, match=r"data_batch_1: MD5 is .*, expected c99cafc152244af753f7"):
        data.load(Data(name="cifar-10"), seed=0)


def test_what_a_folder_lacks_is_said(mine: Path) -> None:
    small, contents, _, _ = small_cifar(CIFAR_10)
    gone = "cifar-10-batches-py/test_batch"
    as_files(mine / "cifar-10", {f: c for f, c in contents.items() if f != gone})
    away = replace(small, archive=replace(small.archive, url=f"{NOBODY}/cifar-10-python.tar.gz"))
    with pytest.raises(DataError) as caught:
        named.read(away)
    message = str(caught.value)
    assert f"({mine / 'cifar-10'} lacks {gone}) and could not be fetched from {NOBODY}" in message
    assert "or cifar-10-python.tar.gz into" in message
    assert "\n" not in message


def test_an_archive_is_checked_whole_and_in_its_parts(mine: Path) -> None:
    small, contents, _, _ = small_cifar(CIFAR_10)
    file = CIFAR_10.archive.file
    first = {file: content for file, content in contents.items() if "batch_3" not in file}
    packed, archive = as_archive(first, file, NOBODY)
    as_files(mine / "cifar-10", {file: packed})
    with pytest.raises(DataError, match=r"tar\.gz: lacks cifar-10-batches-py/data_batch_3"):
        named.read(replace(small, archive=archive))
    with pytest.raises(DataError, match=r"tar\.gz: SHA-256 is \w{64}, expected 6d958be0"):
        named.read(small)
    cut = packed[: len(packed) // 2]
    as_files(mine / "cifar-10", {file: cut})
    broken = replace(archive, sha256=hashlib.sha256(cut).hexdigest())
    with pytest.raises(DataError, match=r"tar\.gz: cannot be unpacked"):
        named.read(replace(small, archive=broken))


def test_svhn_has_its_zeros_and_stands_upright(mine: Path) -> None:
    small, contents, x = small_svhn(NOBODY)
    as_files(mine / "svhn", contents)
    dataset = named.read(small)
    assert dataset.train.y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert dataset.test.y.tolist() == [0, 9, 8, 7]
    assert dataset.shape == (3, 32, 32)
    assert dataset.class_names == tuple("0123456789")
    red_at_2_down_7_across_of_the_fifth = whole(dataset.train.x)[4, 0, 2, 7]
    assert float(red_at_2_down_7_across_of_the_fifth) == pytest.approx(x[2, 7, 0, 4] / 255)


def test_svhn_of_other_bytes_or_another_form_is_refused(mine: Path) -> None:
    small, contents, _ = small_svhn(NOBODY)
    as_files(mine / "svhn", contents)
    with pytest.raises(DataError, match=r"train_32x32\.mat: SHA-256 is .*, expected 435e94d6"):
        named.read(SVHN)
    with pytest.raises(DataError, match=r"X is uint8 of shape \(32, 32, 3, 12\); expected .* 13\)"):
        named.read(replace(small, images=(13, 4)))


def packed_matlab(
    small: EmnistSplit, contents: dict[str, bytes]
) -> tuple[EmnistSplit, dict[str, bytes]]:
    packed, archive = as_archive(contents, "matlab.zip", NOBODY)
    return replace(small, matlab_archive=archive.official), {"matlab.zip": packed}


@pytest.mark.parametrize("version", ["gzip", "gzip.zip", "matlab.zip"])
@pytest.mark.parametrize("split", ["balanced", "letters"])
def test_emnist_stands_upright_in_every_form(split: str, version: str, mine: Path) -> None:
    small, x, y = small_emnist(split)
    contents = emnist_idx(small, x, y)
    if version == "matlab.zip":
        writers = [7, 7, 3, 900, 3, 7, 900, 900, 3, 1, 1, 2, 2]
        small, contents = packed_matlab(small, emnist_matlab(small, x, y, writers))
    elif version == "gzip.zip":
        packed, archive = as_archive(contents, "gzip.zip", NOBODY)
        small, contents = replace(small, archive=archive), {"gzip.zip": packed}
    as_files(mine / "emnist", contents)
    dataset = named.read(small)
    assert torch.equal(whole(dataset.train.x)[:, 0], torch.from_numpy(x[:9]).float() / 255)
    assert torch.equal(whole(dataset.test.x)[:, 0], torch.from_numpy(x[9:]).float() / 255)
    assert [*dataset.train.y.tolist(), *dataset.test.y.tolist()] == y.tolist()
    if version == "matlab.zip":
        assert dataset.groups is not None
        assert dataset.groups.tolist() == [1, 1, 0, 2, 0, 1, 2, 2, 0]
    else:
        assert dataset.groups is None


def test_damaged_emnist_is_refused(mine: Path) -> None:
    small, x, y = small_emnist("digits")
    contents = emnist_idx(small, x, y)
    labels = next(file for file in contents if "train-labels" in file)
    as_files(mine / "emnist", {**contents, labels: contents[labels][:-9]})
    with pytest.raises(DataError, match=r"emnist-digits-train-labels-idx1-ubyte\.gz: corrupt or"):
        named.read(small)
    as_files(mine / "emnist", emnist_idx(small, x, y + np.uint8(3)))
    with pytest.raises(
        DataError, match=r"emnist-digits: label \d is of class \d+; expected 0 to 9"
    ):
        named.read(small)
    matlab_set, packed = packed_matlab(small, emnist_matlab(small, x, y, [1] * 8))
    as_files(mine / "emnist", packed)
    with pytest.raises(DataError, match=r"emnist-digits\.mat: has 8 writers of 9 characters"):
        named.read(matlab_set)
    # A MATLAB file is given to its reader only as the official one: else it may crash.
    with pytest.raises(DataError, match=r"matlab\.zip: SHA-256 is \w{64}, expected e1fa805c"):
        named.read(small)


SMALL, X, Y = small_emnist("mnist")
[MATLAB] = emnist_matlab(SMALL, X, Y, [1] * 13).values()


@pytest.mark.parametrize("length", [0, 100, 128, 132, 200, len(MATLAB) - 1])
def test_a_cut_matlab_file_is_refused(length: int) -> None:
    with pytest.raises(FaultError, match=r"cannot be read as a \.mat file|lacks the variable"):
        matlab.read(MATLAB[:length], ("dataset",))


def test_what_is_no_matlab_file_of_version_5_is_refused() -> None:
    newer = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\x89HDF"
    for content in (b"", b"text", newer):
        with pytest.raises(FaultError, match=r"cannot be read as a \.mat file of version 5"):
            matlab.read(content, ("dataset",))
    with pytest.raises(FaultError, match="lacks the variable 'X'"):
        matlab.read(MATLAB, ("X",))
    with pytest.raises(FaultError, match=r"lacks the field 'train\.pictures'"):
        matlab.field(matlab.read(MATLAB, ("dataset",))["dataset"], "train", "pictures")


def test_tiny_imagenet_is_read_from_its_folders_and_its_archive(mine: Path) -> None:
    small, contents = small_imagenet()
    as_files(mine / "tiny-imagenet", contents)
    packed, archive = as_archive(contents, "tiny-imagenet-200.zip", NOBODY)
    unpacked = named.read(small)
    (mine / "tiny-imagenet/tiny-imagenet-200/wnids.txt").unlink()
    as_files(mine / "tiny-imagenet", {archive.file: packed})
    for dataset in (unpacked, named.read(replace(small, archive=archive))):
        assert dataset.class_names == ("goldfish", "Egyptian cat")
        assert dataset.train.y.tolist() == [0, 0, 1, 1]
        assert dataset.test.y.tolist() == [1, 0]
        means = (whole(dataset.train.x).mean(dim=(2, 3)) * 255).round()
        for found, colours in zip(
            means, [(120,) * 3, (20, 90, 220), (60,) * 3, (20, 90, 220)], strict=True
        ):
            assert found.tolist() == pytest.approx(colours, abs=3)
        tests = (whole(dataset.test.x).mean(dim=(1, 2, 3)) * 255).round()
        assert tests.tolist() == [200, 100]


INSIDE = "tiny-imagenet-200"


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("wnids.txt", b"n01443537\n", "has 1 lines; expected 2"),
        ("wnids.txt", b"n01443537\n../../etc\n", "of which one is '../../etc'"),
        ("wnids.txt", b"\xff\n", "is no text"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn02124075\n", "names 1 pictures; expected 2"),
        ("val/val_annotations.txt", b"../val_0.JPEG\tn02124075\n", "line 1 is '../val_0.JPEG"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn09999999\n", "line 1 is 'val_0.JPEG"),
        ("val/val_annotations.txt", b"val_0.JPEG\n", "line 1 is 'val_0.JPEG'"),
        ("val/images/val_1.JPEG", b"\xff\xd8\xff\xe0 damaged", "val_1.JPEG cannot be read as a"),
        ("val/images/val_1.JPEG", None, "val_1.JPEG: No such file"),
    ],
)
def test_damaged_tiny_imagenet_is_refused(
    file: str, content: bytes | None, complaint: str, mine: Path
) -> None:
    small, contents = small_imagenet()
    contents.pop(f"{INSIDE}/{file}")
    as_files(mine / "tiny-imagenet", contents)
    if content is not None:
        as_files(mine / "tiny-imagenet", {f"{INSIDE}/{file}": content})
    with pytest.raises(DataError, match=complaint):
        named.read(small)


def test_a_picture_of_another_size_is_refused(mine: Path) -> None:
    small, contents = small_imagenet()
    as_files(mine / "tiny-imagenet", contents)
    with pytest.raises(DataError, match=r"n01443537_0\.JPEG is uint8 .*expected bytes of 9x9"):
        named.read(replace(small, side=9))


def test_large_sets_stay_bytes_and_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
    labels = np.arange(4)
    small = official.samples(images, labels)
    monkeypatch.setattr(official, "LEFT", 100)
    large = official.samples(images, labels)
    assert isinstance(small.x, torch.Tensor)
    assert not isinstance(large.x, torch.Tensor)
    assert torch.equal(whole(large.x), small.x)
    assert torch.equal(small.x, torch.from_numpy(images).float() / 255)


def test_each_set_has_the_published_counts_and_as_many_names_as_classes() -> None:
    names = {split.split: split.class_names for split in SPLITS}
    counts = {split.split: sum(split.images) for split in SPLITS}
    assert counts == {
        "byclass": 814_255, "bymerge": 814_255, "balanced": 131_600,
        "letters": 145_600, "digits": 280_000, "mnist": 70_000,
    }  # fmt: skip
    assert {split: len(each) for split, each in names.items()} == {
        "byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10,
    }  # fmt: skip
    assert [names["balanced"][label] for label in (9, 10, 35, 36, 46)] == ["9", "A", "Z", "a", "t"]
    assert len(set(CIFAR_100.class_names)) == 100
    assert list(CIFAR_100.class_names) == sorted(CIFAR_100.class_names)
    assert sum(SVHN.images) == 99_289
    assert TINY_IMAGENET.classes * sum(TINY_IMAGENET.images) == 110_000


def test_an_archive_is_fetched_and_checked(
    served: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, contents, _, _ = small_cifar(CIFAR_10)
    url = served.source.url
    packed, archive = as_archive(contents, CIFAR_10.archive.file, url)
    as_files(served.folder, {archive.file: packed})
    mine = replace(small, archive=archive)
    assert places.locations(mine.wanted)[-1] == (str(cache / "cifar-10"), False)
    assert len(named.read(mine).train) == 15
    assert places.locations(mine.wanted)[-1] == (str(cache / "cifar-10"), True)
    (cache / "cifar-10" / archive.file).unlink()
    as_files(served.folder, {archive.file: packed[:-1] + b"?"})
    with pytest.raises(DataError, match=r"sent a wrong file, nothing was kept: .* SHA-256 is"):
        named.obtain(mine)
    assert list((cache / "cifar-10").iterdir()) == []


def test_by_name_writers_are_natural_clients_and_another_split_is_public(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters, x, y = small_emnist("letters")
    small, packed = packed_matlab(
        letters, emnist_matlab(letters, x, y, [5, 5, 2, 2, 2, 2, 5, 5, 9, 0, 0, 0, 0])
    )
    digits, x_digits, y_digits = small_emnist("digits")
    as_files(mine / "emnist", {**packed, **emnist_idx(digits, x_digits, y_digits)})
    digits = replace(digits, matlab_archive=OfficialFile("elsewhere.zip"))
    for source in (small, digits):
        monkeypatch.setitem(named._SOURCES, source.name, source)
    monkeypatch.setattr(official, "LEFT", 100)  # so that records stay bytes
    mix = data.federate(
        Data(
            name="emnist-letters",
            partition={"scheme": "natural"},
            public={"source": "emnist-digits", "size": 8},
        ),
        clients=None,
        seed=0,
    )
    assert [len(client) for client in mix.clients] == [4, 4, 1]
    assert torch.equal(whole(mix.clients[2].x)[0, 0], torch.from_numpy(x[8]).float() / 255)
    assert mix.public is not None
    assert len(whole(mix.public)) == 8
    assert mix.class_names[:2] == ("A", "B")
