"""What `--grid` says, as overrides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd import config
from fedkd.config.grid import combinations
from fedkd.errors import ConfigError

VALUES = st.lists(
    st.one_of(
        st.sampled_from(["1e-3", ".5", "fedmd", "true", '"a,b"', "'x,y'", r'"\",["', "-1"]),
        st.sampled_from(['["mlp","lenet5"]', '{name="mlp", hidden=[4, 8]}', "[[1,2],[3]]", "[]"]),
    ),
    min_size=1,
    max_size=4,
    unique=True,
)


@given(VALUES, VALUES)
def test_every_combination_is_there_once_and_commas_in_values_part_nothing(some, others):
    found = combinations([f"a.b={','.join(some)}", f"c={' , '.join(others)}"])
    assert found == [(f"a.b={one}", f"c={other}") for one in some for other in others]


def test_no_grid_is_one_combination_and_a_value_twice_is_one():
    assert combinations([]) == [()]
    assert combinations(["x=1,2,1"]) == [("x=1",), ("x=2",)]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (["rounds"], "grid 'rounds': expected key.path=a,b"),
        (["rounds="], "grid 'rounds=': expected key.path=a,b"),
        (["rounds=1,,2"], "a value on each side of a comma"),
        (["models=[1,2"], r"grid 'models=\[1,2': expected '\]' where it ends"),
        (['name="a'], "expected '\"' where it ends"),
        (["seed=1,2"], "say how many by --seeds"),
        (["rounds=1", "rounds=2"], "'rounds' stands in the grid twice.*rounds=1,2"),
    ],
)
def test_a_grid_that_is_not_understood_is_refused_in_one_line(grid, said):
    with pytest.raises(ConfigError, match=said) as refused:
        combinations(grid)
    assert "\n" not in str(refused.value)


def test_either_kind_of_file_is_read(tmp_path):
    assert isinstance(config.load_either("demo"), config.Experiment)
    assert isinstance(config.load_either("distil"), config.Distillation)
