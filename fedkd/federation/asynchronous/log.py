"""What came when, and what was made of it: all that a run's course followed from.

It stands in each round's record, under `asynchronous`, so that a run can be replayed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedkd.errors import RunFolderError
from fedkd.federation.answers import Record
from fedkd.federation.asynchronous.in_flight import Awaited

KEY = "asynchronous"
Outcome = Literal["used", "replaced", "too late", "failed"]
"""What became of an answer: it was in the step; a newer one of the same client was; it was to too
old a broadcast; there was none, or it was not let in."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Answers that came together."""

    time: float
    """Seconds of the run's clock."""
    rounds: Mapping[int, int]
    """By client, in ascending order, the round that it was asked for."""
    failures: Mapping[int, str] = field(default_factory=dict)
    """Of some of them, why there is no answer."""


def entry(
    moment: Moment, round: int, outcomes: Mapping[int, Outcome], *, timed: bool
) -> dict[str, Any]:
    """A moment of the step `round` as a record has it; `timed`: with its time."""
    answers = [
        {
            "client": client,
            "round": asked,
            "staleness": round - asked,
            "outcome": outcomes[client],
            **({"reason": moment.failures[client]} if client in moment.failures else {}),
        }
        for client, asked in moment.rounds.items()
    ]
    return {"time": moment.time if timed else None, "answers": answers}


def mark_replaced(entries: Sequence[dict[str, Any]], client: int) -> None:
    """Say of a client's answers so far that a newer one took their place."""
    for each in (answer for moment in entries for answer in moment["answers"]):
        if each["client"] == client and each["outcome"] == "used":
            each["outcome"] = "replaced"


def mark_refused(entries: Sequence[dict[str, Any]], reasons: Mapping[int, str]) -> None:
    """Say of answers that seemed to be in the step that the door let them in no longer, and why."""
    for each in (answer for moment in entries for answer in moment["answers"]):
        if each["outcome"] == "used" and each["client"] in reasons:
            each |= {"outcome": "failed", "reason": reasons[each["client"]]}


@dataclass(frozen=True)
class Logged:
    """Who comes next by the log of another run of the same experiment."""

    moments: Mapping[int, Sequence[Moment]]
    """By round."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Logged":
        """The log of a run, from its rounds.

        Raises:
            RunFolderError: they hold none that can be replayed.
        """
        try:
            return cls({each["round"]: [*map(_moment, each[KEY]["moments"])] for each in records})
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                "its rounds.jsonl says not of each answer when it came: expected an asynchronous "
                "run without [privacy]"
            ) from error

    def __call__(self, awaited: Awaited) -> list[Moment]:
        """See `arrivals.Script`.

        Raises:
            RunFolderError: those that came were not at work, so it is another experiment's log.
        """
        flight, logged = awaited.flight, self.moments.get(awaited.round, ())
        coming = [each for each in logged if each.time > flight.now]
        working = {client: asked.round for client, asked in flight.working.items()}
        if not coming or not coming[0].rounds.items() <= working.items():
            raise RunFolderError(
                f"the log does not fit: in round {awaited.round} its clients were asked for others "
                "than here; replay a run by the same version of fedkd"
            )
        return coming


def _moment(logged: Mapping[str, Any]) -> Moment:
    answers = sorted(logged["answers"], key=lambda each: int(each["client"]))
    return Moment(
        float(logged["time"]),
        {int(each["client"]): int(each["round"]) for each in answers},
        {int(e["client"]): str(e["reason"]) for e in answers if e["outcome"] == "failed"},
    )
