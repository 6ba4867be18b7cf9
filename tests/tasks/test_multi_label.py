"""Yes or no of several labels: likelihood and scores as their formulas and scikit-learn say."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import Array, assert_agrees
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from task_tables import experiment, write_labels
from torch import Tensor

from fedkd import tasks
from fedkd.config import TaskChoice
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.runs import reading
from fedkd.tasks import Task
from fedkd.tasks.likelihoods.bernoulli import BERNOULLI

SCORES = ("macro-f1", "auroc", "average-precision", "label-accuracy")
NAMES = ("red", "green", "blue")
Y = [[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 1]]


def multi_label(scores: tuple[str, ...] = SCORES) -> Task:
    return tasks.build(TaskChoice(name="multi-label", scores=scores), inputs=(5,), names=NAMES)


def sure(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def nll(logits: Array) -> Array:
    """-log p where the label is there, -log(1 - p) where it is not."""
    return -np.log(np.where(np.array(Y) == 1, sure(logits), sure(-logits))).mean(axis=1)


def divergence(student: Array, teacher: Array, temperature: float) -> Array:
    s, t = student / temperature, teacher / temperature
    yes = sure(t) * np.log(sure(t) / sure(s))
    no = sure(-t) * np.log(sure(-t) / sure(-s))
    return temperature**2 * (yes + no).mean(axis=1)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_of_the_likelihood_are_the_formula_s(seed: int) -> None:
    targets = torch.tensor(Y)
    assert_agrees(lambda logits: BERNOULLI.nll(logits, targets), nll, [(4, 3)], seed)
    assert_agrees(
        lambda logits: BERNOULLI.mean_nll(logits, targets),
        lambda logits: nll(logits).mean(),
        [(4, 3)],
        seed,
    )


@pytest.mark.parametrize("temperature", [0.7, 4.0])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_of_the_divergence_are_the_formula_s(
    temperature: float, seed: int
) -> None:
    assert_agrees(
        partial(BERNOULLI.divergence, temperature=temperature),
        partial(divergence, temperature=temperature),
        [(4, 3), (4, 3)],
        seed,
    )


def test_certain_answers_cost_what_they_say_and_nothing_overflows() -> None:
    answers = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    targets = torch.tensor([[1, 0], [1, 0]])
    costs = BERNOULLI.nll(answers, targets)
    assert costs.tolist() == [0.0, 200.0]
    far = BERNOULLI.divergence(answers, answers.detach().flip(0), temperature=1.0)
    assert far.tolist() == [200.0, 200.0]
    (slope,) = torch.autograd.grad((costs + far).sum(), answers)
    assert slope.isfinite().all()
    assert BERNOULLI.decide(answers / 1000).tolist() == [[1, 0], [0, 1]]


def drawn(seed: int, rows: int = 60) -> tuple[Tensor, Tensor]:
    """Logits (N, 3) that say something of targets (N, 3), each label with some of both."""
    draws = np.random.default_rng(seed)
    targets = (draws.random((rows, 3)) < [0.2, 0.5, 0.7]).astype(int)
    targets[:2] = [[0, 1, 0], [1, 0, 1]]
    logits = 3 * draws.normal(size=(rows, 3)) + 2 * targets - 1
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(targets)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_scores_are_scikit_learn_s(seed: int) -> None:
    answers, targets = drawn(seed)
    y, probabilities = targets.numpy(), torch.sigmoid(answers).numpy()
    decided = probabilities > 0.5
    f1, auroc, precision, accuracy = (score.of(answers, targets) for score in multi_label().scores)
    assert f1["macro_f1"] == pytest.approx(metrics.f1_score(y, decided, average="macro"))
    assert f1["macro_f1_by_class"] == pytest.approx(metrics.f1_score(y, decided, average=None))
    assert accuracy["label_accuracy"] == pytest.approx((decided == y).mean())
    assert accuracy["label_accuracy_by_class"] == pytest.approx((decided == y).mean(axis=0))
    # Counted in bins, whose records are ties.
    assert auroc["auroc"] == pytest.approx(metrics.roc_auc_score(y, probabilities), abs=0.01)
    exact = metrics.average_precision_score(y, probabilities)
    assert precision["average_precision"] == pytest.approx(exact, abs=0.02)


def test_counters_of_parts_add_up_to_those_of_all() -> None:
    answers, targets = drawn(3)
    for score in multi_label().scores:
        parts = [score.tally(answers[part], targets[part]) for part in (slice(25), slice(25, None))]
        assert torch.equal(parts[0] + parts[1], score.tally(answers, targets))
        assert (parts[0].shape, parts[0].dtype) == (score.counts.shape, score.counts.dtype)


def test_a_label_that_no_record_has_is_left_out_of_the_ranking_scores() -> None:
    answers, targets = drawn(4)
    targets[:, 1] = 0
    _, auroc, *_ = multi_label().scores
    figures = auroc.of(answers, targets)
    first, missing, last = figures["auroc_by_class"]
    assert missing is None
    assert figures["auroc"] == pytest.approx((first + last) / 2)


def test_what_it_is() -> None:
    task = multi_label(())
    assert (task.answer, task.targets, task.names) == ((3,), "binary", NAMES)
    assert task.headline.name == "macro-f1"
    assert task.offers == {"features"}


def test_one_label_is_a_classification() -> None:
    with pytest.raises(ConfigError, match=r"has 1 label: expected two or more; for one, take 'cla"):
        tasks.build(TaskChoice(name="multi-label"), inputs=(5,), names=["ill"])


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels(tmp_path_factory.mktemp("data") / "labels.csv")


@pytest.mark.parametrize("method", ["fedmd", "fedavg", "feddf"])
def test_a_federation_learns_labels_from_columns(labels: Path, method: str, tmp_path: Path) -> None:
    changes = {
        "task": {"name": "multi-label", "scores": ["auroc", "macro-f1"]},
        "data.label": ["red", "green", "blue"],
        "method": {"name": method},
    }
    asked = experiment(labels, changes)
    summary = simulate(asked, tmp_path / "run")
    assert summary["student"]["auroc"] > 0.85
    assert summary["student"]["macro_f1"] > 0.6
    assert "mean_auroc" in summary["teachers"]
    partition = reading.read(tmp_path / "run").partition
    assert partition.classes == ("red", "green", "blue")
    # A record may have all of the labels, or none.
    assert sum(partition.sizes) == prepare(asked).data.pooled().y.shape[0]
    assert partition.counts == tuple(map(tuple, prepare(asked).data.counts().tolist()))
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Training samples by client and label or number" in report
