"""The bounds: the largest party alone, and everybody's data in one place."""

import pytest
from federations import SMALL, WIDE, equal, federation, snapshot, tensors

from fedkd import rng
from fedkd.errors import ConfigError
from fedkd.exchange.messages import Broadcast, group
from fedkd.learning import supervised


@pytest.mark.parametrize(
    ("sizes", "cohort", "largest"),
    [
        ((24, 90, 16), [0, 1, 2], 0),  # client 1 is larger, but of another architecture
        ((16, 8, 24), [0, 1, 2], 2),
        ((16, 8, 24), [0, 1], 0),
        ((16, 8, 16), [0, 1, 2], 0),
    ],
)
def test_local_hands_over_the_largest_client_of_the_students_architecture(
    sizes: tuple[int, ...], cohort: list[int], largest: int
) -> None:
    fed = federation("local", sizes=sizes, models=[SMALL, WIDE])
    broadcast, _ = fed.round(1, fed.begin(), cohort)
    assert broadcast == Broadcast()
    assert equal(snapshot(fed.student), group("teacher", fed.states[largest]))


def test_local_teachers_go_on_alone_from_round_to_round() -> None:
    fed = federation("local", rounds=2)
    fed.round(1, fed.begin())
    first = snapshot(fed.student)
    fed.round(2, Broadcast())
    assert not equal(first, snapshot(fed.student))
    # A round in which nobody alike answers leaves the student as it was.
    second = snapshot(fed.student)
    fed.method.server(fed.server_context(3), {})
    assert equal(second, snapshot(fed.student))


@pytest.mark.parametrize("models", [[WIDE], [WIDE, WIDE, WIDE, SMALL]])
def test_local_needs_a_client_with_the_students_architecture(models: list[object]) -> None:
    fed = federation("local", models=models)
    with pytest.raises(ConfigError, match=r"student\.model is 'mlp\(hidden=\[12\]\)'") as caught:
        fed.method.check(fed.setting)
    assert str(caught.value).endswith("expected one that a client has (mlp(hidden=[16]))")
    alike = federation("local", models=[WIDE, SMALL])
    alike.method.check(alike.setting)


def test_centralised_is_supervised_training_on_pooled_data() -> None:
    fed = federation("centralised")
    expected = fed.setting.build(fed.setting.experiment.student.model, purpose="student")
    stream = rng.stream(fed.setting.experiment.seed, purpose="batches", round=1)
    losses = supervised.train(
        expected, fed.pooled(), fed.setting.experiment.clients.training, stream
    )
    _, ctx = fed.round(1, fed.begin())
    assert equal(snapshot(fed.student), expected.state_dict())
    assert ctx.losses == {"train": losses[-1]}


def test_centralised_sends_nothing_and_trains_no_teacher() -> None:
    fed = federation("centralised")
    upload = fed.ask(0, 1, fed.begin())
    assert tensors(upload) == {}
    assert fed.states[0] == {}
    assert fed.method.expects(fed.setting, 0) == {}
    assert fed.method.card.simulation_only
