import math
from dataclasses import replace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.errors import FederationError
from fedkd.federation.client import ClientParty, client_app
from fedkd.federation.cohort import Connections, wait_for_nodes
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.prepare import prepare
from fedkd.federation.rounds import federate
from fedkd.federation.state import MemoryState
from fedkd.federation.wire import LedgerHead


@pytest.fixture(scope="module")
def prepared(rows):
    return prepare(tiny.experiment(rows))


def of(prepared, *, clients, participation, seed=0):
    experiment = prepared.experiment
    part = experiment.clients.model_copy(update={"participation": participation})
    changed = experiment.model_copy(update={"clients": part, "seed": seed})
    setting = replace(prepared.setting, experiment=changed, clients=clients)
    return replace(prepared, experiment=changed, setting=setting)


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.floats(0, 1, exclude_min=True),
    st.integers(1, 50),
    st.integers(0, 2**40),
)
def test_a_cohort_is_the_nearest_number_of_clients_at_least_one(
    prepared, clients, participation, round, seed
):
    asked = of(prepared, clients=clients, participation=participation, seed=seed)
    cohort = asked.setting.cohort(round)
    assert cohort == sorted(set(cohort))
    assert set(cohort) <= set(range(clients))
    share = participation * clients
    assert len(cohort) == 1 or abs(len(cohort) - share) <= 0.5 * (1 + 1e-9)
    assert cohort == asked.setting.cohort(round)


def test_cohorts_differ_from_round_to_round_and_reach_everybody_alike(prepared):
    some = of(prepared, clients=10, participation=0.3)
    rounds = 2000
    cohorts = [some.setting.cohort(round) for round in range(1, rounds + 1)]
    counts = [sum(client in cohort for cohort in cohorts) for client in range(10)]
    sigma = math.sqrt(rounds * 0.3 * 0.7)
    assert max(abs(count - 0.3 * rounds) for count in counts) < 5 * sigma


class Arriving:
    """A grid whose nodes connect one after the other, the last first."""

    def __init__(self, total):
        self.polls, self.total = 0, total

    def get_node_ids(self):
        self.polls += 1
        return list(range(self.total, max(self.total - self.polls, 0), -1))


def test_nodes_are_waited_for_and_taken_in_order():
    assert wait_for_nodes(Arriving(4), 3, Connections(within=10), quorum=3) == [2, 3, 4]


def test_where_nodes_are_known_a_quorum_of_them_will_do_and_their_order_is_kept():
    nodes = (4, 9, 2, 3)
    with pytest.raises(FederationError, match=r"^2 nodes .* the 4 clients, or 3 at least; start "):
        wait_for_nodes(Arriving(3), 4, Connections(nodes, within=0.1), quorum=3)
    assert wait_for_nodes(Arriving(4), 4, Connections(nodes, within=0.1), quorum=3) == [4, 9, 2, 3]


def test_too_few_nodes_are_an_error_with_both_numbers():
    with pytest.raises(
        FederationError, match=r"^2 nodes are connected after 0 s: .* 5 clients; start the missing "
    ):
        wait_for_nodes(Arriving(2), 5, Connections(within=0.1), quorum=3)


class Counting(InProcessGrid):
    """Weighs each payload on its way, by round."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.down: dict[str, list[int]] = {}
        self.up: dict[str, list[int]] = {}

    def push_messages(self, messages):
        messages = list(messages)
        for message in messages:
            self._weigh(self.down, message)
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        for reply in replies:
            self._weigh(self.up, reply)
        return replies

    @staticmethod
    def _weigh(scale, message):
        payload = message.content["knowledge"]["payload"].data
        scale.setdefault(message.metadata.group_id, []).append(len(payload))


class Keeping:
    """A keeper that remembers the records, and that is all."""

    def __init__(self):
        self.records = []

    def resume(self):
        return None

    def keep(self, record, checkpoint, generated):
        self.records.append(record)


@pytest.mark.parametrize("method", ["fedmd", "feddf", "local"])
def test_bytes_are_those_of_the_encoded_payloads(rows, method):
    prepared = prepare(
        tiny.experiment(
            rows,
            {
                "clients.participation": 0.75,
                "method": {"name": method},
            },
        )
    )
    states = [MemoryState() for _ in range(4)]
    app = client_app(lambda context, call: ClientParty(prepared, states[call.client]))
    keeper = Keeping()
    with Counting(app, nodes=4, threads=2) as grid:
        federate(grid, prepared, keeper, tiny.Quiet(), threads=1)
    for record in keeper.records:
        key = str(record["round"])
        assert len(grid.down[key]) == len(grid.up[key]) == len(record["participants"]) == 3
        assert record["bytes"] == {"up": sum(grid.up[key]), "down": sum(grid.down[key])}
    if method == "feddf":  # each client downloads the model of its own architecture alone
        assert len(set(grid.down["2"])) == 2


class Lying(Counting):
    """What a stranger's message may be rebuilt to: nothing, no message, or another's answer."""

    def pull_messages(self, message_ids):
        [asked] = message_ids
        replies = list(super().pull_messages([asked]))
        for reply in replies:
            client = reply.metadata.src_node_id - 2
            if client == 0:
                raise ValueError("Patient4711")
            if client == 1:
                return [object()]
            reply.metadata.__dict__["_reply_to_message_id"] = "another's"
        return replies


def test_a_message_that_cannot_be_rebuilt_is_its_senders_fault_alone(rows):
    prepared = prepare(tiny.experiment(rows))
    states = [MemoryState() for _ in range(4)]
    app = client_app(lambda context, call: ClientParty(prepared, states[call.client]))
    keeper = Keeping()
    with Lying(app, nodes=4, threads=2) as grid:
        connections = Connections(nodes=(2, 3, 4, 5))
        federate(grid, prepared, keeper, tiny.Quiet(), threads=1, connections=connections)
    for record in keeper.records:
        assert record["participants"] == [2, 3]
        assert record["failures"] == [
            {"client": client, "reason": "answer is not a fedkd message"} for client in (0, 1)
        ]


def test_an_unprotected_run_claims_nothing_that_ledgers_of_other_runs_say(prepared):
    states, keeper = [MemoryState() for _ in range(4)], Keeping()
    app = client_app(lambda context, call: ClientParty(prepared, states[call.client]))
    heads = {0: LedgerHead(3, "0" * 64, 0.5, "PLD")}
    with InProcessGrid(app, nodes=4, threads=2) as grid:
        federate(grid, prepared, keeper, tiny.Quiet(), threads=1, ledger_heads=heads)
    assert [record["privacy"] for record in keeper.records] == [None, None]
