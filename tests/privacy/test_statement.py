"""What a ledger tells people, also when it is broken; reading it changes nothing."""

import json
import os
import shutil
from dataclasses import asdict, replace

import pytest
from ledger_worker import BUDGET, DATA, ROUND, account

from fedkd.errors import LedgerError
from fedkd.privacy.accountant import epsilon, epsilon_rdp, filter_epsilon
from fedkd.privacy.chain import beside, examine
from fedkd.privacy.events import Gaussian, Laplace, as_json, from_json, grouped
from fedkd.privacy.ledger import Ledger, read_statements
from fedkd.privacy.statement import expanded


@pytest.fixture
def path(tmp_path):
    """A ledger with one account: a plan of three rounds, one sent, one cut off."""
    path = tmp_path / "privacy" / "ledger"
    ours = account(path)
    ours.commit(ROUND * 3)
    sent = ours.reserve("run 3f2a, round 1", ROUND)
    ours.touch(sent, sampler="poisson", generator="philox")
    ours.settle(sent, digest="ab" * 32, uncovered=["batch size"])
    ours.send(sent)
    ours.reserve("run 3f2a, round 2", ROUND)
    return path


def listing(path):
    return {each: each.stat().st_mtime_ns for each in [path.parent, *path.parent.iterdir()]}


def test_a_statement_says_what_was_spent_and_what_became_of_it(path):
    told = account(path).statement()
    assert (told.unit, told.adjacency, told.delta, told.budget) == ("record", "add-remove", 1e-5, 4)
    assert told.epsilon == epsilon(ROUND * 2, 1e-5) > 0
    assert told.epsilon_rdp == epsilon_rdp(ROUND * 2, 1e-5) > told.epsilon
    assert told.committed
    assert told.enforced_by == "PLD"
    assert told.left == 4 - told.epsilon
    assert told.chain == "intact"
    head = Ledger(path).head
    assert (told.sequence, told.head) == (head.sequence, head.digest) == (6, head.digest)
    both = [replace(ROUND[0], steps=6), replace(ROUND[1], steps=2)]
    assert told.events == [as_json(event) for event in both]
    first, second = told.releases
    assert first.pop("when") <= second.pop("when")
    words = "training, Gaussian noise 50, 3 steps; count, Gaussian noise 90"
    assert first == {
        "purpose": "run 3f2a, round 1",
        "state": "sent",
        "events": words,
        "sampler": "poisson",
        "generator": "philox",
        "digest": "ab" * 32,
        "uncovered": ["batch size"],
    }
    assert second == {
        "purpose": "run 3f2a, round 2",
        "state": "reserved",
        "events": words,
        "sampler": "",
        "generator": "",
        "digest": "",
        "uncovered": [],
    }


def test_a_statement_outside_the_plan_is_the_filters(path):
    ours = account(path)
    ours.reserve("another", [Laplace("histogram", 30.0, 2)])
    told = ours.statement()
    assert not told.committed
    assert told.enforced_by == "RDP filter"
    held = grouped(ours.spent()) | grouped(ROUND * 3)
    assert told.enforced == filter_epsilon(expanded(held), BUDGET) > told.epsilon
    assert told.left == 4 - told.enforced
    assert from_json(told.events[-1]) == Laplace("histogram", 30.0, 2)


def test_a_budget_lowered_below_the_plan_is_the_filters_and_nothing_is_left(path):
    told = account(path, replace(BUDGET, epsilon=0.1)).statement()
    assert told.committed
    assert told.enforced_by == "RDP filter"
    assert (told.budget, told.left) == (0.1, 0)


def test_an_account_that_spent_nothing_has_all_left(tmp_path):
    told = account(tmp_path / "ledger").statement()
    assert (told.epsilon, told.epsilon_rdp, told.left, told.committed) == (0, 0, 4, False)
    assert told.events == told.releases == []
    assert read_statements(tmp_path / "ledger") == []


def test_a_ledger_is_read_without_a_budget_and_without_a_trace(path):
    expected = account(path).statement()
    beside(path, ".lock").unlink(missing_ok=True)
    before = listing(path)
    assert read_statements(path) == [expected]
    assert listing(path) == before


def test_a_ledger_is_read_where_nothing_may_be_written(path):
    expected = account(path).statement()
    for each in [*path.parent.iterdir(), path.parent]:
        each.chmod(0o500)
    try:
        assert read_statements(path) == [expected]
    finally:
        path.parent.chmod(0o700)


def test_each_account_has_its_statement_under_the_budget_it_used_last(path):
    ledger = Ledger(path)
    client = replace(BUDGET, epsilon=7.0, unit="client")
    ledger.account(DATA, client).reserve("round 1", [Gaussian("logits", 9.0, unit="client")])
    ledger.account(DATA, replace(BUDGET, epsilon=3.0)).reserve("round 3", ROUND)
    records, clients = read_statements(path)
    assert (records.unit, records.budget, len(records.releases)) == ("record", 3.0, 3)
    assert (clients.unit, clients.budget, len(clients.releases)) == ("client", 7.0, 1)
    assert records.head == clients.head == ledger.head.digest


def test_a_statement_is_json(path):
    told = json.loads(json.dumps(asdict(account(path).statement()), allow_nan=False))
    assert told["releases"][0]["uncovered"] == ["batch size"]


@pytest.mark.parametrize("content", [None, b"", b"a shopping list"])
def test_what_is_no_ledger_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "no such folder" / "ledger" if content is None else tmp_path / "ledger"
    if content is not None:
        path.write_bytes(content)
    before = set(tmp_path.iterdir())
    with pytest.raises(LedgerError, match=str(path)):
        read_statements(path)
    assert set(tmp_path.iterdir()) == before


def test_a_folder_is_no_ledger(tmp_path):
    with pytest.raises(LedgerError, match="cannot be read"):
        read_statements(tmp_path)


def test_a_missing_seal_or_key_is_reported(path):
    key, seal = beside(path, ".key"), beside(path, ".seal")
    kept = key.read_bytes()
    key.unlink()
    (told,) = read_statements(path)
    assert told.chain == "lacks its key ledger.key"
    assert told.epsilon == epsilon(ROUND * 2, 1e-5)
    key.write_bytes(kept)
    seal.unlink()
    assert read_statements(path)[0].chain == "lacks its seal"


def test_a_writer_that_was_killed_before_it_sealed_is_no_fault(path):
    seal = beside(path, ".seal")
    old = seal.read_bytes()
    account(path).reserve("run 3f2a, round 3", ROUND)
    seal.write_bytes(old)
    before = listing(path)
    (told,) = read_statements(path)
    assert told.chain == "intact"
    assert len(told.releases) == 3
    assert listing(path) == before
    assert not examine(path).sealed


def test_a_broken_ledger_is_reported_with_what_can_be_read(path, monkeypatch):
    monkeypatch.setattr("fedkd.privacy.statement._ATTEMPTS", 1)
    content = path.read_bytes()
    start = content.index(b"run 3f2a, round 2")
    path.write_bytes(content[:start] + b"X" + content[start + 1 :])
    (told,) = read_statements(path)
    assert told.chain == "has a row 6 that was changed"
    assert told.epsilon == epsilon(ROUND * 2, 1e-5)

    path.write_bytes(content[: len(content) // 4 * 3])
    for told in read_statements(path):
        assert told.chain != "intact"

    path.write_bytes(os.urandom(len(content)))
    (told,) = read_statements(path)
    assert told.chain == "is damaged"
    assert (told.unit, told.epsilon, told.budget, told.left, told.head) == (None,) * 5
    json.dumps(asdict(told), allow_nan=False)


def test_any_flipped_byte_is_reported_and_never_raised(path, monkeypatch, tmp_path):
    monkeypatch.setattr("fedkd.privacy.statement._ATTEMPTS", 1)
    copy = shutil.copytree(path.parent, tmp_path / "copy") / path.name
    content = path.read_bytes()
    for index in range(0, len(content), 17):
        flipped = bytearray(content)
        flipped[index] ^= 4
        copy.write_bytes(flipped)
        told = read_statements(copy)
        assert told
        assert all(each.chain != "intact" for each in told)
        json.dumps([asdict(each) for each in told], allow_nan=False)
