import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from small import TABLE, ignore, small

from fedkd import config, models
from fedkd.config import ModelSpec, Teacher
from fedkd.errors import BudgetError, ConfigError, RunFolderError
from fedkd.jobs.distil import distil
from fedkd.learning import supervised
from fedkd.learning.dp.plan import plan
from fedkd.learning.ways import prepare
from fedkd.learning.ways.base import StudentRun
from fedkd.learning.ways.weights import load_weights
from fedkd.privacy.source import GENERATOR
from fedkd.reports import distil_report
from fedkd.runs import ledgers, stages, student
from fedkd.runs.distil_schema import read


@pytest.fixture(scope="module")
def done(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil") / "run"
    return folder, distil(small(rows), folder, ignore)


def lines(folder):
    told = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [{key: value for key, value in each.items() if key != "seconds"} for each in told]


def test_a_run_leaves_a_complete_folder(done):
    folder, summary = done
    names = {path.name for path in folder.iterdir()}
    assert names == {
        ".lock",
        "checkpoints",
        "config.toml",
        "environment.json",
        "inputs.json",
        "report.html",
        "rounds.jsonl",
        "student.safetensors",
        "summary.json",
    }
    assert json.loads((folder / "summary.json").read_text()) == summary
    complete = config.load_distillation(folder / "config.toml")
    assert complete == prepare.prepare(complete).distillation
    assert complete.knowledge[1].student == ("relu1",)


def test_data_that_is_likely_to_be_wrong_is_warned_of_as_a_run_starts(rows, tmp_path, caplog):
    with np.load(rows) as arrays:
        np.savez(tmp_path / "one.npz", **{**arrays, "y_test": np.zeros_like(arrays["y_test"])})
    told = small(tmp_path / "one.npz", plain=False, name="a")
    with caplog.at_level("WARNING", "fedkd"):
        distil(told, tmp_path / "run", ignore)
        assert "one.npz: no sample for testing of '1'" in caplog.text
        caplog.clear()
        student.load(tmp_path / "run")
        student.tests(tmp_path / "run", student.load(tmp_path / "run"))
        assert caplog.text == ""


def test_the_summary_says_accuracy_size_latency_and_what_the_teacher_was_worth(done):
    _, summary = done
    student, [teacher] = summary["student"], summary["teachers"]
    assert student["parameters"] == 10 * 4 + 4 + 4 * 3 + 3
    assert student["bytes"] == 4 * student["parameters"]
    assert teacher["parameters"] == 10 * 12 + 12 + 12 * 3 + 3
    assert set(student["latency"]) == {"1", "100"}
    assert all(value > 0 for value in student["latency"].values())
    assert summary["gain"] == student["accuracy"] - summary["plain"]
    assert summary["privacy"] == {"unit": "none"}
    assert teacher["accuracy"] > 0.6  # chance is a third


def test_every_training_writes_a_line_an_epoch_and_the_last_is_the_summarys(done):
    folder, summary = done
    told = [(each["stage"], each["epoch"]) for each in lines(folder)]
    assert told == [
        *(("teacher 0", epoch) for epoch in (1, 2, 3)),
        *(("plain student", epoch) for epoch in (1, 2)),
        *(("student", epoch) for epoch in (1, 2)),
    ]
    last = {each["stage"]: each["accuracy"] for each in lines(folder)}
    assert last["student"] == summary["student"]["accuracy"]
    assert last["plain student"] == summary["plain"]
    assert last["teacher 0"] == summary["teachers"][0]["accuracy"]


def test_the_plain_student_is_the_student_that_learns_from_labels_alone(done, rows):
    folder, _ = done
    ready = prepare.prepare(small(rows))
    student_run = StudentRun(ready.distillation, ready.shares, (), None, lambda: ready.student(()))
    alone, twin = student_run.plain_student(), student_run.student()
    assert all(
        torch.equal(a, b) for a, b in zip(alone.parameters(), twin.parameters(), strict=True)
    )
    batches = student_run.stream("student batches")
    supervised.train(alone, ready.data.train, student_run.training, batches)
    kept = load_file(folder / "checkpoints" / "plain-student.safetensors")
    assert all(torch.equal(each, kept[key]) for key, each in alone.state_dict().items())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [("teacher 0", 2), ("plain student", 0), ("student", 1)])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(done, rows, tmp_path, at):
    def kill(stage, epoch, _total):
        if (stage, epoch) == at:
            raise Killed

    again = tmp_path / "again"
    with pytest.raises(Killed):
        distil(small(rows), again, kill)
    with (again / "rounds.jsonl").open("a") as file:
        file.write('{"stage": "half a li')
    assert not (again / "student.safetensors").exists()
    distil(small(rows), again, ignore, resume=True)
    assert lines(again) == lines(done[0])
    mine, whole = (load_file(each / "student.safetensors") for each in (again, done[0]))
    assert all(torch.equal(each, whole[key]) for key, each in mine.items())


def test_what_is_finished_is_not_trained_again(done, rows, monkeypatch):
    monkeypatch.setattr(supervised, "train", None)
    summary = distil(small(rows), done[0], ignore, resume=True)
    assert summary["student"]["accuracy"] == done[1]["student"]["accuracy"]


def test_the_plain_student_can_be_left_out(rows, tmp_path):
    summary = distil(small(rows, plain=False), tmp_path / "run", ignore)
    assert summary["plain"] is summary["gain"] is None
    assert "alone" not in (tmp_path / "run" / "report.html").read_text().lower()


def test_a_folder_that_exists_is_refused_and_so_is_another_distillation(done, rows):
    with pytest.raises(RunFolderError, match="exists: go on with --resume"):
        distil(small(rows), done[0], ignore)
    with pytest.raises(RunFolderError, match=r"another experiment \(it differs in seed"):
        distil(small(rows, seed=4), done[0], ignore, resume=True)


def test_a_run_does_not_go_on_with_other_data(rows, tmp_path):
    data, run = tmp_path / "rows.npz", tmp_path / "run"
    data.write_bytes(Path(rows).read_bytes())
    distil(small(data, plain=False), run, ignore)
    tiny.write_rows(data, seed=1)
    with pytest.raises(RunFolderError, match="begun on other data or weights"):
        distil(small(data, plain=False), run, ignore, resume=True)


def given(folder, **more):
    return {"teachers": [{"weights": str(folder), **more}]}


def test_a_runs_student_teaches_the_next_one_and_is_not_trained(done, rows, tmp_path):
    summary = distil(small(rows, plain=False, **given(done[0])), tmp_path / "run", ignore)
    assert summary["teachers"][0]["accuracy"] == done[1]["student"]["accuracy"]
    assert summary["teachers"][0]["model"] == "mlp(hidden=[4])"
    assert {each["stage"] for each in lines(tmp_path / "run")} == {"student"}


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (
            {"weights": "nowhere.safetensors", "model": "mlp"},
            r"teachers\[0\].weights is 'nowhere.*No such file",
        ),
        ({"weights": "RUN/student.safetensors", "model": "mlp"}, "are no weights of 'mlp'"),
        ({"weights": "RUN/config.toml", "model": "mlp"}, "config.toml', no safetensors file"),
        ({"weights": "RUN", "model": "mlp"}, "'mlp', and the student of .* leave the model out"),
        ({"weights": "RUN", "training": {"epochs": 9}}, "training would not be used"),
        ({"weights": "."}, r"teachers\[0\].weights is '.', no run folder that can be read"),
        ({"data": "public"}, "expected weights, which somebody learned from public data"),
    ],
)
def test_given_weights_that_do_not_fit_are_refused(done, rows, tmp_path, teacher, message):
    told = {k: v.replace("RUN", str(done[0])) if k == "weights" else v for k, v in teacher.items()}
    with pytest.raises(ConfigError, match=message):
        distil(small(rows, teachers=[told]), tmp_path / "run", ignore)
    assert not (tmp_path / "run").exists()


PRIVATE = {"epsilon": 5.0, "delta": 1e-4, "sample_rate": 0.25}


@pytest.fixture(scope="module")
def protected(done, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("private") / "run"
    told = small(rows, privacy=PRIVATE, **given(done[0], data="public"))
    return folder, told, distil(told, folder, ignore)


def test_under_dp_both_students_are_paid_for_in_one_epsilon(protected):
    folder, told, summary = protected
    assert 4.9 < summary["privacy"]["epsilon"] <= 5.0
    assert summary["privacy"]["unit"] == "record"
    assert (folder / "checkpoints" / "ledger.db").exists()
    assert {each["loss"] for each in lines(folder)} == {None}
    assert "epsilon 4.9" in (folder / "report.html").read_text()
    [one] = plan(told.model_copy(update={"plain": False}), 1.0)
    assert plan(told, 1.0) == [one, one]
    assert (one.sample_rate, one.steps) == (0.25, 8)


def _table(path, order):
    draw = torch.Generator().manual_seed(4)
    x, y = torch.randn(240, 10, generator=draw), torch.arange(240) % 3
    names = [f"f{i}" for i in range(10)]
    lines = [",".join([*names, "label"])]
    lines += [",".join(map(str, [*x[i].tolist(), int(y[i])])) for i in order]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_under_dp_no_seed_share_or_order_of_a_file_is_a_new_budget(done, tmp_path):
    ledger = {"ledger": str(tmp_path / "ledgers"), "noise_multiplier": 3.0}
    base = {"plain": False, "privacy": {**PRIVATE, **ledger}, **given(done[0], data="public")}
    file = _table(tmp_path / "one.csv", range(240))
    again = _table(tmp_path / "again.csv", reversed(range(240)))
    first = small(file, **base)
    runs = [
        first,
        first.model_copy(update={"seed": 1}),
        first.model_copy(update={"data": first.data.model_copy(update={"test_share": 0.3})}),
        small(again, **base),
    ]
    spent = [
        distil(run, tmp_path / str(number), ignore)["privacy"]["epsilon"]
        for number, run in enumerate(runs)
    ]
    assert spent == sorted(set(spent))
    [told] = ledgers.read(tmp_path / "ledgers")
    [steps] = [each["steps"] for each in told.statement.events]
    assert steps == 4 * plan(runs[0], 3.0)[0].steps
    assert told.statement.enforced == spent[-1]
    assert {each["generator"] for each in told.statement.releases} == {GENERATOR}
    (tmp_path / "ledgers" / "client-0000.db").touch()
    with pytest.raises(ConfigError, match=r"holds client-0000\.db, a ledger of an earlier version"):
        distil(first, tmp_path / "after", ignore)
    assert not (tmp_path / "after").exists()


@pytest.mark.parametrize("old", [False, True])
def test_a_teacher_of_torch_save_is_told_what_it_is_and_how_to_convert_it(rows, tmp_path, old):
    draws = torch.Generator().manual_seed(0)
    model = models.build(ModelSpec(name="mlp"), shape=(10,), classes=3, generator=draws)
    file = tmp_path / "teacher.pt"
    torch.save(model.state_dict(), file, _use_new_zipfile_serialization=not old)
    teacher = {"model": "mlp", "weights": str(file)}
    with pytest.raises(ConfigError) as refused:
        distil(small(rows, teachers=[teacher]), tmp_path / "run", ignore)
    said = str(refused.value)
    assert "teacher.pt', a file of torch.save" in said
    assert "\n" not in said
    # Its own advice is enough.
    save_file(torch.load(file, weights_only=True), tmp_path / "OUT.safetensors")
    assert "safetensors.torch.save_file(torch.load('IN.pt', weights_only=True)" in said
    load_weights(Teacher(model="mlp", weights=str(tmp_path / "OUT.safetensors")), model, 0)


def test_under_dp_nothing_that_is_written_tells_of_the_records(protected):
    folder, _, _ = protected
    assert json.loads((folder / "inputs.json").read_text())["data"] == "protected"
    assert read(folder).summary.privacy.budget == 5.0


@pytest.mark.parametrize("old", [False, True])
def test_under_dp_a_run_does_not_go_on_without_its_ledger(protected, tmp_path, old):
    folder, told, _ = protected
    shutil.copytree(folder, tmp_path / "run")
    if old:  # as an earlier fedkd left it, which named nothing
        (tmp_path / "run" / "checkpoints" / "stages.json").unlink()
        environment = tmp_path / "run" / "environment.json"
        environment.write_text(environment.read_text().replace('"layout": 2', '"layout": 1'))
    for file in (tmp_path / "run" / "checkpoints").glob("ledger.db*"):
        file.unlink()
    with pytest.raises(RunFolderError, match=r"ledger.db' is missing, with what was spent"):
        distil(told, tmp_path / "run", ignore, resume=True)


def test_a_training_that_was_cut_off_under_dp_is_spent(done, rows, tmp_path):
    def kill(stage, epoch, _total):
        if (stage, epoch) == ("student", 1):
            raise Killed

    enough = {**PRIVATE, "noise_multiplier": 1.0}  # for one training (4.5), not for two (6.1)
    told = small(rows, plain=False, privacy=enough, **given(done[0], data="public"))
    with pytest.raises(Killed):
        distil(told, tmp_path / "run", kill)
    with pytest.raises(BudgetError, match="the budget is epsilon 5"):
        distil(told, tmp_path / "run", ignore, resume=True)
    for file in (tmp_path / "run" / "checkpoints").glob("ledger.db*"):
        file.unlink()
    with pytest.raises(RunFolderError, match=r"ledger.db' is missing, with what was spent"):
        distil(told, tmp_path / "run", ignore, resume=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teachers": TABLE["teachers"]}, r"teachers\[0\] may have learned from the records"),
        ({"knowledge": [{"name": "sp"}]}, r"knowledge\[0\] \(sp\) cannot .* compares the samples"),
        ({"privacy": {**PRIVATE, "epsilon": 1e-3}}, "privacy.epsilon = 0.001 is hopeless here"),
        ({"privacy": {**PRIVATE, "delta": 0.1}}, "privacy.delta is 0.1, above 1 / 10,000"),
    ],
)
def test_what_cannot_be_protected_is_refused_with_the_reason(
    done, rows, tmp_path, changed, message
):
    table = {"privacy": PRIVATE, **given(done[0], data="public"), **changed}
    with pytest.raises(ConfigError, match=message):
        distil(small(rows, **table), tmp_path / "run", ignore)
    assert not (tmp_path / "run").exists()


def test_too_little_noise_is_refused_before_anything_is_written(done, rows, tmp_path):
    privacy = {**PRIVATE, "epsilon": 1.0, "noise_multiplier": 0.9}
    with pytest.raises(BudgetError, match=r"noise_multiplier = 0.9 makes the plan cost epsilon"):
        distil(
            small(rows, privacy=privacy, **given(done[0], data="public")), tmp_path / "run", ignore
        )
    assert not (tmp_path / "run").exists()


def test_a_student_with_a_teachers_block_comes_back_from_its_folder(rows, tmp_path):
    way = {"name": "injection", "layer": "hidden1", "block": "relu1"}
    told = small(rows, plain=False, way=way, knowledge=[])
    distil(told, tmp_path / "run", ignore)
    with pytest.raises(ConfigError, match="way 'injection' made another network"):
        distil(small(rows, **given(tmp_path / "run")), tmp_path / "next", ignore)
    found = student.load(tmp_path / "run")
    assert "hidden1.enter.1.weight" in found.model.state_dict()
    kept = load_file(tmp_path / "run" / "student.safetensors")
    assert all(torch.equal(each, kept[key]) for key, each in found.model.state_dict().items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"way": {"name": "ofline"}}, "unknown way to learn 'ofline': did you mean 'offline'"),
        ({"way": {"name": "offline", "label": 1}}, "unknown key 'way.label': did you mean"),
        ({"teachers": []}, "learns from 1 teachers: found 0"),
        ({"knowledge": []}, r"add a section \[\[knowledge\]\]"),
    ],
)
def test_a_way_that_cannot_run_is_refused_in_words(rows, tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        distil(small(rows, **changed), tmp_path / "run", ignore)


def test_a_report_can_be_written_again_and_a_corrupt_folder_is_named(done, tmp_path):
    folder, _ = done
    first = (folder / "report.html").read_text()
    assert distil_report.write(folder).read_text() == first
    assert "way to learn: offline" in first
    with pytest.raises(RunFolderError, match=r"no summary.json: the run is unfinished"):
        read(tmp_path)


def test_the_name_of_a_stage_is_a_files_name(tmp_path):
    assert stages.StageFolder(tmp_path, None).weights("teacher 0").name == "teacher-0.safetensors"
