"""`[robust]`: left out where it is not said, and refused where it would do nothing."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd import config
from fedkd.config import Robust
from fedkd.errors import ConfigError

MINIMAL: dict[str, Any] = {"name": "a", "clients": {"count": 9}, "method": {"name": "fedmd"}}


def test_an_experiment_that_does_not_say_it_stays_as_it_was() -> None:
    plain = config.parse(MINIMAL)
    assert plain.robust is None
    assert "robust" not in json.loads(plain.to_json())
    said = config.parse({**MINIMAL, "robust": {}})
    assert said.robust == Robust()
    assert config.parse_json(said.to_json()) == said
    assert config.parse(tomllib.loads(said.to_toml())) == said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"robust": {"hostile": 0.5}}, "key 'robust.hostile' is 0.5: expected less than 0.5"),
        ({"robust": {"answers": "krum"}}, "key 'robust.answers' is \"krum\": expected 'mean', 'me"),
        ({"robust": {"model": "median"}}, "'robust.model': did you mean 'robust.models'"),
        ({"robust": {"neighbours": True}}, "robust.neighbours = true mixes models before a rule"),
        ({"robust": {"screen": False}}, "nothing is done about anybody; choose a rule"),
        (
            {"robust": {}, "privacy": {"secure_aggregation": True}},
            "[robust] compares clients with each other, and privacy.secure_aggregation shows the",
        ),
        (
            {"robust": {}, "privacy": {"unit": "client-votes", "epsilon": 8}},
            "covers a client that moves its own part alone: leave [robust] out",
        ),
    ],
)
def test_what_would_do_nothing_or_cannot_be_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.parse({**MINIMAL, **changes})
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


@given(share=st.floats(0.01, 0.499), clients=st.integers(1, 200))
def test_liars_are_at_least_their_share_and_never_half(share: float, clients: int) -> None:
    liars = Robust(hostile=share).liars(clients)
    assert 2 * liars < clients
    assert liars >= share * clients - 1e-6 or 2 * (liars + 1) >= clients


def test_three_of_ten_are_three() -> None:
    assert [Robust(hostile=0.3).liars(clients) for clients in (1, 2, 3, 5, 10)] == [0, 0, 1, 2, 3]
