"""Verdicts: what was claimed, what was measured, and the most that could have been measured.

An audit proves leaks, never their absence: it ends in `VIOLATION`, in `CONSISTENT` where it could
have refuted the claim and did not, in `NO POWER` where it could not have, or in `UNEXPLAINED` where
it saw far less than the claimed noise lets through: then it did not see what it is to audit.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from scipy import special, stats

from fedkd.auditing import bounds, fdp, guessing
from fedkd.auditing.bounds import Floats
from fedkd.errors import PrivacyViolationError
from fedkd.privacy import accountant
from fedkd.privacy.events import Adjacency, Gaussian, Protected, Unit

Outcome = Literal["VIOLATION", "CONSISTENT", "NO POWER", "UNEXPLAINED"]
CONFIDENCE = 0.95
"""How sure an audit is of what it measured, unless told otherwise."""

_DELTAS = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said to be spent, by the party that spends."""

    epsilon: float
    delta: float
    unit: Unit = "record"
    adjacency: Adjacency = "add-remove"
    events: tuple[Protected, ...] = ()
    """What was spent; empty where only the figure is known."""

    @property
    def gaussian(self) -> bool:
        """Whether all is Gaussian noise, whose curve lies below that of Gaussian DP at epsilon.

        So it does for one that is subsampled, where delta is small: its tail is the heavier one.
        Looked at numerically, over rates of 0.01 to 1 and up to 2,000 steps, at delta 1e-5, and not
        proven; see docs/audit.md.
        """
        return bool(self.events) and all(isinstance(event, Gaussian) for event in self.events)

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:.4g} at delta {self.delta:g} ({self.unit}, {self.adjacency})"

    @classmethod
    def of(cls, events: Iterable[Protected], delta: float) -> "Claim":
        """What events cost by PLD; there is at least one, and all have one unit and adjacency."""
        events = tuple(events)
        epsilon = accountant.epsilon(events, delta)
        return cls(epsilon, delta, events[0].unit, events[0].adjacency, events)

    def curve(self) -> list[tuple[float, float]]:
        """Pairs of epsilon and delta that all hold by the claim; the more, the tighter."""
        if not self.events:
            return [(self.epsilon, self.delta)]
        return [(accountant.epsilon(self.events, delta), delta) for delta in _DELTAS]


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound on epsilon at the claim's delta, and the most that it could have shown."""

    estimator: str
    epsilon: float
    ceiling: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of holding a claim against what was measured."""

    what: str
    outcome: Outcome
    threat: str
    """Who attacks, and what they see."""
    canaries: int
    confidence: float
    """With which all bounds hold together."""
    claim: Claim
    bounds: tuple[Bound, ...]
    shortfall: str = ""
    """What was seen of which part, where it is not as much as the claimed noise lets through, or
    where that would not show."""

    @property
    def epsilon(self) -> float:
        """The best lower bound."""
        return max(bound.epsilon for bound in self.bounds)

    @property
    def ceiling(self) -> float:
        """The most that any bound could have shown with these canaries."""
        return max(bound.ceiling for bound in self.bounds)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why an attack that refuted nothing says nothing, either."""

    outcome: Literal["NO POWER", "UNEXPLAINED"]
    explanation: str


@dataclass(frozen=True, slots=True)
class Check:
    """What looking at the structure of a computation found; no statistic could."""

    what: str
    outcome: Outcome
    found: str
    """What was expected and what was found, in one sentence."""


def checked(what: str, right: bool, found: str) -> Check:  # noqa: FBT001 - one line each
    """A check that found what was expected, or did not."""
    return Check(what, "CONSISTENT" if right else "VIOLATION", found)


def independent(
    members: Floats, others: Floats, claim: Claim, *, confidence: float = CONFIDENCE
) -> tuple[Bound, ...]:
    """All bounds, for scores that are independent of each other, together at `confidence`.

    Where all is Gaussian noise the one-run bound is that of f-DP, which is the tighter one.

    Args:
        members: scores (M,) of the canaries that were included, each by a fair coin.
        others: scores (N,) of those that were not.
        claim: gives delta, and says whether the Gaussian estimator fits.
        confidence: in (0, 1).
    """
    each = 1 - (1 - confidence) / (3 if claim.gaussian else 2)
    inside, outside, delta = len(members), len(others), claim.delta
    rates = bounds.from_rates(members, others, delta=delta, confidence=each)
    most = bounds.from_rates_ceiling(inside, outside, delta=delta, confidence=each)
    found = [Bound("error rates", rates, most)]
    if not claim.gaussian:
        found = [*dependent(members, others, claim, confidence=each), *found]
    else:
        mu = fdp.one_run_of_scores(members, others, confidence=each)
        most = fdp.one_run_ceiling(inside + outside, confidence=each)
        epsilons = bounds.epsilon_of(mu, delta), bounds.epsilon_of(most, delta)
        found = [Bound("one run, f-DP", *epsilons), *found]
        mu = bounds.gaussian_dp(members, others, confidence=each)
        most = bounds.gaussian_dp_ceiling(inside, outside, confidence=each)
        epsilons = bounds.epsilon_of(mu, delta), bounds.epsilon_of(most, delta)
        found.append(Bound("Gaussian DP", *epsilons))
    return tuple(found)


def dependent(
    members: Floats, others: Floats, claim: Claim, *, confidence: float = CONFIDENCE
) -> tuple[Bound, ...]:
    """The one bound that holds where scores may depend on each other; arguments as `independent`.

    Canaries of one training are such: the model that one changed is asked about the other.
    """
    epsilon = guessing.one_run_of_scores(members, others, delta=claim.delta, confidence=confidence)
    ceiling = one_run_ceiling(len(members) + len(others), claim.delta, confidence)
    return (Bound("one run", epsilon, ceiling),)


def one_run_ceiling(canaries: int, delta: float, confidence: float) -> float:
    """What `guessing.one_run_of_scores` could show, its guesses corrected for."""
    tries = guessing.guesses_tried(canaries)
    each = 1 - (1 - confidence) / len(tries)
    guesses = 2 * max(tries)
    return guessing.one_run(canaries, guesses, guesses, delta=delta, confidence=each)


def judge(
    what: str,
    found: tuple[Bound, ...],
    *,
    claim: Claim,
    threat: str,
    canaries: int,
    confidence: float = CONFIDENCE,
    shortfall: Shortfall | None = None,
) -> Verdict:
    """Hold what was measured against what was claimed.

    Args:
        what: what was audited.
        found: at least one bound; all hold together at `confidence`.
        claim: what is said to be spent.
        threat: who attacks, and what they see.
        canaries: how many there were.
        confidence: in (0, 1).
        shortfall: what `shortfall` says of a white-box attack.
    """
    explanation = ""
    if max(bound.epsilon for bound in found) > claim.epsilon:
        outcome: Outcome = "VIOLATION"
    elif max(bound.ceiling for bound in found) <= claim.epsilon:
        outcome = "NO POWER"
    elif shortfall is not None:
        outcome, explanation = shortfall.outcome, shortfall.explanation
    else:
        outcome = "CONSISTENT"
    return Verdict(what, outcome, threat, canaries, confidence, claim, found, explanation)


def shortfall(
    what: str, seen: tuple[Floats, Floats], claimed: tuple[Floats, Floats]
) -> Shortfall | None:
    """Scores that tell members far less than the claimed noise would, or of which none could say.

    Args:
        what: the part whose scores they are.
        seen: scores of members (M,) and of others (N,).
        claimed: scores of either kind, drawn from the very noise that is claimed; so many more that
            their AUC is next to exact.
    """
    found, expected = (_separation(*scores) for scores in (seen, claimed))
    # In standard deviations, half as far apart as claimed.
    least = float(special.ndtr(float(special.ndtri(expected)) / 2))
    error = _ERRORS * math.hypot(_error(*seen), _error(*claimed))
    if expected - 0.5 < error:
        explanation = (
            f"{what}: the noise that is claimed lets through an AUC of {expected:.3f}, which so "
            "few canaries do not tell from 0.5: an attack that saw nothing would not be noticed"
        )
        return Shortfall("NO POWER", explanation)
    if found >= least:
        return None
    measured = (
        f"{what}: canaries are told with an AUC of {found:.3f}, and the noise that is claimed lets "
        f"through {expected:.3f}"
    )
    if expected - found < error:
        return Shortfall(
            "NO POWER", f"{measured}, which so few of them may miss by chance: take more"
        )
    explanation = (
        f"{measured}: they were not clipped or summed as is claimed, or there is more noise"
    )
    return Shortfall("UNEXPLAINED", explanation)


_ERRORS = 4.25
"""Standard errors of the difference of two areas: a chance of one in 90,000, on one side."""


def _error(members: Floats, others: Floats) -> float:
    """The standard error of an AUC of 0.5, which is the largest."""
    return math.sqrt((len(members) + len(others) + 1) / (12 * len(members) * len(others)))


def _separation(members: Floats, others: Floats) -> float:
    """The AUC of scores, below 1 by half a pair."""
    pairs = len(members) * len(others)
    wins = float(stats.mannwhitneyu(members, others).statistic)
    return min(wins, pairs - 0.5) / pairs


def raise_on_violation(found: Iterable[Verdict | Check]) -> None:
    """Refuse to go on where something was violated.

    Raises:
        PrivacyViolationError: names each violation.
    """
    broken = [each for each in found if each.outcome == "VIOLATION"]
    if broken:
        violations = "; ".join(_sentence(each) for each in broken)
        raise PrivacyViolationError(
            f"{violations}: the claim does not hold, so send nothing more under it until the cause "
            "is found"
        )


def _sentence(each: Verdict | Check) -> str:
    if isinstance(each, Check):
        return f"VIOLATION, {each.what}: {each.found}"
    return (
        f"VIOLATION, {each.what}: epsilon is at least {each.epsilon:.4g}, and the claim is "
        f"{each.claim}"
    )
