"""Every engine, and any number of threads, gives the same student."""

import importlib.util
import os
import threading
from pathlib import Path

import pytest
import tiny
import torch

from fedkd.errors import ConfigError
from fedkd.federation import engines
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.runs.folder import RunFolder


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


@pytest.mark.parametrize("changes", ALL.values(), ids=ALL)
def test_the_students_bits_do_not_depend_on_threads(images, tmp_path, changes):
    hashes, scores = set(), []
    for threads in (1, 2, 3):
        path = tmp_path / str(threads)
        prepared = prepare(tiny.experiment(images, changes | {"engine.threads": threads}))
        run = RunFolder(path)
        run.open(prepared.experiment, prepared.data, resume=False)
        student = engines.simulate(prepared, run, tiny.Quiet(), states=run.states)
        run.finish(student.state_dict(), {})
        hashes.add(tiny.student_hash(path))
        scores.append([without_seconds(record) for record in run.records()])
    assert len(hashes) == 1
    assert scores[0] == scores[1] == scores[2]


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
