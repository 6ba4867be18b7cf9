"""Membership scores and ROC figures against closed forms and oracles."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

from fedkd.auditing import scores
from fedkd.auditing.roc import most_tpr, roc
from fedkd.tasks import Likelihood, Task
from fedkd.tasks.likelihoods.categorical import CATEGORICAL


def test_log_odds_are_those_of_the_true_label():
    logits = torch.tensor([[[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]]])
    y = torch.tensor([0, 2])
    p = logits.softmax(dim=-1).numpy()
    expected = [np.log(p[0, 0, 0] / (1 - p[0, 0, 0])), np.log(0.5)]
    assert scores.log_odds(logits, y)[0] == pytest.approx(expected, abs=1e-6)
    huge = scores.log_odds(torch.tensor([[1000.0, 0.0]]), torch.tensor([0]))
    assert huge == pytest.approx([1000.0])


class Trainings:
    """Records of unlike difficulty, and models that learnt some of them by heart."""

    def __init__(self, seed=0, records=400, references=16):
        draw = np.random.default_rng(seed)
        self.difficulty = draw.normal(0, 3, records)
        self.included = draw.random(records) < 0.5
        self.reference_included = draw.random((references, records)) < 0.5
        noise = draw.normal(0, 1, (references + 1, records))
        self.odds = self.difficulty + 2 * self.included + noise[0]
        self.references = self.difficulty + 2 * self.reference_included + noise[1:]
        self.population = draw.normal(0, 3, 300)
        self.population_references = self.population + draw.normal(0, 1, (references, 300))

    def auc(self, told):
        return roc(told[self.included], told[~self.included]).auc.value


def test_reference_models_tell_an_easy_record_from_a_learnt_one():
    w = Trainings()
    given = (w.odds, w.references, w.reference_included)
    baseline = w.auc(scores.loss_threshold(w.odds))
    assert baseline < 0.7
    for told in (
        scores.lira(*given),
        scores.offline_lira(*given),
        scores.rmia(*given, w.population, w.population_references),
    ):
        assert w.auc(told) > baseline + 0.1
    assert w.auc(scores.lira(*given)) > 0.85  # 0.92 with the true means


def test_a_record_that_no_reference_learnt_is_still_scored():
    w = Trainings(references=4)
    w.reference_included[:, 0] = False
    w.reference_included[:, 1] = True
    told = scores.lira(w.odds, w.references, w.reference_included)
    assert np.isfinite(told).all()


@pytest.mark.parametrize("attack", [scores.lira, scores.offline_lira])
def test_references_of_another_size_are_refused(attack):
    with pytest.raises(ValueError, match="Expected references and included"):
        attack(np.zeros(3), np.zeros((2, 4)), np.zeros((2, 4), bool))
    with pytest.raises(ValueError, match="at least 2 reference models"):
        attack(np.zeros(3), np.zeros((1, 3)), np.zeros((1, 3), bool))


def test_the_area_is_that_of_scikit_learn_also_with_ties():
    draw = np.random.default_rng(0)
    members, others = draw.integers(0, 9, 150) + 1.0, draw.integers(0, 9, 170).astype(float)
    found = roc(members, others)
    truth = np.repeat([1, 0], [150, 170])
    told = np.concatenate([members, others])
    assert found.auc.value == pytest.approx(metrics.roc_auc_score(truth, told))
    fpr, tpr, _ = metrics.roc_curve(truth, told, drop_intermediate=False)
    assert found.fpr == pytest.approx(fpr)
    assert found.tpr == pytest.approx(tpr)


def test_the_intervals_hold_what_they_promise():
    """Of 200 data sets with a true area of 0.76 about ten may miss it."""
    draw = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        area = roc(draw.normal(1, 1, 80), draw.normal(0, 1, 80)).auc
        missed += not area.low <= 0.7602 <= area.high
    assert missed <= 20


def test_a_rate_that_too_few_others_show_is_not_told():
    draw = np.random.default_rng(0)
    few = roc(draw.normal(1, 1, 50), draw.normal(0, 1, 50)).at
    assert few == {0.01: None, 0.001: None}
    some = roc(np.arange(100.0) + 50, np.arange(100.0)).at
    assert some[0.001] is None
    assert some[0.01].value == pytest.approx(0.51)  # 98 is the second highest of the others
    assert some[0.01].low < 0.51 < some[0.01].high


@pytest.mark.parametrize(("members", "others"), [([1.0], [0.0, 0.0]), ([1.0, np.nan], [0.0, 1.0])])
def test_what_has_no_curve_is_refused(members, others):
    with pytest.raises(ValueError, match="Expected at least 2 scores"):
        roc(members, others)


def test_a_claim_allows_what_it_says():
    fpr = np.array([0.0, 0.01, 0.5, 1.0])
    most = most_tpr(fpr, [(1.0, 0.01)])
    assert most[:2] == pytest.approx([0.01, 0.01 * np.e + 0.01])
    assert most[3] == 1
    assert most[2] == pytest.approx(1 - (1 - 0.01 - 0.5) / np.e)
    assert (most_tpr(fpr, [(1.0, 0.01), (0.1, 0.1)]) <= most).all()
    assert most_tpr(fpr, [(0.0, 0.0)]) == pytest.approx(fpr)


def test_how_sure_a_model_is_of_a_number_is_the_log_odds_of_its_likelihood() -> None:
    """Of classes the same rule gives `log_odds`: their NLL is -ln p."""
    task = numbers_task()
    answers, targets = torch.tensor([[[0.0, 0.0]], [[1.0, 3.0]]]), torch.tensor([[1.0, 1.0]])
    found = scores.odds_of(task)(answers, targets)
    p = np.exp([-0.5, -1.0])  # half of the mean squares: 1 and 2
    np.testing.assert_allclose(found[:, 0], np.log(p / (1 - p)))
    exact = scores.odds_of(task)(targets[None], targets)
    assert 20 < exact < np.inf
    logits, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), torch.arange(5) % 3
    of_classes = scores.odds_of(replace(task, likelihood=CATEGORICAL))(logits, y)
    np.testing.assert_allclose(of_classes, scores.log_odds(logits, y), rtol=1e-6)


def numbers_task() -> Task:
    def nll(answers: Tensor, targets: Tensor) -> Tensor:
        return (answers - targets).square().mean(dim=1) / 2

    def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        return nll(student, teacher)

    likelihood = Likelihood(nll, lambda a, t: nll(a, t).mean(), divergence, lambda a: a)
    return Task("numbers", (3,), (2,), "numbers", ("a", "b"), likelihood, scores=())
