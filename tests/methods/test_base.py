"""What every method builds upon: the setting, the contexts, the clock."""

import pytest
import torch
from federations import IMAGES, ROWS, SMALL, WIDE, equal, federation, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.clock import Clock
from fedkd.config import ModelSpec
from fedkd.data.types import Samples
from fedkd.learning import optim, supervised


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 40), round=st.integers(1, 9))
def test_every_party_draws_the_same_subset_without_repetition(size: int, round: int) -> None:
    one, other = federation("fedmd").setting, federation("fedmd", sizes=(8, 8)).setting
    subset = one.proxy_subset(size, round)
    assert torch.equal(subset, other.proxy_subset(size, round))
    drawn = subset.tolist()
    assert drawn == sorted(set(drawn))
    assert len(drawn) == min(size, 30)
    assert set(drawn) <= set(range(30))
    assert torch.equal(one.proxy_inputs(size, round), one.proxy[subset])


def test_a_method_without_a_proxy_set_cannot_ask_for_one() -> None:
    setting = federation("fedavg", public=None).setting
    with pytest.raises(ValueError, match="Expected a public set; the method's card"):
        _ = setting.proxy


def test_a_model_is_specified_with_bounds_where_a_wrong_value_would_poison_it() -> None:
    setting = federation("fedavg", IMAGES, models=["dense-cnn"], student="dense-cnn").setting
    spec = ModelSpec(name="dense-cnn")
    state = setting.build(spec, purpose="any").state_dict()
    expected = setting.model_specs(spec)
    assert {f"model/{name}" for name in state} == set(expected)
    for name, tensor in state.items():
        found = expected[f"model/{name}"]
        assert (found.shape, found.dtype) == (tuple(tensor.shape), tensor.dtype)
        assert (found.low == 0) == name.endswith("running_var")
    count = setting.model_and_count(0)["count"]
    assert (count.shape, count.dtype, count.low) == ((), torch.int64, 1)


def test_clients_start_from_weights_of_their_own_that_last() -> None:
    fed = federation("fedmd", models=[SMALL])
    first, second = (fed.client_context(client).teacher for client in (0, 1))
    assert not equal(snapshot(first), snapshot(second))
    assert equal(snapshot(first), snapshot(fed.client_context(0, round=5).teacher))
    fed.client_context(0).keep("teacher", snapshot(second))
    assert equal(snapshot(fed.client_context(0).teacher), snapshot(second))


def test_a_teacher_that_nobody_asked_for_was_not_touched() -> None:
    ctx = federation("fedmd").client_context(0)
    assert not ctx.has_teacher
    assert ctx.teacher.training
    assert ctx.has_teacher


def test_two_rounds_without_an_anchor_are_one_training_with_one_optimiser() -> None:
    fed = federation("local", rounds=2)
    how = fed.setting.experiment.clients.training
    model = fed.setting.build(fed.client_context(0).spec, purpose="teacher", client=0)
    optimiser = optim.build(model.parameters(), how)
    for round in (1, 2):
        fed.ask(0, round, fed.begin())
        stream = fed.client_context(0, round).rng("batches")
        supervised.train(model, fed.data[0], how, stream, optimiser=optimiser)
    assert equal(snapshot(fed.client_context(0).teacher), snapshot(model))


def test_a_round_from_the_servers_model_starts_a_fresh_optimiser() -> None:
    fed = federation("fedavg", rounds=2)
    fed.ask(0, 1, fed.begin())
    assert not any(name.startswith("optimiser/") for name in fed.states[0])


def test_the_ensemble_and_the_student_are_measured_on_the_test_set() -> None:
    fed = federation("feddf", models=[SMALL, WIDE])
    ctx = fed.server_context()
    y = fed.test.y
    ctx.measure_ensemble(lambda x: torch.eye(3)[y] if x is fed.test.x else torch.zeros(len(x), 3))
    assert ctx.ensemble["accuracy"] == 1.0
    ctx.measure()
    ctx.test = Samples(fed.test.x, fed.student.eval()(fed.test.x).argmax(dim=1))
    ctx.measure()
    assert ctx.curve == [fed.accuracy(), 1.0]


def test_uploaded_models_become_modules_by_client() -> None:
    fed = federation("feddf", ROWS, models=[SMALL, WIDE])
    uploads = {c: fed.wire(c, fed.ask(c, 1, fed.begin())) for c in (0, 1, 2)}
    teachers = fed.server_context().load_teachers({c: uploads[c] for c in (1, 2)})
    assert list(teachers) == [1, 2]
    for client, teacher in teachers.items():
        state = {f"model/{name}": tensor for name, tensor in teacher.state_dict().items()}
        assert equal(state, {k: v for k, v in uploads[client].items() if k != "count"})


def test_the_clock_adds_up_phases_and_tells_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", iter([10.0, 11.5, 20.0, 20.25]).__next__)
    told: list[tuple[str, int, int]] = []
    clock = Clock(lambda *step: told.append(step))
    for _ in range(2):
        with clock.phase("train", 2) as advance:
            assert clock.current == "train"
            advance()
            advance()
    assert told == [("train", 0, 2), ("train", 1, 2), ("train", 2, 2)] * 2
    assert clock.current == ""
    assert clock.seconds == {"train": 1.75}


def test_the_clock_remembers_what_an_exception_ended() -> None:
    clock = Clock(lambda *_: None)
    with pytest.raises(ZeroDivisionError), clock.phase("answer"):
        _ = 1 / 0
    assert clock.current == "answer"
    assert "answer" not in clock.seconds
