"""Membership inference: three attacks on one model's answers, and what each shows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedkd.auditing import guessing, scores
from fedkd.auditing.references import References
from fedkd.auditing.roc import Rate, Roc, roc
from fedkd.auditing.scores import Scores
from fedkd.auditing.verdicts import CONFIDENCE, Bound, Claim, Outcome, Verdict, one_run_ceiling

ATTACKS = ("loss threshold", "LiRA", "RMIA")
FEWEST = 20
"""Candidates below which no rate is worth a figure."""


@dataclass(frozen=True, slots=True)
class AttackedAnswers:
    """What is known of one party's candidates: whether each was learnt, and what was answered."""

    odds: Scores
    """Log-odds (m,) of the candidates' targets, by the model that is attacked."""
    included: NDArray[np.bool_]
    """(m,)."""
    population: Scores
    """Log-odds (Z,) of records that were not learnt."""
    references: References


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack on all parties' candidates."""

    name: str
    on: str
    """What is attacked."""
    threat: str
    roc: Roc
    by_client: Mapping[int, Rate]
    """Areas under each client's own curve; empty where candidates have no client."""
    epsilon: float
    """A lower bound by the one-run estimator; 0 where membership was not tossed for."""
    verdict: Verdict | None
    """None where nothing is claimed: NO DP."""


def scored(answers: AttackedAnswers, *, offline: bool) -> dict[str, Scores]:
    """The scores of each attack, (m,); `offline` where references are another kind of model."""
    given = (answers.odds, answers.references.odds, answers.references.included)
    return {
        "loss threshold": scores.loss_threshold(answers.odds),
        "LiRA": (scores.offline_lira if offline else scores.lira)(*given),
        "RMIA": scores.rmia(*given, answers.population, answers.references.population),
    }


def attack(
    parties: Mapping[int, AttackedAnswers],
    on: str,
    threat: str,
    *,
    claim: Claim | None,
    offline: bool = False,
    tossed: bool = True,
    confidence: float = CONFIDENCE,
) -> list[Attack]:
    """Attack all parties' candidates together.

    Each party's scores stand on their own reference models, so that they compare. A bound holds for
    all parties at once, since no two hold the same record.

    Args:
        parties: candidates and answers by client; a single party for all of them is client -1.
        on: what is attacked, in words.
        threat: who attacks, and what they see.
        claim: what each party spent; None where nothing is claimed.
        offline: see `scored`.
        tossed: whether each candidate was included by a fair coin, on which the bound rests.
        confidence: in (0, 1).

    Raises:
        ValueError: fewer than two candidates were included, or left out.
    """
    by_party = {client: scored(each, offline=offline) for client, each in parties.items()}
    included = np.concatenate([each.included for each in parties.values()])
    found = []
    for name in ATTACKS:
        scores = np.concatenate([each[name] for each in by_party.values()])
        found.append(
            one_attack(
                name,
                on,
                threat,
                scores,
                included,
                by_client=_areas(parties, by_party, name, confidence),
                claim=claim,
                tossed=tossed,
                confidence=confidence,
            )
        )
    return found


def one_attack(
    name: str,
    on: str,
    threat: str,
    scores: Scores,
    included: NDArray[np.bool_],
    *,
    claim: Claim | None,
    tossed: bool,
    by_client: Mapping[int, Rate] | None = None,
    confidence: float = CONFIDENCE,
) -> Attack:
    """What an attack's scores (m,) show of who was included (m,); the rest is as in `attack`."""
    members, others = scores[included], scores[~included]
    epsilon, delta = 0.0, 0.0 if claim is None else claim.delta
    if tossed:
        epsilon = guessing.one_run_of_scores(members, others, delta=delta, confidence=confidence)
    return Attack(
        name,
        on,
        threat,
        roc(members, others, confidence=confidence),
        by_client or {},
        epsilon,
        _verdict(f"{name} on {on}", epsilon, claim, threat, len(scores), confidence),
    )


def _verdict(
    what: str, epsilon: float, claim: Claim | None, threat: str, canaries: int, confidence: float
) -> Verdict | None:
    """`VIOLATION` or `NO POWER`: that one attack fails says nothing of the next."""
    if claim is None:
        return None
    ceiling = one_run_ceiling(canaries, claim.delta, confidence)
    outcome: Outcome = "VIOLATION" if epsilon > claim.epsilon else "NO POWER"
    found = (Bound("one run", epsilon, ceiling),)
    return Verdict(what, outcome, threat, canaries, confidence, claim, found)


def _areas(
    parties: Mapping[int, AttackedAnswers],
    by_party: Mapping[int, dict[str, Scores]],
    name: str,
    confidence: float,
) -> dict[int, Rate]:
    areas = {}
    for client, each in parties.items():
        scores, included = by_party[client][name], each.included
        if client >= 0 and min(included.sum(), (~included).sum()) >= 2:
            areas[client] = roc(scores[included], scores[~included], confidence=confidence).auc
    return areas
