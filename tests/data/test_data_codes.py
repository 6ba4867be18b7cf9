"""Tables whose columns hold codes: what they become, for one party and for parties apart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedkd import config, data
from fedkd.config import Data
from fedkd.data import Dataset, shared_file
from fedkd.data.readers.tables import table
from fedkd.errors import ConfigError, DataError

ROWS = "sex,age,arm,label\n" + "".join(
    f"{'mf'[i % 2]},{i},{1 + i % 3},{'ill' if i % 5 else 'well'}\n" for i in range(40)
)
PROXY = "arm,sex,age\n2,m,3\n1,w,4\n1,m,5\n"
CODES = {"sex": ("m", "f"), "arm": ("1", "2", "3")}


def write(folder: Path, text: str, name: str = "mine.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def load(path: str, **settings: Any) -> Dataset:
    return data.load(Data(name=path, **settings), seed=0)


def test_each_code_is_a_feature_where_its_column_stood(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, ROWS), codes=CODES)
    assert dataset.features == ("sex=m", "sex=f", "age", "arm=1", "arm=2", "arm=3")
    for part in (dataset.train, dataset.test):
        age = part.x[:, 2].long()
        expected = torch.cat(
            [
                torch.nn.functional.one_hot(age % 2, 2),
                age[:, None],
                torch.nn.functional.one_hot(age % 3, 3),
            ],
            dim=1,
        )
        assert torch.equal(part.x, expected.float())
    # 1.0 is what a program writes of 1 in a column that misses a value somewhere.
    again = load(write(tmp_path, ROWS.replace(",1,", ",01.0,")), codes=CODES)
    assert torch.equal(again.train.x, dataset.train.x)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    cells=st.lists(st.sampled_from(["a", "b", "c", "", "NA"]), min_size=2, max_size=12),
    others=st.booleans(),
    indicate=st.booleans(),
)
def test_a_row_has_one_code_or_is_missing_or_is_refused(
    tmp_path: Path, cells: list[str], others: bool, indicate: bool
) -> None:
    """Against what a reader of the documents would say, cell by cell."""
    path = Path(write(tmp_path, "x,label\n" + "".join(f'"{cell}",0\n' for cell in cells)))
    codes = ("a", "b", *(("*",) if others else ()))
    features = [f"x={code}" for code in codes] + (["x?"] if indicate else [])
    told = {"a": "x=a", "b": "x=b", "c": "x=*", "": "x?", "NA": "x?"}
    wrong = [n for n, cell in enumerate(cells) if told[cell] not in features]
    source = config.Source(codes={"x": codes}, missing="indicate" if indicate else "refuse")
    read = {"label": "label", "features": features, "class_names": ["0"], "source": source}
    if wrong:
        with pytest.raises(DataError, match=f"line {wrong[0] + 2}, column 'x'"):
            table.load_rows(path, **read)
        return
    x = table.load_rows(path, **read).x
    assert [features[int(row.argmax())] for row in x] == [told[cell] for cell in cells]
    assert x.sum(dim=1).tolist() == [1.0] * len(cells)


def test_codes_come_from_the_proxy_set_and_never_from_rows_that_are_private(tmp_path: Path) -> None:
    proxy = write(tmp_path, PROXY, "proxy.csv")
    public = {"source": proxy, "size": 2}
    mine = ROWS.replace("\nf,", "\nunheard of,", 1)
    one, other = (
        load(write(tmp_path, text), codes="public", public=public) for text in (ROWS, mine)
    )
    assert one.features == other.features == ("sex=m", "sex=w", "sex=*", "age", "arm")
    assert one.train.x[:, :3].sum(dim=1).eq(1).all()
    named = load(write(tmp_path, ROWS), codes={"sex": ("m", "*"), "arm": "public"}, public=public)
    assert named.features == ("sex=m", "sex=*", "age", "arm=1", "arm=2", "arm=*")
    with pytest.raises(ConfigError, match="expected a table of its own"):
        load(write(tmp_path, ROWS), codes="public", public={"source": "held-out", "size": 2})
    with pytest.raises(ConfigError, match="source is None"):
        load(write(tmp_path, ROWS), codes="public")
    many = "sex,age,arm,label\n" + "".join(f"name {n},1,1,ill\n" for n in range(101))
    public = {"source": write(tmp_path, many, "many.csv"), "size": 2}
    with pytest.raises(DataError, match=r"'sex' has 101 different .*data\.ignore = \['sex'\]"):
        load(write(tmp_path, ROWS), codes="public", public=public)


def test_a_proxy_set_without_labels_is_read_by_the_same_codes_and_by_name(tmp_path: Path) -> None:
    asked = Data(
        name=write(tmp_path, ROWS),
        codes="public",
        scale="public",
        public={"source": write(tmp_path, PROXY, "proxy.csv"), "size": 3},
        partition={"scheme": "iid"},
    )
    found = data.federate(asked, clients=2, seed=0)
    assert found.public is not None
    # Codes stay 0 and 1: of a rare one a standard deviation is next to nothing.
    assert found.scale.keys() == {"age", "arm"}
    assert found.public[:, :3].tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    unscaled = data.federate(asked.model_copy(update={"scale": None}), clients=2, seed=0).public
    assert unscaled is not None
    assert unscaled[:, 3:].tolist() == [[3, 2], [4, 1], [5, 1]]


def test_a_site_reads_its_own_file_by_the_codes_that_the_parties_agreed_on(tmp_path: Path) -> None:
    asked = Data(name=write(tmp_path, ROWS), codes=CODES, missing="indicate")
    content = shared_file.to_bytes(data.shared(asked, seed=0))
    shared = shared_file.parse_shared(content)

    def own(text: str) -> torch.Tensor:
        path = Path(write(tmp_path, text, "own.csv"))
        samples = shared_file.read_own(path, "csv", label="label", shared=shared)
        assert isinstance(samples.x, torch.Tensor)
        return samples.x

    assert shared.features == (
        "sex=m", "sex=f", "sex?", "age", "age?", "arm=1", "arm=2", "arm=3", "arm?",
    )  # fmt: skip
    x = own("label|other|arm|sex|age\nill|y|2|f|7\nwell|z|?|m|\n")
    assert x.tolist() == [[0, 1, 0, 7, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0, 1]]
    with pytest.raises(
        DataError, match="line 2, column 'sex': 'x' is no code of it: expected m, f"
    ):
        own("label,arm,sex,age\nill,2,x,7\n")
    with pytest.raises(DataError, match=r"no column 'sex', which the parties.*add it and leave"):
        own("label,arm,age\nill,2,7\n")


FAULTS: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "unseen": (
        ROWS.replace("m,2,", "M,2,"),
        {"codes": CODES},
        DataError,
        r"line 4, column 'sex': 'M' is no code of it: did you mean 'm'\? expected m, f; or add '",
    ),
    "missing": (
        ROWS.replace("m,2,", ",2,"),
        {"codes": CODES},
        DataError,
        "line 4, column 'sex': '' is no value; fill it in, drop the row, or say data.missing",
    ),
    "no codes": (
        ROWS.replace(",arm", ",day").replace(",1,i", ",2020-01-02,i"),
        {},
        DataError,
        r"'sex': 'm' is no .* \(nor are all cells of 'day'\).*data\.codes = { sex = \[\.\.\.\] }.*"
        r"data\.ignore = \['sex', 'day'\]",
    ),
    "date": (
        ROWS.replace("sex", "day").replace("\nm", "\n2020-01-02").replace("\nf", "\n1/2/2020"),
        {},
        DataError,
        r"'2020-01-02' is no .*; of a date make a number",
    ),
    "no such column": (ROWS, {"codes": {"sx": ("m",)}}, DataError, r"'sx' \(data.codes\): did you"),
    "clash": (
        ROWS.replace("age", "sex=m"),
        {"codes": CODES},
        DataError,
        "column 'sex=m' has the name of",
    ),
    "pictures": ("", {"name": "mnist", "codes": CODES}, ConfigError, "it is for tables"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_line_says_what_to_do(fault: str, tmp_path: Path) -> None:
    text, settings, kind, complaint = FAULTS[fault]
    path = write(tmp_path, text)
    with pytest.raises(kind, match=complaint) as caught:
        load(settings.pop("name", path), **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("codes", "complaint"),
    [
        ({"sex": []}, "a list of codes"),
        ({"sex": ["m", "m"]}, "a list of codes"),
        ("private", "a list of codes"),
        ({"a=b": ["m"]}, "rename it"),
        ({"label": ["m"]}, "leave it out there"),
    ],
)
def test_codes_that_say_nothing_are_refused(codes: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config.validate(config.Source, {"codes": codes})


def test_numbers_may_be_codes_in_a_file() -> None:
    codes = config.validate(config.Source, {"codes": {"arm": [1, 2], "sex": "public"}}).codes
    assert codes == {"arm": ("1", "2"), "sex": "public"}


def test_columns_are_left_out_by_patterns_of_names(tmp_path: Path) -> None:
    text = ROWS.replace("sex,age", "start date,age").replace("arm", "end date")
    dataset = load(write(tmp_path, text), ignore=("*date",))
    assert dataset.features == ("age",)
    with pytest.raises(DataError, match=r"no column '\*time' \(data.ignore\)"):
        load(write(tmp_path, text), ignore=("*date", "*time"))


def test_true_and_false_are_numbers_and_row_numbers_without_a_name_are_left_out(
    tmp_path: Path,
) -> None:
    text = "".join(f"{n},{'True' if n % 2 else 'FALSE'},{n},{n % 3}\n" for n in range(30))
    dataset = load(write(tmp_path, ",smokes,age,label\n" + text))
    assert dataset.features == ("smokes", "age")
    assert torch.equal(dataset.train.x[:, 0], dataset.train.x[:, 1] % 2)


def test_a_parquet_file_is_read_as_the_same_rows_of_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from datetime import date

    count = range(40)
    columns = {
        "sex": ["mf"[n % 2] for n in count],
        "age": [n / 4 if n % 7 else None for n in count],
        "smokes": [n % 3 == 0 for n in count],
        "day": [date(2020, 1, 1 + n % 28) for n in count],
        "scan": [[{"a": n}] for n in count],
        "label": pyarrow.array(["ab"[n % 2] for n in count]).dictionary_encode(),
    }
    stored = pyarrow.table(columns)
    parquet.write_table(stored, tmp_path / "mine.parquet")
    cells = [",".join(["sex", "age", "smokes", "day", "scan", "label"])]
    for row in stored.to_pylist():
        row["age"] = "" if row["age"] is None else row["age"]
        row["scan"] = "x"
        cells.append(",".join(map(str, row.values())))
    settings = {"codes": {"sex": ("m", "f")}, "ignore": ("day", "scan"), "missing": "indicate"}
    one = load(write(tmp_path, "\n".join(cells)), **settings)
    other = load(str(tmp_path / "mine.parquet"), **settings)
    assert one.features == other.features == (
        "sex=m", "sex=f", "sex?", "age", "age?", "smokes", "smokes?",
    )  # fmt: skip
    for part in ("train", "test"):
        assert torch.equal(getattr(one, part).x, getattr(other, part).x)
        assert torch.equal(getattr(one, part).y, getattr(other, part).y)
    with pytest.raises(DataError, match=r"column 'scan': .* is no text or number.*data\.ignore"):
        load(str(tmp_path / "mine.parquet"), missing="indicate")
    (tmp_path / "mine.parquet").write_bytes(b"PAR1 of nothing")
    with pytest.raises(DataError, match=r"mine\.parquet: .*expected a Parquet file"):
        load(str(tmp_path / "mine.parquet"))
