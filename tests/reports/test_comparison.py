import json
import math

import pytest
from example_run import change, write_run

from fedkd.errors import RunFolderError
from fedkd.reports.comparison import Spread, comparison_table, differences
from fedkd.runs.reading import read


def student(run, accuracy):
    summary = json.loads((run / "summary.json").read_text())
    change(
        run, student=summary["student"] | {"accuracy": accuracy, "best_accuracy": accuracy + 0.1}
    )


def test_rows_hold_mean_and_sample_standard_deviation(tmp_path):
    runs = [write_run(tmp_path / str(s), seed=s, rounds=1, clients=2) for s in (2, 0, 1)]
    for run, accuracy in zip(runs, (0.1, 0.2, 0.6), strict=True):
        student(run, accuracy)
    (row,) = comparison_table(runs)
    assert row.method == "fedmd"
    assert row.seeds == (0, 1, 2)
    assert row.student.mean == pytest.approx(0.3)
    assert row.student.std == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert row.student_best.mean == pytest.approx(0.4)
    assert row.bytes_up == Spread(80_256, 0)


def test_one_seed_has_no_deviation_and_some_teachers_give_no_mean(tmp_path):
    runs = [
        write_run(tmp_path / "a", method="a", rounds=1, lift=-0.2),
        write_run(tmp_path / "b0", method="b", rounds=1),
        write_run(tmp_path / "b1", method="b", rounds=1, seed=1, teachers=False, ensemble=False),
    ]
    best, other = comparison_table(runs)
    assert (best.method, other.method) == ("b", "a")
    assert best.teachers is None
    assert best.ensemble is None
    assert other.student.std is None
    assert other.teachers is not None


def test_nothing_to_compare_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no run folder was given"):
        comparison_table([])
    with pytest.raises(RunFolderError, match=r"no config\.toml"):
        comparison_table([tmp_path])


def test_a_folder_of_runs_is_refused_and_one_of_its_runs_is_named(tmp_path):
    for name in ("fedmd-seed0", "dsfl-seed0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text("")
    with pytest.raises(RunFolderError, match=r"folders of runs inside it.*dsfl-seed0'$"):
        read(tmp_path)


def test_parameters_of_a_method_may_differ_between_methods_only(tmp_path):
    runs = [write_run(tmp_path / str(i), method=m, seed=i) for i, m in enumerate("aab")]
    for run, extra in zip(runs, ("x = 1", "x = 1", "y = 2"), strict=True):
        (run / "config.toml").write_text((run / "config.toml").read_text() + extra + "\n")
    assert differences([read(run) for run in runs]) == []
    (runs[1] / "config.toml").write_text(
        (runs[1] / "config.toml").read_text().replace("x = 1", "x = 3")
    )
    assert differences([read(run) for run in runs]) == ["method.x"]
