"""A grid of values and seeds: planned, run, gone on with, and told."""

import json
import math
from contextlib import nullcontext
from statistics import fmean, stdev

import numpy as np
import pytest
import tiny

import fedkd
from fedkd import config
from fedkd.errors import ConfigError, FedkdError, RunFolderError
from fedkd.jobs import compare, planned, sweep
from fedkd.reports.sweeps import rows as swept_rows
from fedkd.reports.sweeps import spending

ONE_ROUND = {"rounds": 1, "method": {"name": "fedmd", "student": {"epochs": 5}}}


def watch(_run):
    return nullcontext(tiny.Quiet())


def plan(file, *grid, seeds=1, **sets):
    overrides = [f"{key}={value}" for key, value in sets.items()]
    return planned.plan(lambda more: config.load_either(file, [*overrides, *more]), grid, seeds)


def hashes(folder):
    return {path.parent.name: tiny.student_hash(path.parent) for path in folder.glob("*/student.*")}


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    return tiny.write_config(tmp_path_factory.mktemp("sweep") / "tiny.toml", rows, ONE_ROUND)


@pytest.fixture(scope="module")
def broken(file, tmp_path_factory):
    """Four runs, of which two diverge; the sweep was killed in the third, and taken up again."""
    runs = plan(file, "clients.training.learning_rate=0.05,1e30", "rounds=1", seeds=2)
    folder, met = tmp_path_factory.mktemp("swept") / "all", []

    def killed(run):
        met.append(run.name)
        if len(met) == 2:
            raise KeyboardInterrupt
        return watch(run)

    with pytest.raises(KeyboardInterrupt):
        sweep.run_all(runs, folder, killed)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}
    done = sweep.run_all(runs, folder, watch, resume=True)
    return done, before, sweep.report(done)


def test_a_run_that_fails_is_named_and_the_others_go_on(broken):
    done, _, _ = broken
    assert [run.name for run in done.runs] == [
        "learning_rate=0.05-rounds=1-seed7",
        "learning_rate=0.05-rounds=1-seed8",
        "learning_rate=1e30-rounds=1-seed7",
        "learning_rate=1e30-rounds=1-seed8",
    ]
    assert [run.name for run in done.finished] == [run.name for run in done.runs[:2]]
    assert list(done.failed) == [run.name for run in done.runs[2:]]
    assert all("training diverged" in reason for reason in done.failed.values())


def test_a_killed_sweep_goes_on_to_the_same_runs_and_leaves_finished_ones(broken, file, tmp_path):
    done, before, _ = broken
    assert [path.parent.name for path in before] == ["learning_rate=0.05-rounds=1-seed7"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    straight = sweep.run_all([done.runs[1]], tmp_path / "straight", watch)
    assert straight.failed == {}
    name = done.runs[1].name
    assert hashes(tmp_path / "straight") == {name: hashes(done.folder)[name]}


def test_rows_are_means_over_seeds_and_the_page_says_what_failed_and_who_chooses(broken):
    done, _, (found, spent) = broken
    [row] = found
    reached = [
        json.loads((path / "summary.json").read_text())["student"]["accuracy"]
        for path in done.folders
    ]
    assert (row.student.mean, row.student.std) == (fmean(reached), stdev(reached))
    assert row.settings == {"clients.training.learning_rate": "0.05", "rounds": "1"}
    page = (done.folder / "report.html").read_text()
    assert all(f'>{name}</th><td class="text words">round 1' in page for name in done.failed)
    assert 'href="learning_rate%3D0.05-rounds%3D1-seed7/report.html"' in page
    assert "NO DP" in page
    assert (spent.private, spent.bare) == (0, 4)


def test_a_comparison_is_a_sweep_over_methods(rows, file, tmp_path):
    experiment = tiny.experiment(rows, ONE_ROUND)
    swept = sweep.run_all(plan(file, "method.name=fedmd,dsfl"), tmp_path / "swept", watch)
    runs = compare.plan(experiment, ["fedmd"], 1)
    compared = compare.compare(runs, tmp_path / "compared", watch)
    assert tiny.student_hash(swept.folders[0]) == tiny.student_hash(compared.folders[0])
    found, _ = sweep.report(swept)
    assert {row.settings["method.name"] for row in found} == {"fedmd", "dsfl"}
    page = (swept.folder / "report.html").read_text()
    assert "flatters it" in page
    assert "NO DP" in page


def test_a_distillation_is_swept_too_and_another_one_does_not_pass_for_finished(rows, tmp_path):
    trained = {"model": {"name": "mlp", "hidden": [4]}, "training": {"epochs": 1}}
    table = {"name": "d", "data": {"name": str(rows)}, "teachers": [trained], "student": trained}
    table["knowledge"] = [{"name": "kd"}]

    def load(overrides):
        changed = json.loads(json.dumps(table))
        for each in overrides:
            changed["knowledge"][0]["name"] = each.partition("=")[2]
        return config.validate(config.Distillation, changed)

    runs = planned.plan(load, ["knowledge.0.name=kd,dkd"], 1)
    assert [run.name for run in runs] == ["knowledge.0=kd-seed0", "knowledge.0=dkd-seed0"]
    quiet = nullcontext(lambda *_: None)
    done = sweep.run_all(runs, tmp_path / "swept", lambda _: quiet)
    found, _ = sweep.report(done)
    assert [len(row.runs) for row in found] == [1, 1]
    assert set(found[0].beside) == {"student alone"}
    table["student"] = {**trained, "training": {"epochs": 2}}
    again = sweep.run_all(
        planned.plan(load, [], 1), tmp_path / "swept", lambda _: quiet, resume=True
    )
    other = [planned.PlannedRun("knowledge.0=kd-seed0", (), run.config) for run in again.runs]
    refused = sweep.run_all(other, tmp_path / "swept", lambda _: quiet, resume=True)
    assert "holds another experiment" in refused.failed["knowledge.0=kd-seed0"]


@pytest.mark.parametrize(
    ("grid", "sets", "said"),
    [
        (["method.name=fedmd,fedmdd"], {}, "fedmdd"),
        (["rounds=1,-1"], {}, "sweep at rounds=-1: key 'rounds' is -1"),
        (["method.name=fedmd,dense"], {}, r"run method=dense-seed7: .*asks for image"),
        (["privacy.epsilon=1,1e-9"], {"method.name": "fedmd"}, "run epsilon="),
    ],
)
def test_a_wrong_combination_is_refused_before_any_runs(file, tmp_path, grid, sets, said):
    folder = tmp_path / "swept"
    with pytest.raises(FedkdError, match=said) as refused:
        sweep.run_all(plan(file, *grid, **sets), folder, watch)
    assert "\n" not in str(refused.value)
    assert not folder.exists()


def test_runs_that_are_not_scored_alike_are_refused(file, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_prepared", lambda asked, _where: (asked, f"score-{asked.rounds}"))
    with pytest.raises(ConfigError, match=r"rounds=1-seed7 is scored by score-1, rounds=2-seed7"):
        sweep.run_all(plan(file, "rounds=1,2"), tmp_path / "swept", watch)


def test_a_folder_is_another_sweeps_unless_it_is_gone_on_with(broken):
    done, _, _ = broken
    with pytest.raises(RunFolderError, match="--resume"):
        sweep.run_all(done.runs[:1], done.folder, watch)
    with pytest.raises(RunFolderError, match="nothing to resume"):
        sweep.run_all(done.runs[:1], done.folder / "none", watch, resume=True)


def test_names_of_folders_are_for_shells_and_never_the_same(file):
    odd = ['data.name="a b/c"', "data.name=a_b_c", 'clients.models=["mlp"]', "clients.models=mlp"]
    names = [planned._name([each]) for each in odd]
    assert len(set(names)) == len(odd)
    assert all(set(name) <= set(f"{name}=.+-_") - set('/ "[]') for name in names)
    assert planned._name(["student.model.name=mlp", "data.name=x"]) == "model=mlp-data=x-"
    both = ["clients.training.epochs=1", "student.training.epochs=2"]
    assert planned._name(both) == "clients.training.epochs=1-student.training.epochs=2-"


def test_chance_alone_is_as_large_as_simulated():
    draw = np.random.default_rng(3)

    def row(values):
        return swept_rows.SweepRow({}, (None,) * len(values), swept_rows.spread(values), {}, None,
                                   swept_rows.spread([1.0]))  # fmt: skip

    told, seen = [], []
    for _ in range(300):
        values = draw.normal(0.8, 0.02, size=(8, 3))
        found = [row([float(v) for v in each]) for each in values]
        told.append(swept_rows.luck(found))
        seen.append(values.mean(axis=1).max() - values.mean())
    assert math.isclose(fmean(told), fmean(seen), rel_tol=0.08)
    assert swept_rows.luck([row([0.5])]) is None
    assert swept_rows.luck([row([0.5]), row([0.6])]) is None


def test_private_runs_add_up_and_those_that_failed_spent_as_well(file, tmp_path, warned):
    private = {"privacy.epsilon": 60, "method.name": "fedmd", "data.partition.scheme": "iid"}
    done = sweep.run_all(plan(file, seeds=2, **private), tmp_path / "own", watch)
    assert "epsilon 120 at delta 2e-05, the sum of their budgets" in warned[0]
    _, spent = sweep.report(done)
    each = [json.loads((path / "summary.json").read_text())["privacy"] for path in done.folders]
    assert spent.own.epsilon == pytest.approx(sum(one["epsilon"] for one in each))
    assert spent.own.delta == pytest.approx(2e-5)
    stamp, text = spending.in_words(spent)
    assert stamp == f"epsilon {spent.own.epsilon:.4g}"
    assert "Whoever chooses among runs has seen all of them" in text
    # Of a run that did not come to its end the ledgers tell.
    (done.folders[0] / "summary.json").unlink()
    assert spending.spent(done.folders).own.epsilon == pytest.approx(spent.own.epsilon, rel=1e-3)


def test_what_shares_a_ledger_is_held_to_one_budget(file, tmp_path, warned):
    ledger = tmp_path / "ledger"
    sets = {"privacy.epsilon": 60, "privacy.ledger": ledger, "method.name": "fedmd"}
    done = sweep.run_all(plan(file, seeds=2, **sets), tmp_path / "swept", watch)
    assert f"2 runs spend from the ledger in {str(ledger)!r}" in warned[0]
    assert list(done.failed) == ["seed8"]
    assert "privacy budget does not allow" in done.failed["seed8"]
    _, spent = sweep.report(done)
    assert spent.own.epsilon == 0
    assert spent.shared[str(ledger)].epsilon <= 60


def test_ray_and_an_engine_on_ray_are_not_both(file, tmp_path):
    with pytest.raises(ConfigError, match=r"leave out engine\.kind"):
        sweep.run_all(plan(file, **{"engine.kind": "ray"}), tmp_path / "swept", watch, where="ray")


def test_one_call_sweeps_and_tells_a_row_for_each_combination(file, tmp_path):
    grid = {"clients.models": [["mlp"], [{"name": "mlp", "hidden": [4]}]]}
    done = fedkd.sweep(file, grid, seeds=1, out=tmp_path / "swept", progress=False)
    assert (len(done.runs), done.failed) == (2, {})
    assert {row["clients.models"] for row in done.rows} == {
        '["mlp"]',
        '[{"name": "mlp", "hidden": [4]}]',
    }
    assert all(row["seeds"] == 1 and 0 < row["student"] <= 1 for row in done.rows)
    with pytest.raises(ConfigError, match="expected a list of its values"):
        fedkd.sweep(file, {"rounds": "12"}, progress=False)


def test_a_private_run_that_fails_is_not_quoted(file, tmp_path, monkeypatch):
    def fails(*_args, **_more):
        raise ValueError("invalid literal: 'Ada Lovelace'")

    monkeypatch.setattr(sweep, "simulate", fails)
    private = plan(file, "rounds=1", **{"privacy.epsilon": 60, "data.partition.scheme": "iid"})
    [why] = sweep.run_all(private, tmp_path / "private", watch).failed.values()
    assert why == "ValueError"
    [why] = sweep.run_all(plan(file, "rounds=1"), tmp_path / "open", watch).failed.values()
    assert why == "ValueError: invalid literal: 'Ada Lovelace'"
