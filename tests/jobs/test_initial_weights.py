"""Runs whose models start from given weights."""

from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn

from fedkd import config, models, optional
from fedkd.config import ModelSpec
from fedkd.errors import ConfigError, RunFolderError
from fedkd.federation.deploy.bundle import for_wire, moved
from fedkd.federation.deploy.site import Policy
from fedkd.federation.prepare import prepare
from fedkd.jobs import local
from fedkd.jobs.simulate import simulate
from fedkd.learning.ways.prepare import prepare as prepare_distillation
from fedkd.models.weights import identified
from fedkd.runs import student

MLP = {"name": "mlp", "hidden": [16]}


def save(file: Path, spec: dict[str, Any], shape: tuple[int, ...], seed: int = 3) -> nn.Module:
    draws = torch.Generator().manual_seed(seed)
    model = models.build(
        ModelSpec.model_validate(spec), shape=shape, classes=tiny.CLASSES, generator=draws
    )
    save_file(model.state_dict(), file)
    return model


@pytest.fixture
def started(rows: Path, tmp_path: Path) -> config.Experiment:
    """An experiment whose student starts from a file."""
    save(tmp_path / "start.safetensors", MLP, (10,))
    start = MLP | {"weights": str(tmp_path / "start.safetensors")}
    return tiny.experiment(rows, {"rounds": 1, "student.model": start})


def test_a_run_says_what_it_started_from_and_goes_on_from_nothing_else(
    started: config.Experiment, tmp_path: Path
) -> None:
    file = tmp_path / "start.safetensors"
    simulate(started, tmp_path / "run")
    kept = config.load(tmp_path / "run" / "config.toml").student.model.weights
    assert kept is not None
    assert (kept.file, kept.sha256) == (str(file), sha256(file.read_bytes()).hexdigest())
    save(file, MLP, (10,), seed=4)
    with pytest.raises(RunFolderError, match="it differs in student"):
        simulate(started, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="all parties need the same initial weights"):
        simulate(config.load(tmp_path / "run" / "config.toml"), tmp_path / "again")
    file.unlink()
    found = student.load(tmp_path / "run").model.state_dict()
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "hidden1.weight": (16, 10),
        "hidden1.bias": (16,),
        "classifier.weight": (3, 16),
        "classifier.bias": (3,),
    }


def test_a_trial_deployment_hands_the_weights_out(
    started: config.Experiment, tmp_path: Path
) -> None:
    local.lay_out(started, tmp_path / "place")
    text = for_wire(prepare(started).experiment, 4)
    policy = Policy.load(tmp_path / "place/sites/client-0000/SITE.toml")
    policy.check(text, config.parse_json(text))
    own = config.with_specs(config.parse_json(text), partial(moved, where=policy.weights))
    assert identified(own.student.model).weights == identified(started.student.model).weights


def test_a_trial_deployment_allows_the_folders_that_it_hands_out(
    started: config.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = prepare(started)
    bert = ModelSpec(name=f"hf/{tmp_path}/bert")
    asked = started.student.model_copy(update={"model": bert})
    told = ready.experiment.model_copy(update={"student": asked})
    monkeypatch.setattr(local, "prepare", lambda _: replace(ready, experiment=told))
    local.lay_out(told, tmp_path / "place")
    policy = Policy.load(tmp_path / "place/sites/client-0000/SITE.toml")
    text = for_wire(told, 4)
    policy.check(text, config.parse_json(text))
    assert (tmp_path / "place/weights/bert").readlink() == tmp_path / "bert"


def test_the_student_starts_from_its_weights(started: config.Experiment, tmp_path: Path) -> None:
    wanted = save(tmp_path / "start.safetensors", MLP, (10,)).state_dict()
    setting = prepare(started).setting
    found = setting.build(setting.experiment.student.model, purpose="student").state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_weights_that_are_missing_are_said_before_data_is_looked_for(tmp_path: Path) -> None:
    start = MLP | {"weights": str(tmp_path / "none.safetensors")}
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        prepare(tiny.experiment(tmp_path / "no-data.npz", {"clients.models": [start]}))


def test_a_distillation_names_its_students_weights_too(rows: Path, tmp_path: Path) -> None:
    save(tmp_path / "start.safetensors", MLP, (10,))
    table = {
        "name": "tiny",
        "data": {"name": str(rows)},
        "teachers": [{"model": "mlp"}],
        "knowledge": [{"name": "kd"}],
        "student": {"model": MLP | {"weights": str(tmp_path / "start.safetensors")}},
    }
    ready = prepare_distillation(config.validate(config.Distillation, table))
    weights = ready.distillation.student.model.weights
    assert weights is not None
    assert weights.sha256 == sha256((tmp_path / "start.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_resnet_18_teaches_a_small_student(tmp_path: Path) -> None:
    pytest.importorskip("PIL")  # of the extra that torchvision comes with
    try:
        optional.load("torchvision", extra="vision")
    except ConfigError as error:
        pytest.skip(str(error))
    draws, file = np.random.default_rng(0), tmp_path / "resnet18.safetensors"
    parts = {}
    for part, size in (("train", 32), ("test", 12)):
        parts[f"x_{part}"] = draws.random((size, 3, 16, 16), dtype=np.float32)
        parts[f"y_{part}"] = np.arange(size) % tiny.CLASSES
    np.savez(tmp_path / "images.npz", **parts)
    save(file, {"name": "torchvision/resnet18"}, (3, 16, 16))
    names = ("torchvision/resnet18", "torchvision.models:resnet18")
    changes = {
        "rounds": 1,
        "data.public.size": 8,
        "clients.count": 2,
        "clients.models": [{"name": name, "weights": str(file)} for name in names],
        "clients.training.learning_rate": 1e-12,
        "clients.training.momentum": 0.0,
        "student.model": "lenet5",
    }
    summary = simulate(tiny.experiment(tmp_path / "images.npz", changes), tmp_path / "run")
    assert summary["failures"] == 0
    # Both start from the same file, and what they learn is nothing.
    [record] = tiny.rounds(tmp_path / "run")
    named, imported = record["teachers"]["by_client"].values()
    assert named["model"].startswith("torchvision/resnet18")
    assert abs(named["accuracy"] - imported["accuracy"]) <= 1 / 3
    assert (tmp_path / "run" / "config.toml").read_text().count(
        sha256(file.read_bytes()).hexdigest()
    ) == 2
