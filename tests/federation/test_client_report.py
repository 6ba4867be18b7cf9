"""What a client says of its teacher's scores, and what a server does not believe."""

import pytest
import torch

from fedkd import tasks
from fedkd.config import TaskChoice
from fedkd.errors import MessageError
from fedkd.federation import report
from fedkd.tasks import Score, Task

NAMES = ("accuracy", "macro-f1", "auroc", "average-precision", "calibration-error", "confusion")
TRUE = torch.tensor([0, 0, 1, 2, 2, 2])
ANSWERS = torch.eye(3)[[0, 1, 1, 2, 2, 0]] * 4


@pytest.fixture(scope="module")
def task() -> Task:
    return tasks.build(TaskChoice(scores=NAMES), inputs=(2,), names=("a", "b", "c"))


def said(task: Task) -> dict[str, torch.Tensor]:
    fields = ("correct", *(name.replace("-", "_") for name in NAMES[1:]))
    tallies = [score.tally(ANSWERS, TRUE) for score in task.scores]
    return {f"report/{field}": tally for field, tally in zip(fields, tallies, strict=True)}


def totals(task: Task) -> dict[str, torch.Tensor]:
    return {score.figure: score.totals(TRUE) for score in task.scores}


def test_what_a_teacher_can_score_is_believed(task: Task) -> None:
    report.check(said(task), task.scores, totals(task))
    found = report.tallies(said(task), task.scores)
    assert found is not None
    assert found["accuracy"].tolist() == [1, 1, 2]
    assert report.tallies({}, task.scores) is None


@pytest.mark.parametrize("name", NAMES)
def test_more_than_there_are_test_records_is_refused(task: Task, name: str) -> None:
    field = "report/correct" if name == "accuracy" else f"report/{name.replace('-', '_')}"
    for place in (0, -1):
        tally = said(task)[field].clone()
        tally.view(-1)[place] += 7
        with pytest.raises(MessageError, match=f"{field}.*counts more than the test samples"):
            report.check({**said(task), field: tally}, task.scores, totals(task))


def test_a_share_that_is_none_and_counters_that_nobody_can_read_are_refused(task: Task) -> None:
    [accuracy, *_] = task.scores
    most = {"odd": torch.tensor(torch.inf)}
    tally = {"report/odd": torch.tensor([3.0, 2.0])}

    def odd(read: object) -> Score:
        return Score("odd", accuracy.tally, read, accuracy.counts)  # type: ignore[arg-type]

    share = odd(lambda counters, _: {"odd": float(counters[0] / counters[1])})
    with pytest.raises(MessageError, match=r"share that is not in \[0, 1\]"):
        report.check(tally, [share], most)
    unread = odd(lambda counters, _: {"odd": counters.reshape(9, 9)})
    with pytest.raises(MessageError, match="holds no score"):
        report.check(tally, [unread], most)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("mae", [1.6e308, 1.0], "'report/mae' leads to figures beyond"),
        ("r2", [2.0, 0.0, 1.0, 1.6e308], "'report/r2' leads to figures beyond"),
    ],
)
def test_figures_that_no_record_can_hold_are_refused(
    name: str, row: list[float], message: str
) -> None:
    choice = TaskChoice(name="regression", scores=(name,))
    scores = tasks.build(choice, inputs=(2,), names=("a", "b")).scores
    tally = {f"report/{name}": torch.tensor([row, row], dtype=torch.float64)}
    with pytest.raises(MessageError, match=message):
        report.check(tally, scores, {name: torch.tensor(torch.inf)})


def test_the_calibration_of_answers_that_are_not_finite_is_not_defined(task: Task) -> None:
    [score] = [each for each in task.scores if each.figure == "calibration_error"]
    assert score.of(torch.full((6, 3), torch.nan), TRUE) == {"calibration_error": None}
