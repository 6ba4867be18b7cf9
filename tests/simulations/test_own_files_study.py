"""The study of own files writes twelve of them, and runs what is guessed for one."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_table_of_flowers_runs_as_it_is_guessed(here: Path) -> None:
    where = ROOT / "simulations" / "own_files.py"
    spec = importlib.util.spec_from_file_location("own_files_study", where)
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    assert len(study.FILES) == 12
    row = study.tried(study.FILES["iris"](here), here, short=True)
    assert (row["runs"], row["task"], row["label"]) == (True, "classification", "species")
    assert row["score"].startswith("accuracy 0.")
