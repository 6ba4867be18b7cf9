"""A student with fewer pixels learns an embedding from a teacher with more, by name in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedkd import config, tasks
from fedkd.config import Distillation, Optimisation, TaskChoice
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.jobs.distil import distil
from fedkd.learning import evaluate
from fedkd.learning.ways import generalised, prepare
from fedkd.learning.ways.generalised import SightedTeacher

PEOPLE, UNSEEN, EACH = 16, 6, 6
HOW = {"epochs": 20, "batch_size": 30, "optimiser": "adam", "learning_rate": 0.01}
BASE: dict[str, Any] = {
    "name": "faces",
    "plain": False,
    "task": {"name": "embedding", "dimensions": 8},
    "teachers": [{"model": {"name": "mlp", "hidden": [24]}, "training": HOW}],
    "student": {"model": {"name": "mlp", "hidden": [8]}, "training": HOW},
    "way": {"name": "privileged", "side": [4, 3], "imitation": 0.8},
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 8x6 pixels: a faint pattern of a person under glaring light from three sides."""
    draws = np.random.default_rng(2)
    y = np.repeat(np.arange(PEOPLE), EACH)
    patterns = draws.normal(size=(PEOPLE + 3, 12)) * 0.05
    light = draws.normal(size=(len(y), 3)) @ patterns[PEOPLE:] * 2
    coarse = (0.5 + patterns[y] + light).reshape(len(y), 1, 4, 3)
    x = coarse.repeat(2, axis=2).repeat(2, axis=3) + draws.normal(
        scale=0.02, size=(len(y), 1, 8, 6)
    )
    x = x.clip(0, 1)
    train = y < PEOPLE - UNSEEN
    path = tmp_path_factory.mktemp("faces") / "faces.npz"
    arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[~train], "y_test": y[~train]}
    np.savez(path, **{name: np.asarray(each) for name, each in arrays.items()})
    return path


def table(faces: Path, **changes: Any) -> Distillation:
    return config.validate(Distillation, {**BASE, "data": {"name": str(faces)}, **changes})


def ignore(_stage: str, _done: int, _total: int) -> None: ...


@pytest.mark.parametrize(
    "knowledge",
    [
        (),
        ({"name": "rkd", "student": "classifier", "teacher": "classifier"}, {"name": "fitnets"}),
    ],
    ids=["answers", "relations"],
)
def test_a_student_of_fewer_pixels_learns_by_answers_or_by_forms(
    faces: Path, knowledge: Any, tmp_path: Path
) -> None:
    ready = table(faces, knowledge=knowledge)
    fresh = prepare.prepare(ready)
    assert (fresh.data.shape, fresh.shares.teachers[0].shape) == ((1, 4, 3), (1, 8, 6))
    student = fresh.student(fresh.teachers)
    before = evaluate.score(student, fresh.data.test, fresh.task.scores)["rank_1"]
    summary = distil(ready, tmp_path / "run", ignore)
    assert summary["student"]["rank_1"] > before + 0.2
    assert summary["inputs"]["shape"] == [1, 4, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"way": {"name": "privileged", "side": [9, 3]}}, r"way\.side is \(9, 3\): expected"),
        (
            {"teachers": BASE["teachers"] * 2, "knowledge": [{"name": "angular"}]},
            r"compares the student with one teacher: found 2",
        ),
        ({"privacy": {"epsilon": 8}}, "way 'privileged' cannot run under .privacy."),
        ({"knowledge": [{"name": "kd"}]}, r"compares classes, and task 'embedding' has none"),
    ],
)
def test_what_does_not_suit_is_refused_in_one_line(
    faces: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        prepare.prepare(table(faces, **changes))
    assert "\n" not in str(caught.value)


class _Axes(nn.Module):
    """Shows an input on one axis only."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.eye(2)[self.axis]


def test_teachers_of_numbers_who_did_not_see_a_record_have_no_say() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    seen = [torch.tensor([True, True, False]), torch.tensor([True, False, False])]
    witnesses = [SightedTeacher(_Axes(n), x, seen[n]) for n in range(2)]
    task = tasks.build(TaskChoice(name="regression"), inputs=(2,), names=("a", "b"))
    said, anyone = generalised.teacher_answers(witnesses, task.likelihood)
    assert said.tolist() == [[0.5, 1.0], [3.0, 0.0], [0.0, 0.0]]
    assert anyone.tolist() == [True, True, False]
    answers, y = torch.zeros(3, 2), torch.ones(3, 2)
    loss = generalised.imitation_loss(
        answers, y, said, anyone, imitation=0.25, temperature=2.0, likelihood=task.likelihood
    )
    told = [(0.25 + 1) / 4, 9 / 4]  # half the squares, a mean over both numbers
    assert loss.tolist() == pytest.approx([0.75 * 0.5 + 0.25 * each for each in told] + [0.5])


def test_a_student_of_numbers_imitates_teachers_who_see_more() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=draws)
    samples = Samples(x, torch.zeros(60, 2))
    student = nn.Linear(2, 2)
    teacher = SightedTeacher(_Axes(0).eval(), x, torch.ones(60, dtype=torch.bool))
    task = tasks.build(TaskChoice(name="regression"), inputs=(2,), names=("a", "b"))
    generalised.distil(
        student,
        samples,
        [teacher],
        Optimisation(epochs=40, batch_size=20, learning_rate=0.1),
        draws,
        imitation=1.0,
        temperature=1.0,
        likelihood=task.likelihood,
    )
    torch.testing.assert_close(
        student.weight.data, torch.diag(torch.tensor([1.0, 0.0])), atol=0.05, rtol=0
    )
