"""Numbers: likelihood and scores as their formulas and scikit-learn say, in the right units."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import Array, assert_agrees
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics
from task_tables import experiment, write_numbers
from torch import Tensor

from fedkd import tasks
from fedkd.config import Experiment, TaskChoice
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.tasks import Task
from fedkd.tasks.likelihoods.gaussian import gaussian

SCORES = ("rmse", "mae", "r2")
NAMES = ("price", "area")
LIMITS = [(-3.0, 5.0), (100.0, 101.0)]
GAUSSIAN = gaussian(LIMITS)


def regression(**options: Any) -> Task:
    choice = TaskChoice(name="regression", scores=SCORES, **options)
    return tasks.build(choice, inputs=(5,), names=NAMES)


def scaled(targets: Array) -> Array:
    middles, halves = np.array([1.0, 100.5]), np.array([4.0, 0.5])
    return (targets - middles) / halves


def nll(answers: Array, targets: Array) -> Array:
    return ((answers - scaled(targets)) ** 2 / 2).mean(axis=1)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_of_the_likelihood_are_the_formula_s(seed: int) -> None:
    assert_agrees(GAUSSIAN.nll, nll, [(4, 2), (4, 2)], seed)
    assert_agrees(GAUSSIAN.mean_nll, lambda a, y: nll(a, y).mean(), [(4, 2), (4, 2)], seed)


@pytest.mark.parametrize("temperature", [0.7, 4.0])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_the_divergence_is_half_the_squared_difference_at_any_temperature(
    temperature: float, seed: int
) -> None:
    assert_agrees(
        partial(GAUSSIAN.divergence, temperature=temperature),
        lambda student, teacher: ((student - teacher) ** 2 / 2).mean(axis=1),
        [(4, 2), (4, 2)],
        seed,
    )


def test_the_likelihood_is_the_normal_density_up_to_its_constant() -> None:
    draws = np.random.default_rng(0)
    answers, targets = draws.normal(size=(2, 6, 2))
    density = stats.norm.logpdf(scaled(targets), loc=answers) + np.log(2 * np.pi) / 2
    found = GAUSSIAN.nll(torch.tensor(answers), torch.tensor(targets))
    np.testing.assert_allclose(found.numpy(), -density.mean(axis=1))


def test_an_answer_of_minus_one_and_one_decides_for_the_limits() -> None:
    answers = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 3.0]])
    decided = GAUSSIAN.decide(answers)
    assert decided.tolist() == [[-3.0, 100.0], [5.0, 101.0], [1.0, 102.0]]
    assert GAUSSIAN.nll(answers, decided).tolist() == [0.0, 0.0, 0.0]


def drawn(seed: int, rows: int = 50) -> tuple[Tensor, Tensor]:
    """Answers (N, 2), scaled, that say something of targets (N, 2) of unlike units."""
    draws = np.random.default_rng(seed)
    answers = draws.normal(size=(rows, 2))
    targets = (answers + draws.normal(size=(rows, 2))) * [4.0, 0.5] + [1.0, 100.5]
    return torch.tensor(answers, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_scores_are_scikit_learn_s_in_the_targets_units(seed: int) -> None:
    answers, targets = drawn(seed)
    task = regression(limits=LIMITS)
    y, decided = targets.double().numpy(), task.likelihood.decide(answers).double().numpy()
    references = (
        metrics.root_mean_squared_error,
        metrics.mean_absolute_error,
        metrics.r2_score,
    )
    for score, reference in zip(task.scores, references, strict=True):
        figures = score.of(answers, targets)
        assert figures[score.figure] == pytest.approx(reference(y, decided))
        each = reference(y, decided, multioutput="raw_values")
        assert figures[score.by_class] == pytest.approx(each)


@pytest.mark.parametrize(("unit", "offset"), [(1e-6, 0.0), (1.0, 1e4), (1e6, -1e9)])
def test_r2_is_right_in_any_unit(unit: float, offset: float) -> None:
    answers, targets = drawn(1)
    low, high = (np.array(LIMITS) * unit + offset).T
    limits = np.stack([low, high], axis=1).tolist()
    [moved] = tasks.build(
        TaskChoice(name="regression", scores=("r2",), limits=limits), inputs=(5,), names=NAMES
    ).scores
    there = torch.tensor(targets.double().numpy() * unit + offset, dtype=torch.float32)
    *_, plain = regression(limits=LIMITS).scores
    expected = plain.of(answers, targets)["r2"]
    assert moved.of(answers, there)["r2"] == pytest.approx(expected, abs=1e-2)


def test_counters_of_parts_add_up_to_those_of_all() -> None:
    answers, targets = drawn(2)
    for score in regression(limits=LIMITS).scores:
        parts = [score.tally(answers[part], targets[part]) for part in (slice(20), slice(20, None))]
        torch.testing.assert_close(parts[0] + parts[1], score.tally(answers, targets))
        assert (parts[0].shape, parts[0].dtype) == (score.counts.shape, score.counts.dtype)


@pytest.mark.parametrize("rows", [1, 5])
def test_r2_of_what_does_not_vary_is_not_defined(rows: int) -> None:
    *_, r2 = regression(limits=LIMITS).scores
    answers, targets = drawn(3, rows)
    targets[:, 0] = 0.1
    figures = r2.of(answers, targets)
    first, second = figures["r2_by_class"]
    assert first is None
    assert figures["r2"] == second
    assert (second is None) == (rows == 1)


def test_whatever_counters_say_a_figure_is_a_number_or_none() -> None:
    for score in regression(limits=LIMITS).scores:
        for value in (0.0, -1.0, 1e308):
            counters = torch.full(score.counts.shape, value, dtype=torch.float64)
            figures = score.read(counters, torch.tensor(torch.inf))
            assert figures[score.figure] is None or np.isfinite(figures[score.figure])


def test_what_it_is() -> None:
    task = tasks.build(TaskChoice(name="regression"), inputs=(3, 8, 8), names=NAMES)
    assert (task.answer, task.targets, task.names) == ((2,), "numbers", NAMES)
    assert (task.headline.name, task.headline.higher, task.headline.share) == ("rmse", False, False)
    assert task.offers == {"image"}
    answers = torch.randn(4, 2)
    assert torch.equal(task.likelihood.decide(answers), answers)  # no limits: as they are


def test_one_pair_of_limits_is_for_all_numbers() -> None:
    one = regression(limits=[0.0, 10.0]).likelihood
    both = regression(limits=[[0.0, 10.0], [0.0, 10.0]]).likelihood
    answers = torch.randn(4, 2)
    assert torch.equal(one.decide(answers), both.decide(answers))
    assert one.decide(torch.zeros(1, 2)).tolist() == [[5.0, 5.0]]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            [[0, 1], [0, 1], [0, 1]],
            r"task\.limits has 3 pairs, and the data 2 numbers \(price, are",
        ),
        ([5, 5], r"task\.limits has \[5, 5\]: expected the lower limit first"),
        ([[0, 1], [1, 0]], r"task\.limits has \[1, 0\]: expected the lower limit first"),
        ([1e9, 1e9 + 1], "as float32"),
        ([1, 2, 3], r"key .task\.limits\[0\]. is \[1, 2, 3\]"),
        ("wide", r"key .task\.limits. is .wide."),
    ],
)
def test_limits_that_are_none_are_refused(limits: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        regression(limits=limits)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbers(tmp_path_factory.mktemp("data") / "numbers.csv")


def of_price(numbers: Path, changes: dict[str, Any]) -> Experiment:
    task = {"name": "regression", "limits": [0, 600], "scores": ["rmse", "r2"]}
    about = {"task": task, "data.label": "price", "data.ignore": ["visits"]}
    return experiment(numbers, {**about, **changes})


@pytest.mark.parametrize("method", ["fedmd", "fedavg", "feddf"])
def test_a_federation_learns_numbers_from_a_column(
    numbers: Path, method: str, tmp_path: Path
) -> None:
    summary = simulate(of_price(numbers, {"method": {"name": method}}), tmp_path / "run")
    assert summary["student"]["r2"] > 0.7
    assert 10 < summary["student"]["rmse"] < 45  # of prices, which vary by 74
    assert "mean_rmse" in summary["teachers"]


def test_numbers_are_learned_under_a_budget(numbers: Path, tmp_path: Path) -> None:
    privacy = {"epsilon": 1e4, "noise_multiplier": 0.3, "sample_rate": 0.3}
    summary = simulate(of_price(numbers, {"privacy": privacy, "rounds": 1}), tmp_path / "run")
    assert summary["student"]["r2"] > 0.3
    assert summary["privacy"]["unit"] == "record"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": {"name": "dsfl"}},
            r"method 'dsfl' asks for categorical, which task 'regression' on inputs of shape "
            r"\(4,\) does not offer: choose one of local, centralised, fedavg, fedprox, scaffold, ",
        ),
        (
            {"data.partition": {"scheme": "dirichlet"}},
            r"data\.partition\.scheme is 'dirichlet'.* expected 'iid' or 'natural'",
        ),
        (
            {"task.scores": ["rmse", "confusion"]},
            "'confusion'.* does not suit task 'regression'.*rmse, mae, r2",
        ),
        ({"task.limit": [0, 1]}, r"unknown key 'task\.limit': did you mean 'task\.limits'\?"),
    ],
)
def test_what_does_not_suit_is_refused_in_one_line(
    numbers: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        prepare(of_price(numbers, changes))
    assert "\n" not in str(caught.value)


def test_errors_on_the_wire_are_at_least_0() -> None:
    rmse, mae, r2 = regression(limits=LIMITS).scores
    assert (rmse.counts.low, mae.counts.low, r2.counts.low) == (0, 0, -torch.inf)
