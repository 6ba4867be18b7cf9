"""What a verdict says, and what it may never say."""

import numpy as np
import pytest
from scipy import stats

from fedkd.auditing import verdicts
from fedkd.auditing.verdicts import Bound, Check, Claim, dependent, independent, judge
from fedkd.auditing.verdicts import raise_on_violation as go_on
from fedkd.errors import PrivacyViolationError
from fedkd.privacy.events import Gaussian, Laplace

CLAIM = Claim(epsilon=2.0, delta=1e-5)


def judged(measured, ceiling, claim=CLAIM):
    found = (Bound("one run", measured, ceiling), Bound("error rates", 0.0, ceiling / 2))
    return judge("training", found, claim=claim, threat="white box", canaries=100)


@pytest.mark.parametrize(
    ("measured", "ceiling", "outcome"),
    [(2.1, 5.0, "VIOLATION"), (1.9, 5.0, "CONSISTENT"), (1.9, 2.0, "NO POWER")],
)
def test_the_outcome_follows_from_claim_measurement_and_ceiling(measured, ceiling, outcome):
    verdict = judged(measured, ceiling)
    assert verdict.outcome == outcome
    assert (verdict.epsilon, verdict.ceiling) == (measured, ceiling)


def test_few_canaries_have_no_power_whatever_they_guess():
    members, others = np.ones(5), np.zeros(5)
    found = dependent(members, others, CLAIM)
    assert judge("x", found, claim=CLAIM, threat="", canaries=10).outcome == "NO POWER"


def test_many_canaries_that_are_all_guessed_refute_the_claim():
    members, others = np.ones(500), np.zeros(500)
    for found in (independent(members, others, CLAIM), dependent(members, others, CLAIM)):
        assert judge("x", found, claim=CLAIM, threat="", canaries=1000).outcome == "VIOLATION"
        assert all(bound.epsilon == pytest.approx(bound.ceiling) for bound in found)


def test_a_claim_is_what_the_events_cost():
    gaussian = Claim.of([Gaussian("x", 1.0)], 1e-5)
    assert gaussian.epsilon == pytest.approx(4.377, abs=1e-3)
    assert gaussian.gaussian
    mixed = Claim.of([Gaussian("x", 1.0), Laplace("y", 10.0)], 1e-5)
    assert mixed.epsilon > gaussian.epsilon
    assert not mixed.gaussian


def test_without_gaussian_noise_there_is_no_gaussian_estimate():
    claim = Claim(2.0, 1e-5, events=(Laplace("y", 0.5),))
    found = independent(np.ones(50), np.zeros(50), claim)
    assert [bound.estimator for bound in found] == ["one run", "error rates"]


def test_a_violation_is_one_line_that_says_what_was_claimed():
    with pytest.raises(PrivacyViolationError) as refused:
        go_on([judged(1.0, 5.0), judged(3.0, 5.0), Check("clipping", "VIOLATION", "9 of 1")])
    assert refused.value.exit_status == 3
    said = str(refused.value)
    assert "\n" not in said
    for word in (
        "at least 3",
        "the claim is epsilon 2 at delta 1e-05",
        "record, add-remove",
        "clipping: 9 of 1",
    ):
        assert word in said
    go_on([judged(1.0, 5.0), judged(1.9, 2.0)])


def scores(shift: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of as many members as others: the quantiles of two normal distributions a shift apart."""
    quantiles = stats.norm.ppf((np.arange(count) + 0.5) / count)
    return quantiles + shift, quantiles


@pytest.mark.parametrize(
    ("shift", "count", "outcome"),
    [
        (0.22, 1000, None),  # as claimed
        (0.15, 1000, None),  # more than half of it
        (0.05, 1000, "NO POWER"),  # far less, but so few may miss it by chance
        (0.0, 20_000, "UNEXPLAINED"),
        (0.05, 20_000, "UNEXPLAINED"),
        (0.0, 100, "NO POWER"),  # nothing could be noticed
    ],
)
def test_an_attack_that_saw_far_less_than_it_must_is_never_consistent(shift, count, outcome):
    found = verdicts.shortfall("part", scores(shift, count), scores(0.22, 40_000))
    assert (found and found.outcome) == outcome
