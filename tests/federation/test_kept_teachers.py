"""Teachers are kept where a later round, or somebody afterwards, reads them, and nowhere else."""

import pytest
import tiny

from fedkd.federation import engines
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate_world
from fedkd.reports import report
from fedkd.runs.folder import RunFolder

MLP = {"name": "mlp", "hidden": [4]}
EQUAL = {"rounds": 3, "clients.models": [MLP], "student.model": MLP}
FROM_THE_SERVERS = {
    "fedavg": {"name": "fedavg"},
    "fedprox": {"name": "fedprox"},
    "feddf": {"name": "feddf", "student": {"epochs": 1}},
}
FROM_ITS_OWN = {
    "fedavg, in part private": {"name": "fedavg", "private": ["hidden1"]},
    "fedmd": {"name": "fedmd", "student": {"epochs": 1}},
    "local": {"name": "local"},
}


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(report, "write", lambda folder: None)


def run_with(rows, folder, method, teachers=()):
    """A run's clients whose teachers are there in the end, and its student."""
    prepared = prepare(tiny.experiment(rows, {**EQUAL, "method": method}))
    simulate_world(prepared, folder, tiny.Quiet(), teachers=teachers)
    there = [
        client
        for client in range(prepared.setting.clients)
        if engines.teacher(prepared, RunFolder(folder).states, client) is not None
    ]
    return there, tiny.student_hash(folder)


@pytest.mark.parametrize("method", FROM_THE_SERVERS.values(), ids=FROM_THE_SERVERS)
def test_one_that_no_round_reads_is_kept_for_who_asks_and_changes_nothing(rows, tmp_path, method):
    few, student = run_with(rows, tmp_path / "few", method, teachers=[3])
    everybody, the_same = run_with(rows, tmp_path / "all", method, teachers=range(4))
    assert few == [0, 1, 3]  # two are shown in the report
    assert everybody == [0, 1, 2, 3]
    assert student == the_same


@pytest.mark.parametrize("method", FROM_ITS_OWN.values(), ids=FROM_ITS_OWN)
def test_one_that_goes_on_is_kept_unasked(rows, tmp_path, method):
    assert run_with(rows, tmp_path / "run", method)[0] == [0, 1, 2, 3]


def test_after_one_shot_none_goes_on(images, tmp_path):
    changes = {
        **EQUAL,
        "rounds": 1,
        "data.public": None,
        "method": {"name": "dense", "epochs": 1, "steps": 1, "latent": 2, "width": 1},
    }
    prepared = prepare(tiny.experiment(images, changes))
    simulate_world(prepared, tmp_path / "run", tiny.Quiet())
    states = RunFolder(tmp_path / "run").states
    found = [engines.teacher(prepared, states, client) is not None for client in range(4)]
    assert found == [True, True, False, False]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.write_images(tmp_path_factory.mktemp("data") / "images.npz", side=8)
