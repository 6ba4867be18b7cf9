"""Secure aggregation from end to end: the server sees the sum, and noise is added once in all."""

from functools import partial

import pytest
import summed
import tiny
import torch

from fedkd.errors import BudgetError, ConfigError, FederationError, QuorumError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.masks import RESOLUTION, floating, public_key
from fedkd.exchange.messages import Broadcast, Public, Release, Upload, Value
from fedkd.federation import engines, secure, wire
from fedkd.federation.client import ClientParty, client_app
from fedkd.federation.disk_state import DiskState
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.prepare import forecast, prepare
from fedkd.federation.rounds import federate
from fedkd.federation.secure import Masking
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
    assert shares == pytest.approx([4**-0.5, 3**-0.5, 2**-0.5, 2**-0.5])
    assert prepare(tiny.experiment(rows, {**CLOSED, **NOISY})).setting.noise_share == 1.0


def test_who_is_lost_before_the_keys_is_left_out_of_the_sum(runs):
    hidden = runs({**SECURE, "clients.quorum": 0.75})
    hidden.go(lost={("keys", 2)})
    [record] = hidden.run.records()
    assert record["participants"] == [0, 1, 3]
    assert [each["client"] for each in record["failures"]] == [2]
    [given] = summed.GIVEN
    whole = sum(summed.SENT[client][0]["labels"] for client in (0, 1, 3))
    torch.testing.assert_close(given[0]["labels"], whole, rtol=0, atol=1e-6)
    fewer = runs(SECURE, "all")
    with pytest.raises(QuorumError, match=r"3 of 4 clients answered .* asks for 4"):
        fewer.go(lost={("keys", 2)})
    fewer.go()  # and goes on once all answer
    assert fewer.run.records()[0]["participants"] == [0, 1, 2, 3]


def test_who_is_lost_after_the_keys_costs_the_round_and_it_can_be_run_again(runs):
    hidden = runs({**SECURE, "clients.quorum": 0.5})
    lost = r"^round 1: lost after the keys were exchanged: client 2 \(.*\); .* all of the 4 answers"
    with pytest.raises(QuorumError, match=lost):
        hidden.go(lost={("learn", 2)})
    assert summed.GIVEN == []
    hidden.go()
    assert len(hidden.run.records()) == 1


def test_without_dp_a_round_is_answered_for_one_set_of_clients_alone(runs, caplog):
    hidden = runs({**SECURE, "clients.quorum": 0.5})
    with pytest.raises(QuorumError):
        hidden.go(lost={("learn", 2)})
    with pytest.raises(QuorumError, match=r"client 0 \(MessageError\)"):
        hidden.go(lost={("keys", 2)})
    assert "answered for the sum of clients 0,1,2,3: the sum of 0,1,3 beside it" in caplog.text
    assert all(len(sent) == 1 for sent in summed.SENT.values())


def test_under_dp_a_second_attempt_pays_again_and_draws_new_noise(runs):
    hidden = runs({**SECURE, **NOISY, "privacy.spare_rounds": 1, "clients.quorum": 0.75})
    with pytest.raises(QuorumError, match=r"pays anew: see privacy\.spare_rounds"):
        hidden.go(lost={("learn", 2)})
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
    with pytest.raises(QuorumError, match="run again with --resume"):
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
    assert "against a server that follows the protocol" in page


def test_masks_that_do_not_cancel_end_the_run(runs):
    def change(action, message, reply):
        call = wire.unpack(reply.content)
        if action != "learn" or call.client != 1:
            return reply
        upload = decode(call.payload)
        upload["secure_aggregation/members"] += 7
        changed = wire.Call(call.round, call.client, encode(upload), call.ledger_head)
        return type(message)(wire.pack(changed), reply_to=message)

    with pytest.raises(FederationError, match="masks of 4 clients do not cancel"):
        runs(SECURE).go(changed=change)


def test_a_key_that_is_none_is_its_senders_fault_alone(runs):
    def change(action, message, reply):
        call = wire.unpack(reply.content)
        if (action, call.client) != ("keys", 1):
            return reply
        payload = encode({"secure_aggregation/key": torch.zeros(32, dtype=torch.uint8)})
        return type(message)(wire.pack(wire.Call(call.round, 1, payload)), reply_to=message)

    hidden = runs({**SECURE, "clients.quorum": 0.75})
    hidden.go(changed=change)
    [record] = hidden.run.records()
    assert record["participants"] == [0, 2, 3]
    assert record["failures"] == [
        {"client": 1, "reason": "a public key for secure aggregation is none"}
    ]


@pytest.fixture(scope="module")
def prepared(rows):
    return prepare(tiny.experiment(rows, {**SECURE, "clients.quorum": 0.75}))


class Client:
    """One client, asked by hand."""

    def __init__(self, prepared):
        self.prepared, self.state = prepared, MemoryState()
        made = [secure.make_key(MemoryState(), 1) for _ in range(3)]
        self.keys = {0: secure.make_key(self.state, 1), **dict(enumerate(made, start=1))}

    def masking(self, keys):
        told = secure.with_roster(Broadcast({"x": torch.zeros(1)}), keys)
        received, roster = secure.split_roster(decode(encode(told.to("any"))))
        assert received.keys() == {"x"}
        return Masking.of(self.prepared.setting, self.state, 0, 1, roster)


def test_a_key_serves_one_answer(prepared):
    client = Client(prepared)
    secret = client.masking(client.keys).secret
    assert public_key(secret) == bytes(client.keys[0]["secure_aggregation/key"].tolist())
    with pytest.raises(FederationError, match="key was used already, or never asked for"):
        client.masking(client.keys)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda keys: {c: keys[c] for c in (0, 1)}, "is not of 3 clients or more of 4"),
        (lambda keys: {**keys, 9: secure.make_key(MemoryState(), 1)}, "3 clients or more of 4"),
        (lambda keys: {**keys, 2: keys[1]}, "has one key twice"),
        (lambda keys: {**keys, 0: secure.make_key(MemoryState(), 1)}, "not the key that this"),
        (lambda keys: {c: keys[c] for c in (1, 2, 3)}, "not the key that this client made"),
    ],
)
def test_a_roster_that_could_bare_a_client_is_refused(prepared, change, why):
    client = Client(prepared)
    with pytest.raises(FederationError, match=why):
        client.masking(change(client.keys))


def test_a_call_without_a_roster_is_refused(prepared):
    with pytest.raises(FederationError, match="has no roster"):
        secure.split_roster({"x": torch.zeros(1)})
    with pytest.raises(FederationError, match="has no roster"):
        secure.split_roster({"secure_aggregation/clients": torch.zeros(2),
                      "secure_aggregation/keys": torch.zeros(2, 31)})  # fmt: skip


def test_a_masked_value_keeps_its_provenance(prepared):
    client = Client(prepared)
    origin = Release(EVENT)
    upload = client.masking(client.keys)(Upload({"labels": Value(torch.ones(2).double(), origin)}))
    assert upload.values["labels"].provenance == origin
    assert upload.values["secure_aggregation/members"].provenance == Public()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.name": "fedmd"}, "'fedmd' cannot run under privacy.secure_aggregation: .* one of "
         "analytic, or leave it out"),
        ({"privacy.unit": "client-votes", "privacy.epsilon": 8.0, "method.name": "dsfl"},
         "hides the answers that the server protects by privacy.unit = 'client-votes'"),
        ({"clients.count": 1}, "adds up the answers of at least two clients"),
        ({"clients.quorum": 0.25}, "clients.quorum = 0.25 of the 4 that are asked lets a round go"),
        ({"clients.participation": 0.25}, "clients.quorum = 1 of the 1 that are asked"),
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
