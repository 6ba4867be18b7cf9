import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.privacy.budget import Budget
from fedkd.privacy.events import (
    Gaussian,
    Laplace,
    Protected,
    Unprotected,
    as_json,
    from_json,
    grouped,
)

NOISES = st.floats(min_value=1e-3, max_value=1e6)
UNITS = st.sampled_from(["record", "client"])
ADJACENCIES = st.sampled_from(["add-remove", "replace-one"])
GAUSSIANS = st.builds(
    Gaussian,
    what=st.text(),
    noise_multiplier=NOISES,
    sample_rate=st.floats(min_value=0, max_value=1, exclude_min=True),
    steps=st.integers(1, 10**6),
    unit=UNITS,
    adjacency=ADJACENCIES,
)
LAPLACES = st.builds(
    Laplace,
    what=st.text(),
    noise_multiplier=NOISES,
    steps=st.integers(1, 10**6),
    unit=UNITS,
    adjacency=ADJACENCIES,
)
EVENTS = GAUSSIANS | LAPLACES


@given(EVENTS)
def test_an_event_is_read_back_from_json_equal(event: Protected) -> None:
    assert from_json(json.loads(json.dumps(as_json(event)))) == event


@given(st.lists(EVENTS, max_size=6), st.randoms())
def test_grouping_counts_each_event_s_steps_in_any_order(
    events: list[Protected], random: object
) -> None:
    shuffled = [*events, *events]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    groups = grouped(shuffled)
    assert sum(groups.values()) == 2 * sum(event.steps for event in events)
    assert all(event.steps == 1 for event in groups)
    assert groups == grouped([replace(event, steps=2 * event.steps) for event in events])


@given(EVENTS, st.integers(1, 20))
def test_one_event_of_many_steps_groups_as_many_of_one(event: Protected, steps: int) -> None:
    single = replace(event, steps=1)
    assert grouped([replace(event, steps=steps)]) == grouped([single] * steps)


def test_events_for_different_things_stay_apart() -> None:
    events = [Gaussian("training", 1.0), Gaussian("release", 1.0), Laplace("training", 1.0)]
    assert list(grouped(events).values()) == [1, 1, 1]


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"mechanism": "uniform", "what": "x", "noise_multiplier": 1.0},
        {"mechanism": "gaussian", "what": "x"},
        {"mechanism": "laplace", "what": "x", "noise_multiplier": 1.0, "sample_rate": 0.5},
    ],
)
def test_what_is_no_event_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Expected a Gaussian or Laplace event"):
        from_json(table)


def test_an_event_says_what_happened_in_words() -> None:
    assert str(Unprotected("example count")) == "example count, no DP"
    assert str(Gaussian("training", 1.1, 0.01, 100)) == (
        "training, Gaussian noise 1.1, rate 0.01, 100 steps"
    )
    assert str(Laplace("counts", 2.0)) == "counts, Laplace noise 2"


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_s_epsilon_is_positive(epsilon: float) -> None:
    with pytest.raises(ValueError, match=f"epsilon={epsilon} > 0"):
        Budget(epsilon, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_budget_s_delta_is_a_small_probability(delta: float) -> None:
    with pytest.raises(ValueError, match=f"0 < delta={delta} < 1"):
        Budget(1.0, delta)
