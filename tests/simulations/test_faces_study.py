"""The study of faces writes folders in which nobody is tested who trained, and its examples run."""

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import shrunk
from PIL import Image

from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The study, and 40 drawn people of two pictures each, in the working folder."""
    spec = importlib.util.spec_from_file_location("faces_study", ROOT / "simulations" / "faces.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    draws = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "orl_faces" / f"s{number + 1}"
        folder.mkdir(parents=True)
        for name in ("1.pgm", "2.pgm"):
            Image.fromarray(draws.integers(0, 255, (60, 48), dtype=np.uint8)).save(folder / name)
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return module


def people(folder: Path) -> set[str]:
    return {each.parent.name for each in folder.rglob("*.pgm")}


def test_nobody_is_tested_who_trained_and_the_examples_run(
    study: ModuleType, tmp_path: Path
) -> None:
    study.write(tmp_path, seed=3)
    clients = [people(each) for each in sorted((tmp_path / "faces_of_clients/train").iterdir())]
    public = {each.name.partition("-")[0] for each in (tmp_path / "faces_public").iterdir()}
    tested = people(tmp_path / "faces_of_clients/test")
    assert [len(each) for each in (*clients, public, tested)] == [6, 6, 6, 12, 10]
    assert len(set().union(*clients, public, tested)) == 40
    assert people(tmp_path / "faces/test") == tested
    assert people(tmp_path / "faces/train") == set().union(*clients, public)

    party = tomllib.loads((ROOT / "fedkd/configs/faces.toml").read_text())
    summary = distil(shrunk.distillation(party), tmp_path / "party", lambda *_: None)
    assert summary["inputs"]["shape"] == [1, 56, 46]
    federation = tomllib.loads((ROOT / "fedkd/configs/faces_federated.toml").read_text())
    federation["data"]["public"]["size"] = 24
    found = simulate(shrunk.experiment(federation), tmp_path / "federation")
    assert [score["name"] for score in found["scores"]] == [
        "tar-at-far-1e-2",
        "tar-at-far-1e-3",
        "rank-1",
    ]


def test_without_the_faces_it_says_what_is_missing(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="no people; set FEDKD_DATA"):
        study.drawn(0)
