"""Secure aggregation from end to end: the server sees the sum, and noise is added once in all."""

from functools import partial

import pytest
import summed
import tiny
import torch

from fedkd.errors import BudgetError, ConfigError, FederationError, QuorumError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.masking.fixed_point import RESOLUTION, floating
from fedkd.exchange.messages import Public, Release, Upload, Value
from fedkd.federation import engines, wire
from fedkd.federation.client import ClientParty, client_app
from fedkd.federation.disk_state import DiskState
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.prepare import forecast, prepare
from fedkd.federation.rounds import federate
from fedkd.federation.secure import messages, steps
from fedkd.federation.secure.steps import Masking, SumMember
from fedkd.federation.state import MemoryState
from fedkd.jobs.simulate import simulate
from fedkd.learning.closed_form import summed as sums_of
from fedkd.methods.core import accounting
from fedkd.privacy.events import Gaussian
from fedkd.privacy.ledger import OWNERS, Ledger, Part, read_statements
from fedkd.runs.folder import RunFolder

CLOSED = {"method.name": "summed:Seen", "rounds": 1, "clients.quorum": 1.0}
SECURE = {**CLOSED, "privacy.secure_aggregation": True}
WIDE = {"student.model": {"name": "mlp", "hidden": [40]}}
NOISY = {"privacy.epsilon": 8.0, "privacy.noise_multiplier": 1.5}
EVENT = Gaussian("sums of features, summed over clients", 1.5)


@pytest.fixture(autouse=True)
def nothing_seen():
    summed.SENT.clear()
    summed.GIVEN.clear()


class Runs:
    """One experiment whose clients keep their states on disk, run as often as a test likes."""

    def __init__(self, folder, prepared):
        self.folder, self.prepared = folder, prepared
        self.run = RunFolder(folder / "run")
        self.run.open(prepared.experiment, prepared.data, resume=False)

    def party(self, _context, call):
        place = self.folder / str(call.client)
        return ClientParty(self.prepared, DiskState(place), partial(Ledger, place / "ledger.db"))

    def go(self, **faults):
        app = summed.Wire(client_app(self.party), **faults)
        with InProcessGrid(app, nodes=self.prepared.setting.clients, threads=1) as grid:
            self.student = federate(grid, self.prepared, self.run, tiny.Quiet(), threads=1)
        return app

    def spent(self, client):
        [told] = read_statements(self.folder / str(client) / "ledger.db")
        return told


@pytest.fixture
def runs(rows, tmp_path):
    def make(changes, name="one"):
        (tmp_path / name).mkdir()
        return Runs(tmp_path / name, prepare(tiny.experiment(rows, changes)))

    return make


def answers(app):
    """What crossed the wire as answers, by client."""
    return {c: decode(reply.payload) for action, c, reply in app.replies if action == "learn"}


def test_the_student_is_the_same_and_the_server_sees_no_clients_own_sums(runs):
    plain, hidden = runs(CLOSED, "plain"), runs(SECURE, "hidden")
    plain.go()
    summed.SENT.clear()
    summed.GIVEN.clear()
    app = hidden.go()
    [given] = summed.GIVEN
    assert given.keys() == {0}
    for name in ("features", "labels"):
        whole = sum(sent[name] for [sent] in summed.SENT.values())
        torch.testing.assert_close(given[0][name], whole, rtol=0, atol=2 * RESOLUTION)
        for client, upload in answers(app).items():
            [own] = summed.SENT[client]
            assert upload[name].dtype == torch.int64
            apart = (floating(upload)[name] - own[name]).abs()
            assert float(apart.min()) > 1e3  # of up to 2^39; sums are below 1e3
    for name, weight in plain.student.state_dict().items():
        other = hidden.student.state_dict()[name]
        torch.testing.assert_close(other, weight, rtol=1e-6, atol=1e-6)


def noise(given, prepared):
    """What a sum holds beside the exact one, in its off-diagonal entries."""
    setting = prepared.setting
    model = setting.build(setting.experiment.student.model, purpose="student")
    exact = sum(
        sums_of(model, own, setting.classes, clip=1.0, intercept=0.3).features
        for own in prepared.data.clients
    )
    rows, columns = torch.triu_indices(*exact.shape)
    return (given - exact[rows, columns])[rows != columns]


def test_noise_is_added_once_in_all_and_a_share_of_it_by_each(runs):
    scale = 1.5 * (1 + 0.3**2) * 2**0.5 / 2**0.5  # multiplier, bound squared, balance, off-diagonal
    hidden = runs({**SECURE, **WIDE, **NOISY})
    hidden.go()
    [given] = summed.GIVEN
    found = noise(given[0]["features"], hidden.prepared)
    assert float(found.std()) == pytest.approx(scale, rel=0.1)  # of 820 entries: 2.5% is one sigma
    assert abs(float(found.mean())) < 5 * scale / 820**0.5
    each = runs({**CLOSED, **WIDE, **NOISY}, "each")
    each.go()
    today = sum(upload["features"] for upload in summed.GIVEN[-1].values())
    assert float(noise(today, each.prepared).std()) == pytest.approx(2 * scale, rel=0.1)
    assert hidden.spent(1).events == [{**each.spent(1).events[0], "what": EVENT.what}]
    assert hidden.spent(1).epsilon == each.spent(1).epsilon


def test_what_each_adds_is_for_the_fewest_that_a_sum_may_have(rows):
    def share(quorum, **changes):
        table = {**SECURE, **NOISY, "clients.quorum": quorum, **changes}
        return prepare(tiny.experiment(rows, table)).setting.noise_share

    shares = [share(1.0), share(0.75), share(0.5), share(1.0, **{"clients.participation": 0.5})]
    # Half of four could have a sum without the other half: three must be left.
    assert shares == pytest.approx([4**-0.5, 3**-0.5, 3**-0.5, 2**-0.5])
    assert prepare(tiny.experiment(rows, {**CLOSED, **NOISY})).setting.noise_share == 1.0


STEPS = ("keys", "shares", "learn", "open")


@pytest.mark.parametrize("step", STEPS)
def test_whoever_is_lost_at_a_step_the_sum_is_that_of_all_others(runs, step):
    hidden = runs({**SECURE, "clients.quorum": 0.75})
    hidden.go(lost={(step, 2)})
    [record], [given] = hidden.run.records(), summed.GIVEN
    left = [0, 1, 3] if step != "open" else [0, 1, 2, 3]  # it had answered
    assert record["participants"] == left
    assert [each["client"] for each in record["failures"]] == [c for c in (2,) if c not in left]
    whole = sum(summed.SENT[client][0]["labels"] for client in left)
    torch.testing.assert_close(given[0]["labels"], whole, rtol=0, atol=1e-6)


def test_another_at_each_step_may_be_lost_as_long_as_a_quorum_is_left(runs):
    hidden = runs({**SECURE, "clients.count": 9, "clients.quorum": 5.5 / 9})
    hidden.go(lost={("keys", 8), ("shares", 0), ("open", 4)})
    assert hidden.run.records()[0]["participants"] == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(QuorumError, match=r"5 of 9 clients answered .* asks for 6"):
        runs({**SECURE, "clients.count": 9, "clients.quorum": 5.5 / 9}, "more").go(
            lost={("keys", 8), ("shares", 0), ("learn", 4), ("open", 5)}
        )


@pytest.mark.parametrize("step", STEPS)
def test_one_more_than_may_be_lost_costs_the_round_and_it_can_be_run_again(runs, step):
    hidden = runs(SECURE)
    with pytest.raises(QuorumError, match=r"3 of 4 clients answered .* asks for 4"):
        hidden.go(lost={(step, 2)})
    assert summed.GIVEN == []
    hidden.go()
    assert hidden.run.records()[0]["participants"] == [0, 1, 2, 3]


def test_without_dp_a_round_is_opened_for_one_set_of_clients_alone(runs, caplog):
    hidden = runs({**SECURE, "clients.quorum": 0.75})
    with pytest.raises(QuorumError):
        hidden.go(lost={("open", 2), ("open", 3)})
    with pytest.raises(QuorumError, match=r"client 0|0 of 4"):
        hidden.go(lost={("learn", 2)})
    assert "opened for the sum of clients 0,1,2,3: the sum of 0,1,3 beside it" in caplog.text
    assert summed.GIVEN == []
    hidden.go()  # the same set again is the same sum
    assert hidden.run.records()[0]["participants"] == [0, 1, 2, 3]


def test_under_dp_a_second_attempt_pays_again_and_draws_new_noise(runs):
    hidden = runs({**SECURE, **NOISY, "privacy.spare_rounds": 1, "clients.quorum": 0.75})
    with pytest.raises(QuorumError, match=r"2 of 4 clients answered"):
        hidden.go(lost={("learn", 2), ("learn", 3)})
    once = hidden.spent(0).epsilon
    hidden.go(lost={("keys", 2)})
    first, second = (sent["features"] for sent in summed.SENT[0])
    assert float((first - second).abs().min()) > 0
    assert [event["steps"] for event in hidden.spent(0).events] == [2]
    assert hidden.spent(0).epsilon > once
    # Neither the answer nor what was released in it is kept to be sent again, nor the secret.
    kept = {file.name for file in (hidden.folder / "0").iterdir()}
    assert not [name for name in kept if "answer" in name or "secret" in name]
    assert DiskState(hidden.folder / "0").load(before=2) == {}


@pytest.mark.parametrize("step", ["learn", "open"])
def test_whoever_is_lost_the_noise_is_enough_and_the_ledger_holds_what_was_planned(runs, step):
    hidden = runs({**SECURE, **WIDE, **NOISY, "clients.quorum": 0.75})
    hidden.go(lost={(step, 2)})
    planned = forecast(hidden.prepared.experiment)
    assert hidden.spent(0).events == [{**hidden.spent(0).events[0], "what": EVENT.what}]
    assert hidden.spent(0).epsilon == pytest.approx(planned.epsilon, rel=1e-9)
    # Three shares for the fewest that may be left, and four where the fourth had answered.
    count = len(hidden.run.records()[0]["participants"])
    scale = 1.5 * (1 + 0.3**2) * (count / 3) ** 0.5
    setting = hidden.prepared.setting
    model = setting.build(setting.experiment.student.model, purpose="student")
    exact = sum(
        sums_of(model, hidden.prepared.data.clients[c], 3, clip=1.0, intercept=0.3).features
        for c in hidden.run.records()[0]["participants"]
    )
    rows, columns = torch.triu_indices(*exact.shape)
    found = (summed.GIVEN[0][0]["features"] - exact[rows, columns])[rows != columns]
    assert float(found.std()) == pytest.approx(scale, rel=0.1)


def test_under_dp_who_cannot_pay_says_so_before_the_others_do(runs):
    hidden = runs({**SECURE, **NOISY, "clients.quorum": 0.75})
    place = hidden.folder / "3"
    place.mkdir()
    prepared = hidden.prepared
    budget = accounting.budget(prepared.experiment.privacy)
    account = Ledger(place / "ledger.db").account(OWNERS, budget, Part(prepared.deal, 3))
    account.touch(account.reserve("earlier", [Gaussian("earlier", 0.7)]))
    hidden.go()
    [record] = hidden.run.records()
    assert record["participants"] == [0, 1, 2]
    assert record["failures"] == [
        {"client": 3, "reason": "its privacy budget does not allow the round"}
    ]


def test_a_plan_without_a_spare_round_allows_no_second_attempt(runs):
    hidden = runs({**SECURE, "privacy.epsilon": 8.0, "privacy.noise_multiplier": 0.62})
    with pytest.raises(QuorumError):
        hidden.go(lost={("learn", 2)})
    with pytest.raises(BudgetError, match=r"0 of 4 .* its privacy budget does not allow the round"):
        hidden.go()
    assert all(len(sent) == 1 for sent in summed.SENT.values())


def test_a_run_resumes_after_a_client_was_lost(rows, tmp_path, monkeypatch):
    experiment = tiny.experiment(rows, {**SECURE, "method.name": "analytic"})
    simulate(experiment, tmp_path / "whole", tiny.Quiet())
    once = engines.client_app
    monkeypatch.setattr(
        engines,
        "client_app",
        lambda find, **more: summed.Wire(once(find, **more), lost={("learn", 1)}),
    )
    with pytest.raises(QuorumError, match="3 of 4 clients answered"):
        simulate(experiment, tmp_path / "cut", tiny.Quiet())
    monkeypatch.undo()
    summary = simulate(experiment, tmp_path / "cut", tiny.Quiet(), resume=True)
    assert tiny.student_hash(tmp_path / "cut") == tiny.student_hash(tmp_path / "whole")
    assert summary["privacy"] == {"unit": "none", "secure_aggregation": True}
    page = (tmp_path / "cut" / "report.html").read_text("utf-8")
    assert "NO DP" in page
    assert "hid each client’s own part from the server" in page


def test_a_protected_run_says_that_its_epsilon_is_of_the_sum(rows, tmp_path):
    experiment = tiny.experiment(rows, {**SECURE, **NOISY, "method.name": "analytic"})
    summary = simulate(experiment, tmp_path / "run", tiny.Quiet())
    assert summary["privacy"]["secure_aggregation"] is True
    told = {each["field"]: each["provenance"] for each in summary["released"]}
    assert told == {
        "features": f"release: {EVENT}",
        "labels": f"release: {EVENT}",
        "secure_aggregation": "public",
    }
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "each client added a share of the noise" in page
    assert "It holds against the server too, whatever it does" in page


@pytest.mark.parametrize(
    ("field", "more"),
    [("secure_aggregation/members", 7), ("features", 2**53), ("labels", -(2**62))],
)
def test_masks_that_do_not_cancel_end_the_run(runs, field, more):
    def change(action, message, reply):
        call = wire.unpack(reply.content)
        if action != "learn" or call.client != 1:
            return reply
        upload = decode(call.payload)
        upload[field] += more
        changed = wire.Call(call.round, call.client, encode(upload), call.ledger_head)
        return type(message)(wire.pack(changed), reply_to=message)

    with pytest.raises(FederationError, match="masks of 4 clients do not come off"):
        runs(SECURE).go(changed=change)


@pytest.mark.parametrize(
    ("step", "field", "why"),
    [
        ("keys", "keys", "a public key for secure aggregation is none"),
        ("shares", "shares", "field 'secure_aggregation/shares': shape"),
        ("open", "pads", "field 'secure_aggregation/pads': shape"),
    ],
)
def test_what_is_no_answer_to_a_step_is_its_senders_fault_alone(runs, caplog, step, field, why):
    def change(action, message, reply):
        call = wire.unpack(reply.content)
        if (action, call.client) != (step, 1):
            return reply
        upload = decode(call.payload)
        wrong = torch.zeros(2 if field == "keys" else 5, 32, dtype=torch.uint8)
        upload[f"secure_aggregation/{field}"] = wrong
        changed = wire.Call(call.round, 1, encode(upload))
        return type(message)(wire.pack(changed), reply_to=message)

    hidden = runs({**SECURE, "clients.quorum": 0.75})
    hidden.go(changed=change)
    [record] = hidden.run.records()
    assert record["participants"] == ([0, 1, 2, 3] if step == "open" else [0, 2, 3])
    assert [why in each["reason"] for each in record["failures"]] == [True] * (step != "open")


def test_another_broadcast_for_one_client_leaves_the_masks_on(runs):
    """What bares who gets another model than the rest: Pasquini et al. 2022, arXiv:2111.07380."""
    hidden = runs({**SECURE, "clients.quorum": 0.75})
    app = client_app(hidden.party)

    def lie(message, context):
        call = wire.unpack(message.content)
        if message.metadata.message_type == "train.learn" and call.client == 3:
            payload = encode({**decode(call.payload), "model/bias": torch.zeros(3)})
            told = wire.Call(call.round, 3, payload, call.ledger_head, call.beside)
            message.content = wire.pack(told)
        return app(message, context)

    with (
        InProcessGrid(lie, nodes=4, threads=1) as grid,
        pytest.raises(FederationError, match="masks of 4 clients do not come off"),
    ):
        federate(grid, hidden.prepared, hidden.run, tiny.Quiet(), threads=1)
    assert summed.GIVEN == []


@pytest.fixture(scope="module")
def prepared(rows):
    return prepare(tiny.experiment(rows, {**SECURE, "clients.quorum": 0.75}))


class Clients:
    """Four clients, asked by hand by whoever plays the server."""

    def __init__(self, prepared, round=1):
        self.asked = {c: SumMember(prepared.setting, MemoryState(), c, round) for c in range(4)}
        self.keys = {c: steps.make_keys(each) for c, each in self.asked.items()}

    def share(self, client, keys=None):
        roster = messages.of_roster(self.keys if keys is None else keys)
        return steps.share(self.asked[client], decode(encode(roster)))

    def masking(self, client, shared, left=None):
        keys = messages.read_roster(messages.of_roster(self.keys))
        pairs = {c: each.pairs for c, each in keys.items()}
        circle = messages.circle(pairs, self.asked[0].setting, self.asked[0].round)
        known = {c: shared[c] for c in shared if left is None or c in {*left, client}}
        beside = encode(messages.passed_on(circle, known)[client])
        told = messages.of_clients(shared if left is None else left)
        return Masking.of(self.asked[client], encode(told), beside)

    def open(self, client, left):
        return steps.open_shares(self.asked[client], messages.of_clients(left))


UPLOAD = Upload({"labels": Value(torch.ones(2).double(), Release(EVENT))})


def test_each_step_is_taken_once_and_in_turn(prepared):
    four = Clients(prepared)
    used = "were used already, or never made"
    with pytest.raises(FederationError, match=f"after 'answer' {used}"):
        four.open(3, range(4))
    with pytest.raises(FederationError, match=f"after 'keys' {used}"):
        four.share(3)  # what was asked for out of turn is gone
    shared = {c: four.share(c) for c in range(3)}
    with pytest.raises(FederationError, match=f"after 'keys' {used}"):
        four.share(0)
    masking = four.masking(1, shared)
    with pytest.raises(FederationError, match=f"after 'shares' {used}"):
        four.masking(1, shared)
    masking(UPLOAD)
    four.open(1, range(3))
    with pytest.raises(FederationError, match=f"after 'answer' {used}"):
        four.open(1, range(3))
    # A client that was asked to answer, and did not, opens nothing.
    four.masking(2, shared)
    with pytest.raises(FederationError, match=f"after 'answer' {used}"):
        four.open(2, range(3))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda keys: {c: keys[c] for c in (0, 1)}, "is not of 3 clients or more of the 4"),
        (lambda keys: {**keys, 9: steps.make_keys(SumMember(None, MemoryState(), 9, 1))},
         "3 clients or more of the 4"),
        (lambda keys: {**keys, 2: keys[1]}, "has one key twice"),
        (lambda keys: {**keys, 0: steps.make_keys(SumMember(None, MemoryState(), 0, 1))},
         "not the keys that this client made"),
        (lambda keys: {c: keys[c] for c in (1, 2, 3)}, "not the keys that this client made"),
    ],
)  # fmt: skip
def test_a_roster_that_could_bare_a_client_is_refused(prepared, change, why):
    four = Clients(prepared)
    with pytest.raises(FederationError, match=why):
        four.share(0, change(four.keys))


def test_a_key_of_an_earlier_attempt_is_refused_before_any_data_is_touched(prepared):
    first, second = Clients(prepared), Clients(prepared)
    replayed = {**second.keys, 2: first.keys[2]}
    second.keys = replayed
    shared = {c: second.share(c) for c in (0, 1, 3)} | {2: first.share(2)}
    with pytest.raises(FederationError, match="not sealed by the client"):
        second.masking(0, shared)


def test_two_rosters_for_two_clients_are_refused(prepared):
    four = Clients(prepared)
    lie = {**four.keys, 3: steps.make_keys(SumMember(None, MemoryState(), 3, 1))}
    shared = {0: four.share(0), 1: four.share(1, lie), 2: four.share(2)}
    with pytest.raises(FederationError, match="not sealed by the client"):
        four.masking(0, shared)


@pytest.mark.parametrize(
    ("left", "why"),
    [
        ((0, 1), "2 clients are left: expected 3"),
        ((1, 2, 3), "and not this client"),
        ((0, 1, 2, 7), "clients that did not take the step before"),
    ],
)
def test_clients_that_could_not_be_left_are_refused_in_both_steps(prepared, left, why):
    four = Clients(prepared)
    shared = {c: four.share(c) for c in range(4)}
    with pytest.raises(FederationError, match=why):
        four.masking(0, shared, left=left)
    four = Clients(prepared)
    shared = {c: four.share(c) for c in range(4)}
    four.masking(0, shared)(UPLOAD)
    with pytest.raises(FederationError, match=why):
        four.open(0, left)


@pytest.mark.parametrize(
    ("read", "received"),
    [
        (messages.read_roster, {"x": torch.zeros(1)}),
        (messages.read_roster, {"secure_aggregation/clients": torch.zeros(2),
                                "secure_aggregation/keys": torch.zeros(2, 31)}),
        (messages.read_clients, {"x": torch.zeros(1)}),
    ],
)  # fmt: skip
def test_a_call_that_does_not_say_who_takes_part_is_refused(read, received):
    with pytest.raises(FederationError, match=r"has no roster|not say which clients are left"):
        read(received)


def test_a_masked_value_keeps_its_provenance(prepared):
    four = Clients(prepared)
    shared = {c: four.share(c) for c in range(4)}
    upload = four.masking(0, shared)(UPLOAD)
    assert upload.values["labels"].provenance == Release(EVENT)
    assert upload.values["secure_aggregation/members"].provenance == Public()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.name": "fedmd"}, "under privacy.secure_aggregation: .* fedavg, fedprox,"),
        ({"privacy.unit": "client-votes", "privacy.epsilon": 8.0, "method.name": "dsfl"},
         "hides the answers that the server protects by privacy.unit = 'client-votes'"),
        ({"clients.count": 1}, "adds up the answers of at least two clients, and one is asked"),
        ({"clients.participation": 0.25}, "at least two clients, and one is asked"),
        ({**NOISY, "privacy.clip": 1e-4}, "privacy.clip is 0.0001, and a client's share"),
        ({**NOISY, "privacy.clip": 1e4}, "secure aggregation over 4 clients has room for"),
    ],
)  # fmt: skip
def test_what_it_cannot_protect_is_refused(rows, changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(tiny.experiment(rows, {**SECURE, **changes}))


@pytest.mark.parametrize("clip", [1e-4, 1e4])
def test_a_plan_is_refused_in_the_words_of_its_run(rows, clip):
    experiment = tiny.experiment(rows, {**SECURE, **NOISY, "privacy.clip": clip})
    said = []
    for ask in (prepare, forecast):
        with pytest.raises(ConfigError, match="secure aggregation") as refused:
            ask(experiment)
        said.append(str(refused.value))
    assert said[0] == said[1]
