"""Who is in which step, and what that does to models and answers, against a clock that ticks."""

import math
from dataclasses import replace

import pytest
import tiny
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedkd.config import Asynchronous
from fedkd.federation.prepare import prepare

CLIENTS, ROUNDS = 4, 5
SMALL = {"name": "mlp", "hidden": [4]}
CHANGES = {
    "rounds": ROUNDS,
    "clients.models": [SMALL],
    "student.model": SMALL,
    "clients.asynchronous": {"buffer": 2},
}

courses = st.tuples(
    st.lists(st.integers(1, 12), min_size=CLIENTS, max_size=CLIENTS),
    st.integers(1, CLIENTS),
    st.integers(0, 4),
)
few = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def told(rows, method):
    return prepare(tiny.experiment(rows, {**CHANGES, "method": {"name": f"toys:{method}"}}))


@pytest.fixture(scope="module")
def telling(rows):
    prepared = told(rows, "Telling")
    return lambda *course: at(prepared, *course)


@pytest.fixture(scope="module")
def pushing(rows):
    prepared = told(rows, "Pushing")
    return lambda *course: at(prepared, *course)


def at(prepared, seconds, buffer, staleness):
    how = Asynchronous(buffer=buffer, staleness=staleness, seconds=tuple(map(float, seconds)))
    clients = prepared.experiment.clients.model_copy(update={"asynchronous": how})
    experiment = prepared.experiment.model_copy(update={"clients": clients})
    setting = replace(prepared.setting, experiment=experiment)
    return replace(prepared, experiment=experiment, setting=setting)


def logged(record, outcome):
    moments = record["asynchronous"]["moments"]
    answers = [each for moment in moments for each in moment["answers"]]
    return {each["client"]: each["round"] for each in answers if each["outcome"] == outcome}


@few
@given(courses)
def test_steps_are_those_of_a_clock_that_ticks(telling, course):
    seconds, buffer, staleness = course
    records, _ = toys.simulated(telling(*course))
    steps = toys.tick(seconds, buffer=buffer, staleness=staleness, rounds=ROUNDS)
    for record, step in zip(records, steps, strict=True):
        assert record["asynchronous"]["time"] == step.time
        assert logged(record, "used") == step.used
        assert logged(record, "too late").items() >= step.late.items()
        assert record["participants"] == list(step.used)
        # What the method was given: answers of this step, and those of before that still count.
        given = {int(client): int(round) for client, round in record["losses"].items()}
        assert given == {**step.kept, **step.used}
        kept = {each["client"]: each["staleness"] for each in record["asynchronous"]["kept"]}
        assert kept == {client: record["round"] - round for client, round in step.kept.items()}


@few
@given(courses)
def test_late_models_are_damped_updates_of_the_newest(pushing, course):
    seconds, buffer, staleness = course
    asked = pushing(*course)
    start = asked.setting.build(asked.experiment.student.model, purpose="student")
    expected = toys.first(start)
    records, _ = toys.simulated(asked)
    sizes = [len(each) for each in asked.data.clients]
    for record, step in zip(
        records, toys.tick(seconds, buffer=buffer, staleness=staleness, rounds=ROUNDS), strict=True
    ):
        weights = {client: sizes[client] for client in step.used}
        moves = {
            client: (client + 1) / math.sqrt(1 + record["round"] - round)
            for client, round in step.used.items()
        }
        mean = sum(weights[c] * moves[c] for c in moves) / sum(weights.values())
        expected += mean
        assert record["losses"]["first"] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_an_answer_that_is_too_late_is_said_and_not_used(telling):
    records, _ = toys.simulated(telling([1, 1, 1, 4], 3, 2))
    assert [each["failures"] for each in records[:3]] == [[], [], []]
    [failure] = records[3]["failures"]
    assert failure["client"] == 3
    assert failure["reason"] == ("its answer is 3 steps late: clients.asynchronous.staleness is 2")


def test_whoever_takes_longer_than_the_deadline_is_given_up_then(rows):
    prepared = told(rows, "Telling")
    clients = prepared.experiment.clients.model_copy(update={"deadline": 2.5})
    experiment = prepared.experiment.model_copy(update={"clients": clients})
    prepared = replace(prepared, experiment=experiment)
    records, _ = toys.simulated(at(prepared, [1, 1, 1, 50], 3, 9))
    given_up = [logged(record, "failed") for record in records]
    assert given_up == [{}, {}, {3: 1}, {}, {3: 3}]
    assert records[2]["asynchronous"]["moments"][0]["time"] == 2.5
    assert records[2]["failures"] == [{"client": 3, "reason": "no answer within 2.5 s"}]
