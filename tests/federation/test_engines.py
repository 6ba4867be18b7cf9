"""Every engine, and any number of threads, gives the same student."""

import importlib.util
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from fedkd.errors import ConfigError
from fedkd.federation import engines
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.privacy.ledger import read_statements
from fedkd.runs.folder import RunFolder
from fedkd.threads import tune_allocator


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.write_images(tmp_path_factory.mktemp("data") / "images.npz", side=12)


UNLIKE = {
    "clients.count": 6,
    "clients.models": ["dense-cnn", "lenet5", {"name": "mlp", "hidden": [32]}],
    "student.model": "lenet5",
}
LOGITS = {
    **UNLIKE,
    "clients.participation": 0.7,
    "clients.training": {
        "epochs": 1,
        "batch_size": 16,
        "optimiser": "nadam",
        "warmup": 0.5,
        "clip_norm": 1.0,
        "augment": ["crop", "rotate", "contrast", "noise"],
    },
    "method.name": "fedmd",
}
FUSION = {**UNLIKE, "method": {"name": "feddf", "student": {"epochs": 2, "batch_size": 16}}}
DATA_FREE = {
    **UNLIKE,
    "rounds": 1,
    "data.public": None,
    "method": {
        "name": "dense",
        "epochs": 3,
        "steps": 3,
        "batch_size": 16,
        "latent": 8,
        "width": 4,
    },
}


MENTORS = {**UNLIKE, "clients.participation": 0.7, "method.name": "fedkd"}
"""Of each cohort some have missed the round before, and are sent something else than the rest."""
CUT = {
    **UNLIKE,
    "clients.models": ["lenet5"],
    "method": {"name": "fedgkt", "layer": "pool1", "records": 20},
}
CLOSED = {**UNLIKE, "rounds": 1, "method": {"name": "analytic", "components": 20}}
SUMMED = {**CLOSED, "privacy.secure_aggregation": True}
ALL = {
    "fedmd": LOGITS,
    "feddf": FUSION,
    "dense": DATA_FREE,
    "fedkd": MENTORS,
    "fedgkt": CUT,
    "analytic": CLOSED,
    "summed": SUMMED,
}


FORKS = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked, on Linux alone")
ENGINES = [{"engine.threads": threads} for threads in (1, 3)]
if sys.platform == "linux":
    ENGINES.append({"engine.threads": 2, "engine.kind": "processes"})


@pytest.mark.parametrize("changes", ALL.values(), ids=ALL)
def test_the_students_bits_do_not_depend_on_threads_or_processes(images, tmp_path, changes):
    hashes, scores = set(), []
    for number, engine in enumerate(ENGINES):
        path = tmp_path / str(number)
        prepared = prepare(tiny.experiment(images, changes | engine))
        run = RunFolder(path)
        run.open(prepared.experiment, prepared.data, resume=False)
        student = engines.simulate(prepared, run, tiny.Quiet(), states=run.states)
        run.finish(student.state_dict(), {})
        hashes.add(tiny.student_hash(path))
        scores.append([without_seconds(record) for record in run.records()])
    assert len(hashes) == 1
    assert all(score == scores[0] for score in scores)


@FORKS
def test_a_client_whose_process_dies_is_left_out_and_comes_back(rows, tmp_path):
    """The student is that of clients which fail in any other way, and all of them forget nothing.

    Momentum and teachers are what a client's state holds.
    """
    for kind, fault in (("in-process", "raises"), ("processes", "is killed")):
        faults = {"name": "faulty:Faulty", "faults": ["", fault], "faulty_rounds": [2]}
        changes = {"rounds": 3, "engine.kind": kind, "method": faults}
        simulate(tiny.experiment(rows, changes), tmp_path / kind, tiny.Quiet())
    assert tiny.failures(tmp_path / "processes") == [
        (
            2,
            1,
            "ChildProcessError while training: its worker process was ended by SIGKILL, as the "
            "kernel does when memory runs out",
        )
    ]
    assert tiny.student_hash(tmp_path / "in-process") == tiny.student_hash(tmp_path / "processes")


@FORKS
def test_without_a_folder_processes_keep_states_as_memory_does_and_leave_none(
    rows, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    students = []
    for kind in ("in-process", "processes"):
        prepared = prepare(tiny.experiment(rows, {"engine.kind": kind}))
        student = engines.simulate(prepared, Forgetful(), tiny.Quiet(), states=None)
        students.append(torch.cat([each.flatten() for each in student.state_dict().values()]))
    assert torch.equal(*students)
    assert list(tmp_path.iterdir()) == []


class Forgetful:
    """A keeper that keeps nothing."""

    def resume(self):
        return None

    def keep(self, record, checkpoint, generated): ...


@FORKS
def test_under_privacy_workers_spend_from_their_clients_ledgers(rows, tmp_path):
    privacy = {"unit": "record", "epsilon": 50.0, "noise_multiplier": 4.0}
    changes = {"engine.kind": "processes", "clients.count": 2, "privacy": privacy}
    simulate(tiny.experiment(rows, changes), tmp_path / "run", tiny.Quiet())
    assert tiny.failures(tmp_path / "run") == []
    states = RunFolder(tmp_path / "run").states
    ledgers = engines.client_ledgers(tiny.experiment(rows, changes).privacy, states)
    assert len(ledgers) == 2
    for ledger in ledgers:
        (statement,) = read_statements(ledger)
        assert 0 < statement.enforced <= 50


def test_processes_are_refused_where_a_fork_is_not_safe(rows, monkeypatch):
    prepared = prepare(tiny.experiment(rows, {"engine.kind": "processes"}))
    on_device = replace(prepared.setting, devices=(torch.device("cuda", 0),))
    with pytest.raises(ConfigError, match="no accelerator can be used in: leave out"):
        engines.check(replace(prepared, setting=on_device))
    with monkeypatch.context() as patch:
        patch.setattr("torch.accelerator.is_available", lambda: True)
        with pytest.raises(ConfigError, match="hide it, as by CUDA_VISIBLE_DEVICES= before"):
            engines.check(prepared)
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ConfigError, match="safe on Linux alone: this is 'darwin'"):
        engines.check(prepared)


def without_seconds(record):
    return {key: value for key, value in record.items() if key != "seconds"}


def test_another_seed_gives_another_student(rows, tmp_path):
    for seed in (0, 1):
        simulate(tiny.experiment(rows, {"seed": seed}), tmp_path / str(seed), tiny.Quiet())
    assert tiny.student_hash(tmp_path / "0") != tiny.student_hash(tmp_path / "1")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")  # Ray's and Flower's own
def test_ray_gives_the_same_as_in_process(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    faulty = {"name": "faulty:Faulty", "faults": ["", "", "raises"], "faulty_rounds": [1, 2]}
    for kind in ("in-process", "ray"):
        changes = {"engine.kind": kind, "clients.participation": 0.75, "method": faulty}
        simulate(tiny.experiment(rows, changes), tmp_path / kind, tiny.Quiet())
    mine, rays = (tiny.rounds(tmp_path / kind) for kind in ("in-process", "ray"))
    for here, there in zip(mine, rays, strict=True):
        for key in ("participants", "bytes", "failures"):
            assert here[key] == there[key]
        for key in ("student", "teachers", "losses"):
            assert flat(here[key]) == pytest.approx(flat(there[key]), abs=1e-6)
    reasons = [failure["reason"] for there in rays for failure in there["failures"]]
    assert reasons
    assert all("while training: Patient4711Error: " in reason for reason in reasons)
    here, there = (RunFolder(tmp_path / kind).resume().student for kind in ("in-process", "ray"))
    assert here.keys() == there.keys()
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")  # Ray's and Flower's own
def test_clients_are_spread_over_a_cluster(rows, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    (seen := tmp_path / "seen").mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        method = {"name": "whereabouts:Whereabouts", "folder": str(seen)}
        changes = {"engine.kind": "ray", "clients.count": 4, "rounds": 1, "method": method}
        simulate(tiny.experiment(rows, changes), tmp_path / "run", tiny.Quiet())
        nodes = {node.node_id for node in cluster.list_all_nodes()}
    finally:
        cluster.shutdown()
    assert tiny.failures(tmp_path / "run") == []
    assert len(nodes) == 2
    assert {each.read_text() for each in seen.iterdir()} == nodes


def flat(value, prefix=""):
    """Numbers by dotted key; what is no number is left out."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{prefix}.{key}").items()}
    return {prefix: value} if isinstance(value, float) else {}


def test_ray_that_is_not_installed_is_an_error_with_the_remedy(rows, monkeypatch):
    prepared = prepare(tiny.experiment(rows, {"engine.kind": "ray"}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fedkd\[ray\]'"):
        engines.check(prepared)


def test_an_older_allocator_is_asked_for_what_it_takes(monkeypatch):
    asked = []

    def mallopt(parameter, value):
        asked.append((parameter, value))
        return int(parameter != -3 or value <= 2**25)

    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    tune_allocator()
    assert asked[-1] == (-3, 2**25)


def test_the_callers_thread_count_is_put_back(rows, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = run_with(rows, tmp_path / "run", torch.get_num_threads)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_no_more_clients_at_a_time_than_threads(rows, tmp_path):
    workers = run_with(rows, tmp_path / "run", threading.get_ident)
    assert 1 <= len(set(workers)) <= 2
    assert threading.get_ident() not in workers


def run_with(rows, path, look):
    """What `look` sees whenever a client says what it does."""
    seen = []

    class Looking(tiny.Quiet):
        def client_does(self, client, phase, done, total):
            seen.append(look())

    prepared = prepare(tiny.experiment(rows))
    run = RunFolder(path)
    run.open(prepared.experiment, prepared.data, resume=False)
    engines.simulate(prepared, run, Looking(), states=run.states)
    return seen
