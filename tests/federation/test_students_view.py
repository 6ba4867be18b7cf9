"""Privileged columns from a file to the run folder: simulated, resumed, protected, deployed."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from fedkd import config, data
from fedkd.data import shared_file
from fedkd.data.types import Samples
from fedkd.data.views import Sight
from fedkd.errors import ConfigError
from fedkd.exchange.codec import decode
from fedkd.federation import engines
from fedkd.federation.prepare import prepare
from fedkd.federation.store.state_store import StateStore
from fedkd.jobs.audit import canary_run
from fedkd.jobs.audit.messages import audit_exchange
from fedkd.jobs.audit.students import audit_student
from fedkd.jobs.simulate import simulate
from fedkd.learning import evaluate
from fedkd.methods.core import accounting
from fedkd.runs import student as student_of
from fedkd.runs.folder import RunFolder

PRIVILEGED = {"clients.privileged": {"columns": ["scan", "stress"]}}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """Two sites' patients as a CSV file: `scan` tells most, and site b never made one."""
    draw = np.random.default_rng(3)
    lines = ["site,age,pressure,scan,stress,ill"]
    for i in range(240):
        ill, site = i % 2, "ab"[i % 4 // 2]
        scan = f"{2 * ill - 1 + draw.normal():.3f}" if site == "a" and i % 3 else "?"
        values = [f"{ill * 0.8 + draw.normal():.3f}" for _ in range(3)]
        lines.append(f"{site},{values[0]},{values[1]},{scan},{values[2]},{ill}")
    path = tmp_path_factory.mktemp("clinic") / "clinic.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def hiding(clinic, **changes):
    """The experiment in which only the teachers see the scan and the stress test."""
    section = {
        "data.label": "ill",
        "data.client": "site",
        "data.missing": "indicate",
        "data.partition": {"scheme": "natural"},
        "clients.count": None,
    }
    return tiny.experiment(clinic, {**section, **PRIVILEGED, **changes})


def test_teachers_see_all_and_what_is_measured_and_kept_is_the_students_view(clinic, tmp_path):
    prepared = prepare(hiding(clinic))
    names = ("age", "age?", "pressure", "pressure?")
    assert prepared.data.features == (*names, "scan", "scan?", "stress", "stress?")
    sees = Sight.of_columns((0, 1, 2, 3))
    assert (prepared.setting.seen, prepared.in_students_view.data.features) == (sees, names)
    run = tmp_path / "run"
    summary = simulate(hiding(clinic), run, tiny.Quiet())
    weights = load_file(run / "student.safetensors")
    assert weights["hidden1.weight"].shape == (16, 4)
    teacher = engines.teacher(prepared, RunFolder(run).states, 0)
    assert teacher.state_dict()["hidden1.weight"].shape == (16, 8)
    student = prepared.setting.student.build(prepared.experiment.student.model, purpose="student")
    student.load_state_dict(weights)
    test = prepared.in_students_view.data.test
    assert summary["student"]["accuracy"] == evaluate.accuracy(student, test)
    told = student_of.load(run)  # as export does
    assert (told.features, told.shape) == (names, (4,))
    seen = Samples(student_of.tests(run, told), test.y)
    assert summary["student"]["accuracy"] == evaluate.accuracy(told.model, seen)
    assert prepare(config.load(run / "config.toml")).setting.seen == Sight.of_columns((0, 1, 2, 3))
    assert "The teachers alone saw scan, stress" in (run / "report.html").read_text("utf-8")


class CutsOff(tiny.Quiet):
    def round_begins(self, round, cohort):
        if round == 2:
            raise InterruptedError


def test_a_run_that_was_cut_off_resumes_to_the_same_bits(clinic, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    simulate(hiding(clinic), whole, tiny.Quiet())
    with pytest.raises(InterruptedError):
        simulate(hiding(clinic), cut, CutsOff())
    simulate(hiding(clinic), cut, tiny.Quiet(), resume=True)
    assert tiny.student_hash(whole) == tiny.student_hash(cut)


def test_a_teacher_s_steps_are_protected_and_paid_for_as_without_hiding(
    clinic, tmp_path, monkeypatch
):
    """The same noise, the same plan, and with the same draws the same teacher to the bit."""
    privacy = {"epsilon": 50.0, "noise_multiplier": 1.0, "sample_rate": 0.2}
    protected = {"privacy": privacy, "rounds": 1}
    experiments = {
        "hidden": hiding(clinic, **protected),
        "open": hiding(clinic, **protected, **{"clients.privileged": None}),
    }
    worlds = [prepare(experiment) for experiment in experiments.values()]
    one, other = (accounting.plan(prepared.method, prepared.setting) for prepared in worlds)
    assert one == other
    kept = {}
    for name, experiment in experiments.items():
        # In place of the operating system's randomness, which no two runs share.
        monkeypatch.setattr("secrets.token_bytes", lambda _: bytes(32))
        summary = simulate(experiment, tmp_path / name, tiny.Quiet())
        assert summary["privacy"]["unit"] == "record"
        assert 0 < summary["privacy"]["epsilon"] < 50.0
        with StateStore(RunFolder(tmp_path / name).states) as store:
            kept[name] = [decode(store.state(client, before=2)) for client in range(2)]
    for one, other in zip(kept["hidden"], kept["open"], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_site_of_a_deployment_sees_the_same_world_from_its_own_file(clinic, tmp_path):
    experiment = hiding(clinic, **{"clients.count": 2})
    shared = shared_file.parse_shared(shared_file.to_bytes(data.shared(experiment.data, seed=7)))
    own = tmp_path / "own.csv"
    own.write_text("ill,stress,scan,pressure,age\n1,0.5,,0.2,1.5\n0,,,0.1,-0.5\n")  # no scan here
    mine = shared_file.read_own(own, "csv", label="ill", shared=shared)
    there = prepare(experiment, shared_file.seen_from(shared, 2, samples={1: mine}))
    here = prepare(experiment)
    assert (there.setting.seen, there.expects(1, 1)) == (here.setting.seen, here.expects(1, 1))
    assert torch.equal(there.setting.student.proxy, here.setting.student.proxy)
    assert mine.x[:, 5].tolist() == [1, 1]


def test_an_audit_attacks_answers_by_all_columns_and_the_student_by_its_own(clinic, tmp_path):
    run = tmp_path / "run"
    canary_run.record(hiding(clinic, rounds=1), canary_run.Canaries(40), run, tiny.Quiet())
    told = audit_exchange(run, lambda *_: None, count=2)
    assert {attack.on for attack in told.attacks} == {"the answers of all rounds"}
    told = audit_student(run, lambda *_: None, count=2)
    assert {attack.on for attack in told.attacks} == {"the student"}


def test_any_run_s_student_is_attacked_by_what_it_sees(clinic, tmp_path):
    run = tmp_path / "run"
    simulate(hiding(clinic, **{"data.test_share": 0.5, "rounds": 1}), run, tiny.Quiet())
    told = audit_student(run, lambda *_: None, count=2)
    assert {attack.on for attack in told.attacks} == {"the student"}


MISTAKES = {
    "misspelt": ({"clients.privileged": {"columns": ["scam"]}}, "did you mean 'scan'"),
    "everything": (
        {"clients.privileged": {"columns": ["age", "pressure", "scan", "stress"]}},
        "see nothing",
    ),
    "no logits": ({"method.name": "local"}, "method 'local' cannot hide"),
    "nothing named": ({"clients.privileged": {"columns": []}}, "clients.privileged.columns"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_before_anything_runs(clinic, mistake):
    changes, words = MISTAKES[mistake]
    with pytest.raises(ConfigError) as caught:
        prepare(hiding(clinic, **changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["rows", "squares"])
def test_columns_without_names_cannot_be_hidden(kind, request):
    with pytest.raises(ConfigError, match=r"the data has none: expected a \.csv file"):
        prepare(tiny.experiment(request.getfixturevalue(kind), PRIVILEGED))


def test_a_study_may_bring_its_own_folds(clinic):
    prepared = prepare(hiding(clinic))
    own = replace(
        prepared.data,
        clients=tuple(Samples(each.x[:20], each.y[:20]) for each in prepared.data.clients),
        public=prepared.data.public[:10],
    )
    folded = prepare(hiding(clinic), own)
    assert folded.setting.student.proxy.shape == (10, 4)
    assert [len(each) for each in folded.in_students_view.data.clients] == [20, 20]


def test_an_audit_attacks_models_without_the_parts_that_clients_keep(clinic, tmp_path):
    method, models = {"name": "fedavg", "private": ["hidden1"]}, [{"name": "mlp", "hidden": [16]}]
    kept = {"method": method, "clients.models": models, "clients.privileged": None}
    run = tmp_path / "run"
    canary_run.record(hiding(clinic, rounds=1, **kept), canary_run.Canaries(40), run, tiny.Quiet())
    told = audit_exchange(run, lambda *_: None, count=2)
    assert {attack.on for attack in told.attacks} == {"the models of all rounds"}
