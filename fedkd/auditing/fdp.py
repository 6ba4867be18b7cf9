"""A lower bound on mu of Gaussian DP from one run: Mahloujifar et al. 2024, arXiv:2410.22235.

It takes the whole trade-off curve of the mechanism that is claimed, not one point of it as
`guessing.one_run` does, and so is the tighter one where the claim is Gaussian noise. Canaries may
depend on each other. `bounds.epsilon_of` makes epsilon of mu.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from fedkd.auditing import guessing

_MOST = 40.0
"""Mu beyond which no search goes."""


def one_run(canaries: int, guesses: int, correct: int, *, confidence: float = 0.95) -> float:
    """The largest mu that one run's guesses refute; 0 if they refute none.

    Args:
        canaries: m >= 1, each included with probability 1/2, on its own.
        guesses: 0 <= r <= m; the auditor abstains on the others.
        correct: 0 <= v <= r.
        confidence: in (0, 1).

    Raises:
        ValueError: a value is outside its range.
    """
    if not (0 <= correct <= guesses <= canaries and canaries >= 1):
        raise ValueError(
            f"Expected 0 <= correct={correct} <= guesses={guesses} <= canaries={canaries}, >= 1."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"Expected 0 < confidence={confidence} < 1.")

    def refuted(mu: float) -> float:
        return _excess(canaries, guesses, correct, mu, 1 - confidence)

    if refuted(0.0) <= 0:
        return 0.0
    if refuted(_MOST) > 0:
        return _MOST
    return float(optimize.brentq(refuted, 0.0, _MOST, xtol=1e-10))


def one_run_of_scores(members: ArrayLike, others: ArrayLike, *, confidence: float = 0.95) -> float:
    """The best of `one_run` over the guesses of `guessing.guessed`, corrected for their number.

    Args:
        members: scores (M,) of the canaries that were included.
        others: scores (N,) of those that were not; M + N = m canaries, each by a fair coin.
        confidence: in (0, 1).

    Raises:
        ValueError: a score is NaN, there is no score of either kind, or a value is out of range.
    """
    tries = guessing.guessed(members, others)
    each = 1 - (1 - confidence) / len(tries)
    canaries = np.size(members) + np.size(others)
    return max(one_run(canaries, *guess, confidence=each) for guess in tries)


def one_run_ceiling(canaries: int, *, confidence: float = 0.95) -> float:
    """What `one_run_of_scores` shows if all guesses are right: it can never show more."""
    tries = guessing.guesses_tried(canaries)
    each = 1 - (1 - confidence) / len(tries)
    # Not those that guess most: fewer that are all right may show more.
    return max(one_run(canaries, 2 * k, 2 * k, confidence=each) for k in tries)


def _excess(canaries: int, guesses: int, correct: int, mu: float, chance: float) -> float:
    """Above 0 where mu-Gaussian DP is refuted: the paper's algorithm 3, for fair coins.

    `right` and `wrong` bound the mean share of canaries that are guessed rightly, or wrongly, where
    more than i guesses are right, from i = correct down.
    """
    right = chance * correct / canaries
    wrong = chance * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        more = max(wrong, float(special.ndtr(special.ndtri(right) - mu)))
        if more == wrong:
            break  # neither can change any more
        right = min(right + i / (guesses - i) * (more - wrong), 1.0)
        wrong = more
    return right + wrong - guesses / canaries
