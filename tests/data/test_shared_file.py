"""Data where parties are apart: what all hold survives the file, what is one's own must fit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedkd import config, data
from fedkd.data import shared_file
from fedkd.data.types import FederatedData, Samples
from fedkd.errors import DataError

# Rows that hold their own number are on no scale.

HEART = (
    "age,sex,hospital,sick\n63,1,b,yes\n41,0,a,no\n57,1,a,yes\n38,0,b,no\n50,1,a,no\n44,0,b,yes\n"
)


def shared(public=None, features=(), classes=("no", "yes"), width=2):
    test = Samples(torch.arange(3.0 * width).view(3, width), torch.tensor([0, 1, 1]))
    return FederatedData("name", len(classes), classes, (), public, test, features)


def equal(one, other):
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


@given(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True),
    st.integers(1, 4),
    st.booleans(),
)
def test_what_all_hold_survives_its_file_and_gives_the_same_bytes(names, width, has_public):
    public = torch.rand(2, width) if has_public else None
    told = shared(public, tuple(f"f{i}" for i in range(width)), tuple(names), width)
    content = shared_file.to_bytes(told)
    back = shared_file.parse_shared(content)
    assert (back.name, back.classes, back.class_names) == ("name", len(names), tuple(names))
    assert back.features == told.features
    assert equal(back.public, public)
    assert equal(back.test.x, told.test.x)
    assert equal(back.test.y, told.test.y)
    assert back.clients == ()
    assert shared_file.to_bytes(back) == content


def test_the_shared_part_is_that_of_the_simulation(rows):
    section = config.Data(name=str(rows), public=config.PublicData(size=30), partition=config.Iid())
    whole = data.federate(section, clients=3, seed=5)
    alone = data.shared(section, seed=5)
    assert shared_file.to_bytes(alone) == shared_file.to_bytes(whole)


@pytest.mark.parametrize("spoil", [b"", b"no safetensors", lambda b: b[:-1], lambda b: b[:40]])
def test_another_file_is_refused_by_name(tmp_path, spoil):
    file = tmp_path / "shared.safetensors"
    content = shared_file.to_bytes(shared())
    file.write_bytes(spoil if isinstance(spoil, bytes) else spoil(content))
    with pytest.raises(DataError, match=r"shared\.safetensors: is not the file"):
        shared_file.read_shared(file)


def test_another_digest_and_a_missing_file_are_refused(tmp_path):
    file = tmp_path / "shared.safetensors"
    with pytest.raises(DataError, match="No such file"):
        shared_file.read_shared(file)
    file.write_bytes(shared_file.to_bytes(shared()))
    with pytest.raises(DataError, match="get the coordinator's file"):
        shared_file.read_shared(file, digest="0" * 64)


def test_a_party_sees_its_own_and_of_the_others_nothing():
    own = Samples(torch.ones(4, 2), torch.tensor([0, 1, 0, 1]))
    seen = shared_file.seen_from(shared(), 3, samples={1: own})
    assert [len(client) for client in seen.clients] == [0, 4, 0]
    assert seen.counts().tolist() == [[0, 0], [2, 2], [0, 0]]
    assert seen.clients[0].x.shape == (0, 2)


def test_a_csv_is_read_by_its_columns_names_and_its_labels_words(tmp_path):
    whole, own = tmp_path / "whole.csv", tmp_path / "own.csv"
    whole.write_text(HEART)
    section = config.Data(name=str(whole), label="sick", client="hospital", test_share=0.4)
    told = shared_file.parse_shared(shared_file.to_bytes(data.shared(section, seed=1)))
    assert told.features == ("age", "sex")
    own.write_text("note,sick,sex,age\nx,yes,1,70\ny,no,0,20\n")
    read = shared_file.read_own(own, "csv", label="sick", shared=told)
    assert read.x.tolist() == [[70.0, 1.0], [20.0, 0.0]]
    assert read.y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sick,sex\nyes,1\n", "no column 'age'"),
        ("sick,age,sex\nmaybe,1,1\n", "line 2, column 'sick': 'maybe' is no class"),
        ("sick,age,sex\nyes,,1\n", "is no finite number"),
    ],
)
def test_a_csv_that_does_not_fit_is_named(tmp_path, text, complaint):
    (tmp_path / "own.csv").write_text(text)
    told = shared(features=("age", "sex"))
    with pytest.raises(DataError, match=complaint):
        shared_file.read_own(tmp_path / "own.csv", "csv", label="sick", shared=told)


def test_integer_labels_are_the_same_however_they_are_written(tmp_path):
    (tmp_path / "own.csv").write_text("label,a,b\n+01,1,2\n0,3,4\n")
    told = shared(features=("a", "b"), classes=("0", "1"))
    read = shared_file.read_own(tmp_path / "own.csv", "csv", label="label", shared=told)
    assert read.y.tolist() == [1, 0]


def test_an_npz_needs_no_test_set_and_must_fit(tmp_path):
    own = tmp_path / "own.npz"
    shared_file.write_own(own, Samples(torch.rand(5, 2), torch.tensor([0, 1, 1, 0, 1])))
    read = shared_file.read_own(own, "npz", label="", shared=shared())
    assert read.x.shape == (5, 2)
    with pytest.raises(DataError, match=r"shape \(2,\); expected \(4,\)"):
        shared_file.read_own(own, "npz", label="", shared=shared(width=4))
    np.savez(own, x_train=np.zeros((2, 2)), y_train=np.array([0, 2]))
    with pytest.raises(DataError, match=r"expected 0\.\.1: the classes that the parties agreed on"):
        shared_file.read_own(own, "npz", label="", shared=shared())
    with pytest.raises(DataError, match=r"give the data as \.npz"):
        shared_file.read_own(tmp_path / "own.csv", "csv", label="", shared=shared())


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8), (3, 8, 8)])
def test_what_a_trial_writes_for_a_site_is_read_back_bit_for_bit(tmp_path, shape):
    own = Samples(torch.rand(4, *shape), torch.tensor([0, 1, 1, 0]))
    test = Samples(torch.rand(1, *shape), torch.tensor([0]))
    told = FederatedData("name", 2, ("a", "b"), (), None, test)
    shared_file.write_own(tmp_path / "own.npz", own)
    read = shared_file.read_own(tmp_path / "own.npz", "npz", label="", shared=told)
    assert torch.equal(read.x, own.x)
    assert torch.equal(read.y, own.y)


def test_a_party_without_a_value_joins_and_its_own_indicators_are_made(tmp_path):
    own = tmp_path / "own.csv"
    told = shared(features=("age", "age?", "scan", "scan?"), width=4)
    own.write_text("sick,scan,age\nyes,?,70\nno,,\nyes,2,50\n")
    read = shared_file.read_own(own, "csv", label="sick", shared=told)
    assert read.x.tolist() == [[70, 0, 0, 1], [0, 1, 0, 1], [50, 0, 2, 0]]
    own.write_text("sick,scan,scan?,age\nyes,0,1,70\n")  # with its own indicator
    assert shared_file.read_own(own, "csv", label="sick", shared=told).x.tolist() == [[70, 0, 0, 1]]
    own.write_text("sick,scan,scan?,age\nyes,,1,70\n")
    with pytest.raises(DataError, match="column 'scan': '' is no finite number"):
        shared_file.read_own(own, "csv", label="sick", shared=told)


def test_a_column_that_nobody_filled_must_still_be_there(tmp_path):
    (tmp_path / "own.csv").write_text("sick,Age\nyes,70\n")
    told = shared(features=("age", "age?"))
    with pytest.raises(
        DataError, match=r"no column 'age'.*'Age'.*add it and leave its cells empty"
    ):
        shared_file.read_own(tmp_path / "own.csv", "csv", label="sick", shared=told)


def test_a_proxy_set_with_other_columns_is_refused(tmp_path):
    for name, header in (("mine", "age,dose"), ("theirs", "dose,age")):
        text = f"{header},label\n" + "".join(f"{i},{i},{i % 2}\n" for i in range(12))
        (tmp_path / f"{name}.csv").write_text(text)
    section = config.Data(
        name=str(tmp_path / "mine.csv"),
        public=config.PublicData(source=str(tmp_path / "theirs.csv"), size=4),
        partition=config.Iid(),
    )
    with pytest.raises(
        DataError, match=r"has the columns dose, age; expected those of 'mine\.csv'"
    ):
        data.federate(section, clients=2, seed=0)
