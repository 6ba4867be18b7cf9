"""What a ledger's rows say: what was spent, of which budget, and what became of it."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedkd.errors import LedgerError
from fedkd.privacy.accountant import epsilon, epsilon_rdp, filter_epsilon
from fedkd.privacy.budget import Budget
from fedkd.privacy.chain import Anchor, Found, Row, beside, examine
from fedkd.privacy.events import Protected, as_json, from_json, grouped

PLD, FILTER = "PLD", "RDP filter"
"""What enforces a budget: the committed plan's PLD, or outside a plan a Renyi filter."""
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Part:
    """One of the disjoint parts that a data set is dealt into, so that a record is in one alone."""

    deal: str
    """Which deal. Those of two deals overlap: a record may have been in any part of each."""
    number: int


WHOLE = Part("", 0)
"""A data set that was not dealt."""


@dataclass(slots=True)
class ReleasedValue:
    """What became of one reservation."""

    purpose: str
    when: str
    events: tuple[Protected, ...]
    part: Part = WHOLE
    state: str = "reserved"
    """`reserved`, then `touched`, `settled`, `sent`."""
    sampler: str = ""
    generator: str = ""
    digest: str = ""
    uncovered: tuple[str, ...] = ()


@dataclass(slots=True)
class History:
    """One account, as its rows tell it."""

    budget: Budget | None = None
    """The one used last."""
    cap: Budget | None = None
    """The most that the data's owner allows: the budget used first, until the owner raises it."""
    plan: Counter[Protected] | None = None
    """What was committed, grouped."""
    parts: dict[Part, Counter[Protected]] = field(default_factory=dict)
    """All that was reserved of each part, grouped."""
    releases: dict[int, ReleasedValue] = field(default_factory=dict)
    """By the number of the row that reserved."""

    @property
    def spent(self) -> Counter[Protected]:
        """All that any one record may have been in, grouped."""
        return self.spent_with(WHOLE, Counter())

    def spent_with(self, part: Part, more: Counter[Protected]) -> Counter[Protected]:
        """`spent`, once `more` is reserved of a part.

        Parts of one deal are disjoint, so they compose in parallel: no record was in more than the
        most that was reserved of any of them, event by event. Deals add up.
        """
        parts = {**self.parts, part: self.parts.get(part, Counter()) + more}
        most: dict[str, Counter[Protected]] = {}
        for each, counts in parts.items():
            most[each.deal] = most.get(each.deal, Counter()) | counts
        return sum(most.values(), Counter())

    def read(self, row: Row) -> None:
        """Go on with the account's next row.

        Raises:
            ValueError: the row is none of this account's kinds, or was changed.
        """
        try:
            self._read(row, json.loads(row.body))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"Expected another row {row.sequence} of kind {row.kind}.") from error

    def _read(self, row: Row, body: Mapping[str, Any]) -> None:
        if row.kind == "allow":
            self.cap = Budget(**body["budget"])
            return
        if row.kind in {"plan", "reserve"}:
            events = tuple(from_json(event) for event in body["events"])
            counts = grouped(events)
            self.budget = Budget(**body["budget"])
            self.cap = self.cap or self.budget
            if row.kind == "plan":
                self.plan = counts
            else:
                part = Part(**body["part"]) if "part" in body else WHOLE
                self.parts[part] = self.parts.get(part, Counter()) + counts
                self.releases[row.sequence] = ReleasedValue(
                    body["purpose"], body["when"], events, part
                )
            return
        release = self.releases[body["reservation"]]
        if row.kind == "touch":
            release.sampler, release.generator = body["sampler"], body["generator"]
        elif row.kind == "settle":
            release.digest, release.uncovered = body["digest"], tuple(body["uncovered"])
        release.state = {"touch": "touched", "settle": "settled", "send": "sent"}[row.kind]


@dataclass(frozen=True, slots=True)
class Statement:
    """What was spent of one account. A value that a broken ledger no longer tells is None."""

    unit: str | None
    adjacency: str | None
    delta: float | None
    epsilon: float | None
    """By PLD, of all that was reserved. Informational unless the plan enforces."""
    epsilon_rdp: float | None
    """By RDP at its best order, of all that was reserved."""
    enforced: float | None
    """What counts against the budget, by the accountant that enforces."""
    budget: float | None
    """The epsilon of the budget that was used last."""
    left: float | None
    """The budget less `enforced`, at least 0."""
    committed: bool
    """Whether all that was reserved lies in a plan that was committed beforehand."""
    enforced_by: str
    """`PLD` or `FILTER`; empty where that is no longer told."""
    chain: str
    """`"intact"`, or what is wrong with the ledger."""
    sequence: int | None
    """The ledger's last row, whichever account's."""
    head: str | None
    """Its hash."""
    allowed: float | None
    """The most epsilon that the data's owner allows, whatever budget is named."""
    held: list[dict[str, Any]]
    """As `events`, with the rest of a committed plan: what a next plan comes on top of."""
    events: list[dict[str, Any]]
    """Equal events once, with all their steps, as `events.as_json`."""
    releases: list[dict[str, Any]]
    """Purpose, when, state, events in words, sampler, generator, digest and what is uncovered, once
    a reservation."""


def expanded(counts: Mapping[Protected, int]) -> list[Protected]:
    """Grouped events as a list, each once with all its steps."""
    return [replace(event, steps=steps) for event, steps in counts.items()]


def planned(history: History, counts: Counter[Protected], budget: Budget) -> bool:
    """Whether the plan allows `counts` in all, within `budget`."""
    plan = history.plan
    return (
        plan is not None
        and counts <= plan
        and epsilon(expanded(plan), budget.delta) <= budget.epsilon
    )


def held(spent: Counter[Protected], plan: Counter[Protected] | None) -> Counter[Protected]:
    """What the filter must count: all that was spent, and the rest of a committed plan.

    To leave a plan is a choice made with knowledge of results. Were the rest of the plan let go,
    whoever may make that choice would have delta twice: by the plan, and by the filter.
    """
    return spent | (plan or Counter())


def state(history: History, budget: Budget, head: Anchor, chain: str = "intact") -> Statement:
    """The account's statement under `budget`."""
    counts, delta = history.spent, budget.delta
    spent = expanded(counts)
    by_plan = planned(history, counts, budget)
    enforced = epsilon(spent, delta) if by_plan else filtered(history, budget, counts)
    return Statement(
        unit=budget.unit,
        adjacency=budget.adjacency,
        delta=delta,
        epsilon=epsilon(spent, delta),
        epsilon_rdp=epsilon_rdp(spent, delta),
        enforced=enforced,
        budget=budget.epsilon,
        left=max(0.0, budget.epsilon - enforced),
        committed=history.plan is not None and counts <= history.plan,
        enforced_by=PLD if by_plan else FILTER,
        chain=chain,
        sequence=head.sequence,
        head=head.digest,
        allowed=(history.cap or budget).epsilon,
        held=[as_json(event) for event in expanded(held(counts, history.plan))],
        events=[as_json(event) for event in spent],
        releases=[_release(release) for release in history.releases.values()],
    )


def filtered(history: History, budget: Budget, spent: Counter[Protected]) -> float:
    """The epsilon of what is held once `spent` is, by the filter of the owner's cap."""
    return filter_epsilon(expanded(held(spent, history.plan)), history.cap or budget)


def read_statements(path: Path) -> list[Statement]:
    """The statements of all accounts in a ledger, which is neither opened for writing nor changed.

    A ledger that is broken is reported in `chain`, with what can still be read of it.

    Raises:
        LedgerError: there is no file at `path`, or it is no ledger.
    """
    found = _examined(path)
    rows = found.rows
    if not rows and not beside(path, ".seal").exists():
        raise LedgerError(f"ledger {path} is no ledger: name the file that privacy.ledger names")
    chain = found.fault or "intact"
    head = Anchor(rows[-1].sequence, rows[-1].hash) if rows else None
    statements = [_reported(history, head, chain) for history in histories(rows).values()]
    return statements if statements or not found.fault else [_unreadable(chain, head)]


def _examined(path: Path) -> Found:
    for attempt in range(_ATTEMPTS):
        try:
            found = examine(path)
        except OSError as error:
            raise LedgerError(
                f"ledger {path} cannot be read ({error.strerror}): name an existing ledger"
            ) from error
        if not found.fault:
            break
        if attempt < _ATTEMPTS - 1:
            time.sleep(0.05)  # a writer may be at work: readers take no lock, to leave no file
    return found


def histories(rows: Iterable[Row]) -> dict[str, History]:
    """Every account's history, by the account's name."""
    found: dict[str, History] = {}
    for row in rows:
        if row.kind != "genesis":
            with suppress(ValueError):
                found.setdefault(row.account, History()).read(row)
    return found


def _reported(history: History, head: Anchor | None, chain: str) -> Statement:
    if history.budget is not None and head is not None:
        with suppress(ValueError, TypeError, ArithmeticError):
            return state(history, history.budget, head, chain)
    return _unreadable(chain, head)


def _unreadable(chain: str, head: Anchor | None) -> Statement:
    nothing = dict.fromkeys(Statement.__dataclass_fields__)
    known = {"committed": False, "enforced_by": "", "chain": chain}
    known |= {"held": [], "events": [], "releases": []}
    place = {"sequence": head.sequence, "head": head.digest} if head else {}
    return Statement(**nothing | known | place)  # type: ignore[arg-type]


def _release(release: ReleasedValue) -> dict[str, Any]:
    # Key by key: `asdict` copies deeply, and a shared ledger has one of these a client and round.
    return {
        "purpose": release.purpose,
        "when": release.when,
        "events": "; ".join(str(event) for event in release.events),
        "state": release.state,
        "sampler": release.sampler,
        "generator": release.generator,
        "digest": release.digest,
        "uncovered": list(release.uncovered),
    }
