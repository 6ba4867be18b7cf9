"""What docs/tasks.md says is so, and a task is written as it says."""

import re
import tomllib
from pathlib import Path

import pytest
from task_tables import experiment, write_numbers

from fedkd import tasks
from fedkd.jobs.simulate import simulate

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCS / "tasks.md").read_text(encoding="utf-8")
TUTORIAL = (DOCS / "tutorials" / "write_a_task.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)


def test_the_task_in_the_document_is_one_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [source] = re.findall(r"^%%writefile visits.py\n(.*?)^```", TUTORIAL, flags=re.M | re.S)
    (tmp_path / "visits.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    [shown] = [block for block in blocks("toml") if "visits" in block]
    changes = {
        "task": tomllib.loads(shown)["task"],
        "data.label": "visits",
        "data.ignore": ["price"],
    }
    own = experiment(write_numbers(tmp_path / "numbers.csv"), changes)
    summary = simulate(own, tmp_path / "run")
    assert [score["name"] for score in summary["scores"]] == ["deviance", "mean-error"]
    assert summary["student"]["deviance"] < 1.8  # an untrained model's: 5
    assert summary["student"]["mean_error"] < 1.9


def test_every_task_and_its_scores_are_documented() -> None:
    for name in tasks.BUILT_IN:
        [row] = re.findall(rf"^\| `{name}` \|(.*)\|$", DOCUMENT, flags=re.MULTILINE)
        kind, shown = tasks.find(name), re.findall(r"`([\w@-]+)`", row.split("|")[-1])
        known = [re.sub(r"@\d+$", "@k", score) for score in (*kind.default[:1], *kind.scores)]
        assert shown[0] == known[0]
        assert sorted(shown) == sorted({*known})
