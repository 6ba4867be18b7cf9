import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedkd import config, data
from fedkd.config import Data
from fedkd.data import Dataset, sound
from fedkd.errors import ConfigError, DataError

# Rows that hold their own number are on no scale.


def load(folder: Path, text: str | bytes, *, seed: int = 0, **settings: Any) -> Dataset:
    path = folder / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return data.load(Data(name=str(path), **settings), seed=seed)


ROWS = "age,label,dose\n" + "".join(
    f"{i},{'ill' if i % 3 else 'well'},{i / 2}\n" for i in range(30)
)


def test_features_are_the_other_columns_in_order(tmp_path: Path) -> None:
    dataset = load(tmp_path, ROWS)
    assert (dataset.shape, dataset.classes, dataset.class_names) == ((2,), 2, ("ill", "well"))
    assert (dataset.name, dataset.groups) == ("mine.csv", None)
    for part in (dataset.train, dataset.test):
        age, dose = part.x.unbind(1)
        assert torch.equal(dose, age / 2)
        assert torch.equal(part.y, (age % 3 == 0).long())
    ages = torch.cat([dataset.train.x[:, 0], dataset.test.x[:, 0]])
    assert sorted(ages.tolist()) == list(range(30))


def numbered(order: Iterable[int], *, number: str = "{}") -> str:
    """Rows that hold their own number, in the order asked for, with labels of two classes."""
    rows = (f"{number.format(i)},{i % 7 / 8},{'ab'[i % 3 == 0]}\n" for i in order)
    return "x,y,label\n" + "".join(rows)


def sides(dataset: Dataset) -> tuple[list[int], list[int]]:
    train, test = (part.x[:, 0].int().tolist() for part in (dataset.train, dataset.test))
    return train, test


@given(
    rows=st.sets(st.integers(-300, 300), min_size=25),
    label=st.sampled_from(["a", "b", "0", "A class of its own"]),
    share=st.floats(0.3, 0.7),
    seed=st.integers(0, 3),
    draw=st.randoms(use_true_random=False),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_one_row_more_moves_no_other_row_wherever_it_stands(
    rows: set[int], label: str, share: float, seed: int, draw: random.Random, tmp_path: Path
) -> None:
    order = sorted(rows)
    train, test = sides(load(tmp_path, numbered(order), test_share=share, seed=seed))
    assert sorted(train + test) == order
    header, *lines = numbered(order).splitlines()
    lines.append(f"301,0,{label}")
    draw.shuffle(lines)
    text = "\n".join([header, *lines]) + "\n"
    more = sides(load(tmp_path, text, test_share=share, seed=seed))
    assert tuple(set(side) - {301} for side in more) == (set(train), set(test))


def test_the_share_for_testing_is_right_in_expectation_in_each_class(tmp_path: Path) -> None:
    dataset = load(tmp_path, numbered(range(3000)), test_share=0.3)
    counts = dataset.test.y.bincount() / (dataset.test.y.bincount() + dataset.train.y.bincount())
    assert counts.tolist() == pytest.approx([0.3, 0.3], abs=0.06)  # four standard deviations


def test_a_number_is_what_is_hashed_not_how_it_is_written(tmp_path: Path) -> None:
    plain = sides(load(tmp_path, numbered(range(60))))
    for number in ("{}.00", "+{}", "{}e0", " {} "):
        assert sides(load(tmp_path, numbered(range(60), number=number))) == plain
    zeros = load(tmp_path, numbered([*range(60), 0]).replace("\n0,", "\n-0.0,", 1))
    assert sides(zeros)[0].count(0) in (0, 2)


def test_copies_of_a_row_are_on_one_side(tmp_path: Path) -> None:
    train, test = sides(load(tmp_path, numbered([*range(40), *range(40)]), test_share=0.5))
    assert not set(train) & set(test)
    assert {train.count(i) + test.count(i) for i in range(40)} == {2}


def test_a_share_that_leaves_no_row_on_a_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"of 30 rows leaves no row for testing; raise it.*data\.te"
    ):
        load(tmp_path, ROWS, test_share=1e-6)
    with pytest.raises(DataError, match=r"of 30 rows leaves no row for training; lower it"):
        load(tmp_path, ROWS, test_share=1 - 1e-6)


def test_a_test_file_of_its_own_leaves_all_rows_for_training(tmp_path: Path) -> None:
    file = tmp_path / "test.csv"
    file.write_text("dose;note;label;age\n2.5;x;well;7\n")
    dataset = load(tmp_path, ROWS, test=str(file))
    assert len(dataset.train) == 30
    assert (dataset.test.x.tolist(), dataset.test.y.tolist()) == ([[7, 2.5]], [1])
    file.write_text("age,dose,label\n2.5,1,dead\n")
    with pytest.raises(DataError, match=r"test\.csv: line 2, column 'label': 'dead' is no class"):
        load(tmp_path, ROWS, test=str(file))
    itself = str(tmp_path / "." / "mine.csv")
    with pytest.raises(DataError, match=r"mine\.csv: data\.test is this file itself"):
        load(tmp_path, ROWS, test=itself)
    with pytest.raises(ConfigError, match=r"data\.test is .*it is for tables, in \.csv"):
        data.load(Data(test=str(file)), seed=0)


def test_the_split_follows_the_seed(tmp_path: Path) -> None:
    one, same, other = (load(tmp_path, ROWS, seed=seed).test.x for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_integer_labels_stand_in_the_order_of_numbers(tmp_path: Path) -> None:
    text = "x,digit\n" + "".join(f"{d},{d}\n{d}.1,0{d}\n{d}.2,+{d}\n" for d in (10, 9, 2))
    dataset = load(tmp_path, text, label="digit")
    assert dataset.class_names == ("2", "9", "10")
    names = [int(dataset.class_names[y]) for y in dataset.train.y.tolist()]
    assert names == dataset.train.x[:, 0].int().tolist()


def test_natural_clients_come_from_their_column(tmp_path: Path) -> None:
    text = "site,x,label\n" + "".join(
        f"{('ZH', 'BE', 'GE')[i % 3]},{i % 3},{i % 2}\n" for i in range(60)
    )
    dataset = load(tmp_path, text, client="site")
    assert dataset.groups is not None
    assert dataset.shape == (1,)
    # BE, GE, ZH in sorted order are 0, 1, 2; ZH has x = 0, BE 1, GE 2.
    assert dataset.groups.tolist() == [[2, 0, 1][int(x)] for x in dataset.train.x[:, 0]]


@pytest.mark.parametrize(
    "text",
    [
        ROWS.replace("\n", "\r\n"),
        ROWS.replace(",", " , "),
        ROWS.replace("\n", "\n\n"),
        ROWS.replace("well", '"well"'),
    ],
)
def test_what_spreadsheets_write_reads_the_same(text: str, tmp_path: Path) -> None:
    plain, other = load(tmp_path, ROWS), load(tmp_path, text)
    assert torch.equal(plain.train.x, other.train.x)
    assert torch.equal(plain.train.y, other.train.y)
    assert plain.class_names == other.class_names


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    rows = "".join(f"{i % 2},{i}\n" for i in range(10))
    assert load(tmp_path, "\ufefflabel,x\n" + rows).shape == (1,)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_semicolons_and_tabs_are_found_by_the_labels_column(separator: str, tmp_path: Path) -> None:
    plain = load(tmp_path, ROWS)
    text = ROWS.replace("age,", "age (years, months),").replace(",", separator)
    text = text.replace(f"years{separator} ", "years, ")
    other = load(tmp_path, text)
    assert other.features == ("age (years, months)", "dose")
    assert torch.equal(plain.train.x, other.train.x)
    comma = load(tmp_path, ROWS.replace("age", "age;dose;note"))
    assert comma.features == ("age;dose;note", "dose")


def test_a_decimal_comma_is_read_once_it_is_said(tmp_path: Path) -> None:
    text = ROWS.replace(",", ";").replace(".", ",")
    with pytest.raises(DataError, match=r"line 2, column 'dose': '0,0' .*data\.decimal = ','"):
        load(tmp_path, text)
    assert torch.equal(load(tmp_path, text, decimal=",").train.x, load(tmp_path, ROWS).train.x)
    with pytest.raises(
        DataError, match=r"'1\.000,5' is no .*; write no thousands .*leave out data"
    ):
        load(tmp_path, text.replace("0,5", "1.000,5"), decimal=",")


def test_a_column_may_be_left_out(tmp_path: Path) -> None:
    text = ROWS.replace("age", "day,age").replace("\n", "\n2024-03-01,")
    text = text.removesuffix("2024-03-01,")
    with pytest.raises(DataError, match=r"'2024-03-01' is no finite.*data\.ignore = \['day'\]"):
        load(tmp_path, text)
    dataset = load(tmp_path, text, ignore=("day",))
    assert dataset.features == ("age", "dose")
    assert torch.equal(dataset.train.x, load(tmp_path, ROWS).train.x)
    with pytest.raises(
        ConfigError, match=r"data\.ignore is \('day',\).*it is for tables, in \.csv"
    ):
        data.load(Data(ignore=("day",)), seed=0)
    for key in ("label", "client"):
        table = {"name": "a.csv", key: "day", "ignore": ["age", "day"]}
        with pytest.raises(ConfigError, match=rf"data\.ignore names 'day', which is data\.{key}:"):
            config.validate(Data, table)
    with pytest.raises(DataError, match=r"no column 'days' \(data\.ignore\): did you mean 'day'"):
        load(tmp_path, text, ignore=("days",))


def test_labels_that_are_a_measurement_are_refused_and_fractions_warned_of(
    tmp_path: Path, warned: list[str]
) -> None:
    with pytest.raises(
        DataError, match=r"column 'age' .* has 30 different values in 30 rows, which"
    ):
        load(tmp_path, ROWS.replace("ill", "0").replace("well", "1"), label="age")
    halves = ROWS.replace("ill", "0.5").replace("well", "1")
    load(tmp_path, halves)
    assert "numbers with fractions, such as 0.5: each of its 2" in "".join(warned)
    warned.clear()
    load(tmp_path, halves.replace(",", ";").replace(".", ","), decimal=",")
    assert "numbers with fractions, such as 0,5: each of its 2" in "".join(warned)


def test_a_class_that_is_in_one_part_only_is_warned_of(tmp_path: Path, warned: list[str]) -> None:
    sound.look_over(load(tmp_path, ROWS + "7,rare,1\n"))
    assert re.search(
        r"no sample for (training|testing) of 'rare': .*, or name a test file by", "".join(warned)
    )


FAULTS: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "no such label": (ROWS, {"label": "Lable"}, r"no column 'Lable' \(data.label\): .*'label'\?"),
    "other separator": (
        ROWS.replace(",", "/"),
        {},
        r"one column only, 'age/label/dose'; expected commas, semicolons, tabs or bars",
    ),
    "no such client": (ROWS, {"client": "site"}, r"no column 'site' \(data.client\): it has age,"),
    "text": ("x,label\n1,a\nseven,b\n", {}, "line 3, column 'x': 'seven' is no finite number"),
    "empty cell": ("x,label\n1,a\n\n,b\n", {}, "line 4, column 'x': '' is no finite number"),
    "infinite": ("x,label\n1,a\ninf,b\n", {}, "line 3, column 'x': 'inf' is no finite"),
    "too large": ("x,label\n1,a\n-1e39,b\n", {}, "line 3, column 'x': '-1e39' is no finite"),
    "empty label": ("x,label\n1,a\n2, \n", {}, "line 3, column 'label' is empty"),
    "ragged": ("x,label\n1,a\n2,b,3\n", {}, "line 3 has 3 cells; expected 2"),
    "twice": ("x,x,label\n1,2,a\n", {}, "column name 'x' is empty or stands twice"),
    "unnamed": ("x,,label\n1,2,a\n", {}, "column name '' is empty or stands twice"),
    "no features": ("label\na\nb\n", {}, "no column of features; it has label"),
    "no rows": ("x,label\n", {}, "1 lines; expected a header and at least one row"),
    "nothing": ("", {}, "0 lines; expected"),
    "not UTF-8": (b"x,label\n1,\xff\n", {}, "no CSV in UTF-8 after line"),
    "open quote": ('x,label\n1,a\n2,"b\n', {}, "no CSV in UTF-8 after line 2"),
    "underscore": ("x,label\n1,a\n1_000,b\n", {}, "line 3, column 'x': '1_000' is no finite"),
    "other digits": ("x,label\n1,a\n\u0661,b\n", {}, "line 3, column 'x': '.' is no finite"),
    "client held out": (
        "x,label,site\n" + "".join(f"{i},a,s{i}\n" for i in range(19)),
        {"client": "site"},
        "column 'site': all rows of 's.' were held out for testing",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_line_names_file_line_and_column(fault: str, tmp_path: Path) -> None:
    text, settings, complaint = FAULTS[fault]
    with pytest.raises(DataError, match=f"mine.csv: {complaint}") as caught:
        load(tmp_path, text, **settings)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: No such file"):
        data.load(Data(name=str(tmp_path / "nowhere.csv")), seed=0)


GAPS = "age,dose,label\n" + "".join(
    f"{i},{('', '?', 'NA', 'nan', ' NaN ', str(i))[i % 6]},{i % 2}\n" for i in range(24)
)


def test_a_missing_cell_is_0_and_a_column_more_says_so(tmp_path: Path) -> None:
    told = load(tmp_path, GAPS, missing="indicate")
    assert told.features == ("age", "age?", "dose", "dose?")
    for part in (told.train, told.test):
        age, none, dose, missing = part.x.unbind(1)
        assert not none.any()
        assert torch.equal(missing == 1, age % 6 != 5)
        assert torch.equal(dose, torch.where(missing == 1, 0.0, age))


def test_the_columns_do_not_depend_on_what_is_missing(tmp_path: Path) -> None:
    whole = load(tmp_path, ROWS, missing="indicate")
    assert whole.features == ("age", "age?", "dose", "dose?")
    assert not whole.train.x[:, [1, 3]].any()


def test_a_missing_cell_is_refused_unless_asked_for_and_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2, column 'dose': '' .*data\.missing = 'indicate'"):
        load(tmp_path, GAPS)
    with pytest.raises(
        DataError, match=r"column 'x': 'seven' is no finite number; fill it in, encod"
    ):
        load(tmp_path, "x,label\n1,a\nseven,b\n", missing="indicate")


def test_a_column_with_the_name_of_an_indicator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"column 'x\?' has the name of a column that data\.missing"
    ):
        load(tmp_path, "x,x?,label\n1,2,a\n", missing="indicate")
