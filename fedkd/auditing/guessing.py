"""A lower bound on epsilon from one run: how many canaries an attacker guesses rightly.

Canaries may depend on each other, as those of one training do.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from fedkd.auditing import bounds


def one_run_p_value(
    canaries: int, guesses: int, correct: int, *, epsilon: float, delta: float
) -> float:
    """The chance of so many correct guesses, at most, if the mechanism is (epsilon, delta)-DP.

    Steinke, Nasr & Jagielski 2023, arXiv:2305.08846, theorem 5.2. Each canary was included with
    probability 1/2, on its own; the guesses may depend on each other in any way.

    Args:
        canaries: m >= 1.
        guesses: 0 <= r <= m; the auditor abstains on the others.
        correct: 0 <= v <= r.
        epsilon: >= 0.
        delta: in [0, 1].

    Returns:
        A p-value in [0, 1].

    Raises:
        ValueError: a value is outside its range.
    """
    if not (0 <= correct <= guesses <= canaries and canaries >= 1):
        raise ValueError(
            f"Expected 0 <= correct={correct} <= guesses={guesses} <= canaries={canaries}, >= 1."
        )
    bounds.check_claim(epsilon, delta)
    right = special.expit(epsilon)
    beta = float(stats.binom.sf(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return min(1.0, beta)
    # P[v - i <= Bin < v], for i = 1 .. v
    i = np.arange(1, correct + 1)
    mass = np.cumsum(stats.binom.pmf(correct - i, guesses, right))
    return min(1.0, beta + 2 * canaries * delta * float((mass / i).max()))


def one_run(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> float:
    """The largest epsilon that one run's guesses refute; 0 if they refute none.

    Args:
        canaries: as `one_run_p_value`; so are `guesses`, `correct` and `delta`.
        guesses: r.
        correct: v.
        delta: in [0, 1].
        confidence: in (0, 1).

    Raises:
        ValueError: a value is outside its range.
    """
    doubt = bounds.doubt_of(confidence)

    def refuted(epsilon: float) -> float:
        p = one_run_p_value(canaries, guesses, correct, epsilon=epsilon, delta=delta)
        return doubt - p

    return bounds.largest(refuted)


def one_run_ceiling(canaries: int, *, delta: float, confidence: float = 0.95) -> float:
    """What `one_run` shows if all canaries are guessed right: it can never show more.

    -ln((1 - confidence)^(-1/m) - 1) at delta 0.
    """
    return one_run(canaries, canaries, canaries, delta=delta, confidence=confidence)


def one_run_of_scores(
    members: ArrayLike, others: ArrayLike, *, delta: float, confidence: float = 0.95
) -> float:
    """The best of `one_run` over a few numbers of guesses, corrected for having tried them.

    Of m canaries the k with the highest scores are guessed to be members and the k with the lowest
    to be none, for k from m/2 down by halves.

    Args:
        members: scores (M,) of the canaries that were included.
        others: scores (N,) of those that were not; M + N = m canaries, each by a fair coin.
        delta: in [0, 1].
        confidence: in (0, 1).

    Raises:
        ValueError: a score is NaN, there is no score of either kind, or a value is out of range.
    """
    tries = guessed(members, others)
    each = 1 - bounds.doubt_of(confidence) / len(tries)
    canaries = np.size(members) + np.size(others)
    return max(one_run(canaries, *guess, delta=delta, confidence=each) for guess in tries)


def guessed(members: ArrayLike, others: ArrayLike) -> list[tuple[int, int]]:
    """How many canaries are guessed, and how many of them rightly, for each number that is tried.

    Raises:
        ValueError: a score is NaN, or there is no score of either kind.
    """
    inside, outside = bounds.as_scores(members, others)
    scores = np.concatenate([inside, outside])
    included = np.repeat([True, False], [len(inside), len(outside)])
    # Sorted at random among equals, or the order here would give members away.
    order = np.lexsort((np.random.default_rng(0).permutation(len(scores)), scores))
    included = included[order]
    return [
        (2 * k, int(included[len(scores) - k :].sum() + (~included[:k]).sum()))
        for k in guesses_tried(len(scores))
    ]


def guesses_tried(canaries: int) -> list[int]:
    """How many canaries are guessed on each side: m/2, m/4, ... down to one at the least."""
    tries = {canaries // 2 >> halving for halving in range(bounds.TRIED)}
    return sorted(k for k in tries if k >= 1)
