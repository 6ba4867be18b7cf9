"""A file of its own for each natural client."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedkd import config, data
from fedkd.errors import ConfigError, DataError


def section(**settings: Any) -> config.Data:
    return config.validate(config.Data, settings)


@pytest.fixture
def hospitals(tmp_path: Path) -> Path:
    """Three CSV files, the last with its columns in another order, and all rows in one."""
    everything = ["who,age,dose,label"]
    for number, name in enumerate(("north", "east", "south")):
        rows = [(n + 100 * number, n % 5, "ab"[n % 3 == 0]) for n in range(20 + number)]
        everything += [f"{number},{age},{dose},{label}" for age, dose, label in rows]
        order = (2, 0, 1) if name == "south" else (0, 1, 2)
        lines = [("age", "dose", "label"), *rows]
        text = "\n".join(",".join(str(row[place]) for place in order) for row in lines)
        (tmp_path / f"{number}-{name}.csv").write_text(text)
    (tmp_path / "all.txt").write_text("\n".join(everything))
    (tmp_path / "all.txt").rename(tmp_path / "together.csv")
    return tmp_path


def test_files_are_clients_as_a_column_of_one_file_would_make_them(hospitals: Path) -> None:
    split = data.federate(section(clients=[str(hospitals / "?-*.csv")]), clients=None, seed=3)
    named = [str(hospitals / f"{n}.csv") for n in ("0-north", "1-east", "2-south")]
    listed = data.federate(section(clients=named), clients=None, seed=3)
    together = data.federate(
        section(
            name=str(hospitals / "together.csv"), client="who", partition={"scheme": "natural"}
        ),
        clients=None,
        seed=3,
    )
    for found in (split, listed):
        assert found.class_names == together.class_names
        assert len(found.clients) == len(together.clients) == 3
        for one, other in zip(found.clients, together.clients, strict=True):
            assert torch.equal(one.x, other.x)
            assert torch.equal(one.y, other.y)
        assert torch.equal(found.test.x, together.test.x)
    assert split.name == f"3 of {hospitals.name}"


def test_a_fault_names_the_file_and_its_own_line(hospitals: Path) -> None:
    path = hospitals / "1-east.csv"
    path.write_text(path.read_text().replace("103,3", "ill,3"))
    with pytest.raises(DataError, match=r"1-east\.csv: line 5, column 'age': 'ill' is no finite"):
        data.federate(section(clients=[str(hospitals / "?-*.csv")]), clients=None, seed=3)
    path.write_text(path.read_text().replace("dose", "rate"))
    with pytest.raises(DataError, match=r"1-east\.csv: lacks dose; .*columns of .*0-north\.csv"):
        data.federate(section(clients=[str(hospitals / "?-*.csv")]), clients=None, seed=3)


def test_what_is_no_file_for_each_of_several_clients_is_refused(hospitals: Path) -> None:
    one = str(hospitals / "0-north.csv")
    for clients, complaint in (
        ([one, one], "twice"),
        ([one, str(hospitals / "?-n*")], "twice"),
        ([one, str(hospitals / "none*.csv")], "nothing is there"),
        ([one], "two or more clients"),
    ):
        with pytest.raises(DataError, match=complaint):
            data.load(section(clients=clients), seed=0)
    with pytest.raises(ConfigError, match="leave one of them out"):
        section(clients=[one], name="mnist")
    with pytest.raises(ConfigError, match="leave one of them out"):
        section(clients=[one], client="who")


def test_an_experiment_that_was_written_down_is_the_same(hospitals: Path) -> None:
    asked = section(clients=[str(hospitals / "?-*.csv")])
    again = config.validate(config.Data, asked.model_dump(mode="json", exclude_none=True))
    assert again == asked
    assert isinstance(again.partition, config.Natural)
    dealt = section(clients=[str(hospitals / "?-*.csv")], partition={"scheme": "iid"})
    assert len(data.federate(dealt, clients=2, seed=0).clients) == 2


def test_arrays_may_be_clients(tmp_path: Path) -> None:
    draws = np.random.default_rng(2)
    for number, name in enumerate(("b", "a")):
        x = np.full((20 + number, 3), number, np.float32) + draws.random((20 + number, 3)) / 2
        y = np.arange(20 + number) % 3
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x[:1])
    asked = section(clients=[str(tmp_path / "b.npz"), str(tmp_path / "a.npz")])
    found = data.federate(asked, clients=None, seed=0)
    for number, client in enumerate(found.clients):
        assert client.x.min() >= number
        assert client.x.max() < number + 1
    assert sum(map(len, found.clients)) + len(found.test) == 41
    np.savez(tmp_path / "a.npz", x_train=x[:, :2], y_train=y)
    with pytest.raises(DataError, match=r"a\.npz: has another shape of x_train; expected \(3,\)"):
        data.federate(asked, clients=None, seed=0)


def test_tables_of_texts_may_be_clients(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "public.txt").write_text("a text of a client\nwords that are public\n")
    for name, header in (("a", "text,label"), ("b", "label,text,note")):
        rows = [{"text": f"text {n}", "label": "xy"[n % 2], "note": "-"} for n in range(15)]
        lines = [",".join(row[column] for column in header.split(",")) for row in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]))
    text = {"texts": str(tmp_path / "public.txt"), "length": 12}
    asked = section(clients=[str(tmp_path / "?.csv")], text=text)
    found = data.federate(asked, clients=None, seed=0)
    assert len(found.clients) == 2
    assert found.class_names == ("x", "y")
    assert sum(map(len, found.clients)) + len(found.test) == 30


def test_who_took_what_stands_in_one_file(hospitals: Path) -> None:
    asked = section(clients=[str(hospitals / "?-*.csv")])
    with pytest.raises(ConfigError, match=r"users' clicks are read from one file: .*data\.client"):
        data.load(asked, seed=0, targets="items")
