"""What a deployment's server remembers of ledgers, over all runs, and of how a run ended."""

import json
from functools import partial

import pytest
import tiny

from fedkd.errors import BudgetError, FederationError, FedkdError, StorageError
from fedkd.federation import compat
from fedkd.federation.client import ClientParty, client_app
from fedkd.federation.deploy import serving
from fedkd.federation.deploy.bundle import RUN
from fedkd.federation.deploy.control import RunStatus
from fedkd.federation.deploy.superlink import STATE, Server
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.prepare import prepare
from fedkd.federation.state import MemoryState
from fedkd.jobs import submit
from fedkd.privacy.statement import FILTER
from fedkd.runs.under_way.progress import Follower

NAME = "a" * 32
OTHERS = {"sequence": 3, "head": "0" * 64, "epsilon": 0.5, "accountant": FILTER}
"""Where the ledger of a client stands that takes no part in this run."""


class Keeping:
    """A keeper that remembers the records, and that is all."""

    def __init__(self):
        self.records = []

    def resume(self):
        return None

    def keep(self, record, checkpoint, generated):
        self.records.append(record)


def ends(error, state, monkeypatch):
    """What a server's app leaves in its state folder of a run that ends by an error."""

    def main(*_):
        raise error

    monkeypatch.setenv(STATE, str(state))
    monkeypatch.setattr(serving, "never_outlive_parent", lambda: None)
    context = compat.new_context(1, compat.SERVER_NODE, {})
    context.run_config = {RUN: NAME}
    with pytest.raises(type(error)):
        serving.server_app(main)(None, context)
    return serving.read_failure(state, NAME)


class Over:
    """A server's Control API, of a run that is over."""

    def run(self, flower):
        return RunStatus(flower, "finished:failed", "")


def test_a_run_folder_on_a_full_disk_does_not_keep_submit_from_saying_why(tmp_path, monkeypatch):
    submission, folder = serving.Submission(str(tmp_path / "full"), "", {}), tmp_path / "full"
    server = Server(tmp_path, "", tmp_path, 0, "")
    deployment = submit.Deployment(NAME, "", {}, 5, "")
    monkeypatch.setattr(submit, "_ASK", 0.0)
    submission.write(tmp_path, NAME)
    for error, status in ((StorageError("'x': No space left"), 2), (BudgetError("spent"), 4)):
        assert ends(error, tmp_path, monkeypatch) == (str(error), status)
        with pytest.raises(FedkdError, match=str(error)) as caught:
            submit._follow(Over(), server, deployment, Follower(folder), tiny.Quiet())
        assert caught.value.exit_status == status
    submission.write(tmp_path, NAME)  # it goes on
    assert serving.read_failure(tmp_path, NAME) is None
    with pytest.raises(FederationError, match="without a word"):
        submit._follow(Over(), server, deployment, Follower(folder), tiny.Quiet())


@pytest.fixture
def rounds(rows, tmp_path, monkeypatch):
    """Runs a round as a deployment's server does; what was kept of it."""
    monkeypatch.setenv(STATE, str(tmp_path))
    monkeypatch.setattr(serving, "never_outlive_parent", lambda: None)
    privacy = {"privacy": {"unit": "record", "epsilon": 20.0}}
    prepared = prepare(tiny.experiment(rows, {"rounds": 1, "clients.count": 2, **privacy}))
    serving.Submission("", "", {"a": 2, "b": 3}).write(tmp_path, NAME)

    def run():
        keeper = Keeping()
        app = serving.server_app(lambda _, federate: federate(prepared, keeper, tiny.Quiet()))
        states = [MemoryState() for _ in range(2)]
        ledgers = [partial(serving.Ledger, tmp_path / f"{i}.db") for i in range(2)]
        sites = client_app(
            lambda _, call: ClientParty(prepared, states[call.client], ledgers[call.client])
        )
        context = compat.new_context(1, compat.SERVER_NODE, {})
        context.run_config = {RUN: NAME}
        with InProcessGrid(sites, nodes=2, threads=1) as grid:
            try:
                app(grid, context)
            finally:
                run.kept = keeper.records
        return keeper.records

    return run


def test_it_remembers_its_clients_and_forgets_nobody_elses(rounds, tmp_path):
    (tmp_path / "standings.json").write_text(json.dumps({"99": OTHERS}))
    assert len(rounds()) == 1
    told = json.loads((tmp_path / "standings.json").read_text())
    assert told.pop("99") == OTHERS
    assert set(told) == {"2", "3"}
    assert all(at["sequence"] > 0 for at in told.values())


@pytest.mark.parametrize(
    "damage",
    [
        "[]",
        '{"99"',
        '{"99": 5}',
        '{"99": ["sequence"]}',
        json.dumps({"99": OTHERS | {"sequence": "3"}}),
        json.dumps({"99": OTHERS | {"sequence": -1}}),
        json.dumps({"99": OTHERS | {"head": "x"}}),
        json.dumps({"99": {"sequence": 3}}),
    ],
)
def test_damage_is_found_before_the_first_round_whomever_it_hits(rounds, tmp_path, damage):
    (tmp_path / "standings.json").write_text(damage)
    with pytest.raises(StorageError, match="is damaged: restore it from a backup"):
        rounds()
    assert rounds.kept == []
    assert (tmp_path / "standings.json").read_text() == damage
