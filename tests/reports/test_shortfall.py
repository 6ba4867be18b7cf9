"""A student on a small proxy set learns long enough, and one that fell short is not passed over."""

import logging

import pytest
import small
import tiny

from fedkd import config
from fedkd.federation.prepare import prepare
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate
from fedkd.reports import shortfall

EASY = {
    "rounds": 1,
    "clients.count": 3,
    "clients.training": {"epochs": 10, "batch_size": 16, "learning_rate": 0.05},
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return tiny.write_rows(tmp_path_factory.mktemp("data") / "rows.npz", samples=300, spread=0.5)


def warned(caplog):
    return [line for line in caplog.messages if "the student ends at" in line]


@pytest.mark.parametrize("method", ["fedmd", "dsfl", "feddf"])
def test_with_default_epochs_a_small_proxy_set_teaches(rows, tmp_path, caplog, method):
    models = ["mlp"] if method == "feddf" else [{"name": "mlp", "hidden": [8]}]
    changes = {**EASY, "data.public.size": 15, "method.name": method, "clients.models": models}
    with caplog.at_level(logging.WARNING, "fedkd"):
        summary = simulate(tiny.experiment(rows, changes), tmp_path / "run")
    assert summary["student"]["accuracy"] > summary["teachers"]["mean_accuracy"] - 0.05
    assert warned(caplog) == []


def test_epochs_that_are_named_are_obeyed_and_a_student_far_below_is_warned_of(
    rows, tmp_path, caplog
):
    changes = {
        **EASY,
        "data.public.size": 15,
        "method.student": {"epochs": 1, "learning_rate": 1e-5},
    }
    experiment = tiny.experiment(rows, changes)
    with caplog.at_level(logging.WARNING, "fedkd"):
        simulate(experiment, tmp_path / "run", None)
    [line] = warned(caplog)
    assert "far below its teachers' mean of " in line
    assert "raise method.student.epochs (now 1)" in line


def epochs(rows, method, size, **student):
    table = tiny.table(rows, {"data.public.size": size, "clients.models": ["mlp"]})
    table["method"] = {"name": method, **student}
    told = prepare(config.parse(table)).experiment
    return told.method.parameters["student"]["epochs"]


@pytest.mark.parametrize(
    ("method", "default", "batch"), [("fedmd", 10, 64), ("dsfl", 5, 64), ("fedproto", 10, 64)]
)
def test_few_rows_get_the_steps_of_a_thousand(tmp_path, method, default, batch):
    many = tiny.write_rows(tmp_path / "many.npz", samples=1300)
    steps = -(-1000 // batch) * default
    for size in (1, 63, 64, 65, 200, 959):
        found = epochs(many, method, size)
        assert steps <= found * -(-size // batch) < steps + -(-size // batch)
    for size in (961, 1000, 1200):
        assert epochs(many, method, size) == default
    assert epochs(many, method, 100, student={"epochs": 2}) == 2
    assert epochs(many, method, 100, student={"batch_size": 1000}) == default


def test_what_is_used_of_a_proxy_set_in_a_round_is_what_counts(tmp_path):
    many = tiny.write_rows(tmp_path / "many.npz", samples=1300)
    assert epochs(many, "fedmd", 1200, public_per_round=64) == 160


def test_a_distilled_student_far_below_its_teacher_is_warned_of(rows, tmp_path, caplog):
    student = small.TABLE["student"] | {"training": {"epochs": 1, "learning_rate": 1e-6}}
    teacher = small.TABLE["teachers"][0] | {"training": {"epochs": 8, "learning_rate": 0.05}}
    told = small.small(rows, student=student, teachers=[teacher], knowledge=[{"name": "kd"}])
    with caplog.at_level(logging.WARNING, "fedkd"):
        distil(told, tmp_path / "run")
    [line] = warned(caplog)
    assert "raise student.training.epochs (now 1)" in line


@pytest.mark.parametrize(
    ("method", "changes", "remedy"),
    [
        ("fedavg", {"rounds": 3}, ["raise rounds (now 3)"]),
        ("fedgkt", {"rounds": 3, "method.epochs": 2}, ["raise method.epochs (now 2)"]),
        ("fedavg", {"privacy.epsilon": 8}, ["raise privacy.epsilon (now 8)"]),
        ("adi", {}, ["take a larger student.model"]),
        (
            "fedmd",
            {"clients.privileged.columns": ["a"]},
            ["it sees less than they do, so let it see more, or take a larger student.model"],
        ),
        ("local", {}, []),
    ],
)
def test_the_remedy_is_one_of_the_methods_own(rows, caplog, method, changes, remedy):
    told = tiny.experiment(rows, {"method": {"name": method}, "rounds": 1, **changes})
    summary = {"student": {"accuracy": 0.2}, "teachers": {"mean_accuracy": 0.9}}
    shortfall.of_federation(summary, told)
    assert [line.partition("90.0%: ")[2] for line in warned(caplog)] == remedy
