import math
from collections.abc import Callable

import pytest
from scipy.special import log_ndtr

from fedkd.errors import BudgetError
from fedkd.privacy.accountant import epsilon, filter_epsilon
from fedkd.privacy.budget import Budget
from fedkd.privacy.calibration import noise_for
from fedkd.privacy.events import Gaussian, Laplace, Protected

SPENT = [Gaussian("training", 1.2, 0.01, 300), Gaussian("release", 20.0, steps=5)]


def sgd(noise: float) -> list[Protected]:
    return [Gaussian("training", noise, 0.02, 200)]


def with_releases(noise: float) -> list[Protected]:
    return [*sgd(noise), Gaussian("release", 20.0, steps=5), Laplace("count", 50.0)]


def votes(noise: float) -> list[Protected]:
    return [Laplace("votes", noise, steps=10)]


def cost(events: list[Protected], target: Budget, spent: list[Protected]) -> float:
    """As a ledger enforces it: what follows on earlier spending, by the filter."""
    return filter_epsilon(events, target) if spent else epsilon(events, target.delta)


@pytest.mark.parametrize(
    ("target", "plan", "spent"),
    [
        (Budget(2.0, 1e-6), sgd, []),
        (Budget(1.5, 1e-5), sgd, SPENT),
        (Budget(1.5, 1e-5), with_releases, []),
        (Budget(6.0, 1e-6), votes, []),
        (Budget(1.5, 1e-5), votes, SPENT),
    ],
)
def test_the_noise_is_the_least_that_fits(
    target: Budget, plan: Callable[[float], list[Protected]], spent: list[Protected]
) -> None:
    noise = noise_for(target, plan, spent=iter(spent))
    assert cost([*spent, *plan(noise)], target, spent) <= target.epsilon
    assert cost([*spent, *plan(noise * (1 - 1e-3))], target, spent) > target.epsilon


@pytest.mark.parametrize("target", [Budget(0.05, 1e-5), Budget(1.0, 1e-7), Budget(8.0, 1e-5)])
def test_the_noise_of_one_release_is_the_analytic_gaussian_s(target: Budget) -> None:
    noise = noise_for(target, lambda noise: [Gaussian("release", noise)])
    for factor, fits in ((1.0, True), (0.995, False)):  # Balle & Wang 2018, arXiv:1805.06530
        a, b = 0.5 / (noise * factor), target.epsilon * noise * factor
        delta = math.exp(log_ndtr(a - b)) - math.exp(target.epsilon + log_ndtr(-a - b))
        assert (delta <= target.delta) == fits


def test_a_larger_budget_takes_less_noise_and_has_few_digits() -> None:
    noises = [noise_for(Budget(target, 1e-5), sgd) for target in (0.5, 1.5)]
    assert noises == sorted(noises, reverse=True)
    assert all(float(f"{noise:.5g}") == noise for noise in noises)


def test_a_plan_that_fits_without_noise_gets_the_least() -> None:
    assert noise_for(Budget(1.0, 1e-5), lambda _: []) == 0.01
    assert noise_for(Budget(1e6, 1e-5), lambda noise: [Gaussian("a", noise)]) == 0.01


@pytest.mark.parametrize(
    ("target", "spent"),
    [(Budget(1.0, 1e-5), [Gaussian("training", 1.1, 0.01, 5000)]), (Budget(1e-4, 1e-5), [])],
)
def test_a_plan_that_no_noise_fits_is_refused_in_one_line(
    target: Budget, spent: list[Protected]
) -> None:
    with pytest.raises(BudgetError) as caught:
        noise_for(target, with_releases, spent=spent)
    message = str(caught.value)
    assert "\n" not in message
    assert str(target) in message
    taken = f"{cost(spent, target, spent):.4g} is taken already" if spent else "noise of its own"
    assert taken in message
    assert "raise the budget" in message


def test_a_budget_that_is_nearly_spent_is_met() -> None:
    target = Budget(filter_epsilon(SPENT, Budget(1.3, 1e-5)) * 1.001, 1e-5)
    noise = noise_for(target, sgd, spent=SPENT)
    assert filter_epsilon([*SPENT, *sgd(noise)], target) <= target.epsilon
    assert filter_epsilon([*SPENT, *sgd(noise * (1 - 1e-3))], target) > target.epsilon


def test_events_of_another_unit_than_the_budget_s_are_refused() -> None:
    with pytest.raises(ValueError, match="one unit"):
        noise_for(Budget(1.0, 1e-5, unit="client"), sgd)
    with pytest.raises(ValueError, match="one adjacency"):
        noise_for(Budget(1.0, 1e-5), sgd, spent=[Laplace("a", 1.0, adjacency="replace-one")])
