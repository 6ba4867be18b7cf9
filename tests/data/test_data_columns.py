"""Columns by name: a test and its columns belong together, and none of it is left by accident."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.data.readers import heart
from fedkd.data.readers.tables import columns
from fedkd.errors import ConfigError

CHEAP = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"]
NAMES = st.text("abcxyz", min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("column", "test"),
    [
        ("thal=3", "thal"),
        ("thal?", "thal"),
        ("thal", "thal"),
        ("a=b=c", "a"),
        ("?", "?"),
        ("=", "="),
    ],
)
def test_a_column_tells_of_a_test(column: str, test: str) -> None:
    assert columns.test_of(column) == test


def test_the_columns_of_a_hidden_test_are_hidden_with_it() -> None:
    hidden = ["thalach", "exang", "oldpeak", "slope", "ca", "thal"]
    left = [heart.FEATURES[n] for n in columns.without(heart.FEATURES, hidden)]
    assert {columns.test_of(name) for name in left} == set(CHEAP)
    assert left == [n for n in heart.FEATURES if columns.test_of(n) in CHEAP]


def test_a_single_column_may_be_hidden_alone() -> None:
    features = ("thal=3", "thal=7", "thal?")
    assert columns.without(features, ["thal=7"]) == (0, 2)


@given(st.lists(NAMES, min_size=2, max_size=5, unique=True), st.data())
def test_what_is_left_tells_nothing_of_what_is_hidden(
    tests: list[str], draw: st.DataObject
) -> None:
    features = [c for t in tests for c in draw.draw(st.sampled_from([[t], [t, f"{t}?"],
                [f"{t}=1", f"{t}=2"], [f"{t}=1", f"{t}?"]]))]  # fmt: skip
    hidden = draw.draw(st.lists(st.sampled_from(tests), min_size=1, unique=True))
    if set(hidden) == set(tests):
        with pytest.raises(ConfigError, match="the student would see nothing"):
            columns.without(features, hidden)
        return
    left = columns.without(features, hidden)
    assert {columns.test_of(features[n]) for n in left} == set(tests) - set(hidden)
    assert list(left) == sorted(left)


def test_a_misspelt_test_is_told_the_nearest_and_all() -> None:
    with pytest.raises(
        ConfigError, match=r"names 'thallach', .*did you mean 'thalach'\? it has age"
    ):
        columns.without(heart.FEATURES, ["thallach"])


def test_columns_without_names_cannot_be_hidden() -> None:
    with pytest.raises(ConfigError, match=r"the data has none: expected a \.csv file"):
        columns.without((), ["thal"])
