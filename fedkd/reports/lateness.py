"""Who was late in an asynchronous run, and by how much."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedkd.reports import wording
from fedkd.runs.late import LoggedAnswer
from fedkd.runs.schema import Round


@dataclass(frozen=True)
class Lateness:
    """One client's answers over a run."""

    client: int
    used: int
    """How many answers were in a step."""
    mean: float | None
    """Steps late on average, of those that were used; None where none was."""
    most: int | None
    """As above, the most."""
    unused: int
    """How many were not in a step: too late, replaced by a newer one, or failed."""


def by_client(rounds: Sequence[Round]) -> list[Lateness]:
    """Each client's answers, in ascending order; empty where rounds waited for all."""
    answers: dict[int, list[LoggedAnswer]] = defaultdict(list)
    for each in rounds:
        for moment in each.asynchronous.moments if each.asynchronous else ():
            for answer in moment.answers:
                answers[answer.client].append(answer)
    return [_of(client, answers[client]) for client in sorted(answers)]


def lasted(rounds: Sequence[Round]) -> float | None:
    """When the last step was made, in seconds of the run's clock; None where nobody may know."""
    last = rounds[-1].asynchronous
    return None if last is None else last.time


def in_words(told: Mapping[str, Any] | None) -> list[str]:
    """Who was late in a step, of what its record says of it."""
    moments = [] if told is None else told["moments"]
    return [
        f"client {answer['client']} {wording.plural(answer['staleness'], 'step')} late"
        for moment in moments
        for answer in moment["answers"]
        if answer["outcome"] == "used" and answer["staleness"] > 0
    ]


def _of(client: int, answers: Sequence[LoggedAnswer]) -> Lateness:
    used = [answer.staleness for answer in answers if answer.outcome == "used"]
    return Lateness(
        client=client,
        used=len(used),
        mean=sum(used) / len(used) if used else None,
        most=max(used, default=None),
        unused=len(answers) - len(used),
    )
