"""Asynchronous rounds against rounds that wait; real sites; replays; and what is refused."""

import threading

import pytest
import tiny
import toys

from fedkd.errors import ConfigError, QuorumError, RunFolderError
from fedkd.exchange.codec import encode
from fedkd.federation.answers import Unwatched
from fedkd.federation.asynchronous.log import Logged
from fedkd.federation.client import ClientParty, client_app
from fedkd.federation.cohort import Connections
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.prepare import prepare
from fedkd.federation.rounds import federate
from fedkd.federation.state import MemoryState
from fedkd.jobs.simulate import simulate
from fedkd.reports import report

MLP = {"name": "mlp", "hidden": [16]}
ONE = {"clients.models": [MLP], "student.model": MLP}
METHODS = {
    "fedavg": ONE,
    "fedprox": ONE,
    "feddf": {"clients.models": [MLP, {"name": "mlp", "hidden": [8]}]},
    "fedmd": {},
    "dsfl": {},
    "fedproto": {"clients.models": [MLP]},
}
SLOW = {"buffer": 2, "seconds": [1.0, 1.0, 1.5, 3.5]}


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """A page of charts is none of what is tested here."""
    monkeypatch.setattr(report, "write", lambda folder: None)


def prepared(rows, method, **changes):
    how = {"fedmd": {"student": {"epochs": 2}}, "feddf": {"student": {"epochs": 2}}}
    changes = {
        "rounds": 3,
        "method": {"name": method, **how.get(method, {})},
        **METHODS.get(method, {}),
        **changes,
    }
    return prepare(tiny.experiment(rows, changes))


def bits(student):
    return encode(student.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_where_all_are_alike_or_all_are_waited_for_it_is_the_synchronous_run(rows, method):
    _, waiting = toys.simulated(prepared(rows, method))
    for how in ({"buffer": 2}, {"buffer": 4, "seconds": [1.0, 7.0, 2.0]}):
        changes = {"clients.asynchronous": how}
        records, student = toys.simulated(prepared(rows, method, **changes))
        assert bits(student) == bits(waiting)
        assert all(each["asynchronous"]["kept"] == [] for each in records)


@pytest.mark.parametrize("threads", [1, 3])
def test_bits_do_not_depend_on_threads(rows, threads):
    changes = {"rounds": 4, "clients.asynchronous": SLOW}
    _, student = toys.simulated(prepared(rows, "fedavg", **changes, **{"engine.threads": threads}))
    _, again = toys.simulated(prepared(rows, "fedavg", **changes, **{"engine.threads": 2}))
    assert bits(student) == bits(again)
    _, waiting = toys.simulated(prepared(rows, "fedavg", rounds=4))
    assert bits(student) != bits(waiting)


class Sites:
    """Real sites, as far as the server can tell; one answers its first call when it is let."""

    def __init__(self, world, slow):
        self.world, self.slow, self.may = world, slow, threading.Event()
        self.parties = [ClientParty(world, MemoryState(back=2)) for _ in world.data.clients]

    def find(self, _context, call):
        if call.client == self.slow and call.round == 1:
            assert self.may.wait(600)
        return self.parties[call.client]

    def federate(self, keeper):
        app, count = client_app(self.find, simulated=True), len(self.parties)
        with InProcessGrid(app, nodes=count, threads=count) as grid:
            nodes = tuple(sorted(grid.get_node_ids()))
            sites = Connections(nodes, poll=0.001)
            return federate(grid, self.world, keeper, Unwatched(), threads=1, connections=sites)


class Letting(toys.Keeping):
    """Lets the slow site answer once a round is kept, and waits for it."""

    def __init__(self, sites, after):
        super().__init__()
        self.sites, self.after = sites, after

    def keep(self, record, checkpoint, generated):
        super().keep(record, checkpoint, generated)
        if record["round"] == self.after:
            self.sites.may.set()


@pytest.mark.parametrize("method", ["fedavg", "fedmd"])
def test_a_deployment_takes_what_comes_and_a_simulation_replays_it(rows, method):
    # A deployment's clients are screened in any case.
    patient = {"buffer": 2, "staleness": 20}
    changes = {"rounds": 12, "robust": {}, "clients.asynchronous": patient}
    world = prepared(rows, method, **changes)
    sites = Sites(world, slow=1)
    keeper = Letting(sites, after=2)
    student = sites.federate(keeper)
    came = [
        (record["round"], answer["round"], answer["staleness"])
        for record in keeper.records
        for moment in record["asynchronous"]["moments"]
        for answer in moment["answers"]
        if answer["client"] == 1
    ]
    round, asked, late = came[0]
    assert asked == 1
    assert late == round - 1 >= 2
    assert all(1 not in record["participants"] for record in keeper.records[:2])
    assert [record["failures"] for record in keeper.records] == [[]] * 12

    records, again = toys.simulated(world, script=Logged.of(keeper.records))
    assert bits(again) == bits(student)
    assert [each["asynchronous"] for each in records] == [
        each["asynchronous"] for each in keeper.records
    ]
    other = prepared(rows, method, **changes, seed=8)
    assert bits(toys.simulated(other, script=Logged.of(keeper.records))[1]) != bits(student)
    with pytest.raises(RunFolderError, match=r"the log does not fit: in round 2 .*"):
        toys.simulated(
            world, script=Logged.of([keeper.records[0], {**keeper.records[5], "round": 2}])
        )


def test_where_nobody_is_left_who_could_fill_the_buffer_the_quorum_of_it_will_do(rows):
    slow = {"buffer": 3, "seconds": [1.0, 1.0, 50.0, 50.0]}
    changes = {"rounds": 2, "clients.deadline": 5.0, "clients.asynchronous": slow}
    records, _ = toys.simulated(prepared(rows, "fedmd", **changes))
    assert [record["participants"] for record in records] == [[0, 1], [0, 1]]
    assert [record["asynchronous"]["time"] for record in records] == [5.0, 10.0]
    with pytest.raises(
        QuorumError,
        match=r"^round 1: 2 of 4 clients answered and clients.quorum = 1 asks for 3: "
        r"no answer within 5 s \(2\)$",
    ):
        toys.simulated(prepared(rows, "fedmd", **changes, **{"clients.quorum": 1.0}))


def test_it_replays_from_its_folder_and_what_is_another_run_is_refused(rows, tmp_path):
    changes = {"rounds": 3, "method": {"name": "dsfl"}, "clients.asynchronous": SLOW}
    experiment, run = tiny.experiment(rows, changes), tmp_path / "run"
    simulate(experiment, run)
    simulate(experiment, tmp_path / "again", replay=run)
    assert tiny.student_hash(tmp_path / "again") == tiny.student_hash(run)
    assert [each["asynchronous"] for each in tiny.rounds(tmp_path / "again")] == [
        each["asynchronous"] for each in tiny.rounds(run)
    ]
    for changed, why in (
        ({"seed": 8}, "it is of another experiment, which differs in seed"),
        ({"clients.asynchronous": None}, "a run without clients.asynchronous has no order"),
        ({"privacy.epsilon": 50.0, "rounds": 1}, "the noise of privacy.unit = 'record' is drawn"),
    ):
        other = tiny.experiment(rows, {**changes, **changed})
        with pytest.raises(RunFolderError, match=f"cannot be replayed: {why}"):
            simulate(other, tmp_path / "other", replay=run)
        assert not (tmp_path / "other").exists()
    waiting = tmp_path / "waiting"
    simulate(tiny.experiment(rows, {**changes, "clients.asynchronous": None}), waiting)
    with pytest.raises(RunFolderError, match="which differs in clients"):
        simulate(experiment, tmp_path / "other", replay=waiting)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"clients.asynchronous": {"buffer": 5}}, r"buffer is 5: expected at most the 4 clients"),
        ({"clients.participation": 0.5}, r"clients.participation is 0.5, and with clients.asy"),
        (
            {"method": {"name": "fedavg"}, **ONE, "privacy.secure_aggregation": True},
            r"privacy.secure_aggregation",
        ),
        (
            {"method": {"name": "dsfl"}, "privacy": {"unit": "client-votes", "epsilon": 50.0}},
            r"privacy.unit = 'client-votes' hides what a client says, and with clients.asynchron",
        ),
        (
            {"method": {"name": "fedgkt"}, **ONE},
            r"^method 'fedgkt' cannot run with clients.asynchronous: its server part needs all "
            r"answers of a round; choose one of fedavg, fedprox, moon, fedmd, ",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused_in_a_line(rows, changes, why):
    with pytest.raises(ConfigError, match=why) as refused:
        prepare(tiny.experiment(rows, {"clients.asynchronous": {"buffer": 2}, **changes}))
    assert "\n" not in str(refused.value)


def test_an_experiment_without_it_says_nothing_of_it(rows):
    plain = tiny.experiment(rows)
    assert "asynchronous" not in plain.to_json() + plain.to_toml()
