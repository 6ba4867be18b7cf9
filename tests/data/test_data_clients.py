"""A file of its own for each natural client."""

from pathlib import Path
from typing import Any

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
