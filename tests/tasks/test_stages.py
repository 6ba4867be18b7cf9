"""Stages of a stream: a head a stage, what is retained, and figures of a matrix of scores."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedkd import tasks
from fedkd.config import TaskChoice
from fedkd.tasks.scores.forgetting import (
    average,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from fedkd.tasks.stages import Stages

OF_CLASS = torch.tensor([0, 1, 0, 2, 1, 2])
NAMES = ("a, c", "b, e", "d, f")
CHOICE = TaskChoice(scores=("accuracy", "auroc", "calibration-error"))
TASK = tasks.build(CHOICE, inputs=(4,), names=tuple("abcdef"))
HEADS = Stages("task-incremental", NAMES, OF_CLASS)
matrices = st.integers(2, 5).flatmap(
    lambda size: arrays(np.float64, (size + 1, size), elements=st.floats(0, 1))
)


def drawn(rows: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    answers = 3 * torch.randn(rows, 6, generator=draws)
    return answers, torch.randint(6, (rows,), generator=draws)


def test_with_a_head_a_stage_an_answer_speaks_of_its_own_stages_classes_alone():
    task, (answers, targets) = HEADS.asked(TASK), drawn()
    found = task.likelihood.nll(answers, targets)
    hits = 0
    for row, (answer, target) in enumerate(zip(answers, targets.tolist(), strict=True)):
        own = [c for c in range(6) if OF_CLASS[c] == OF_CLASS[target]]
        expected = F.cross_entropy(answer[own], torch.tensor(own.index(target)))
        torch.testing.assert_close(found[row], expected)
        hits += own[int(answer[own].argmax())] == target
    torch.testing.assert_close(task.likelihood.mean_nll(answers, targets), found.mean())
    assert task.headline.of(answers, targets)["accuracy"] == hits / len(targets)
    other = TASK.headline.of(answers, targets)["accuracy"]
    assert hits / len(targets) > other  # one of two is easier than one of six


def test_with_a_head_a_stage_gradients_of_others_are_zero_and_scores_are_finite():
    task, (answers, targets) = HEADS.asked(TASK), drawn()
    answers.requires_grad_()
    task.likelihood.mean_nll(answers, targets).backward()
    elsewhere = OF_CLASS[targets].unsqueeze(-1) != OF_CLASS
    assert (answers.grad[elsewhere] == 0).all()
    assert (answers.grad[~elsewhere] != 0).all()
    for score in task.scores:
        assert 0 <= score.of(answers.detach(), targets)[score.figure] <= 1


def test_nothing_takes_an_answer_of_heads_for_one_over_all_classes():
    assert not {"classes", "categorical"} & HEADS.asked(TASK).offers
    for scenario in ("class-incremental", "domain-incremental"):
        assert Stages(scenario, NAMES, OF_CLASS).asked(TASK) is TASK


@pytest.mark.parametrize(
    ("scenario", "groups"),
    [
        ("task-incremental", [[0, 2], [1, 4]]),
        ("class-incremental", [[0, 2, 1, 4]]),
        ("domain-incremental", [list(range(6))]),
    ],
)
def test_what_is_retained_is_what_earlier_stages_taught(scenario, groups):
    of_class = None if scenario == "domain-incremental" else OF_CLASS
    (student, _), teacher = drawn(), drawn(80)[0][40:]
    found = Stages(scenario, NAMES, of_class).retention(TASK, 2)(student, teacher, temperature=2.0)
    expected = torch.zeros(len(student))
    for group in groups:
        p, q = ((each[:, group] / 2).softmax(dim=-1) for each in (teacher, student))
        expected += 4 * (p * (p / q).log()).sum(dim=-1)
    torch.testing.assert_close(found, expected)


def test_a_stage_lasts_its_rounds_and_the_last_one_to_the_end():
    stages = Stages("class-incremental", NAMES, OF_CLASS, rounds=2)
    assert [stages.at(round) for round in range(1, 10)] == [0, 0, 1, 1, 2, 2, 2, 2, 2]


@given(matrices)
def test_figures_of_a_matrix_are_those_of_their_papers(drawn):
    matrix, untrained = drawn[:-1], drawn[-1]
    size, score = len(matrix), TASK.headline
    rows = matrix.tolist()
    best = [max(matrix[k, j] for k in range(size - 1)) for j in range(size - 1)]
    close = pytest.approx
    assert average(rows) == close(matrix[-1].mean())
    assert forgetting(rows, score) == close(np.mean(best - matrix[-1, :-1]))
    assert backward_transfer(rows, score) == close(
        np.mean(matrix[-1, :-1] - matrix.diagonal()[:-1])
    )
    ahead = [matrix[j - 1, j] - untrained[j] for j in range(1, size)]
    assert forward_transfer(rows, untrained.tolist(), score) == close(np.mean(ahead))


def test_where_less_is_better_a_rise_is_forgotten():
    task = tasks.build(TaskChoice(name="regression"), inputs=(4,), names=("y",))
    rows = [[1.0, 5.0], [3.0, 2.0]]
    assert forgetting(rows, task.headline) == 2
    assert backward_transfer(rows, task.headline) == -2
    assert forward_transfer(rows, [9.0, 9.0], task.headline) == 4


def test_a_figure_that_is_not_defined_is_left_out():
    assert forgetting([[0.5, None, 0.1], [0.4, None, 0.2], [0.3, 0.1, 0.9]], TASK.headline) == (
        pytest.approx(0.2)
    )
    assert average([[None], [None]]) is None
