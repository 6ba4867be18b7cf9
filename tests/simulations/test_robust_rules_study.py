"""The study of rules: all that can stand three of ten are in it, and its table has all runs."""

import importlib
import json
import sys
from pathlib import Path
from typing import get_args

import pytest
import tiny

from fedkd.config.robust import AnswersRule, ModelsRule
from fedkd.federation.prepare import prepare

FOLDER = Path(__file__).parents[2] / "simulations"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("robust_rules")
    for name in ("robust_rules", "poisoning"):
        sys.modules.pop(name, None)


def test_every_rule_is_tried_and_can_be_prepared(study, tmp_path):
    images = tiny.write_images(tmp_path / "i.npz", side=12, samples=1800)
    tried = {
        (robust.answers, robust.models)
        for defences in study.DEFENCES.values()
        for robust in defences.values()
        if robust is not None
    }
    assert {answers for answers, _ in tried} == set(get_args(AnswersRule))
    assert {models for _, models in tried} == {*get_args(ModelsRule)} - {"bulyan"}
    for method, defences in study.DEFENCES.items():
        of = study.poisoning.experiment(method, 0, data=str(images))
        for robust in defences.values():
            prepare(of.model_copy(update={"robust": robust}))


def test_runs_that_are_done_are_not_done_again_and_stand_in_the_table(
    study, tmp_path, monkeypatch, capsys
):
    ran = []

    def run(_of, cell):
        ran.append(cell)
        return cell

    monkeypatch.setattr(study, "run", run)
    arguments = ["--quick", "--seeds", "0", "--attacks", "lma", "--out", str(tmp_path / "o.jsonl")]
    study.main(arguments)
    assert {cell.attack for cell in ran} == {study.HONEST, "lma"}
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(lines) == len(ran)
    study.main(arguments)
    assert len(lines) == len(ran)
    assert "| geometric-median | 0.0 |" in capsys.readouterr().out
