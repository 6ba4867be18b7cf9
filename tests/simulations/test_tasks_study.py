"""The study of tasks writes the files that the examples in fedkd/configs/ are for."""

import importlib.util
from pathlib import Path

import pytest

from fedkd import config
from fedkd.jobs.simulate import simulate

ROOT = Path(__file__).parents[2]


def test_the_examples_run_on_the_files_that_the_study_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ROOT / "simulations" / "tasks.py"
    spec = importlib.util.spec_from_file_location("tasks_study", where)
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    views = tmp_path / "mfeat"
    views.mkdir()
    digits = [[0.1 * n, 1.0 - 0.1 * n, n] for n in range(10)] * 5
    lines = ["0,1,0", *(",".join(map(str, row)) for row in digits)]
    (views / "mfeat-fou.csv").write_text("\n".join(lines))
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name, write in study.FILES.items():
        write(tmp_path / name)
    few = ["rounds=1", "clients.training.epochs=1", "method.student.epochs=1"]
    for name, size in (("regression", 100), ("multi_label", 10)):
        example = config.load(
            ROOT / "fedkd" / "configs" / f"{name}.toml", [*few, f"data.public.size={size}"]
        )
        summary = simulate(example, tmp_path / name)
        assert tuple(score["name"] for score in summary["scores"]) == example.task.scores
