"""Keypoints through a configuration: federations of drawn figures, a distillation, refusals."""

from pathlib import Path
from typing import Any

import pytest

from fedkd import config
from fedkd.config import Experiment
from fedkd.data.readers import figures
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate

CONFIGS = Path(__file__).parents[2] / "fedkd" / "configs"
SMALL = '{name="hourglass", stages=1, width=4, depth=1}'
QUICK = ["seed=3", f"student.model={SMALL}"]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few figures, drawn anew."""
    monkeypatch.setattr(figures, "TRAIN", 8)
    monkeypatch.setattr(figures, "TEST", 3)
    figures.draw.cache_clear()


def experiment(*changes: str) -> Experiment:
    small = [
        *QUICK,
        "data.public.size=12",
        f"clients.models=[{SMALL}]",
        "clients.training.epochs=1",
    ]
    return config.load(CONFIGS / "keypoints.toml", [*small, *changes])


@pytest.mark.parametrize("method", ["fedmd", "feddf", "fedavg"])
def test_a_federation_of_unlike_sites_runs(tmp_path: Path, method: str) -> None:
    summary = simulate(experiment(f"method.name={method}"), tmp_path / "run")
    for figures_ in (summary["student"], summary["teachers"]):
        nme = figures_.get("nme", figures_.get("mean_nme"))
        assert 0 < nme < 5
    assert summary["inputs"]["classes"] == list(figures.JOINTS)
    assert "Student" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert (tmp_path / "run" / "examples.safetensors").exists()


def test_a_small_hourglass_learns_from_truth_heatmaps_and_an_earlier_stage(tmp_path: Path) -> None:
    small = ["teachers.0.training.epochs=1", "student.training.epochs=1", *QUICK]
    told = config.load_distillation(
        CONFIGS / "keypoints_distil.toml",
        [
            *small,
            f"teachers.0.model={SMALL}",
            'student.model={name="hourglass", stages=2, width=4, depth=1}',
            'knowledge=[{name="divergence"}, {name="fitnets", student="stages.0.heat", '
            'teacher="stages.0.heat"}]',
        ],
    )
    summary = distil(told, tmp_path / "run")
    assert summary["knowledge"] == ["divergence", "fitnets"]
    assert 0 < summary["student"]["nme"] < 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            ['clients.training.augment=[{name="flip"}]'],
            r"targets \(points\) would have to move too",
        ),
        (["method.name=fedproto"], "asks for classes, which task 'keypoints'"),
        (["task.stride=3"], r"expected task.stride to be 1, 2, 4"),
        (['clients.models=["resnet8"]'], r"does not answer in the shape \(12, 12, 14\)"),
        (['task.reference=["nose", "neck"]'], r"task.reference: unknown point 'nose'"),
        (['data.partition={scheme="dirichlet", alpha=1}', "clients.count=3"], r"dirichlet"),
    ],
)
def test_what_does_not_suit_points_is_refused_in_one_line(changes: list[Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as found:
        prepare(experiment(*changes))
    assert len(str(found.value).splitlines()) == 1
