"""A ledger holds its budget whatever is renamed, reopened, lowered, flipped, cut or put back."""

import itertools
import json
import os
import random
import shutil
import sqlite3
import stat
import tempfile
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import ledger_worker
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_worker import BUDGET, DATA, PLENTY, ROUND, account

from fedkd.errors import BudgetError, LedgerError, StorageError
from fedkd.privacy import account as account_module
from fedkd.privacy import statement as statement_module
from fedkd.privacy.accountant import epsilon, filter_epsilon
from fedkd.privacy.budget import Budget
from fedkd.privacy.chain import Row, beside, examine, seal_of
from fedkd.privacy.events import Gaussian, Laplace, Unprotected, as_json, grouped
from fedkd.privacy.ledger import Anchor, Ledger, Part, Reservation, fingerprint
from fedkd.privacy.statement import History, expanded

STRONG = Gaussian("training", 1.0)
"""Epsilon 4.4 at delta 1e-5: more than the budget."""


@pytest.fixture
def path():
    """Where a ledger may be made; in memory where that is possible, as a disk takes its time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "privacy" / "ledger"


def files(path):
    return {
        each.name: each.read_bytes() for each in path.parent.iterdir() if each.suffix != ".lock"
    }


def kinds(path):
    return [row.kind for row in examine(path).rows]


# The data set


def test_a_shuffled_data_set_is_the_same_whatever_its_type_and_shape():
    x, y = torch.randn(50, 3, 4), torch.arange(50) % 3
    order = torch.randperm(50)
    same = fingerprint(x, y)
    assert len(same) == 32
    assert fingerprint(x[order], y[order]) == same
    assert fingerprint(x.double().reshape(50, 12), y.to(torch.int32)) == same


def test_another_data_set_is_another():
    x, y = torch.randn(50, 3), torch.arange(50) % 3
    other = x.clone()
    other[7, 1] += 1e-6
    different = {
        fingerprint(x, y),
        fingerprint(other, y),
        fingerprint(x, y.roll(1)),
        fingerprint(x[:-1], y[:-1]),
        fingerprint(torch.cat([x, x[:1]]), torch.cat([y, y[:1]])),
    }
    assert len(different) == 5


def test_a_long_data_set_is_hashed_in_parts():
    x, y = torch.randn(10_000, 2), torch.zeros(10_000)
    assert fingerprint(x, y) == fingerprint(x.flip(0), y)


@pytest.mark.parametrize(("x", "y"), [((0, 3), (0,)), ((4, 3), (5,)), ((), ())])
def test_no_records_or_labels_that_do_not_fit_have_no_fingerprint(x, y):
    with pytest.raises(ValueError, match="as many labels as records"):
        fingerprint(torch.zeros(x), torch.zeros(y))


# Order


def test_a_round_is_reserved_touched_settled_and_sent(path):
    ours = account(path)
    assert ours.commit(ROUND * 3)
    reservation = ours.reserve("round 1", ROUND)
    ours.touch(reservation, sampler="poisson", generator="philox")
    ours.settle(reservation, digest="ab", uncovered=["batch size"])
    ours.send(reservation)
    assert kinds(path) == ["genesis", "plan", "reserve", "touch", "settle", "send"]
    assert ours.spent() == ROUND


def test_a_step_out_of_order_is_refused_and_writes_nothing(path):
    ours = account(path)
    first = ours.reserve("round 1", ROUND)
    steps = {
        "touch": lambda: ours.touch(first),
        "settle": lambda: ours.settle(first, digest="ab"),
        "send": lambda: ours.send(first),
    }

    def check_refused(*names):
        for name in names:
            before = files(path)
            with pytest.raises(LedgerError, match=rf"refuses to {name} 'round 1' \(row 1\)"):
                steps[name]()
            assert files(path) == before

    check_refused("settle", "send")
    steps["touch"]()
    check_refused("touch", "send")
    steps["settle"]()
    check_refused("touch")
    steps["send"]()
    check_refused("touch")


def test_the_same_bytes_are_free_to_send_again_and_other_bytes_are_refused(path):
    ours = account(path)
    reservation = ours.reserve("round 1", ROUND)
    ours.touch(reservation)
    ours.settle(reservation, digest="ab")
    ours.send(reservation)
    before = files(path)
    ours.settle(reservation, digest="ab")
    ours.send(reservation)
    assert files(path) == before
    with pytest.raises(LedgerError, match="fresh noise needs a fresh reservation"):
        ours.settle(reservation, digest="cd")
    with pytest.raises(LedgerError, match="which is sent"):
        ours.settle(reservation, digest="ab", uncovered=["a histogram"])


def test_a_reservation_goes_on_after_a_restart(path):
    reservation = account(path).reserve("round 1", ROUND)
    account(path).touch(reservation)
    account(path).settle(reservation, digest="ab")
    account(path).send(reservation)
    assert kinds(path)[1:] == ["reserve", "touch", "settle", "send"]


def test_a_reservation_of_another_account_is_refused(path):
    reservation = account(path).reserve("round 1", ROUND)
    other = Ledger(path).account(b"other", BUDGET)
    for stranger in (reservation, Reservation(0, "genesis"), Reservation(99, "none")):
        with pytest.raises(LedgerError, match="use a reservation with the account that made it"):
            other.touch(stranger)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [Unprotected("teacher training")],
        [replace(STRONG, unit="client")],
        [replace(STRONG, adjacency="replace-one")],
        [replace(STRONG, steps=0)],
        [ROUND[0], replace(ROUND[0], steps=-2)],
        [replace(STRONG, steps=1.5)],
        [replace(STRONG, noise_multiplier=0.0)],
        [replace(STRONG, noise_multiplier=float("nan"))],
        [replace(STRONG, sample_rate=1.5)],
    ],
)
def test_events_that_this_account_cannot_pay_for_are_refused(path, events):
    ours = account(path)
    ours.commit(ROUND * 3)
    before = files(path)
    for ask in (ours.commit, lambda events: ours.reserve("round 1", events)):
        with pytest.raises(ValueError, match="Expected"):
            ask(events)
    assert files(path) == before


# Accounts


def test_a_renamed_purpose_or_client_is_the_same_account(path):
    for number in range(3):
        account(path).reserve(f"client {number}, run {number}", ROUND)
    assert account(path).spent() == ROUND * 3


def test_another_data_set_unit_or_adjacency_is_another_account(path):
    ledger = Ledger(path)
    ledger.account(DATA, BUDGET).reserve("round 1", ROUND)
    others = [
        ledger.account(b"other", BUDGET),
        ledger.account(DATA, replace(BUDGET, unit="client")),
        ledger.account(DATA, replace(BUDGET, adjacency="replace-one")),
    ]
    for other in others:
        assert other.spent() == ()
    others[0].reserve("round 1", [STRONG] if BUDGET.epsilon > 5 else ROUND)
    assert ledger.account(DATA, Budget(9.0, 1e-6)).spent() == ROUND
    assert len({row.account for row in examine(path).rows[1:]}) == 2


def test_no_name_in_the_file_tells_the_data_set_to_who_lacks_the_key(path):
    def written():
        Ledger(path).account(DATA, BUDGET, Part("a deal", 0)).reserve("round 1", ROUND)
        row = examine(path).rows[1]
        return {row.account, json.loads(row.body)["part"]["deal"]}

    before = written()
    shutil.rmtree(path.parent)
    assert not before & {"a deal", *written()}


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(ROUND)), max_size=12
    )
)
def test_parts_of_a_deal_compose_in_parallel_and_deals_add_up(spent):
    history = History()
    for number, (deal, part, event) in enumerate(spent):
        body = {"purpose": "", "when": "", "events": [as_json(event)], "budget": asdict(BUDGET)}
        body["part"] = {"deal": deal, "number": part}
        history.read(Row(number, "", "reserve", json.dumps(body), "", ""))
    # No record can have been in more: it was in one part of each deal.
    for parts in itertools.product(range(3), repeat=2):
        mine = [e for deal, part, e in spent if part == parts["ab".index(deal)]]
        assert grouped(mine) <= history.spent
    alone = grouped([e for deal, part, e in spent if (deal, part) == ("a", 0)])
    if all((deal, part) == ("a", 0) for deal, part, _ in spent):
        assert history.spent == alone


def test_a_part_that_lags_behind_costs_nothing_until_it_leads(path):
    first, second = (
        Ledger(path).account(DATA, BUDGET, Part("a deal", number)) for number in range(2)
    )
    assert first.commit(ROUND * 2)
    first.reserve("round 1", ROUND)
    first.reserve("round 2", ROUND)
    assert second.commit(ROUND * 2)
    second.reserve("round 1", ROUND)
    second.reserve("round 2", ROUND)
    assert second.spent() == ROUND * 2
    told = second.statement()
    assert told.enforced_by == "PLD"
    assert told.epsilon == pytest.approx(epsilon(list(ROUND * 2), BUDGET.delta))
    again = Ledger(path).account(DATA, BUDGET, Part("another deal", 0))
    assert again.spent() == ()
    again.reserve("round 1", ROUND)
    assert again.statement().epsilon == pytest.approx(epsilon(list(ROUND * 3), BUDGET.delta))


# Budgets


def test_a_plan_within_the_budget_is_committed_once(path):
    ours = account(path)
    assert ours.commit(ROUND * 10)
    assert account(path).commit([*ROUND] * 10)
    assert kinds(path) == ["genesis", "plan"]
    assert ours.commit(ROUND * 11)  # nothing was touched: it may still be changed
    ours.reserve("round 1", ROUND)
    assert account(path).commit(ROUND * 11)
    assert not account(path).commit(ROUND * 12)
    assert kinds(path) == ["genesis", "plan", "plan", "reserve"]


def test_a_plan_over_the_budget_is_refused_and_writes_nothing(path):
    ours = account(path)
    before = files(path)
    with pytest.raises(BudgetError, match=r"the plan asks for training.*epsilon would be 4\.3"):
        ours.commit([STRONG])
    assert files(path) == before


def test_a_plan_is_no_plan_once_something_else_was_reserved(path):
    ours = account(path)
    ours.reserve("round 1", ROUND)
    assert not ours.commit(ROUND * 10)
    other = Ledger(path).account(b"other", BUDGET)
    other.commit(ROUND * 2)
    other.reserve("round 1", [Gaussian("extra", 60.0)])
    assert not other.commit(ROUND * 2)


def test_a_committed_plan_may_be_spent_to_its_end_where_the_filter_would_stop(path):
    one = Gaussian("training", 10.0)
    plan = [one] * 84
    assert epsilon(plan, BUDGET.delta) <= BUDGET.epsilon < filter_epsilon(plan, BUDGET)

    ours = account(path)
    assert ours.commit(plan)
    for number in range(84):
        ours.reserve(f"round {number}", [one])
    before = files(path)
    with pytest.raises(BudgetError, match="by the RDP filter outside the committed plan"):
        ours.reserve("round 85", [one])
    assert files(path) == before
    assert ours.spent() == tuple(plan)


def until_refused(ours, event):
    """How many rounds were granted."""
    for number in range(1000):
        try:
            ours.reserve(f"round {number + 1}", [event])
        except BudgetError:
            return number
    raise AssertionError("never refused")


def test_without_a_plan_the_filter_stops_the_round_that_is_too_much(path):
    one = Gaussian("training", 10.0)
    ours = account(path)
    granted = until_refused(ours, one)
    before = files(path)
    with pytest.raises(BudgetError) as refused:
        ours.reserve(f"round {granted + 1}", [one])
    assert files(path) == before
    assert (
        filter_epsilon([one] * granted, BUDGET) <= 4 < filter_epsilon([one] * (granted + 1), BUDGET)
    )
    told = str(refused.value)
    assert f"round {granted + 1} asks for training, Gaussian noise 10: epsilon would be 4.0" in told
    assert "the budget is epsilon 4 at delta 1e-05 (record, add-remove), of which 3.5" in told
    assert "\n" not in told


def test_what_is_outside_the_plan_is_held_by_the_filter(path):
    ours = account(path)
    training, extra = Gaussian("training", 10.0), Gaussian("extra", 10.0)
    ours.commit([training] * 40)
    taken = until_refused(ours, extra)
    assert taken > 1
    assert filter_epsilon([*ours.spent(), *[training] * 40], BUDGET) <= BUDGET.epsilon
    # The rest of the plan is still counted, so that leaving it gains nothing, and may be made.
    assert filter_epsilon([*[extra] * (taken + 1), *[training] * 40], BUDGET) > BUDGET.epsilon
    assert until_refused(ours, training) == 40


def test_an_abandoned_plan_that_fills_the_budget_leaves_no_room(path):
    ours = account(path)
    ours.commit([Gaussian("training", 10.0)] * 84)
    with pytest.raises(BudgetError, match="outside the committed plan"):
        ours.reserve("round 1", [Gaussian("extra", 10.0)])
    assert until_refused(ours, Gaussian("training", 10.0)) == 84


def test_a_lowered_budget_refuses_the_plan_and_the_next_round(path):
    ours = account(path)
    ours.commit(ROUND * 100)
    for number in range(20):
        ours.reserve(f"round {number}", ROUND)
    lowered = account(path, replace(BUDGET, epsilon=epsilon(ours.spent(), BUDGET.delta)))
    before = files(path)
    with pytest.raises(BudgetError, match="the plan asks for"):
        lowered.commit(ROUND * 100)
    with pytest.raises(BudgetError, match="round 21 asks for"):
        lowered.reserve("round 21", ROUND)
    assert files(path) == before
    ours.reserve("round 21", ROUND)


def test_a_smaller_delta_makes_the_same_plan_cost_more(path):
    plan = [Gaussian("training", 10.0)] * 84
    ours = account(path)
    ours.commit(plan)
    ours.reserve("round 1", plan[:60])
    strict = account(path, replace(BUDGET, delta=1e-9))
    with pytest.raises(BudgetError, match="at delta 1e-09"):
        strict.reserve("round 2", plan[:1])
    ours.reserve("round 2", plan[:1])


def test_fifty_rounds_over_five_reopenings_cost_what_fifty_straight_cost(path):
    events = (Gaussian("training", 1.1, 0.01, 100), Gaussian("logits", 20.0))
    budget = Budget(8.0, 1e-5)
    straight = account(path, budget)
    for number in range(50):
        straight.reserve(f"round {number}", events)
    reopened = path.with_name("reopened")
    for opening in range(5):
        ours = account(reopened, budget)
        for number in range(10):
            ours.reserve(f"run {opening}, round {number}", events)
    one, other = straight.statement(), account(reopened, budget).statement()
    assert one.epsilon == pytest.approx(other.epsilon, abs=1e-9)
    assert one.epsilon == pytest.approx(3.87, abs=0.01)
    assert one.epsilon_rdp == pytest.approx(other.epsilon_rdp, abs=1e-9)
    assert one.left == pytest.approx(other.left, abs=1e-9)


def test_laplace_and_gaussian_events_come_back_as_they_were(path):
    events = (Laplace("histogram", 40.0, 2), Gaussian("training", 1.5, 0.02, 30))
    account(path).reserve("round 1", events)
    assert account(path).spent() == events


# A model in memory that costs next to nothing

EVENTS = [Gaussian("a", 1.0), Gaussian("b", 2.0, steps=2), Gaussian("a", 1.0, steps=3)]
PLANS = [EVENTS[:2], EVENTS, EVENTS * 3]


def cheap(events, *_):
    return sum(event.steps * event.noise_multiplier for event in events)


def cheaper(events, *_):
    return 0.7 * cheap(events)


class Model:
    def __init__(self):
        self.plan, self.spent, self.states, self.budget, self.cap = None, [], [], 20, None

    def commit(self, plan):
        self.require_allowed()
        same = self.plan is not None and grouped(self.plan) == grouped(plan)
        if self.spent and not (same and grouped(self.spent) <= grouped(plan)):
            return False
        if cheaper(plan) > self.budget:
            raise BudgetError
        self.plan = plan
        self.cap = self.cap or self.budget
        return True

    def require_allowed(self):
        if self.cap is not None and self.budget > self.cap:
            raise BudgetError

    def reserve(self, events):
        self.require_allowed()
        after = [*self.spent, *events]
        by_plan = self.plan is not None and grouped(after) <= grouped(self.plan)
        held = grouped(after) | grouped(self.plan or [])
        if not (by_plan and cheaper(self.plan) <= self.budget) and (
            cheap(expanded(held)) > self.budget
        ):
            raise BudgetError
        self.spent = after
        self.cap = self.cap or self.budget
        self.states.append("reserve")

    def step(self, index, kind):
        order = ["reserve", "touch", "settle", "send"]
        place = order.index(kind)
        if self.states[index] == kind != "touch" or (self.states[index], kind) == (
            "send",
            "settle",
        ):
            return
        if self.states[index] != order[place - 1]:
            raise LedgerError
        self.states[index] = kind


def outcome(action):
    try:
        return action()
    except BudgetError as error:
        return type(error)


ACTIONS = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(PLANS)),
    st.tuples(st.just("reserve"), st.lists(st.sampled_from(EVENTS), min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["touch", "settle", "send"]), st.integers(0, 3)),
    st.tuples(st.just("budget"), st.sampled_from([10, 20, 40])),
    st.tuples(st.just("reopen"), st.none()),
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(st.lists(ACTIONS, max_size=25))
def test_any_sequence_of_steps_does_as_a_model_in_memory(actions):
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        for module in (account_module, statement_module):
            patch.setattr(module, "epsilon", cheaper)
        patch.setattr(statement_module, "filter_epsilon", cheap)
        run_both(Path(folder) / "ledger", actions)


def run_both(path, actions):
    model, reservations = Model(), []
    ours = account(path, Budget(20, 1e-5))
    for kind, value in actions:
        if kind in {"reopen", "budget"}:
            model.budget = value or model.budget
            ours = account(path, Budget(model.budget, 1e-5))
        else:
            check_same(path, ours, model, reservations, kind, value)
    assert ours.spent() == tuple(model.spent)
    assert examine(path).fault == ""


def check_same(path, ours, model, reservations, kind, value):
    before = path.read_bytes()
    if kind == "commit":
        assert outcome(lambda: ours.commit(value)) == outcome(lambda: model.commit(value))
    elif kind == "reserve":
        expected = outcome(lambda: model.reserve(value))
        got = outcome(lambda: ours.reserve("a round", value))
        if expected is None:
            reservations.append(got)
        else:
            assert got is expected
            assert path.read_bytes() == before
    elif value < len(reservations):
        expected = outcome(lambda: model.step(value, kind))
        extra = {"digest": "ab"} if kind == "settle" else {}
        assert outcome(lambda: getattr(ours, kind)(reservations[value], **extra)) == expected
        assert expected is None or path.read_bytes() == before


# What happened to the files


def small(path):
    """A ledger of three rows, and its account."""
    ours = account(path)
    ours.commit(ROUND * 3)
    ours.reserve("round 1", ROUND)
    return ours


def check_refused(path, match=r"restore it, its \.seal and its \.key", ours=None):
    """Neither opened nor used, and left as it is."""
    before = files(path)
    with pytest.raises(LedgerError, match=match):
        Ledger(path)
    if ours is not None:
        with pytest.raises(LedgerError, match=r"restore it, its \.seal and its \.key"):
            ours.reserve("round 2", ROUND)
    assert files(path) == before


@pytest.mark.slow
def test_every_flipped_byte_of_the_file_is_found(path):
    ours = account(path)
    ours.reserve("round 1", ROUND)
    content = path.read_bytes()
    flips = random.Random(5)
    for index in range(len(content)):
        flipped = bytearray(content)
        flipped[index] ^= 1 << flips.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(LedgerError):
            Ledger(path)
        if index % 8 == 0:
            with pytest.raises(LedgerError):
                ours.reserve("round 2", ROUND)
        assert path.read_bytes() == flipped
    path.write_bytes(content)
    ours.reserve("round 2", ROUND)


@pytest.mark.parametrize("suffix", [".seal", ".key"])
def test_every_flipped_bit_of_the_seal_and_the_key_is_found(path, suffix):
    ours = small(path)
    target = beside(path, suffix)
    content = target.read_bytes()
    for index in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[index] ^= 1 << bit
            target.write_bytes(flipped)
            with pytest.raises(LedgerError, match=r"seal|key"):
                ours.reserve("round 2", ROUND)
    check_refused(path)


def sql(path, *statements):
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_a_deleted_tail_is_found_with_its_seal_and_without(path):
    ours = small(path)
    sql(path, "DELETE FROM ledger WHERE seq = 2")
    check_refused(path, "ends at row 1, its seal says row 2", ours)
    beside(path, ".seal").unlink()
    check_refused(path, "seal")


def test_a_deleted_tail_under_a_forged_seal_is_found_by_who_saw_its_head(path):
    ours = small(path)
    head = Ledger(path).head
    sql(path, "DELETE FROM ledger WHERE seq = 2")
    found = examine(path)
    beside(path, ".seal").write_text(seal_of(found.rows[-1], found.digest))
    check = "no longer holds row 2: another copy was put in its place"
    with pytest.raises(LedgerError, match=check):
        ours.spent()
    with pytest.raises(LedgerError, match="ends at row 1, its head was row 2 once"):
        Ledger(path).check_anchor(head)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("UPDATE ledger SET body = replace(body, '50.0', '90.0')", "row 1 that was changed"),
        ("UPDATE ledger SET kind = 'send' WHERE seq = 2", "row 2 that was changed"),
        ("DELETE FROM ledger WHERE seq = 1", "lacks row 1"),
        ("UPDATE ledger SET seq = 7 WHERE seq = 2", "lacks row 2"),
        ("UPDATE ledger SET body = 5 WHERE seq = 2", "row 2 that was changed"),
        ("UPDATE ledger SET body = x'ff00' WHERE seq = 2", "after row 1 that is damaged"),
        ("CREATE TABLE other (a)", "was changed since row 2"),
        ("DELETE FROM ledger", "has no rows"),
        ("DROP TABLE ledger", "is damaged"),
    ],
)
def test_a_row_that_was_changed_is_named(path, change, match):
    ours = small(path)
    sql(path, change)
    check_refused(path, match, ours)


def test_a_row_added_by_hand_is_found(path):
    small(path)
    last = examine(path).rows[-1]
    forged = replace(last, sequence=3, previous=last.hash)  # its hash is another row's
    with closing(sqlite3.connect(path)) as database:
        values = [getattr(forged, name) for name in Row.__dataclass_fields__]
        database.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)", values)
        database.commit()
    check_refused(path, "row 3 that was changed")


@pytest.mark.parametrize("size", [0, 1, 100, 4096, -1])
def test_a_cut_file_is_found(path, size):
    ours = small(path)
    path.write_bytes(path.read_bytes()[:size])
    check_refused(path, ours=ours)


def test_bytes_after_the_end_are_found(path):
    ours = small(path)
    path.write_bytes(path.read_bytes() + b"\0" * 4096)
    check_refused(path, ours=ours)


def test_an_old_copy_of_the_file_alone_is_refused(path):
    ours = account(path)
    ours.reserve("round 1", ROUND)
    old = path.read_bytes()
    ours.reserve("round 2", ROUND)
    path.write_bytes(old)
    check_refused(path, "ends at row 1, its seal says row 2: it was cut or restored", ours)


def test_an_old_copy_of_all_files_is_found_by_the_process_that_used_it_and_by_the_anchor(path):
    ours = account(path)
    ours.reserve("round 1", ROUND)
    old = files(path)
    ours.reserve("round 2", ROUND)
    head = Ledger(path).head
    Ledger(path).check_anchor(head)
    for name, content in old.items():
        path.with_name(name).write_bytes(content)

    with pytest.raises(LedgerError, match="no longer holds row 2"):
        ours.reserve("round 2", ROUND)
    ledger = Ledger(path)
    with pytest.raises(LedgerError, match="ends at row 1, its head was row 2 once: an older copy"):
        ledger.check_anchor(head)


def test_a_fork_is_found_by_the_anchor(path):
    account(path).reserve("round 1", ROUND)
    common = Ledger(path).head
    fork = path.parent.with_name("fork") / path.name
    shutil.copytree(path.parent, fork.parent)
    account(path).reserve("round 2", ROUND)
    head = Ledger(path).head
    for number in range(3):
        account(fork).reserve(f"other round {number}", ROUND)

    Ledger(fork).check_anchor(common)
    for wrong in (head, replace(common, digest="0" * 64), Anchor(-1, common.digest)):
        with pytest.raises(LedgerError):
            Ledger(fork).check_anchor(wrong)
    with pytest.raises(LedgerError, match="has another row 2 than the one that was its head"):
        Ledger(fork).check_anchor(head)


def test_a_lost_or_new_key_is_no_new_budget(path):
    ours = small(path)
    key = beside(path, ".key")
    old = key.read_bytes()
    key.unlink()
    check_refused(path, "lacks its key ledger.key", ours)
    key.write_bytes(os.urandom(32))
    check_refused(path, "has another key than its ledger.key", ours)
    key.write_bytes(old)
    ours.reserve("round 2", ROUND)


@pytest.mark.parametrize(
    ("lost", "match"),
    [
        (["", ".seal"], "was deleted, its key ledger.key is still there"),
        ([""], "was deleted, its seal is still there"),
        (["", ".key"], "was deleted, its seal is still there"),
        ([".seal"], "has no seal ledger.seal or is no ledger"),
        ([".seal", ".key"], "has no seal ledger.seal or is no ledger"),
    ],
)
def test_a_ledger_of_which_files_were_deleted_is_refused(path, lost, match):
    small(path)
    for suffix in lost:
        beside(path, suffix).unlink()
    check_refused(path, match)


def test_a_file_that_is_no_ledger_is_left_alone(path):
    path.parent.mkdir()
    path.write_text("a shopping list")
    check_refused(path, "is no ledger")
    path.unlink()
    sql(path, "CREATE TABLE addresses (name)")
    check_refused(path, "is no ledger")


def test_a_ledger_of_a_newer_format_is_refused(path, monkeypatch):
    monkeypatch.setattr("fedkd.privacy.chain_file.FORMAT", 2)
    with pytest.raises(LedgerError, match="is of another format than 1"):
        Ledger(path)


def test_the_key_is_its_owners_only(path):
    Ledger(path)
    key = beside(path, ".key")
    assert len(key.read_bytes()) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_row_whose_seal_could_not_be_written_is_spent(path, monkeypatch):
    ours = small(path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fedkd.privacy.chain_file.write_atomically", full)
        with pytest.raises(StorageError, match=r"No space left on device.*space and permissions"):
            ours.reserve("round 2", ROUND)
    assert not examine(path).sealed
    assert ours.spent() == ROUND * 2
    assert examine(path).sealed


def test_a_disk_that_is_full_says_nothing_against_the_ledger(path, monkeypatch):
    ours = small(path)

    def full(*_, **__):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ours._chain, "_insert", full)
        with pytest.raises(StorageError, match=r"ledger': database or disk is full"):
            ours.reserve("round 2", ROUND)
    ours.reserve("round 2", ROUND)


def test_a_ledger_in_use_elsewhere_is_waited_for_and_then_refused(path, monkeypatch):
    ours = small(path)
    monkeypatch.setattr("fedkd.privacy.chain_file._PATIENCE", 0.05)
    with ours._chain.locked(), pytest.raises(LedgerError, match="in use by another process"):
        Ledger(path)


def thousand(path, different):
    """A ledger of 1,000 rounds, 4,000 rows, written at once."""
    ours = account(path, PLENTY)
    ours.reserve("round 0", ROUND)
    rows = list(examine(path).rows)
    body = json.loads(rows[-1].body)
    for number in range(1, 1000):
        noise = 50.0 + number / 7 if different else 50.0
        body["events"][0] |= {"noise_multiplier": noise, "sample_rate": 0.01, "steps": 100}
        rows.append(Row.after(rows[-1], rows[1].account, "reserve", body))
        reservation = rows[-1].sequence
        common = {"when": body["when"], "reservation": reservation}
        extra = {"sampler": "poisson", "generator": "philox"}
        rows.append(Row.after(rows[-1], rows[1].account, "touch", common | extra))
        extra = {"digest": "ab" * 32, "uncovered": []}
        rows.append(Row.after(rows[-1], rows[1].account, "settle", common | extra))
        rows.append(Row.after(rows[-1], rows[1].account, "send", common))
    with closing(sqlite3.connect(path)) as database:
        values = [[getattr(row, name) for name in Row.__dataclass_fields__] for row in rows[2:]]
        database.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)", values)
        database.commit()
    return account(path, PLENTY)


@pytest.mark.parametrize("different", [False, True])
def test_a_ledger_of_a_thousand_rounds_goes_on(path, different):
    ours = thousand(path, different)
    ours.reserve("round 1000", ROUND)
    ours.reserve("round 1001", ROUND)
    assert len(ours.spent()) == 2 * 1002
    assert len(ledger_worker.account(path, PLENTY).spent()) == 2 * 1002
