"""Bounds against reference values, a public oracle, closed forms and properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedkd.auditing import bounds, fdp, guessing
from fedkd.auditing.guessing import one_run, one_run_ceiling, one_run_p_value


@pytest.fixture(scope="module")
def auditing():
    """The oracle; it cannot be installed where jax has no wheel."""
    return pytest.importorskip("jax_privacy.auditing", reason="the oracle is not installed")


def spread(shift: float, size: int) -> np.ndarray:
    """A normal distribution in equal parts, without chance."""
    return stats.norm.ppf((np.arange(size) + 0.5) / size) + shift


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "expected"),
    [
        (100, 100, 100, 0.0, 3.492965),
        (1000, 1000, 1000, 1e-5, 5.782283),
        (1000, 1000, 750, 1e-5, 0.976367),
        (1000, 200, 190, 1e-5, 2.393618),
        (1000, 1000, 500, 1e-5, 0.0),
    ],
)
def test_one_run_has_the_reference_values(m, r, v, delta, expected):
    assert one_run(m, r, v, delta=delta) == pytest.approx(expected, abs=1e-5)


def best_of_all_thresholds(scores):
    """What jax-privacy tries: the corners of the ROC's hull, each a guess, all corrected for."""
    corners = list(zip(scores._get_tp_counts(), scores._get_fp_counts(), strict=True))
    total, doubt, best = sum(corners[-1]), 0.05 / len(corners), 0.0
    for tp, fp in corners:
        if one_run_p_value(total, tp + fp, tp, epsilon=best, delta=1e-6) < doubt:
            best = one_run(total, tp + fp, tp, delta=1e-6, confidence=1 - doubt)
    return best


@pytest.mark.parametrize(("shift", "expected"), [(0, 0.0), (1, 1.13346), (4, 4.395568)])
def test_one_run_over_scores_has_the_reference_values(auditing, shift, expected):
    scores = auditing.CanaryScoreAuditor(spread(shift, 10_000), spread(0, 10_000))
    assert best_of_all_thresholds(scores) == pytest.approx(expected, rel=1e-5)
    assert scores.epsilon_one_run(0.05, 1e-6) == pytest.approx(expected, rel=1e-5)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_one_run_agrees_with_jax_privacy(auditing, data):
    m = data.draw(st.integers(1, 300))
    r = data.draw(st.integers(0, m))
    v = data.draw(st.integers(0, r))
    epsilon, delta = data.draw(st.floats(0, 8)), data.draw(st.sampled_from([0.0, 1e-5, 1e-2]))
    p = one_run_p_value(m, r, v, epsilon=epsilon, delta=delta)
    oracle = auditing._one_run_p_value(m, r, v, epsilon, delta)
    assert p == pytest.approx(oracle, rel=1e-6, abs=1e-10)
    assert one_run(m, r, v, delta=delta) == pytest.approx(
        auditing._epsilon_one_run(0, m, r, v, 0.05, delta), abs=1e-5
    )


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "expected"),
    [
        (100, 100, 100, 1e-5, 8.21618596),
        (1000, 1000, 1000, 1e-5, 12.33456948),
        (1000, 1000, 750, 1e-5, 1.81889558),
        (1000, 200, 190, 1e-5, 3.91610457),
        (1000, 1000, 500, 1e-5, 0.0),
        (500, 60, 55, 1e-3, 1.7338584),
    ],
)
def test_one_run_of_f_dp_has_the_reference_values(m, r, v, delta, expected):
    """jax-privacy 2.0's, its roots to 1e-11."""
    assert bounds.epsilon_of(fdp.one_run(m, r, v), delta) == pytest.approx(expected, abs=1e-6)


@given(st.data())
@settings(max_examples=12, deadline=None)
def test_one_run_of_f_dp_agrees_with_jax_privacy(auditing, data):
    m = data.draw(st.integers(1, 60))
    r = data.draw(st.integers(0, m))
    v = data.draw(st.integers(0, r))
    delta = data.draw(st.sampled_from([1e-6, 1e-3]))
    assert bounds.epsilon_of(fdp.one_run(m, r, v), delta) == pytest.approx(
        auditing._epsilon_one_run_fdp(0, m, r, v, 0.05, delta), abs=2e-6
    )


@pytest.mark.parametrize("mu", [0.5, 1.0, 3.0])
def test_the_bound_of_f_dp_is_below_the_truth_and_above_that_of_one_point(mu):
    members, others = spread(mu, 1000), spread(0, 1000)
    found = fdp.one_run_of_scores(members, others)
    assert 0 < found < mu
    assert found < fdp.one_run_ceiling(2000)
    of_a_point = guessing.one_run_of_scores(members, others, delta=1e-5)
    assert of_a_point < bounds.epsilon_of(found, 1e-5)


@given(st.integers(0, 200), st.integers(1, 200), st.floats(1e-4, 0.4))
@settings(max_examples=60, deadline=None)
def test_clopper_pearson_agrees_with_jax_privacy(auditing, successes, trials, doubt):
    successes = min(successes, trials)
    limit = float(bounds.clopper_pearson(successes, trials, confidence=1 - doubt))
    assert limit == pytest.approx(
        float(auditing._clopper_pearson_upper(successes, trials, doubt)), abs=1e-9
    )


@pytest.mark.parametrize("delta", [1e-6, 1e-5, 1e-2])
@pytest.mark.parametrize("mu", [0.1, 1.0, 4.0])
def test_epsilon_of_a_gaussian_is_that_of_the_accountant(mu, delta):
    from fedkd.privacy import accountant
    from fedkd.privacy.events import Gaussian

    exact = bounds.epsilon_of(mu, delta)
    rounded_up = accountant.epsilon([Gaussian("x", 1 / mu)], delta)
    assert exact <= rounded_up + 1e-9
    assert rounded_up == pytest.approx(exact, rel=2e-3, abs=2e-3)


def test_the_ceiling_has_its_closed_form():
    for m in (10, 100, 1000):
        closed = -math.log(0.05 ** (-1 / m) - 1)
        assert one_run_ceiling(m, delta=0) == pytest.approx(max(0, closed), abs=1e-6)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_one_run_grows_with_correct_guesses_and_with_doubt_and_stays_below_its_ceiling(data):
    m = data.draw(st.integers(2, 400))
    r = data.draw(st.integers(1, m))
    v = data.draw(st.integers(0, r - 1))
    delta = data.draw(st.sampled_from([0.0, 1e-5]))
    confidence = data.draw(st.floats(0.6, 0.999))
    fewer, more = (one_run(m, r, n, delta=delta, confidence=confidence) for n in (v, v + 1))
    assert fewer <= more + 1e-9
    assert one_run(m, r, v, delta=delta, confidence=0.5) >= fewer - 1e-9
    assert more <= one_run_ceiling(m, delta=delta, confidence=confidence) + 1e-9


@given(st.integers(0, 2**32 - 1), st.integers(2, 200), st.integers(2, 200))
@settings(max_examples=40, deadline=None)
def test_bounds_of_scores_stay_below_their_ceilings(seed, members, others):
    draw = np.random.default_rng(seed)
    scores = draw.normal(3, 1, members), draw.normal(0, 1, others)
    at = {"delta": 1e-5}
    assert bounds.from_rates(*scores, **at) <= bounds.from_rates_ceiling(members, others, **at)
    assert bounds.gaussian_dp(*scores) <= bounds.gaussian_dp_ceiling(members, others)
    total = members + others
    assert guessing.one_run_of_scores(*scores, **at) <= one_run_ceiling(total, **at)


@pytest.mark.parametrize("mu", [0.5, 1.0, 3.0])
def test_bounds_are_below_the_truth_and_near_it(mu):
    members, others = spread(mu, 10_000), spread(0, 10_000)
    found = bounds.gaussian_dp(members, others)
    assert 0.8 * mu < found <= mu
    truth = bounds.epsilon_of(mu, 1e-5)
    assert bounds.from_rates(members, others, delta=1e-5) < truth
    assert 0 < guessing.one_run_of_scores(members, others, delta=1e-5) < truth


def test_scores_that_say_nothing_refute_nothing():
    """At 95% each of 400 data sets of pure chance may be refuted with probability 5%."""
    draw = np.random.default_rng(0)
    wrong = dict.fromkeys(("one run", "f-DP", "rates", "gaussian"), 0)
    for _ in range(400):
        members, others = draw.normal(size=60), draw.normal(size=60)
        wrong["one run"] += guessing.one_run_of_scores(members, others, delta=1e-5) > 0
        wrong["f-DP"] += fdp.one_run_of_scores(members, others) > 0
        wrong["rates"] += bounds.from_rates(members, others, delta=1e-5) > 0
        wrong["gaussian"] += bounds.gaussian_dp(members, others) > 0
    assert max(wrong.values()) <= 32  # 20 expected at most; 32 is a chance of 1 in 200


def test_many_thresholds_are_paid_for():
    """All limits hold together: uncorrected, about every second data set would break one."""
    draw = np.random.default_rng(1)
    broken = 0
    for _ in range(300):
        members, others = draw.normal(1, 1, 100), draw.normal(0, 1, 100)
        positive, negative = bounds.rates(members, others)
        thresholds = np.sort(others)[::-1][bounds.ranks_tried(100) - 1]
        wrong = (positive < stats.norm.sf(thresholds)) | (negative < stats.norm.cdf(thresholds - 1))
        broken += bool(wrong.any())
    assert broken <= 27  # 15 expected at most


def test_equal_scores_tell_nothing_whatever_their_order():
    assert guessing.one_run_of_scores(np.zeros(500), np.zeros(500), delta=1e-5) == 0
    assert bounds.from_rates(np.zeros(500), np.zeros(500), delta=1e-5) == 0
    assert bounds.gaussian_dp(np.zeros(500), np.zeros(500)) == 0


def test_an_interval_holds_its_share():
    low, high = bounds.interval(3, 20)
    assert (low, high) == pytest.approx((0.03207, 0.37893), abs=1e-4)  # Clopper & Pearson's tables
    assert bounds.interval(0, 20)[0] == 0
    assert bounds.interval(20, 20)[1] == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: one_run(10, 11, 1, delta=0), "guesses=11"),
        (lambda: one_run(10, 5, 6, delta=0), "correct=6"),
        (lambda: one_run(10, 5, 5, delta=2), "delta=2"),
        (lambda: one_run(10, 5, 5, delta=0, confidence=1), "confidence=1"),
        (lambda: fdp.one_run(10, 11, 1), "guesses=11"),
        (lambda: fdp.one_run(10, 5, 5, confidence=1), "confidence=1"),
        (lambda: bounds.rates([1.0], [math.nan]), "NaN"),
        (lambda: bounds.rates([], [1.0]), "(0,)"),
        (lambda: bounds.epsilon_of(math.inf, 0.1), "mu=inf"),
        (lambda: bounds.clopper_pearson(5, 4), "trials=4"),
    ],
)
def test_what_is_out_of_range_is_refused(call, said):
    with pytest.raises(ValueError, match="Expected") as refused:
        call()
    assert said in str(refused.value)
