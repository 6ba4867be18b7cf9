"""Recommendation: likelihood and scores as their formulas and scikit-learn say, and it learns."""

from functools import partial
from pathlib import Path

import drawn_clicks
import numpy as np
import pytest
import torch
from agreement import Array, assert_agrees
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from torch import Tensor

from fedkd import tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.models import build, call
from fedkd.tasks import Task
from fedkd.tasks.likelihoods.multinomial import MULTINOMIAL, SEEN

Y = [[1, 0, 0, 1, -100], [0, 1, -100, 0, 1], [0, 0, 1, -100, 0]]
SCORES = tuple(f"{name}@{k}" for name in ("ndcg", "hr", "recall") for k in (1, 5, 20))


def recommendation(scores: tuple[str, ...] = SCORES, items: int = 5) -> Task:
    names = [f"i{n}" for n in range(items)]
    choice = TaskChoice(name="recommendation", scores=scores)
    return tasks.build(choice, inputs=(items,), names=names)


def log_p(logits: Array, counts: list[int]) -> Array:
    kept = logits[counts]
    return kept - np.log(np.exp(kept).sum())


def nll(logits: Array) -> Array:
    """Of what a user took, over the items that count: by hand, user by user."""
    costs = []
    for row, y in zip(logits, Y, strict=True):
        counts = [n for n, value in enumerate(y) if value != -100]
        taken = [place for place, n in enumerate(counts) if y[n] == 1]
        costs.append(-log_p(row, counts)[taken].mean())
    return np.array(costs)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_of_the_likelihood_are_the_formula_s(seed: int) -> None:
    targets = torch.tensor(Y)
    assert_agrees(lambda logits: MULTINOMIAL.nll(logits, targets), nll, [(3, 5)], seed)
    assert_agrees(
        lambda logits: MULTINOMIAL.mean_nll(logits, targets),
        lambda logits: nll(logits).mean(),
        [(3, 5)],
        seed,
    )


HIDDEN = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0]]).bool()
ALSO = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()


def divergence(student: Array, teacher: Array, temperature: float) -> Array:
    """KL over what neither has seen."""
    values = []
    for row in range(3):
        both = np.flatnonzero(~(HIDDEN | ALSO)[row].numpy())
        s, t = (log_p(each[row] / temperature, list(both)) for each in (student, teacher))
        values.append((np.exp(t) * (t - s)).sum())
    return temperature**2 * np.array(values)


@pytest.mark.parametrize("temperature", [0.7, 4.0])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_the_divergence_is_that_of_what_neither_has_seen(temperature: float, seed: int) -> None:
    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        seen = student.masked_fill(HIDDEN, SEEN), teacher.masked_fill(ALSO, SEEN)
        return MULTINOMIAL.divergence(*seen, temperature=temperature)

    assert_agrees(loss, partial(divergence, temperature=temperature), [(3, 5), (3, 5)], seed)


def test_items_in_sight_are_neither_learned_nor_recommended() -> None:
    answers = torch.tensor([[3.0, SEEN, 1.0], [SEEN, SEEN, SEEN]], requires_grad=True)
    costs = MULTINOMIAL.nll(answers, torch.tensor([[0, 1, 1], [1, 1, 0]]))
    assert costs[1] == 0
    assert costs[0].item() == pytest.approx(np.log(1 + np.exp(2)))
    (slope,) = torch.autograd.grad(costs.sum(), answers)
    assert slope.isfinite().all()
    assert slope[0, 1] == 0
    assert MULTINOMIAL.decide(answers[:1]).tolist() == [[1, -100, 0]]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_scores_are_scikit_learn_s_and_numpy_s(seed: int) -> None:
    draws = np.random.default_rng(seed)
    answers = draws.permutation(40 * 12).reshape(40, 12) / 7.0
    targets = draws.choice([0, 0, 0, 1, -100], size=(40, 12))
    figures: dict[str, list[float]] = {name: [] for name in SCORES}
    for row, y in zip(answers, targets, strict=True):
        if not (y == 1).any():
            continue
        counts = y != -100
        best = y[counts][np.argsort(-row[counts])]
        for k in (1, 5, 20):
            ndcg = ndcg_score([y[counts]], [row[counts]], k=k) if counts.sum() > 1 else 1.0
            figures[f"ndcg@{k}"].append(ndcg)
            figures[f"hr@{k}"].append(float(best[:k].any()))
            figures[f"recall@{k}"].append(best[:k].sum() / best.sum())
    scores = recommendation(items=12).scores
    for score in scores:
        found = score.of(torch.tensor(answers), torch.tensor(targets))[score.figure]
        assert found == pytest.approx(np.mean(figures[score.name])), score.name


def test_counters_of_parts_add_up_and_are_bounded_by_the_users() -> None:
    answers = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([*Y, [0, 0, -100, 0, 0], [1, 1, 1, 1, 1]] * 6)
    for score in recommendation().scores:
        whole = score.tally(answers, targets)
        parts = [score.tally(answers[part], targets[part]) for part in (slice(11), slice(11, None))]
        torch.testing.assert_close(parts[0] + parts[1], whole)
        assert (whole.shape, whole.dtype) == (score.counts.shape, score.counts.dtype)
        assert whole[1] == 24
        assert (whole <= score.totals(targets)).all()
        best = score.tally(targets.float(), targets)
        assert (best <= score.totals(targets)).all()
        nobody = score.of(answers[:1], torch.tensor([[0, 0, -100, 0, 0]]))
        assert nobody[score.figure] is None


@pytest.mark.parametrize("name", ["mult-dae", "two-tower", "mlp"])
def test_every_model_is_silent_about_what_it_was_shown(name: str) -> None:
    model = build(
        ModelSpec(name=name),
        shape=(5,),
        classes=5,
        generator=torch.Generator().manual_seed(0),
        task=recommendation(),
    )
    history = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    answers = call.answer(model, history)
    assert torch.equal(answers == SEEN, history == 1)
    # How a model sees a user depends on the share of each item alone.
    if name != "mlp":
        torch.testing.assert_close(answers, call.answer(model, 3 * history))


def test_what_it_is() -> None:
    task = recommendation(())
    assert (task.answer, task.targets) == ((5,), "items")
    assert [score.name for score in task.scores] == ["ndcg@10", "hr@10", "recall@10"]
    assert task.offers == {"features", "items"}


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_clicks.write(tmp_path_factory.mktemp("clicks"))


@pytest.mark.parametrize(
    ("method", "model"), [("fedmd", "mult-dae"), ("fedavg", "two-tower"), ("feddf", "mult-dae")]
)
def test_a_federation_learns_what_its_users_like(
    clicks: Path, method: str, model: str, tmp_path: Path
) -> None:
    changes = {"method": {"name": method}}
    if model == "two-tower":
        own = {"name": model, "width": 8}
        changes |= {"clients.models": [own], "student.model": own}
    if method != "fedavg":
        how = {**drawn_clicks.LEARNING, "epochs": 60}
        del how["augment"]
        changes["method"] |= {"student": how}
    asked = drawn_clicks.experiment(clicks, changes)
    summary = simulate(asked, tmp_path / "run")
    # 16 to 18 unseen items, of which 2 are to be found: by chance some .32 of ten.
    assert summary["student"]["recall@10"] > 0.75
    assert "mean_ndcg@10" in summary["teachers"]
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "ndcg@10" in report.lower()


def test_histories_must_be_hidden_in_part(clicks: Path) -> None:
    bare = {**drawn_clicks.LEARNING, "augment": []}
    with pytest.raises(ConfigError, match=r"clients.training.augment hides nothing of users' hist"):
        prepare(drawn_clicks.experiment(clicks, {"clients.training": bare}))


def test_users_of_whom_all_is_in_sight_are_no_test(clicks: Path) -> None:
    with pytest.raises(ConfigError, match=r"clients.test_share would hold out users whose items"):
        prepare(drawn_clicks.experiment(clicks, {"clients.test_share": 0.2}))


def test_methods_and_forms_of_classes_are_refused(clicks: Path) -> None:
    with pytest.raises(ConfigError, match=r"'dsfl' asks for categorical.* choose one of local, "):
        prepare(drawn_clicks.experiment(clicks, {"method": {"name": "dsfl"}}))
    with pytest.raises(ConfigError, match=r"method.loss is 'dkd'.* choose one of .*divergence"):
        prepare(drawn_clicks.experiment(clicks, {"method": {"name": "fedmd", "loss": "dkd"}}))
