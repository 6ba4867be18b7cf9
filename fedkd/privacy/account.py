"""One account of a ledger: what may be spent of one data set, and what became of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from fedkd.errors import BudgetError
from fedkd.privacy.accountant import epsilon
from fedkd.privacy.budget import Budget
from fedkd.privacy.chain import Anchor, Row
from fedkd.privacy.chain_file import ChainFile
from fedkd.privacy.events import Gaussian, Laplace, Protected, as_json, grouped
from fedkd.privacy.statement import (
    WHOLE,
    History,
    Part,
    ReleasedValue,
    Statement,
    expanded,
    filtered,
    planned,
    state,
)

_BEFORE = {"touch": "reserved", "settle": "touched", "send": "settled"}


def now() -> str:
    """The time, for people who read a ledger."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Reservation:
    """Events that may happen once, paid for."""

    sequence: int
    """The row in the ledger."""
    purpose: str


class Account:
    """What is spent of one data set, under one unit and adjacency. See `Ledger.account`."""

    def __init__(self, chain: ChainFile, name: str, budget: Budget, part: Part = WHOLE) -> None:
        self._chain = chain
        self._name = name
        self._budget = budget
        self._part = part
        self._history = History()
        self._seen = 0

    def cap(self) -> None:
        """Make this account's budget the most that it allows, as the data's owner may."""
        with self._chain.locked() as rows:
            if self._past(rows).cap != self._budget:
                self._append("allow", {"budget": asdict(self._budget)})

    def commit(self, plan: Sequence[Protected]) -> bool:
        """Commit all events to come, before the data is first touched.

        Returns:
            True if the plan is enforced as a whole, by PLD. False if something outside it was
            reserved before, so that the RDP filter enforces each reservation.

        Raises:
            BudgetError: the whole plan costs more than the budget, or the budget is more than the
                data's owner allows; nothing was written.
            ValueError: there are no events, or one is not of the budget's unit and adjacency.
        """
        counts = self._checked(plan)
        with self._chain.locked() as rows:
            past = self._past(rows)
            self._require_allowed(past)
            if past.spent and not (past.plan == counts and past.spent <= counts):
                return False
            cost = epsilon(expanded(counts), self._budget.delta)
            if not cost <= self._budget.epsilon:
                raise BudgetError(self._refusal("the plan", plan, cost, "PLD"))
            if past.plan != counts or past.budget != self._budget:
                self._append("plan", self._costed(expanded(counts)))
        return True

    def reserve(self, purpose: str, events: Sequence[Protected]) -> Reservation:
        """Spend `events`, durably, before any of them happens.

        Args:
            purpose: such as `"run 3f2a, round 7"`; for people only.
            events: the worst case of what is about to happen.

        Raises:
            BudgetError: the budget does not allow them, or the data's owner does not allow the
                budget; nothing was written.
            ValueError: there are none, or one is not of the budget's unit and adjacency.
        """
        counts = self._checked(events)
        with self._chain.locked() as rows:
            self._require_affordable(self._past(rows), purpose, events, counts)
            part = {} if self._part == WHOLE else {"part": asdict(self._part)}
            row = self._append("reserve", {"purpose": purpose, **part, **self._costed(events)})
        return Reservation(row.sequence, purpose)

    def require(self, purpose: str, events: Sequence[Protected]) -> None:
        """Raise whatever `reserve` would, and spend nothing."""
        counts = self._checked(events)
        with self._chain.locked() as rows:
            self._require_affordable(self._past(rows), purpose, events, counts)

    def touch(self, reservation: Reservation, *, sampler: str = "", generator: str = "") -> None:
        """Write down, durably, that the data is about to be touched.

        Raises:
            LedgerError: it was touched for this reservation before: fresh noise is a new event.
        """
        with self._chain.locked() as rows:
            body = {"sampler": sampler, "generator": generator}
            self._advance("touch", reservation, self._release(reservation, rows), body)

    def settle(
        self, reservation: Reservation, *, digest: str, uncovered: Sequence[str] = ()
    ) -> None:
        """Write down what will be sent. To settle the same bytes again is free.

        Args:
            reservation: whose data was touched.
            digest: SHA-256 of the bytes, in hexadecimal.
            uncovered: what will be sent that no event pays for, in words.

        Raises:
            LedgerError: no data was touched for it, or other bytes were settled.
        """
        with self._chain.locked() as rows:
            release = self._release(reservation, rows)
            if release.digest != digest or release.uncovered != tuple(uncovered):
                body = {"digest": digest, "uncovered": list(uncovered)}
                self._advance("settle", reservation, release, body)

    def send(self, reservation: Reservation) -> None:
        """Write down that the settled bytes are about to leave. To send them again is free.

        Raises:
            LedgerError: nothing was settled.
        """
        with self._chain.locked() as rows:
            release = self._release(reservation, rows)
            if release.state != "sent":
                self._advance("send", reservation, release, {})

    def sent_again(self, digest: str) -> None:
        """Write down that bytes that were settled leave, if that is not written yet."""
        with self._chain.locked() as rows:
            for number, release in list(self._past(rows).releases.items()):
                if (release.digest, release.state) == (digest, "settled"):
                    self._append("send", {"reservation": number})

    def spent(self) -> tuple[Protected, ...]:
        """All events that were ever reserved of this part, in order."""
        with self._chain.locked() as rows:
            releases = self._past(rows).releases.values()
            ours = (release for release in releases if release.part == self._part)
            return tuple(event for release in ours for event in release.events)

    def statement(self) -> Statement:
        """What was spent, under this account's budget."""
        with self._chain.locked() as rows:
            return state(self._past(rows), self._budget, Anchor(rows[-1].sequence, rows[-1].hash))

    def _require_affordable(
        self,
        past: History,
        purpose: str,
        events: Sequence[Protected],
        counts: Counter[Protected],
    ) -> None:
        """Refuse events that the budget does not allow on top of what was spent."""
        self._require_allowed(past)
        after = past.spent_with(self._part, counts)
        if not planned(past, after, self._budget):
            cost = filtered(past, self._budget, after)
            if not cost <= self._budget.epsilon:
                how = "the RDP filter" + (" outside the committed plan" if past.plan else "")
                raise BudgetError(self._refusal(purpose, events, cost, how))

    def _require_allowed(self, past: History) -> None:
        """Refuse a budget that names more than the data's owner allows."""
        cap = past.cap
        if cap is None or (self._budget.epsilon <= cap.epsilon and self._budget.delta == cap.delta):
            return
        raise BudgetError(
            f"the budget is {self._budget}, and this data set's ledger allows {cap}: expected no "
            "more, and the same delta; its owner may raise epsilon with 'fedkd audit allow'"
        )

    def _past(self, rows: Sequence[Row]) -> History:
        """What happened on this account; `rows` only ever grow, so only new ones are read."""
        for row in rows[self._seen :]:
            if row.account == self._name:
                self._history.read(row)
        self._seen = len(rows)
        return self._history

    def _release(self, reservation: Reservation, rows: Sequence[Row]) -> ReleasedValue:
        release = self._past(rows).releases.get(reservation.sequence)
        if release is None:
            remedy = "use a reservation with the account that made it"
            raise self._chain.refusal(f"has no {reservation} in this account", remedy)
        return release

    def _advance(
        self, kind: str, reservation: Reservation, release: ReleasedValue, body: Mapping[str, Any]
    ) -> None:
        if release.state != _BEFORE[kind]:
            raise self._chain.refusal(
                f"refuses to {kind} {release.purpose!r} (row {reservation.sequence}), which is "
                f"{release.state}",
                "reserve, touch, settle and send once each, in this order; "
                "fresh noise needs a fresh reservation",
            )
        self._append(kind, {"reservation": reservation.sequence, **body})

    def _append(self, kind: str, body: Mapping[str, Any]) -> Row:
        return self._chain.append(self._name, kind, {"when": now(), **body})

    def _costed(self, events: Sequence[Protected]) -> dict[str, Any]:
        return {"events": [as_json(event) for event in events], "budget": asdict(self._budget)}

    def _checked(self, events: Sequence[Protected]) -> Counter[Protected]:
        """The events, grouped, if each is one that this budget pays for."""
        ours = (self._budget.unit, self._budget.adjacency)
        for event in events:
            if not isinstance(event, Gaussian | Laplace) or type(event.steps) is not int:
                raise ValueError(f"Expected Gaussian or Laplace events, got {event!r}.")
            if event.steps < 1:  # the accountant sees sums, and these would be refunds
                raise ValueError(f"Expected steps={event.steps} >= 1 of {event.what!r}.")
            if (event.unit, event.adjacency) != ours:
                raise ValueError(f"Expected events of {ours}, as the budget, got {event!r}.")
        if not events:
            raise ValueError("Expected at least one event.")
        return grouped(events)

    def _refusal(self, what: str, events: Sequence[Protected], cost: float, how: str) -> str:
        some = "; ".join(str(event) for event in events[:3])
        more = f" and {len(events) - 3} more" if len(events) > 3 else ""
        past = self._history
        spent = epsilon(expanded(past.spent), self._budget.delta)
        return (
            f"{what} asks for {some}{more}: epsilon would be {cost:.4g} by {how} and the budget is "
            f"{self._budget}, of which {spent:.4g} is spent by PLD: "
            "take more noise, fewer steps or fewer rounds, or have the data's owner raise it"
        )
