"""Every score of classification against another library's, and as counters that parties add."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torch import Tensor

from fedkd import tasks
from fedkd.config import TaskChoice
from fedkd.errors import ConfigError
from fedkd.tasks import Score
from fedkd.tasks.scores.curves import BINS

C = 4
NAMES = tuple(tasks.find("classification").scores)


def score(name: str, classes: int = C) -> Score:
    return tasks.find("classification").scores[name](classes)


@st.composite
def answered(draw: st.DrawFn, classes: int = C) -> tuple[Tensor, Tensor]:
    """Logits with many ties, and true classes, of which some may be absent."""
    rows = draw(st.integers(2, 30))
    values = st.lists(st.integers(-6, 6), min_size=classes, max_size=classes)
    answers = draw(st.lists(values, min_size=rows, max_size=rows))
    present = draw(st.integers(1, classes))
    true = draw(st.lists(st.integers(0, present - 1), min_size=rows, max_size=rows))
    # A class more or less makes no other answer equal to the last bit.
    return torch.tensor(answers, dtype=torch.float32) * 0.75, torch.tensor(true)


def quietly(figure: Callable[..., float], *given: object, **options: object) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are absent
        return float(figure(*given, **options))


@settings(max_examples=40, deadline=None)
@given(answered())
def test_figures_of_decisions_are_those_of_scikit_learn(given_: tuple[Tensor, Tensor]) -> None:
    answers, true = given_
    decided, y = answers.argmax(1).numpy(), true.numpy()
    labels = np.union1d(decided, y)
    found = {name: score(name).of(answers, true) for name in NAMES}
    assert found["accuracy"]["accuracy"] == metrics.accuracy_score(y, decided)
    expected = quietly(metrics.balanced_accuracy_score, y, decided)
    assert found["balanced-accuracy"]["balanced_accuracy"] == pytest.approx(expected)
    macro = quietly(metrics.f1_score, y, decided, labels=labels, average="macro")
    assert found["macro-f1"]["macro_f1"] == pytest.approx(macro)
    by_class = metrics.f1_score(y, decided, labels=range(C), average=None, zero_division=0)
    assert found["macro-f1"]["macro_f1_by_class"] == pytest.approx(by_class.tolist())
    table = metrics.confusion_matrix(y, decided, labels=range(C))
    assert found["confusion"]["confusion"] == table.tolist()


@settings(max_examples=40, deadline=None)
@given(answered(classes=2))
def test_figures_of_confidence_are_those_of_scikit_learn(given_: tuple[Tensor, Tensor]) -> None:
    answers, true = given_
    margin = (answers[:, 1] - answers[:, 0]).numpy()  # in steps that are wider than a bin
    both = len(true.unique()) == 2
    oracles = {
        "auroc": metrics.roc_auc_score,
        "average-precision": metrics.average_precision_score,
    }
    for name, oracle in oracles.items():
        found = score(name, 2).of(answers, true)
        by_class = found[f"{name.replace('-', '_')}_by_class"]
        if both:
            expected = [oracle(true == 0, -margin), oracle(true == 1, margin)]
            assert by_class == pytest.approx(expected)
            assert found[name.replace("-", "_")] == pytest.approx(np.mean(expected))
        else:
            assert by_class[1 - int(true[0])] is None  # there is no such record
    shares = answers.double().softmax(1)
    confidence, right = shares.max(1).values, (answers.argmax(1) == true).double()
    places = (confidence * 15).ceil().clamp(1, 15) - 1
    gap = sum(abs(float((right - confidence)[places == place].sum())) for place in places.unique())
    calibration = score("calibration-error").of(answers, true)
    assert calibration["calibration_error"] == pytest.approx(gap / len(true))


@pytest.mark.parametrize("name", ["auroc", "average-precision"])
def test_bins_cost_next_to_nothing_even_of_those_that_are_all_but_sure(name: str) -> None:
    draw = torch.Generator().manual_seed(3)
    true = torch.randint(2, (4000,), generator=draw)
    oracle = {"auroc": metrics.roc_auc_score, "average-precision": metrics.average_precision_score}
    for steep in (0.1, 1.0, 20.0, 200.0):  # of the last, float32's softmax says 1.0 of most
        margin = steep * (torch.randn(4000, generator=draw) + 0.8 * true)
        answers = torch.stack([-margin / 2, margin / 2], dim=1)
        found = score(name, 2).of(answers, true)[f"{name.replace('-', '_')}_by_class"][1]
        exact = oracle[name](true.numpy(), margin.double().numpy())
        # Ties of a bin cost precision a little, never gain any.
        assert found == pytest.approx(exact, abs=2e-3 if name == "auroc" else 2e-2)


@settings(max_examples=10, deadline=None)
@given(answered(), st.integers(1, 20))
@pytest.mark.parametrize("name", NAMES)
def test_counters_of_parts_add_up_to_those_of_the_whole(
    name: str, given_: tuple[Tensor, Tensor], cut: int
) -> None:
    answers, true = given_
    one = score(name)
    whole = one.tally(answers, true)
    parts = [one.tally(answers[part], true[part]) for part in (slice(cut), slice(cut, None))
             if len(true[part])]  # fmt: skip
    torch.testing.assert_close(torch.stack(parts).sum(0), whole)
    assert (tuple(whole.shape), whole.dtype) == (one.counts.shape, one.counts.dtype)
    assert bool((whole >= one.counts.low).all())
    assert bool((whole <= one.totals(true)).all())
    assert whole.dtype == (torch.float64 if name == "calibration-error" else torch.int64)


def test_of_one_class_alone_ranking_is_not_defined() -> None:
    answers, true = torch.eye(3), torch.zeros(3, dtype=torch.int64)
    assert score("auroc", 3).of(answers, true) == {"auroc": None, "auroc_by_class": [None] * 3}
    assert score("auroc", 3).counts.shape == (2, 3, BINS)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (("acuracy",), "did you mean 'accuracy'"),
        (("confusion",), "no single number"),
        (("accuracy", "accuracy"), "and it names it before"),
        (("accuracy", "torchmetrics:Nothing"), "cannot be imported"),
        (("torchmetrics.classification:MulticlassAUROC",), "cannot add up"),
        (("accuracy", "torchmetrics:MeanMetric"), "'torchmetrics:MeanMetric' does not suit task"),
        (("test_task_scores:curve",), "no torchmetrics|expected a torchmetrics.Metric"),
    ],
)
def test_scores_that_do_not_suit_are_refused(scores: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tasks.build(TaskChoice(scores=scores), inputs=(2,), names=("a", "b", "c"))


def curve() -> None:
    """No metric."""


def test_a_metric_of_ones_own_is_a_score_by_its_path() -> None:
    path = "torchmetrics.classification:MulticlassHammingDistance"
    task = tasks.build(TaskChoice(scores=(path, "accuracy")), inputs=(2,), names=("a", "b", "c"))
    answers = torch.eye(3)[[0, 1, 2, 0]]
    [name] = task.headline.of(answers, torch.tensor([0, 1, 2, 2]))
    assert (name, task.headline.higher, task.headline.share) == (
        "MulticlassHammingDistance", False, False,
    )  # fmt: skip
    assert task.headline.best([0.5, None, 0.2]) == 0.2
    assert task.headline.gain(0.2, 0.5) == pytest.approx(0.3)


def test_a_task_of_ones_own_may_import_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a build of torch that torchvision was not compiled for, it could not."""
    ready: list[bool] = []
    monkeypatch.setattr(tasks, "ready_torchvision", lambda: ready.append(True))
    tasks.find("classification")
    assert not ready  # it would take a second of every run
    tasks.find("fedkd.tasks.regression:KIND")
    assert ready


def test_an_unknown_key_names_all_that_a_task_takes() -> None:
    choice = TaskChoice.model_validate({"name": "classification", "limits": [0, 1]})
    with pytest.raises(ConfigError, match=r"^unknown key 'task.limits': valid here: name, scores$"):
        tasks.build(choice, inputs=(3,), names=("a", "b"))
