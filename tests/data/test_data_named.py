import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from published import Published

from fedkd import data
from fedkd.config import Data
from fedkd.data.readers import named
from fedkd.data.readers.sources import FASHION_MNIST, MNIST, PublishedSet
from fedkd.errors import DataError


def complete(source: PublishedSet) -> bool:
    return any(found for _, found in data.locations(source.name))


def test_reads_a_published_set(
    published: Published, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("FEDKD_DATA", str(published.folder.parent))
    published.folder.rename(published.folder.parent / "tiny")
    dataset = named.read(published.source)
    images, labels, test_images, test_labels = published.arrays
    np.testing.assert_allclose(dataset.train.x[:, 0].numpy(), images / 255, rtol=1e-6)
    np.testing.assert_allclose(dataset.test.x[:, 0].numpy(), test_images / 255, rtol=1e-6)
    assert dataset.train.y.tolist() == labels.tolist()
    assert dataset.test.y.tolist() == test_labels.tolist()
    assert (dataset.shape, dataset.classes, dataset.class_names) == ((1, 4, 3), 2, ("cat", "dog"))
    assert not cache.exists()


def test_looks_in_the_users_folder_first_and_in_the_cache_last(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path / "own"))
    places = [place for place, _ in data.locations("mnist")]
    assert places[0] == str(tmp_path / "own" / "mnist")
    assert str(Path("/usr/share/datasets/mnist")) in places[1:-1]
    assert places[-1] == str(cache / "mnist")


def test_the_users_folder_wins_over_the_cache(
    published: Published, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path / "own"))
    shutil.copytree(published.folder, cache / "tiny")
    assert named.obtain(published.source) == cache / "tiny"
    shutil.copytree(published.folder, tmp_path / "own" / "tiny")
    assert named.obtain(published.source) == tmp_path / "own" / "tiny"


def test_a_folder_that_lacks_a_file_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for part in MNIST.parts:
        assert data.locations("mnist")[0] == (str(tmp_path / "mnist"), False)
        (tmp_path / "mnist" / part.file).touch()
    assert data.locations("mnist")[0] == (str(tmp_path / "mnist"), True)


def test_a_corrupt_file_is_no_reason_to_look_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for part in MNIST.parts:
        (tmp_path / "mnist" / part.file).write_bytes(b"corrupt")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: corrupt"):
        data.load(Data(name="mnist"), seed=0)


@pytest.mark.parametrize("ask", [partial(named.load, test_share=0.2, seed=0), named.locations])
def test_an_unknown_name_is_told_the_nearest(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(
        DataError, match=r"'fashion-mnits'.*did you mean 'fashion-mnist'\?.*mnist.*\.npz or \.csv"
    ):
        ask("fashion-mnits")


def test_the_packaged_sample_is_balanced() -> None:
    sample = data.load(Data(), seed=0)
    assert sample.name == "fashion-mnist-sample"
    assert sample.shape == (1, 28, 28)
    assert sample.train.y.bincount().tolist() == [1000] * 10
    assert sample.test.y.bincount().tolist() == [200] * 10
    assert (float(sample.train.x.min()), float(sample.train.x.max())) == (0.0, 1.0)
    assert sample.class_names[9] == "Ankle boot"
    [(place, found)] = data.locations("fashion-mnist-sample")
    assert found
    assert Path(place).stat().st_size < 6_000_000
    assert "Zalando" in (Path(place).parent / "LICENSE-fashion-mnist.txt").read_text()


@pytest.mark.skipif(not complete(FASHION_MNIST), reason="Fashion-MNIST is not on this machine")
def test_the_sample_is_the_first_of_each_class_in_file_order() -> None:
    sample, full = (
        data.load(Data(name=n), seed=0) for n in ("fashion-mnist-sample", "fashion-mnist")
    )
    for few, many, count in ((sample.train, full.train, 1000), (sample.test, full.test, 200)):
        seen = [0] * 10
        first = []
        for index, label in enumerate(many.y.tolist()):
            if seen[label] < count:
                first.append(index)
            seen[label] += 1
        assert torch.equal(few.x, many.x[first])
        assert torch.equal(few.y, many.y[first])


@pytest.mark.skipif(not complete(MNIST), reason="MNIST is not on this machine")
def test_mnist_has_its_known_counts() -> None:
    mnist = data.load(Data(name="mnist"), seed=0)
    assert mnist.train.y.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert mnist.test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert float(mnist.train.x.mean()) == pytest.approx(0.1307, abs=5e-5)
    assert float(mnist.train.x.std()) == pytest.approx(0.3081, abs=5e-5)
