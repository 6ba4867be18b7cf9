import graph_oracles as oracles
import pytest
import torch
from agreement import assert_agrees, fresh
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import parameter


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_consistency_and_its_gradient_are_the_formula_s(seed: int) -> None:
    assert_agrees(parameter.consistency, oracles.consistency, [(5, 4), (5, 4)], seed)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), shift=st.floats(-20, 20))
def test_consistency_is_blind_to_shifts_zero_on_agreement_and_bounded(
    seed: int, shift: float
) -> None:
    student, teacher = (each.detach() for each in fresh([(5, 4), (5, 4)], seed))
    value = parameter.consistency(student, teacher)
    torch.testing.assert_close(parameter.consistency(student + shift, teacher), value)
    agreed = parameter.consistency(student + shift, student)
    torch.testing.assert_close(agreed, torch.zeros(5).double())
    opposed = parameter.consistency(1e4 * torch.eye(4), 1e4 * torch.eye(4).flip(0))
    assert opposed.tolist() == [0.5] * 4


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), decay=st.floats(0, 1))
def test_steps_of_ema_are_the_weighted_sum_of_all_weights(seed: int, decay: float) -> None:
    weights = fresh([(2, 3)] * 4, seed)
    average = {"w": weights[0]}
    for each in weights[1:]:
        average = parameter.ema(average, {"w": each}, decay=decay)
    expected = torch.zeros(2, 3).double()
    for age, each in enumerate(reversed(weights[1:])):
        expected += (1 - decay) * decay**age * each.detach()
    expected += decay ** (len(weights) - 1) * weights[0].detach()
    torch.testing.assert_close(average["w"], expected)
    assert not average["w"].requires_grad


def test_ema_of_a_model_keeps_names_types_and_both_models_and_takes_counts_from_the_student() -> (
    None
):
    with torch.random.fork_rng():
        teacher = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        student = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double()
    student(torch.eye(3).double())
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (teacher, student)]
    mixed = parameter.ema(teacher.state_dict(), student.state_dict(), decay=0.75)
    for old, model in zip(before, (teacher, student), strict=True):
        assert all(old[name].equal(now) for name, now in model.state_dict().items())
    assert list(mixed) == list(teacher.state_dict())
    assert mixed["1.num_batches_tracked"] == 1
    assert mixed["0.weight"].dtype == torch.float32
    torch.testing.assert_close(
        mixed["0.weight"], 0.75 * before[0]["0.weight"] + 0.25 * before[1]["0.weight"].float()
    )
    mixed["1.num_batches_tracked"] += 1
    assert student.state_dict()["1.num_batches_tracked"] == 1


def test_with_the_early_decay_the_first_steps_are_a_plain_mean() -> None:
    weights = [each.detach() for each in fresh([(3,)] * 5, 1)]
    average = {"w": torch.full((3,), 1e6).double()}  # a start to forget
    for step, each in enumerate(weights):
        decay = parameter.early_decay(step, decay=0.99)
        average = parameter.ema(average, {"w": each}, decay=decay)
    torch.testing.assert_close(average["w"], torch.stack(weights).mean(dim=0))
    assert parameter.early_decay(10**6, decay=0.99) == 0.99


def test_what_does_not_match_is_named() -> None:
    one, two = {"a.w": torch.zeros(2), "expected": torch.zeros(3)}, {"a.w": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"weights expected: expected in both models"):
        parameter.ema(one, two, decay=0.5)
    with pytest.raises(ValueError, match=r"a.w \(3,\): expected \(2,\)"):
        parameter.ema(two, {"a.w": torch.zeros(3)}, decay=0.5)
    with pytest.raises(ValueError, match=r"expected \(2,\): expected \(3,\)"):
        parameter.ema(one, one | {"expected": torch.zeros(2)}, decay=0.5)
    for decay in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"decay={decay} in \[0, 1\]"):
            parameter.ema(two, two, decay=decay)
    with pytest.raises(ValueError, match=r"step=-1 >= 0"):
        parameter.early_decay(-1, decay=0.9)
    with pytest.raises(ValueError, match=r"student \(2, 3\), teacher \(2, 4\)"):
        parameter.consistency(torch.zeros(2, 3), torch.zeros(2, 4))
