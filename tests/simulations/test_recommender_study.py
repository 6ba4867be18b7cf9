"""The study of recommenders reads its package, and all that it runs is well formed."""

import csv
import zipfile
from pathlib import Path

import drawn
import pytest

from fedkd import config
from fedkd.learning import forms

study = drawn.study("recommender")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Seven people who like six films; one film that nobody does, and a person who likes one."""
    ratings = [(f"{user}", f"{film}", 5) for user in range(7) for film in range(6)]
    ratings += [("0", "99", 2), ("8", "0", 4)]
    jobs = ["student", "engineer", "artist", "other", "lawyer", "student", "writer", "none", "none"]
    path = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        lines = ["u\ti\tr\tt", *(f"{u}\t{i}\t{r}\t0" for u, i, r in ratings)]
        archive.writestr(f"{study.INSIDE}.inter", "\n".join(lines))
        people = ["u\tage\tgender\tjob\tzip", *(f"{n}\t9\tF\t{j}\t0" for n, j in enumerate(jobs))]
        archive.writestr(f"{study.INSIDE}.user", "\n".join(people))
    return path


def test_films_that_five_liked_and_users_who_liked_five(wheel: Path, tmp_path: Path) -> None:
    assert study.fetched(tmp_path) == wheel
    study.write_films(wheel, tmp_path)
    assert (tmp_path / "films.txt").read_text().splitlines() == [str(film) for film in range(6)]
    with (tmp_path / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["user"] for row in rows} == {str(user) for user in range(7)}
    groups = {row["user"]: (row["two"], row["four"]) for row in rows}
    assert groups["0"] == ("technical", "group 0")
    assert groups["1"] == ("technical", "group 1")
    assert groups["2"] == ("others", "group 3")
    assert groups["3"] == ("others", "group 2")


@pytest.mark.parametrize("name", study.FEDERATIONS)
def test_its_federations_are_well_formed(name: str, tmp_path: Path) -> None:
    asked = config.parse(study.experiment(tmp_path, 0, *study.FEDERATIONS[name]))
    assert asked.data.interactions.items == str(tmp_path / "films.txt")


@pytest.mark.parametrize("name", study.LESSONS)
def test_its_lessons_are_well_formed(name: str, tmp_path: Path) -> None:
    lesson = study.LESSONS[name]
    asked = study.distillation(tmp_path, 0, lesson, tmp_path / "teacher-0.safetensors")
    for number, knowledge in enumerate(asked.knowledge):
        assert forms.parameters(knowledge, number).weight == 1


def test_its_lessons_are_of_one_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEACHING", "LEARNING"):
        monkeypatch.setitem(getattr(study, name), "epochs", 1)
    chosen = ["6 units, `divergence`", "6 units, `relaxed-ranking`"]
    monkeypatch.setattr(study, "LESSONS", {name: study.LESSONS[name] for name in chosen})
    study.write_clicks(tmp_path / "ratings.csv", users=40, items=25)
    (tmp_path / "items.txt").rename(tmp_path / "films.txt")
    found = dict(study.distilled(0, tmp_path))
    assert list(found) == ["teacher, 100 units", "6 units, alone", *chosen]
    trained = list(tmp_path.glob("distil-0-*/checkpoints/teacher-0.safetensors"))
    assert [path.parent.parent.name for path in trained] == ["distil-0-0"]
