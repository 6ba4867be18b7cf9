import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from dp_accounting import dp_event
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant
from scipy.optimize import brentq
from scipy.special import log_ndtr

from fedkd.privacy import accountant, renyi
from fedkd.privacy.budget import Budget
from fedkd.privacy.events import Gaussian, Laplace, Protected, Unprotected

ROUND = [Gaussian("training", 1.1, 0.01, 100), Gaussian("release", 20.0)]
BUDGET = Budget(8.0, 1e-5)

SETTINGS: list[tuple[list[Protected], float]] = [
    ([Gaussian("a", 1.0)], 1e-5),
    ([Gaussian("a", 4.0)], 1e-6),
    ([Gaussian("a", 20.0)] * 30, 1e-5),
    ([Gaussian("a", 100.0, steps=7)] * 3, 1e-3),
    ([Gaussian("a", 1.1, 0.01, 1000)], 1e-5),
    ([Gaussian("a", 2.0, 0.01, 50)] * 3, 1e-5),
    ([Gaussian("a", 1.0, 0.001, 300)], 1e-6),
    ([Gaussian("a", 2.0, 0.2, 100)], 1e-5),
    ([Gaussian("a", 4.0, 0.99, 5)], 1e-4),
    ([Gaussian("a", 5.0, 0.05, 1000)], 1e-8),
    ([Gaussian("a", 3.0, 0.1, 9), Gaussian("b", 2.5, 0.1, 9)] * 2, 1e-5),
    ([Laplace("a", 1.0)], 1e-5),
    ([Laplace("a", 10.0)] * 20, 1e-5),
    ([Laplace("a", 3.0), Gaussian("b", 2.0), Gaussian("c", 2.0, 0.02, 40)] * 2, 1e-5),
    ([Gaussian("a", 2.0, unit="client", adjacency="replace-one", steps=3)], 1e-5),
]


def dp(event: Protected) -> Any:
    if isinstance(event, Laplace):
        return dp_event.LaplaceDpEvent(event.noise_multiplier)
    return dp_event.PoissonSampledDpEvent(
        event.sample_rate, dp_event.GaussianDpEvent(event.noise_multiplier)
    )


def composed(oracle: Any, events: Sequence[Protected]) -> Any:
    """One event after the other, ungrouped."""
    for event in events:
        oracle.compose(dp(event), event.steps)
    return oracle


def analytic_gaussian(noise: float, delta: float) -> float:
    """Balle & Wang 2018, arXiv:1805.06530, theorem 8, at sensitivity 1."""

    def excess(epsilon: float) -> float:
        left = log_ndtr(0.5 / noise - epsilon * noise)
        right = epsilon + log_ndtr(-0.5 / noise - epsilon * noise)
        return float(math.exp(left) - math.exp(right)) - delta

    return float(brentq(excess, 0, 1e4, xtol=1e-12)) if excess(0) > 0 else 0.0


@pytest.mark.parametrize(("events", "delta"), SETTINGS)
def test_epsilon_is_that_of_events_composed_one_by_one(
    events: list[Protected], delta: float
) -> None:
    # Ungrouped composition rounds up once an event, so the grouped figure may lie a hair below.
    expected = composed(PLDAccountant(), events).get_epsilon(delta)
    found = accountant.epsilon(events, delta)
    assert expected * (1 - 1e-4) <= found <= expected * 1.01
    assert found <= accountant.epsilon(events, delta, coarse=True) <= found * 1.01 + 1e-3


def test_epsilon_of_fifty_rounds_of_training_and_release_is_the_known_one() -> None:
    assert accountant.epsilon(ROUND * 50, 1e-5) == pytest.approx(3.870, abs=0.01)
    assert accountant.epsilon_rdp(ROUND * 50, 1e-5) == pytest.approx(4.2105, abs=1e-3)


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("noises", [[0.5], [1.0], [30.0] * 4, [2.0, 3.0, 5.0], [1000.0, 200.0]])
def test_epsilon_of_plain_gaussians_is_the_closed_form_and_never_below(
    noises: list[float], delta: float
) -> None:
    together = 1 / math.sqrt(sum(noise**-2 for noise in noises))
    expected = analytic_gaussian(together, delta)
    found = accountant.epsilon([Gaussian("a", noise) for noise in noises], delta)
    assert expected <= found <= expected * 1.001 + 1e-3


@pytest.mark.parametrize("noise", [0.5, 2.0, 10.0])
def test_epsilon_of_laplace_noise_tends_to_that_of_pure_privacy(noise: float) -> None:
    events = [Laplace("a", noise, steps=3)]
    pure = 3 / noise
    # Beyond the last jump of the privacy loss only the atom of P[all noises one way] is left.
    assert accountant.epsilon(events, 1e-10) == pytest.approx(pure, rel=1e-3)
    for cost in (accountant.epsilon, accountant.epsilon_rdp):
        assert cost(events, 1e-2) < pure * 1.2
    assert accountant.epsilon([Laplace("a", noise)], 1e-5) == pytest.approx(
        1 / noise + 2 * math.log1p(-1e-5), rel=1e-3
    )


def test_an_epsilon_beyond_all_use_is_found_at_once() -> None:
    assert accountant.epsilon([Gaussian("a", 0.012)], 1e-5) == pytest.approx(
        analytic_gaussian(0.012, 1e-5), rel=1e-3
    )
    assert accountant.epsilon([Gaussian("a", 1e-3)], 1e-5) > 5e5
    for cost in (accountant.epsilon, accountant.epsilon_rdp):
        assert cost([Gaussian("a", 1e-300, 0.5), Laplace("b", 1e-300)], 1e-5) == math.inf
        assert 0 <= cost([Gaussian("a", 1e300, 0.5), Laplace("b", 1e300)], 1e-5) < 1e-3


@pytest.mark.parametrize("cost", [accountant.epsilon, accountant.epsilon_rdp])
def test_no_events_cost_nothing(cost: Callable[..., float]) -> None:
    assert cost([], 1e-5) == 0.0
    assert accountant.filter_epsilon(iter([]), BUDGET) == 0.0


def costs(events: list[Protected]) -> list[float]:
    return [
        accountant.epsilon(events, 1e-5),
        accountant.epsilon_rdp(events, 1e-5),
        accountant.filter_epsilon(events, BUDGET),
        accountant.quick_epsilon(events, BUDGET),
    ]


def test_more_steps_cost_more_and_more_noise_costs_less() -> None:
    by_steps = [costs([Gaussian("a", 2.0, 0.05, steps)]) for steps in (10, 100, 300)]
    by_noise = [costs([Gaussian("a", noise, 0.05, 100)]) for noise in (4.0, 2.0, 1.5)]
    for rising in (by_steps, by_noise):
        for earlier, later in pairwise(rising):
            assert all(a < b for a, b in zip(earlier, later, strict=True))


def test_rounds_one_by_one_cost_what_they_cost_at_once() -> None:
    at_once = [Gaussian("all", 1.1, 0.01, 5000), Gaussian("all", 20.0, steps=50)]
    assert costs(ROUND * 50) == pytest.approx(costs(at_once), rel=1e-9)
    assert costs(ROUND[::-1] * 50) == costs(ROUND * 50)


def test_ten_threads_that_ask_the_same_compute_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    get_epsilon = PrivacyLossDistribution.get_epsilon_for_delta

    def counted(self: PrivacyLossDistribution, delta: float) -> float:
        asked.append(delta)
        return float(get_epsilon(self, delta))

    monkeypatch.setattr(PrivacyLossDistribution, "get_epsilon_for_delta", counted)
    gate = threading.Barrier(10)

    def ask(thread: int) -> float:
        gate.wait(timeout=600)
        return accountant.epsilon([Gaussian(f"thread {thread}", 1.23456, 0.01, 300)], 1e-5)

    with ThreadPoolExecutor(10) as pool:
        found = set(pool.map(ask, range(10)))
    assert len(found) == len(asked) == 1


RDP_SETTINGS = [*SETTINGS, ([Gaussian("a", 0.7, 0.2, 1000)], 1e-5), ([Laplace("a", 0.3)], 1e-5)]


@pytest.mark.parametrize(("events", "delta"), RDP_SETTINGS)
def test_epsilon_by_rdp_is_dp_accounting_s(events: list[Protected], delta: float) -> None:
    expected = composed(RdpAccountant(), events).get_epsilon(delta)
    found = accountant.epsilon_rdp(events, delta)
    assert expected * (1 - 1e-9) <= found <= expected * 1.01
    assert found >= accountant.epsilon(events, delta) * (1 - 1e-4)


def test_orders_that_do_not_converge_are_left_out_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = [Gaussian("a", 0.71, 0.2, 10)]
    accountant.epsilon_rdp(events, 1e-5)
    assert not caplog.records
    composed(RdpAccountant(), events)  # what others do is heard as before
    assert "failed to converge" in caplog.text


def test_only_this_thread_s_warnings_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("absl").warning
    with accountant._orders_left_out_in_silence():
        log("order failed to converge")
        log("something else")
        other = threading.Thread(target=log, args=("another failed to converge",))
        other.start()
        other.join()
    assert caplog.messages == ["something else", "another failed to converge"]


def test_the_cost_of_nearly_nothing_is_not_rounded_to_nothing() -> None:
    # So little a step that the library's sums cancel; a plain Gaussian q / noise is close to it.
    events = [Gaussian("a", 1e4, 1e-3, 10**9)]
    budget = Budget(0.05, 1e-5)
    order = next(iter(accountant.filter_orders(budget)))
    plain = 10**9 * order * (1e-3 / 1e4) ** 2 / 2
    divergence = 10**9 * renyi.divergence((Gaussian, 1e4, 1e-3), order)
    assert divergence == pytest.approx(plain, rel=1e-3)
    assert accountant.epsilon_rdp(events, 1e-5) > 0


# The filter


@pytest.mark.parametrize(
    ("budget", "order"),
    [
        (Budget(1.0, 1e-5), 25),
        (Budget(3.0, 1e-5), 9),
        (Budget(8.0, 1e-5), 4),
        (Budget(0.1, 1e-5), 232),
        (Budget(1000.0, 1e-5), 2),
        (Budget(1e-9, 1e-5), 1 << 16),
    ],
)
def test_the_filter_s_orders_follow_from_the_budget(budget: Budget, order: int) -> None:
    orders = accountant.filter_orders(budget)
    assert max(orders, key=orders.__getitem__) == order
    assert orders[order] == budget.delta / 2
    assert math.fsum(orders.values()) == pytest.approx(budget.delta, rel=1e-12)
    assert min(orders) >= 2


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0, 20.0])
def test_the_filter_is_near_the_best_for_a_gaussian_that_spends_it(
    epsilon: float,
) -> None:
    budget = Budget(epsilon, 1e-5)
    root = math.sqrt(epsilon + math.log(1e5)) - math.sqrt(math.log(1e5))
    events = [Gaussian("a", 1 / (root * math.sqrt(2)))]
    found = accountant.filter_epsilon(events, budget)
    assert accountant.epsilon_rdp(events, 1e-5) * (1 - 1e-9) <= found < epsilon * 1.08
    assert found > accountant.epsilon(events, 1e-5)


def by_hand(events: list[Protected], budget: Budget) -> float:
    """The least that any order proves at its own share of delta, by dp-accounting."""
    return min(
        composed(RdpAccountant([order]), events).get_epsilon(share)
        for order, share in accountant.filter_orders(budget).items()
    )


@pytest.mark.parametrize("budget", [Budget(1.0, 1e-5), Budget(4.0, 1e-6), Budget(30.0, 1e-4)])
@pytest.mark.parametrize("events", [events for events, _ in RDP_SETTINGS])
def test_the_filter_is_rdp_at_its_orders_and_never_below_the_best(
    events: list[Protected], budget: Budget
) -> None:
    scope = events[0]
    budget = Budget(budget.epsilon, budget.delta, scope.unit, scope.adjacency)
    found = accountant.filter_epsilon(events, budget)
    assert found == pytest.approx(by_hand(events, budget), rel=1e-9)
    assert found >= accountant.epsilon_rdp(events, budget.delta) * (1 - 1e-9)
    assert found >= accountant.quick_epsilon(events, budget) - 1e-9 or found < budget.epsilon / 10


def test_the_filter_composes_a_thousand_rounds_that_all_differ() -> None:
    events = [Gaussian("training", 1 + i / 1000, 0.01, 100) for i in range(1000)]
    expected = by_hand(events, BUDGET)
    assert accountant.filter_epsilon(events, BUDGET) == pytest.approx(expected, rel=1e-9)


def test_the_filter_leaves_room_for_subsampled_training() -> None:
    """At the order that suits plain noise alone this would read 1,590."""
    events = [Gaussian("training", 1.2, 0.01, 300), Gaussian("release", 20.0, steps=5)]
    budget = Budget(0.83, 1e-5)
    assert accountant.filter_epsilon(events, budget) < 2 * accountant.epsilon(events, 1e-5)


# Refusals

ALL = [
    lambda events: accountant.epsilon(events, 1e-5),
    lambda events: accountant.epsilon_rdp(events, 1e-5),
    lambda events: accountant.filter_epsilon(events, BUDGET),
    lambda events: accountant.quick_epsilon(events, BUDGET),
]
SAMPLED_REPLACE = Gaussian("a", 1.0, 0.5, adjacency="replace-one")
BAD: list[tuple[list[Any], str]] = [
    *(
        ([kind("a", noise)], f"finite noise_multiplier={noise} > 0")
        for kind in (Gaussian, Laplace)
        for noise in (0.0, -1.0, math.nan, math.inf)
    ),
    ([Gaussian("a", "1")], "noise_multiplier='1' > 0"),  # type: ignore[arg-type]
    ([Gaussian("a", True)], "noise_multiplier=True > 0"),
    *(
        ([Gaussian("a", 1.0, rate)], f"0 < sample_rate={rate} <= 1")
        for rate in (0.0, -0.1, 1.1, math.nan)
    ),
    *(
        ([kind("a", 1.0, steps=steps)], f"integer steps={steps} >= 1")
        for kind in (Gaussian, Laplace)
        for steps in (0, -1, 1.0, True)
    ),
    ([SAMPLED_REPLACE], "sample_rate=0.5 = 1 under adjacency='replace-one'"),
    ([Gaussian("a", 1.0), Gaussian("b", 1.0, unit="client")], r"one unit .*client.*record"),
    ([Gaussian("a", 1.0), Laplace("b", 1.0, adjacency="replace-one")], "one adjacency"),
    ([Unprotected("a")], "Expected a Gaussian or Laplace event, got Unprotected"),
]


@pytest.mark.parametrize("cost", ALL)
@pytest.mark.parametrize(("events", "message"), BAD)
def test_a_value_out_of_its_range_is_named_before_anything_is_computed(
    cost: Callable[[list[Any]], float], events: list[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cost([Gaussian("good", 1.0), *events] if len(events) == 1 else events)


@pytest.mark.parametrize("cost", [accountant.epsilon, accountant.epsilon_rdp])
@pytest.mark.parametrize("delta", [0.0, 1.0, -0.5, 2.0, math.nan])
def test_a_delta_that_is_no_probability_is_named(cost: Callable[..., float], delta: float) -> None:
    with pytest.raises(ValueError, match=f"0 < delta={delta} < 1"):
        cost([], delta)


@pytest.mark.parametrize("cost", ALL[2:])
def test_events_of_another_unit_or_adjacency_than_the_budget_s_are_refused(
    cost: Callable[[list[Any]], float],
) -> None:
    with pytest.raises(ValueError, match=r"one unit .*\['client', 'record'\]"):
        cost([Gaussian("a", 1.0, unit="client")])
    with pytest.raises(ValueError, match="one adjacency"):
        cost([Laplace("a", 1.0, adjacency="replace-one")])
