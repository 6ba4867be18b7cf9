from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedkd import data
from fedkd.config import Data
from fedkd.data import Dataset
from fedkd.errors import DataError


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


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_the_test_split_is_stratified(
    sizes: list[int], share: float, seed: int, tmp_path: Path
) -> None:
    rows = [f"{label * 1000 + i},{label}\n" for label, n in enumerate(sizes) for i in range(n)]
    expected = [min(round(share * n), n - 1) for n in sizes]
    text = "x,label\n" + "".join(rows)
    if not any(expected):
        with pytest.raises(DataError, match="leaves no row of any class for testing"):
            load(tmp_path, text, test_share=share, seed=seed)
        return
    dataset = load(tmp_path, text, test_share=share, seed=seed)
    assert dataset.test.y.bincount(minlength=len(sizes)).tolist() == expected
    both = torch.cat([dataset.train.x, dataset.test.x])[:, 0]
    assert sorted(both.int().tolist()) == sorted(int(row.split(",")[0]) for row in rows)


def test_the_split_follows_the_seed(tmp_path: Path) -> None:
    one, same, other = (load(tmp_path, ROWS, seed=seed).test.x for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_integer_labels_stand_in_the_order_of_numbers(tmp_path: Path) -> None:
    text = "x,digit\n" + "".join(f"{d},{d}\n{d},0{d}\n{d},+{d}\n" for d in (10, 9, 2))
    dataset = load(tmp_path, text, label="digit")
    assert dataset.class_names == ("2", "9", "10")
    names = [int(dataset.class_names[y]) for y in dataset.train.y.tolist()]
    assert names == dataset.train.x[:, 0].tolist()


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


FAULTS: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "no such label": (ROWS, {"label": "Lable"}, r"no column 'Lable' \(data.label\): .*'label'\?"),
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
    "too few": ("x,label\n1,a\n2,b\n", {}, "data.test_share = 0.2 of 2 rows leaves no row"),
    "client held out": (
        "x,label,site\n" + "".join(f"0,a,s{i}\n" for i in range(10)),
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
