"""The study of hostile clients: what it runs, in which order, and what its tables say."""

import importlib.util
import sys
from pathlib import Path

import pytest
import tiny

from fedkd.auditing.poisoning.attacks import ATTACKS
from fedkd.auditing.poisoning.outcomes import HONEST, Poisoned

SCRIPT = Path(__file__).parents[2] / "simulations" / "poisoning.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("poisoning_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.write_images(tmp_path_factory.mktemp("data") / "i.npz", side=12, samples=1800)


def test_every_method_has_an_experiment_that_can_be_attacked(study, images):
    for method in (*study.METHODS, *study.OTHERS):
        of = study.experiment(method, 3, data=str(images))
        assert (of.method.name, of.seed, of.clients.count) == (method, 3, 10)
        assert set(study.EASY) <= set(study.applying(of)), method
    assert study.applying(study.experiment("fedavg", 0, data=str(images))) == [
        "silent", "label-flip", "collusion", "sign-and-scale", "backdoor", "replacement", "alie",
        "inner-product",
    ]  # fmt: skip


def test_honest_runs_come_first_and_no_cell_comes_twice(study):
    planned = list(study.cells(0, 5, ["collusion", "lma"]))
    assert [each.attack for each in planned[:2]] == [HONEST] * 2
    assert len({each.cell for each in planned}) == len(planned) == 2 + 2
    assert planned[2:4] == [Poisoned(name, 0.3, True, 5) for name in ("collusion", "lma")]
    assert set(study.HELD_OUT) < set(ATTACKS)


def test_runs_that_are_done_are_not_run_again_and_lines_are_read_back(
    study, images, tmp_path, monkeypatch
):
    asked = []

    def run(of, cell):
        asked.append((of.method.name, cell.cell))
        return Poisoned(*cell.cell, hostile=(1, 2), score=0.5, success=0.1)

    monkeypatch.setattr(study, "run", run)
    monkeypatch.setattr(study, "applying", lambda of: ["collusion"])
    out = tmp_path / "runs.jsonl"
    options = study.parsed(
        ["--methods", "fedavg", "--seeds", "0", "--out", str(out), "--data", str(images)]
    )
    study.study(options)
    assert len(asked) == 5
    study.study(options)
    assert len(asked) == 5
    assert study.done(out)[2] == (
        "fedavg",
        Poisoned("collusion", 0.3, True, 0, (1, 2), 0.5, 0.1),
    )


def test_tables_tell_held_out_attacks_apart_and_what_was_lost(study):
    def each(attack, share, defended, seed, score):
        return "fedmd", Poisoned(attack, share, defended, seed, (), score, 0.25)

    found = [
        each(HONEST, 0.0, False, 0, 0.7), each(HONEST, 0.0, False, 1, 0.6),
        each(HONEST, 0.0, True, 0, 0.69), each(HONEST, 0.0, True, 1, 0.6),
        each("lma", 0.3, True, 0, 0.65), each("lma", 0.3, True, 1, 0.6),
        each("collusion", 0.3, True, 0, None), each("silent", 0.3, True, 0, 0.64),
    ]  # fmt: skip
    seen, held_out, honest = study.tables(found).split("\n\n")
    assert "attacks held out" in held_out
    assert "62.5  lost   2.5 (worst   5.0; -1.0 more than by silence), success  25.0" in held_out
    assert "collusion" in seen
    assert "0.0  lost  70.0" in seen  # a run that stopped is a run lost
    assert "65.0  64.5, worst seed loses  1.0" in honest
