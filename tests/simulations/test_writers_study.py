"""The studies of models that write run from their strings to their figures."""

import json
import sys
from pathlib import Path
from typing import Any

import drawn
import pytest

from fedkd.runs import distil_schema

WORDS = ("open", "close", "file", "new")
GRU = {"name": "gru-seq2seq", "width": 8, "hidden": 8}
CAUSAL = {"name": "causal-transformer", "width": 8, "layers": 1, "heads": 1}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Strings of one project, which French has as English does."""
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    (tmp_path / "data" / "enfr").mkdir(parents=True)
    pairs = json.dumps([["project", text, text] for text in texts])
    (tmp_path / "data" / "enfr" / "pairs.json").write_text(pairs)
    return tmp_path / "data"


def ran(study: Any, monkeypatch: pytest.MonkeyPatch, *told: object) -> None:
    monkeypatch.setattr(sys, "argv", ["study", *map(str, told)])
    study.main()


def test_a_translator_is_held_against_copying(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sacrebleu", reason="scores of texts are sacrebleu's")
    study = drawn.study("translation")
    for name in ("TEACHER", "STUDENT"):
        monkeypatch.setattr(study, name, GRU)
    told = ("--data", data, "--out", tmp_path / "out", "--epochs", 1, 1, "--tokens", 300)
    ran(study, monkeypatch, *told)
    found = json.loads(capsys.readouterr().out)
    assert found["copying"]["chrf"] == 1
    assert {"teacher", "student alone", "student of sentences"} < set(found)
    assert 0 <= found["student of sentences"]["chrf"] < 1


def test_a_language_model_learns_on_from_the_first_student(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = drawn.study("language_model")
    for name in ("TEACHER", "STUDENT"):
        monkeypatch.setattr(study, name, CAUSAL)
    out = tmp_path / "out"
    ran(study, monkeypatch, "--data", data, "--out", out, "--strings", 16, "--epochs", 1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(line) & set(study.WAYS) for line in lines] == [{name} for name in study.WAYS]
    assert len({line["teacher"]["perplexity"] for line in lines}) == 1  # it learned once
    for number, name in enumerate(study.WAYS):
        told = distil_schema.read(out / "seed0" / f"run{number}").distillation
        assert (told.student.model.weights is not None) == name.startswith("offline kd, then")
