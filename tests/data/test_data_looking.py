"""What a file holds and which part of it is what: counts against oracles, guesses from kinds."""

import json
import tomllib
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fedkd.data.looking import Column, Guess, Wished, look, table_guesses
from fedkd.data.looking.columns import described
from fedkd.data.looking.concerns import leak
from fedkd.data.looking.toml import written
from fedkd.errors import ConfigError, DataError

LIGHT = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CELLS = st.sampled_from(
    ["", "?", "1", "2", "2.5", "1,5", "red", "blue", "2024-05-01", "nan", "x y z"]
)


def many(*cells, times=40):
    return [*cells] * times


@pytest.mark.parametrize(
    ("name", "cells", "kind"),
    [
        ("age", [str(n) for n in range(20, 60)] * 2, "number"),
        ("size", many("1.5", "", "2"), "number"),
        ("size", many("1,5", "2,25"), "number"),
        ("colour", many("red", "blue", "?"), "category"),
        ("day", many("2024-05-01", "2024-05-02 10:30"), "date"),
        ("day", many("1.5.2024", "24.12.2024"), "date"),
        ("when", many("2024-05-01T10:30:00Z", "2024-05-01T11:30:00Z"), "date"),
        ("patient", [f"P{n}" for n in range(40)], "identifier"),
        ("id", [str(7 * n) for n in range(40)], "identifier"),
        ("count", [str(n) for n in range(40)], "identifier"),  # as rows are numbered
        ("weight", [str(7 * n) for n in range(40)], "number"),
        ("note", [f"this one says {n} words" for n in range(40)], "text"),
        ("device", many("A7"), "constant"),
        ("nothing", many("", "NA"), "empty"),
    ],
)
def test_a_column_is_of_the_kind_that_its_cells_are(name, cells, kind):
    assert described(name, cells).kind == kind


@LIGHT
@given(st.lists(CELLS, max_size=60))
def test_what_is_counted_is_what_stands_there(cells):
    found = described("x", cells)
    present = [cell for cell in cells if cell not in ("", "?", "nan")]
    counts = Counter(present)
    assert found.missing == len(cells) - len(present)
    assert found.distinct == len(counts)
    assert found.rarest == min(counts.values(), default=0)
    assert all(counts[value] == count for value, count in found.values)
    if found.low is not None:
        numbers = [float(cell.replace(",", ".")) for cell in present]
        assert (found.low, found.high) == (min(numbers), max(numbers))


@LIGHT
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=30, max_size=60),
)
def test_a_column_leaks_if_and_only_if_its_order_or_its_values_tell_every_label(rows):
    cells, labels = [str(value) for value, _ in rows], [f"c{label}" for _, label in rows]
    told = leak(described("x", cells), cells, labels) is not None
    of = {
        cell: {label for one, label in zip(cells, labels, strict=True) if one == cell}
        for cell in cells
    }
    tells = len(set(labels)) > 1 and all(len(own) == 1 for own in of.values())
    assert told == (tells and len(of) > 1)


def test_a_label_on_another_scale_is_a_leak_and_a_noisy_one_is_none():
    draw = np.random.default_rng(0)
    y = draw.normal(size=80)
    labels = [f"{value:.6f}" for value in y]
    for noise, leaks in ((0.0, True), (0.5, False)):
        cells = [f"{value:.6f}" for value in 3 * y + 2 + noise * draw.normal(size=80)]
        assert (leak(described("x", cells), cells, labels) is not None) == leaks


def columns(**kinds):
    ends = {"low": 0.0, "high": 9.5, "distinct": 50}
    return [
        Column(name, kind, **(ends if kind == "number" else {"distinct": 3, "rarest": 20}))
        for name, kind in kinds.items()
    ]


def guessed(found, **known):
    return {guess.key: guess.value for guess in table_guesses.guesses(found, Wished(**known))}


def test_columns_are_told_by_their_names_and_kinds():
    found = columns(
        patient="identifier", visit="date", age="number", hospital="category", diagnosis="category",
        device="constant", size="number", pressure="number",
    )  # fmt: skip
    told = guessed(found)
    assert told["task.name"] == "classification"
    assert told["data.label"] == "diagnosis"
    assert told["data.client"] == "hospital"
    assert told["data.ignore"] == ["patient", "visit", "device"]
    assert guessed(found, labels=("size",))["task.name"] == "regression"
    assert guessed(found, labels=("age", "size"))["data.label"] == ["age", "size"]
    with pytest.raises(DataError, match=r"no column 'siz'.*did you mean 'size'"):
        guessed(found, labels=("siz",))
    with pytest.raises(ConfigError, match="no column can be the label"):
        guessed(columns(patient="identifier", visit="date"))


@pytest.mark.parametrize(
    ("found", "task", "text"),
    [
        (columns(text="text", label="category"), "classification", "text"),
        (columns(text="text"), "language-model", "text"),
        (columns(words="text", tags="text"), "tagging", "words"),
        (columns(question="text", answer="text"), "retrieval", ["question", "answer"]),
        (
            columns(question="text", context="text", answer="text"),
            "span",
            ["question", "context"],
        ),
        (columns(en="text", fr="text"), "sequence-to-sequence", "en"),
    ],
)
def test_tables_of_texts_are_told_by_their_columns(found, task, text):
    told = guessed(found)
    assert (told["task.name"], told["data.text.column"]) == (task, text)


def test_who_took_what_needs_a_public_catalogue():
    found = columns(user="identifier", item="category", time="number")
    with pytest.raises(ConfigError, match=r"catalogue is missing.*items\.txt"):
        guessed(found)
    assert guessed(found, items="items.txt")["data.interactions.items"] == "items.txt"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    TEXT | st.integers(-9, 9) | st.booleans() | st.floats(allow_nan=False, width=16),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


@LIGHT
@given(st.dictionaries(st.sampled_from(["name", "data.name", "data.public.size", "task.x"]),
                       st.tuples(VALUES, TEXT), min_size=1))  # fmt: skip
def test_what_is_written_reads_back_whatever_names_hold(lines):
    """A header of a column may hold quotes, line ends or brackets, and must stay a name."""
    text = written([Guess(key, value, why) for key, (value, why) in lines.items()])
    expected = {}
    for key, (value, _) in lines.items():
        *above, last = key.split(".")
        inside = expected
        for name in above:
            inside = inside.setdefault(name, {})
        inside[last] = value
    assert tomllib.loads(text) == expected


def test_arrays_are_told_by_their_shapes(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (40, 8, 8), dtype=np.uint8)
    for targets, task in (
        (np.arange(40) % 3, "classification"),
        (draw.normal(size=40), "regression"),
        (draw.integers(0, 2, (40, 3)), "multi-label"),
        (draw.integers(0, 2, (40, 8, 8)), "segmentation"),
        (np.tile([0.0, 1, 1, 4, 4], (40, 2, 1)), "detection"),
        (np.ones((40, 2, 3)), "keypoints"),
    ):
        path = tmp_path / f"{task}.npz"
        np.savez(path, x_train=images, y_train=targets, x_test=images[:10], y_test=targets[:10])
        found = look(path)
        assert found.guessed["task.name"] == task
        assert ("x_test", "10 records are in x_train too") in [
            (each.about, each.what) for each in found.concerns
        ]
        json.dumps(asdict(found), allow_nan=False)


def test_pictures_that_do_not_fit_together_are_made_alike(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for n in range(12):
            Image.new("L", (10, 8), n).save(tmp_path / kind / f"{n}.png")
    found = look(tmp_path)
    assert (found.records, found.missing) == (24, "")
    assert found.pictures.classes == (("cat", 12), ("dog", 12))
    assert "12 of 24 pictures are copies of others" in [each.what for each in found.concerns]
    Image.new("RGB", (10, 9)).save(tmp_path / "dog" / "tall.png")
    found = look(tmp_path)
    assert found.pictures.sizes[1] == ((9, 10, 3), 1, "dog/tall.png")
    assert (found.guessed["data.size"], found.guessed["data.channels"]) == ([8, 10], 1)
    (tmp_path / "dog" / "tall.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"tall\.png.*cannot be read"):
        look(tmp_path)


@pytest.mark.parametrize("parts", [("train", "test"), ("Training", "val")])
def test_folders_for_training_and_testing_are_no_clients(tmp_path, parts):
    for part in parts:
        for kind in ("cat", "dog"):
            (tmp_path / part / kind).mkdir(parents=True)
            Image.new("L", (10, 8)).save(tmp_path / part / kind / "a.png")
    found = look(tmp_path)
    assert (found.records, found.pictures.tests, found.pictures.clients) == (2, 2, ())


def test_what_is_no_data_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match="no known form of data"):
        look(tmp_path / "a.pdf")
    with pytest.raises(DataError, match="not found"):
        look(tmp_path / "b")
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path / "own")
    with pytest.raises(DataError, match="no known form of data"):
        look(Path())
    assert look(Path("..")).missing


def test_a_stored_data_set_is_a_table_or_holds_pictures(tmp_path):
    pytest.importorskip("pyarrow")
    from stored_sets import split, splits

    words, numbers = ({"_type": "Value", "dtype": dtype} for dtype in ("string", "float32"))
    kinds = {
        "colour": words,
        "size": numbers,
        "label": {"_type": "ClassLabel", "names": ["a", "b"]},
    }
    rows = {
        "colour": ["red", "blue", "red"] * 20,
        "size": [n / 7 for n in range(60)],
        "label": [0, 1] * 30,
    }
    split(tmp_path / "set" / "train", rows, kinds)
    splits(tmp_path / "set", ["train"])
    found = look(tmp_path / "set")
    assert (found.records, found.guessed["data.label"]) == (60, "label")
    assert found.guessed["data.codes"] == {"colour": ["blue", "red", "*"]}
    assert dict(found.columns[2].values) == {"a": 30, "b": 30}
