"""Folders of versions that kept a file a client and round go on, or say what is wrong."""

import shutil
from dataclasses import replace

import pytest
import tiny

from fedkd.errors import RunFolderError
from fedkd.exchange.gate import Receipt
from fedkd.federation import engines
from fedkd.federation.disk_state import DiskState
from fedkd.federation.prepare import prepare
from fedkd.federation.store.state_store import StateStore
from fedkd.federation.store.stored_state import StoredState
from fedkd.jobs.simulate import simulate_world
from fedkd.reports import report
from fedkd.runs import checkpoint
from fedkd.runs.folder import RunFolder
from fedkd.runs.manifest import Namer

MLP = {"name": "mlp", "hidden": [4]}
BASE = {
    "rounds": 3,
    "clients.count": 2,
    "clients.models": [MLP],
    "student.model": MLP,
    "method": {"name": "fedmd", "student": {"epochs": 1}},
    "engine.threads": 1,
}
DP = {"privacy.epsilon": 8.0, "privacy.noise_multiplier": 2.0, "privacy.sample_rate": 0.5}


class KilledError(Exception):
    """The process dies here."""


class Dying(RunFolder):
    """A run folder whose process dies before it keeps round 3."""

    def keep(self, record, checkpoint, generated):
        if record["round"] == 3:
            raise KilledError
        super().keep(record, checkpoint, generated)


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(report, "write", lambda folder: None)


@pytest.fixture(scope="module", params=[{}, DP], ids=["plain", "private"])
def killed(request, rows, tmp_path_factory):
    """A run that was killed in round 3, as it would be now, and as an earlier version left it."""
    place = tmp_path_factory.mktemp("killed")
    prepared = prepare(tiny.experiment(rows, {**BASE, **request.param}))
    run = Dying(place / "now")
    run.open(prepared.experiment, prepared.data, resume=False)
    with pytest.raises(KilledError):
        engines.simulate(prepared, run, tiny.Quiet(), states=run.states)
    shutil.copytree(place / "now", place / "earlier")
    in_folders(place / "earlier")
    return prepared, place


def in_folders(run):
    states, server = RunFolder(run).states, run / "checkpoints" / "server.safetensors"
    kept = checkpoint.read(server, run)
    with StateStore(states) as store:
        released = list(store.released())
        for round in (1, 2, 3):
            for client in range(2):
                old = DiskState(states / f"client-{client:04d}")
                receipts = [Receipt(**each) for each in released[3 * client + round - 1]]
                state = StoredState(store, client, states).load(before=round + 1)
                answer = store.answer(client, round=round)
                old.save(state, receipts, round=round, answer=answer)
            if round == 2:  # which was the last that was kept
                files = [*states.glob("*/round-000002*"), *states.glob("*/receipts.jsonl")]
                named = {**kept.files, **Namer(run)(files)}
    shutil.rmtree(states / "store")
    server.write_bytes(checkpoint.write(replace(kept, files=named, states=None)))


def resumed(prepared, run):
    summary = simulate_world(prepared, run, tiny.Quiet(), resume=True)
    return tiny.student_hash(run), summary["released"], summary["privacy"]


def test_one_goes_on_to_the_same_student_from_the_store(killed, tmp_path):
    prepared, place = killed
    now, earlier = (shutil.copytree(place / each, tmp_path / each) for each in ("now", "earlier"))
    assert resumed(prepared, earlier) == resumed(prepared, now)
    names = [path.name for path in (earlier / "checkpoints" / "clients").rglob("*")]
    assert "index.db" in names
    assert not [name for name in names if name.startswith(("round-", "answer-", "receipts"))]


@pytest.mark.parametrize("step", ["checkpoints.write", "adopting.drop"])
def test_one_that_is_killed_while_it_changes_goes_on_all_the_same(
    killed, tmp_path, monkeypatch, step
):
    prepared, place = killed
    now, earlier = (shutil.copytree(place / each, tmp_path / each) for each in ("now", "earlier"))

    def dies(*_):
        raise KilledError

    with monkeypatch.context() as dying:
        dying.setattr(f"fedkd.runs.folder.{step}", dies)
        with pytest.raises(KilledError):
            simulate_world(prepared, earlier, tiny.Quiet(), resume=True)
    assert resumed(prepared, earlier) == resumed(prepared, now)


@pytest.mark.parametrize("name", ["round-000002.safetensors", "receipts.jsonl"])
def test_one_that_was_damaged_names_the_file(killed, tmp_path, name):
    prepared, place = killed
    run = shutil.copytree(place / "earlier", tmp_path / "run")
    file = run / "checkpoints" / "clients" / "client-0001" / name
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunFolderError, match=rf"client-0001/{name} is not the one that"):
        simulate_world(prepared, run, tiny.Quiet(), resume=True)
