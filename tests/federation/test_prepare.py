"""What cannot run is refused before anything runs or is written."""

import gzip

import numpy as np
import pytest
import tiny

from fedkd.errors import ConfigError, DataError
from fedkd.federation.prepare import prepare, prepare_json

MISTAKES = {
    "unknown method": ({"method.name": "fedavgg"}, ConfigError, "did you mean 'fedavg'"),
    "unknown parameter": ({"method.temprature": 1.0}, ConfigError, "method.temperature"),
    "unknown model": ({"clients.models": ["lenet"]}, ConfigError, "did you mean 'lenet5'"),
    "unknown student": ({"student.model": "resnet"}, ConfigError, "did you mean 'resnet8'"),
    "rows for a CNN": ({"student.model": "lenet5"}, ConfigError, "(10,)"),
    "crops of rows": (
        {"clients.training": {"augment": ["noise", "crop"]}},
        ConfigError,
        "clients.training.augment[1] is 'crop': it is for images",
    ),
    "rows for a generator": (
        {"method.name": "dense", "rounds": 1},
        ConfigError,
        "(10,)",
    ),
    "more clients than samples": ({"clients.count": 500}, ConfigError, "500"),
    "more public than samples": ({"data.public.size": 240}, ConfigError, "240"),
    "no public set": ({"data.public": None}, ConfigError, "data.public"),
    "unlike models": ({"method.name": "fedavg"}, ConfigError, "unlike"),
    "rounds of a one-shot": ({"method.name": "dense", "rounds": 2}, ConfigError, "one-shot"),
    "missing file": ({"data.name": "nowhere.npz"}, DataError, "nowhere.npz"),
    "unknown data": ({"data.name": "minst"}, DataError, "'mnist'"),
    "no natural split": (
        {"data.partition": {"scheme": "natural"}, "clients.count": None},
        ConfigError,
        "natural",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_before_anything_runs(rows, mistake):
    changes, kind, words = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        prepare(tiny.experiment(rows, changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_that_are_too_small_for_a_model(tmp_path):
    data = tiny.write_images(tmp_path / "small.npz", side=8)
    with pytest.raises(ConfigError, match="'lenet5' cannot take images of 8x8"):
        prepare(tiny.experiment(data, {"clients.models": ["dense-cnn", "lenet5"]}))


def test_labels_out_of_range(rows, tmp_path):
    arrays = dict(np.load(rows))
    arrays["y_test"] = arrays["y_test"].copy()
    arrays["y_test"][17] = 9
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(DataError, match=r"wrong\.npz: y_test is 9 at index 17"):
        prepare(tiny.experiment(tmp_path / "wrong.npz"))


def test_a_corrupt_file_of_a_named_data_set(tmp_path, monkeypatch):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{part}-ubyte.gz").write_bytes(gzip.compress(b"no idx file")[:-5])
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        prepare(tiny.experiment("mnist"))


def test_the_wires_json_prepares_the_same_world(rows):
    experiment = tiny.experiment(rows)
    mine, theirs = prepare(experiment), prepare_json(prepare(experiment).experiment.to_json())
    assert theirs.experiment == mine.experiment
    for here, there in zip(mine.data.clients, theirs.data.clients, strict=True):
        assert here.x.equal(there.x)
        assert here.y.equal(there.y)
