"""Data that a function of the user's own returns, named by an import path."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedkd import config, data, rows
from fedkd.data import Dataset
from fedkd.errors import ConfigError, DataError
from fedkd.rows import View

CODE = """
import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset


def arrays():
    draws = np.random.default_rng(0)
    return {
        "x_train": draws.random((30, 4), np.float32),
        "y_train": draws.integers(0, 2, 30),
        "x_test": draws.random((10, 4), np.float32),
        "y_test": draws.integers(0, 2, 10),
        "client_train": np.arange(30) % 3,
        "class_names": ["well", "ill"],
    }


class Pictures(Dataset):
    classes = ["cat", "dog"]

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.full((1, 4, 4), index / 40), index % 2


class Augmented(Pictures):
    def __getitem__(self, index):
        return torch.rand(1, 4, 4), index % 2


def tensors():
    return TensorDataset(torch.arange(60.0).reshape(20, 3), torch.arange(20) % 2)


def fails():
    raise KeyError("no such hospital")


def nothing():
    return None


number = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine_of_a_test.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "mine_of_a_test"
    sys.modules.pop("mine_of_a_test", None)


def read(name: str, **keys: object) -> Dataset:
    return data.load(config.validate(config.Data, {"name": name, **keys}), seed=0)


def test_arrays_by_name_are_what_an_npz_file_has(mine: str) -> None:
    found = read(f"{mine}:arrays")
    assert (len(found.train), len(found.test), found.class_names) == (30, 10, ("well", "ill"))
    natural = {"name": f"{mine}:arrays", "partition": {"scheme": "natural"}}
    split = data.federate(config.validate(config.Data, natural), clients=None, seed=0)
    assert [len(each) for each in split.clients] == [10, 10, 10]


def test_a_class_or_a_function_may_give_a_data_set_of_torch(mine: str) -> None:
    found = read(f"{mine}:Pictures")
    assert (found.shape, found.class_names) == ((1, 4, 4), ("cat", "dog"))
    values = (found.train.x[:, 0, 0, 0] * 40).round().long()
    assert torch.equal(found.train.y, values % 2)
    assert len(found.train) + len(found.test) == 40
    assert read(f"{mine}:tensors").shape == (3,)


def test_a_large_data_set_of_torch_is_read_as_it_is_needed(
    mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(f"{mine}:Pictures")
    monkeypatch.setattr("fedkd.data.readers.items.LEFT", 100)
    found = read(f"{mine}:Pictures")
    assert isinstance(found.train.x, View)
    for part in ("train", "test"):
        one, other = getattr(whole, part), getattr(found, part)
        assert torch.equal(one.x, rows.whole(other.x))
        assert torch.equal(one.y, other.y)
    natural = {"name": f"{mine}:Pictures", "partition": {"scheme": "iid"}}
    split = data.federate(config.validate(config.Data, natural), clients=2, seed=0)
    assert sum(map(len, split.clients)) == len(found.train)
    with pytest.raises(DataError, match="another item 0 each time"):
        read(f"{mine}:Augmented")


def test_it_may_be_the_proxy_set(mine: str) -> None:
    asked = config.validate(
        config.Data,
        {
            "name": f"{mine}:arrays",
            "public": {"source": f"{mine}:arrays", "size": 12},
            "partition": {"scheme": "iid"},
        },
    )
    public = data.federate(asked, clients=2, seed=0).public
    assert public is not None
    assert len(public) == 12


@pytest.mark.parametrize(
    ("name", "kind", "complaint"),
    [
        ("fails", DataError, r"raised KeyError: 'no such hospital'"),
        ("nothing", DataError, "is no data: expected arrays by name"),
        ("number", ConfigError, "cannot be called"),
        ("missing", ConfigError, "cannot be imported"),
    ],
)
def test_what_goes_wrong_is_one_line(
    mine: str, name: str, kind: type[Exception], complaint: str
) -> None:
    with pytest.raises(kind, match=complaint) as caught:
        read(f"{mine}:{name}")
    assert "\n" not in str(caught.value)


def test_a_path_is_no_code(tmp_path: Path) -> None:
    np.savez(tmp_path / "a:b.npz", x_train=1)
    with pytest.raises(DataError, match=r"a:b\.npz: has no array 'y_train'"):
        read(str(tmp_path / "a:b.npz"))
