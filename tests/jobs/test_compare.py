"""Running several methods and seeds; how they are shown is test_comparison.py's."""

from contextlib import nullcontext

import pytest
import tiny

from fedkd.errors import ConfigError, FedkdError, RunFolderError
from fedkd.jobs.compare import compare, plan
from fedkd.reports.comparison import comparison_table
from fedkd.reports.report import write_comparison


def watch(experiment):
    return nullcontext(tiny.Quiet())


def test_a_plan_is_every_method_with_every_seed_once(rows):
    own = tiny.experiment(rows, {"method": {"name": "fedmd", "temperature": 3.0}})
    runs = plan(own, ["feddf", "fedmd", "feddf"], 2)
    assert [(run.config.method.name, run.config.seed) for run in runs] == [
        ("feddf", 7),
        ("feddf", 8),
        ("fedmd", 7),
        ("fedmd", 8),
    ]
    assert runs[0].config.method.parameters == {}  # its defaults
    assert runs[2].config.method.parameters["temperature"] == 3.0
    assert all(run.config.data == own.data for run in runs)


def test_a_plan_has_every_form_of_answers_and_says_which_is_none(rows, tmp_path):
    own = tiny.experiment(rows, {"rounds": 1})
    forms = ["float16", "transform+delta+step=1.5", "float16"]
    runs = plan(own, ["fedmd"], 1, forms)
    assert [run.config.exchange.name for run in runs] == ["float16", "transform+step=1.5+delta"]
    assert runs[1].config.exchange.step == 1.5
    folders = compare(runs, tmp_path / "compared", watch).folders
    assert [path.name for path in folders] == [
        "fedmd-float16-seed7",
        "fedmd-transform+step=1.5+delta-seed7",
    ]
    rows_by_form = comparison_table(folders)
    assert {row.method for row in rows_by_form} == {
        "fedmd, float16",
        "fedmd, transform+step=1.5+delta",
    }
    page = write_comparison(folders, tmp_path / "page.html").read_text("utf-8")
    assert "needs the fewest bytes" in page
    assert "Not like for like" not in page
    for wrong, said in [("int5", "exchange.answers"), ("int4+entropi", "exchange.entropi")]:
        with pytest.raises(ConfigError, match=said):
            plan(own, ["fedmd"], 1, [wrong])


@pytest.mark.parametrize("names", [[], ["fedmd", "fedavg"], ["fedmd", "nothing"], ["dense"]])
def test_a_method_that_cannot_run_spoils_the_plan(rows, names):
    with pytest.raises(ConfigError):
        plan(tiny.experiment(rows), names, 1)


def test_a_comparison_is_a_folder_of_runs_and_is_taken_up_again(rows, tmp_path):
    runs = plan(tiny.experiment(rows, {"rounds": 1}), ["fedmd", "local"], 2)
    folder = tmp_path / "compared"
    met = []

    def stumble(experiment):
        met.append(experiment)
        if len(met) == 3:
            raise FedkdError("cut off")
        return watch(experiment)

    stumbled = compare(runs, folder, stumble)
    assert stumbled.failed == {"local-seed7": "cut off"}
    assert [path.name for path in stumbled.folders] == ["fedmd-seed7", "fedmd-seed8", "local-seed8"]
    with pytest.raises(FedkdError, match=r"1 of 4 runs failed.*local-seed7: cut off"):
        stumbled.require_all()
    with pytest.raises(RunFolderError, match="--resume"):
        compare(runs, folder, watch)
    hashes = [tiny.student_hash(folder / f"fedmd-seed{seed}") for seed in (7, 8)]
    done = compare(runs, folder, watch, resume=True)
    done.require_all()
    folders = done.folders
    assert [path.name for path in folders] == [
        "fedmd-seed7",
        "fedmd-seed8",
        "local-seed7",
        "local-seed8",
    ]
    assert [tiny.student_hash(path) for path in folders[:2]] == hashes
    assert all((path / "summary.json").exists() for path in folders)


def test_what_only_the_data_can_tell_is_found_before_the_first_run(rows, tmp_path):
    """DENSE wants images: nothing in its plan says that these are rows."""
    experiment = tiny.experiment(rows, {"rounds": 1})
    runs = plan(experiment, ["fedmd", "dense"], 1)
    with pytest.raises(ConfigError, match="asks for image"):
        compare(runs, tmp_path / "compared", watch)
    assert not (tmp_path / "compared").exists()
