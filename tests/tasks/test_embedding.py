"""Embeddings: likelihood and scores as numpy says over all pairs, and people nobody trained on."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from agreement import Array, assert_agrees, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from fedkd import config, data, tasks
from fedkd.config import Experiment, TaskChoice
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, DataError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.knowledge.geometry import cosines
from fedkd.learning import evaluate
from fedkd.tasks import Task
from fedkd.tasks.likelihoods.contrastive import contrastive, mean_of_cosines
from fedkd.tasks.scores.verification import BINS

Floats = NDArray[np.float64]
TAU = 0.3
LIKELIHOOD = contrastive(TAU)
PEOPLE = torch.tensor([0, 1, 0, 2, 1, 0])  # the fourth record is alone
FEATURES = 6


def embedding(**options: Any) -> Task:
    choice = TaskChoice(name="embedding", **options)
    return tasks.build(choice, inputs=(1, 8, 8), names=[str(n) for n in range(9)])


def log_picks(answers: Array, tau: float) -> Array:
    """The logarithm of the chance that record i picks record j, by loops."""
    units = [row / np.sqrt((row * row).sum()) for row in answers]
    size = len(units)
    found = np.zeros((size, size), dtype=np.complex128)
    for i in range(size):
        exps = {j: np.exp((units[i] * units[j]).sum() / tau) for j in range(size) if j != i}
        for j, value in exps.items():
            found[i, j] = np.log(value / sum(exps.values()))
    return found


def nll(answers: Array) -> Array:
    picks, y = log_picks(answers, TAU), PEOPLE.numpy()
    same = [[j for j in range(len(y)) if j != i and y[j] == y[i]] for i in range(len(y))]
    return np.array(
        [-sum(picks[i, j] for j in own) / max(len(own), 1) for i, own in enumerate(same)]
    )


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_of_the_likelihood_are_the_formula_s(seed: int) -> None:
    assert_agrees(lambda a: LIKELIHOOD.nll(a, PEOPLE), nll, [(6, 3)], seed)
    assert_agrees(lambda a: LIKELIHOOD.mean_nll(a, PEOPLE), lambda a: nll(a).mean(), [(6, 3)], seed)


@pytest.mark.parametrize("temperature", [0.7, 4.0])
def test_the_divergence_is_that_of_whom_a_record_would_pick(temperature: float) -> None:
    def divergence(student: Array, teacher: Array) -> Array:
        s, t = (log_picks(each, TAU * temperature) for each in (student, teacher))
        others = ~np.eye(len(s), dtype=bool)
        return temperature**2 * np.where(others, np.exp(t) * (t - s), 0).sum(axis=1)

    def found(student: Tensor, teacher: Tensor) -> Tensor:
        return LIKELIHOOD.divergence(student, teacher, temperature=temperature)

    assert_agrees(found, divergence, [(4, 3), (4, 5)], 7)


def test_a_record_alone_of_its_kind_or_of_its_batch_costs_nothing() -> None:
    answers = torch.randn(1, 3, requires_grad=True)
    value = LIKELIHOOD.mean_nll(answers, torch.tensor([4]))
    value.backward()
    assert value.item() == 0
    assert answers.grad is not None
    assert answers.grad.abs().max() == 0
    assert LIKELIHOOD.nll(torch.randn(6, 3), PEOPLE)[3] == 0


def test_models_come_together_by_their_cosines_whatever_their_axes() -> None:
    one, other = torch.randn(9, 3).double(), torch.randn(9, 3).double()
    wide = [torch.cat([each, torch.zeros(9, 5)], dim=1) for each in (one, other)]
    turned = [each @ rotation(8, seed) for seed, each in enumerate(wide)]
    mixed = mean_of_cosines(torch.stack(turned))
    expected = (cosines(one) + cosines(other)) / 2
    torch.testing.assert_close(mixed @ mixed.T, expected)
    few = mean_of_cosines(torch.stack([one, one @ rotation(3, 5)]))
    torch.testing.assert_close(few @ few.T, cosines(one))
    assert mean_of_cosines(torch.randn(3, 2, 16)).shape == (2, 16)  # fewer records than axes


def exact_rate(genuine: Floats, impostors: Floats, false_accepts: float) -> float:
    """TAR of a list of angles: the best threshold is at an impostor, below which few are."""
    allowed = math.floor(false_accepts * len(impostors) + 1e-9)
    threshold = np.sort(impostors)[allowed] if allowed < len(impostors) else math.inf
    return float((genuine < threshold).mean())


def angles(answers: Tensor, y: Tensor) -> tuple[Floats, Floats]:
    """All angles between two records of one identity, and of two."""
    rows = answers.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    by_kind: tuple[list[float], list[float]] = ([], [])
    for i in range(len(rows)):
        for j in range(i):
            angle = math.acos(min(1.0, max(-1.0, float(rows[i] @ rows[j]))))
            by_kind[int(y[i] != y[j])].append(angle)
    return np.array(by_kind[0]), np.array(by_kind[1])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    people=st.integers(2, 12),
    far=st.sampled_from([0.001, 0.01, 0.1, 0.5]),
)
def test_the_rate_is_that_of_all_pairs_to_within_a_bin(seed: int, people: int, far: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(people).repeat_interleave(4)[torch.randperm(4 * people, generator=draws)]
    centres = torch.randn(people, 5, generator=draws)
    answers = centres[y] + 0.5 * torch.randn(len(y), 5, generator=draws)
    score = tasks.scores.verification.true_accepts("tar", far)
    found = score.of(answers, y)["tar"]
    genuine, impostors = angles(answers, y)
    width = math.pi / BINS
    assert found <= exact_rate(genuine, impostors, far) + 1e-12
    # Who moves each genuine pair a bin away gets no more than the counters say.
    assert found >= exact_rate(genuine + width, impostors, far) - 1e-12
    binned = [np.floor(each / width) for each in (genuine, impostors)]
    assert found == pytest.approx(exact_rate(binned[0], binned[1], far))


def test_bins_cost_next_to_nothing_of_a_hundred_thousand_pairs() -> None:
    draws = torch.Generator().manual_seed(1)
    y = torch.arange(60).repeat_interleave(8)
    answers = torch.randn(60, 16, generator=draws)[y]
    answers = answers + 0.7 * torch.randn(len(y), 16, generator=draws)
    genuine, impostors = angles(answers, y)
    for score, far in zip(embedding().scores[:2], (0.01, 0.001), strict=True):
        exact = exact_rate(genuine, impostors, far)
        assert 0.3 < exact < 0.99
        assert score.of(answers, y)[score.figure] == pytest.approx(exact, abs=0.01)


def test_a_collapsed_model_and_one_without_numbers_get_nothing() -> None:
    y = torch.arange(5).repeat_interleave(3)
    for answers in (torch.ones(15, 4), torch.full((15, 4), torch.nan), torch.zeros(15, 4)):
        found = [score.of(answers, y)[score.figure] for score in embedding().scores]
        assert found[:2] == [0.0, 0.0]
        assert found[2] <= 0.2  # the gallery's first


def test_rank_1_is_who_is_nearest_of_the_first_record_of_each() -> None:
    y = torch.tensor([7, 3, 7, 3, 3])
    answers = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [1.0, 0.9], [0.1, 5.0]])
    *_, rank = embedding().scores
    assert rank.tally(answers, y).tolist() == [2]  # the fourth is nearer to 7's first
    assert rank.of(answers, y) == {"rank_1": pytest.approx(2 / 3)}


@pytest.mark.parametrize(("y", "rank"), [([1, 2, 3], None), ([1, 1, 1], 1.0)])
def test_what_needs_pairs_that_are_not_there_is_not_defined(y: list[int], rank: object) -> None:
    found = [score.of(torch.randn(3, 4), torch.tensor(y)) for score in embedding().scores]
    assert [each.popitem()[1] for each in found] == [None, None, rank]


def test_counters_are_bounded_and_those_of_parties_add_up() -> None:
    answers, y = torch.randn(40, 4), torch.arange(10).repeat(4)
    for score in embedding().scores:
        tally = score.tally(answers, y)
        assert (tally.shape, tally.dtype) == (score.counts.shape, score.counts.dtype)
        assert (tally <= score.totals(y)).all()
        both = score.read(tally + tally, 2 * score.totals(y))
        assert both == score.of(answers, y)


def test_pairs_are_counted_over_more_records_than_a_model_is_asked_at_once() -> None:
    samples = Samples(torch.randn(700, 4), torch.arange(350).repeat(2))
    score = embedding().headline
    found = evaluate.tallies(torch.nn.Identity(), samples, [score])[score.figure]
    assert found.sum(dim=1).tolist() == [700 * 699 // 2 - 350, 350]
    assert torch.equal(found, score.tally(samples.x, samples.y))


def test_what_it_is() -> None:
    task = embedding(dimensions=5)
    assert (task.answer, task.targets, task.offers) == ((5,), "identities", {"image"})
    assert task.likelihood.couples
    assert task.headline.figure == "tar_at_far_1e_2"
    with pytest.raises(ConfigError, match=r"key .task\.dimensions. is 0"):
        embedding(dimensions=0)


def write_people(path: Path, people: int = 30, unseen: int = 8) -> Path:
    """Noisy copies of a vector a person; the last people are for testing alone."""
    draws = np.random.default_rng(3)
    y = np.repeat(np.arange(people), 8)
    x = draws.normal(size=(people, FEATURES))[y] + 0.4 * draws.normal(size=(len(y), FEATURES))
    x = np.hstack([x, 2 * draws.normal(size=x.shape)])  # and as many that say nothing
    train = y < people - unseen
    arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[~train], "y_test": y[~train]}
    np.savez(path, **{**arrays, "client_train": y[train] % 2})
    return path


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "people.npz")


SMALL = {"name": "mlp", "hidden": [16]}


def federated(people: Path, changes: dict[str, Any]) -> Experiment:
    about = {
        "task": {"name": "embedding", "dimensions": 8},
        "data.partition": {"scheme": "natural"},
        "data.public": {"source": "held-out", "size": 80},
        "clients.count": None,
        "clients.models": [SMALL],
        "clients.training": {"epochs": 8, "batch_size": 32, "learning_rate": 0.05},
        "student.model": SMALL,
        "rounds": 2,
    }
    return tiny.experiment(people, {**about, **changes})


def test_people_of_the_test_set_may_be_new(people: Path) -> None:
    found = data.load(config.Source(name=str(people)), seed=0, targets="identities")
    assert found.classes == 30
    assert not set(found.train.y.tolist()) & set(found.test.y.tolist())
    with pytest.raises(DataError, match=r"y_test is 22 at index 0; expected 0\.\.21"):
        data.load(config.Source(name=str(people)), seed=0)


def untrained(people: Path) -> float:
    prepared = prepare(federated(people, {}))
    fresh = prepared.setting.build(prepared.experiment.student.model, purpose="student")
    found = evaluate.score(fresh, prepared.data.test, prepared.setting.task.scores)
    return float(found["rank_1"])


LONGER = {"epochs": 30, "learning_rate": 0.05}


@pytest.mark.parametrize("method", [{"name": "fedavg"}, {"name": "fedmd", "student": LONGER}])
def test_a_federation_learns_to_tell_people_apart_whom_it_never_saw(
    people: Path, method: dict[str, Any], tmp_path: Path
) -> None:
    summary = simulate(federated(people, {"method": method}), tmp_path / "run")
    assert summary["student"]["rank_1"] > untrained(people) + 0.15
    assert "mean_tar_at_far_1e_2" in summary["teachers"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"privacy": {"epsilon": 8}}, "'embedding' cannot be learned under .privacy. .*compares"),
        ({"method": {"name": "dsfl"}}, "'dsfl' asks for categorical"),
        (
            {"data.name": "people.csv"},
            "cells hold classes.* asks for identities: name an .npz file or a folder",
        ),
        ({"data.name": "fashion-mnist-sample"}, "the task asks for identities"),
        ({"task.margin": 1}, r"unknown key 'task\.margin'"),
    ],
)
def test_what_does_not_suit_is_refused_in_one_line(
    people: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        prepare(federated(people, changes))
    assert "\n" not in str(caught.value)
