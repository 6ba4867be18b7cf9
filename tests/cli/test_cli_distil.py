import pytest
import tomli_w
from small import table


@pytest.fixture
def config(here, rows):
    told = table(rows)
    (here / "small.toml").write_text(tomli_w.dumps(told))
    return here / "small.toml"


def test_distil_runs_reports_and_exports(run, config, here):
    status, said, _ = run("distil", config, "--set", "student.training.epochs=1")
    assert status == 0
    assert "student on labels alone" in said
    assert (here / "runs" / "small" / "report.html").exists()
    status, said, _ = run("export", here / "runs" / "small", "--format", "torchscript")
    assert status == 0
    assert "agrees with the original on 300 inputs, 100 of them of the test set" in said
    status, said, _ = run("report", here / "runs" / "small")
    assert (status, "report.html" in said) == (0, True)


def test_a_form_is_changed_by_its_number(run, config):
    status, _, complaint = run("distil", config, "--set", "knowledge.0.name=kdd")
    assert status == 2
    assert "did you mean 'kd'" in complaint
    status, _, complaint = run("distil", config, "--set", "knowledge.2.name=kd")
    assert status == 2
    assert "'2' is none of 2 entries, counted from 0" in complaint


def test_an_existing_folder_is_refused_without_resume(run, config, here):
    (here / "runs" / "small").mkdir(parents=True)
    status, _, complaint = run("distil", config)
    assert status == 2
    assert "go on with --resume" in complaint


def test_an_unknown_format_is_refused(run, config):
    status, _, complaint = run("export", "anywhere", "--format", "pickle")
    assert status == 2
    assert "torchscript" in complaint
