"""Every way to learn, by its name in a configuration."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import nn

from fedkd import config
from fedkd.config import Distillation
from fedkd.errors import ConfigError
from fedkd.jobs.distil import distil
from fedkd.learning.ways import BUILT_IN, prepare, privileged
from fedkd.learning.ways.base import StudentRun
from fedkd.rng import torch_default
from fedkd.runs.student import load

HOW = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05}
SMALL = {"name": "mlp", "hidden": [8]}
TEACHER = {"model": {"name": "mlp", "hidden": [16]}, "training": HOW}
CNN = {"model": "dense-cnn", "training": HOW}
FREE = {"epochs": 2, "optimiser": "adam", "learning_rate": 0.01}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "mutual": ("rows", {"way": {"peers": [{"name": "mlp", "hidden": [4, 4]}]}}),
    "born-again": ("rows", {"way": {"generations": 1, "ensemble": True}}),
    "early-exits": ("rows", {"way": {"exits": ["hidden1"], "keep": True}}),
    "multi-teacher": (
        "rows",
        {"way": {"average": "class", "skew": 1.0}, "teachers": [TEACHER, TEACHER]},
    ),
    "continual": (
        "rows",
        {"way": {"exemplars": 6}, "data": {"stream": {"by": "classes", "stages": 2}}},
    ),
    "mean-teacher": ("rows", {"way": {"labelled": 60, "shift": 0}}),
    "privileged": (
        "squares",
        {"way": {"side": 4, "blind": [1]}, "teachers": [TEACHER, TEACHER]},
    ),
    "dafl": (
        "squares",
        {
            "way": {"steps": 4, "batch_size": 16, "latent": 8, "width": 4},
            "teachers": [CNN],
            "student": {"model": SMALL, "training": FREE},
        },
    ),
    "adi": (
        "squares",
        {
            "way": {"steps": 5, "batch_size": 16},
            "teachers": [CNN],
            "student": {"model": SMALL, "training": FREE},
        },
    ),
}


OF_WRITERS = {"sequence-level", "on-policy"}
"""See `test_ways_of_writers`."""


def ignore(stage: str, done: int, total: int) -> None: ...


def table(name: str, files: dict[str, Path], **changes: Any) -> Distillation:
    data, own = WAYS[name]
    base: dict[str, Any] = {
        "name": name,
        "data": {"name": str(files[data])},
        "student": {"model": SMALL, "training": HOW},
        **own,
    }
    base["data"] = {"name": str(files[data]), **own.get("data", {})}
    base["way"] = {"name": name, **own["way"], **changes}
    return config.validate(Distillation, base)


@pytest.fixture(scope="module")
def files(rows: Path, squares: Path) -> dict[str, Path]:
    return {"rows": rows, "squares": squares}


@pytest.fixture(scope="module")
def run(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("ways")
    done: dict[str, dict[str, Any]] = {}

    def once(name: str) -> tuple[Path, dict[str, Any]]:
        if name not in done:
            done[name] = distil(table(name, files), folder / name, ignore)
        return folder / name, done[name]

    return once


def test_all_ways_are_here() -> None:
    assert set(BUILT_IN) == set(WAYS) | {"offline", "injection", "dfad", *OF_WRITERS}


@pytest.mark.parametrize("name", WAYS)
def test_a_way_ends_with_a_student_of_its_configuration(name: str, run: Any) -> None:
    folder, summary = run(name)
    told = config.load_distillation(folder / "config.toml")
    ready = prepare.prepare(told)
    assert ready.distillation == told  # every parameter is said
    student = ready.student(ready.teachers)
    student.load_state_dict(load_file(folder / "student.safetensors"))
    right = (student.eval()(ready.data.test.x).argmax(dim=1) == ready.data.test.y).float()
    assert right.mean().item() == pytest.approx(summary["student"]["accuracy"])
    if name not in {"dafl", "adi"}:
        assert summary["student"]["accuracy"] > 0.5  # chance is a third


@pytest.mark.parametrize("name", ["mutual", "multi-teacher"])
def test_a_factory_may_ask_for_the_task(
    name: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"model": "own_models:by_task", "training": {**HOW, "epochs": 1}}
    base = table(name, files).model_dump(exclude_defaults=True)
    base["student"], base["teachers"] = own, [own] * len(base.get("teachers", ()))
    if name == "mutual":
        base["way"]["peers"] = [own["model"]]
    distil(config.validate(Distillation, base), tmp_path / "run", ignore)
    assert isinstance(load(tmp_path / "run").model, nn.Linear)


@pytest.mark.parametrize("name", ["mutual", "multi-teacher", "dafl", "adi"])
def test_a_way_repeats_to_the_bit_on_any_number_of_threads(
    name: str, run: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    folder, summary = run(name)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = distil(table(name, files), tmp_path / "again", ignore)
    finally:
        torch.set_num_threads(before)
    assert again["student"]["accuracy"] == summary["student"]["accuracy"]
    assert tiny.student_hash(tmp_path / "again") == tiny.student_hash(folder)


@pytest.mark.parametrize("name", ["multi-teacher", "privileged", "dafl", "adi"])
def test_teachers_stay_as_their_training_left_them(name: str, run: Any) -> None:
    folder, summary = run(name)
    ready = prepare.prepare(config.load_distillation(folder / "config.toml"))
    for number, teacher in enumerate(ready.teachers):
        kept = load_file(folder / "checkpoints" / f"teacher-{number}.safetensors")
        teacher.load_state_dict(kept)
        test = ready.shares.teachers[number].test
        right = (teacher.eval()(test.x).argmax(dim=1) == test.y).float().mean().item()
        assert right == pytest.approx(summary["teachers"][number]["accuracy"])
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    last = {each["stage"]: each["accuracy"] for each in lines}
    assert [last[f"teacher {n}"] for n in range(len(ready.teachers))] == [
        each["accuracy"] for each in summary["teachers"]
    ]


def test_student_and_teachers_have_their_shares(files: dict[str, Path]) -> None:
    ready = prepare.prepare(table("privileged", files))
    assert ready.data.shape == (1, 4, 4)
    assert [has.shape for has in ready.shares.teachers] == [(1, 8, 8), (1, 4, 4)]
    halves = ready.shares.whole.train.x.reshape(-1, 1, 4, 2, 4, 2).mean(dim=(3, 5))
    assert (halves - ready.data.train.x).abs().mean() < 0.1  # antialiased, so near to the mean
    few = prepare.prepare(table("mean-teacher", files))
    assert (len(few.data.train), len(few.shares.whole.train)) == (60, 240)
    dealt = prepare.prepare(table("multi-teacher", files))
    assert sum(len(has.train) for has in dealt.shares.teachers) == 240
    assert len(dealt.data.train) == 240


def test_columns_are_hidden_and_who_lacks_them_all_is_not_told_of() -> None:
    features = ("age", "ca", "ca?", "thal=3", "thal=7", "thal?")
    x = torch.tensor([[1.0, 5, 0, 1, 0, 0], [2, 0, 1, 0, 1, 0], [3, 0, 1, 0, 0, 1]])
    hidden = ["ca", "thal"]
    assert privileged.was_measured(x, features, hidden).tolist() == [True, True, False]
    assert privileged.was_measured(x, features, ["ca"]).tolist() == [True, False, False]
    assert privileged.was_measured(x, features, ["age"]).tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("early-exits", {"exits": ["hiden1"]}, r"unknown layer 'hiden1'.*hidden1"),
        ("privileged", {"side": None}, "expected way.columns.*or way.side"),
        ("privileged", {"side": 9}, r"way.side is 9: expected images .* \(1, 8, 8\)"),
        ("privileged", {"blind": [2]}, "way.blind names teacher 2: there are 2"),
        ("privileged", {"side": None, "columns": ["a"]}, "way.columns needs columns with names"),
        ("mutual", {"peers": []}, "way.peers"),
        ("mutual", {"peers": ["mpl"]}, "unknown model 'mpl'"),
        ("mean-teacher", {"shift": 1}, "way.shift is 1.*expected 0"),
        ("dafl", {"entropi": 1}, "unknown key 'way.entropi'"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    name: str, changes: dict[str, Any], message: str, files: dict[str, Path], tmp_path: Path
) -> None:
    changed = {key: value for key, value in changes.items() if value is not None}
    told = table(name, files, **changed)
    gone = {key for key, value in changes.items() if value is None}
    way = {key: value for key, value in told.way.model_dump().items() if key not in gone}
    told = told.model_copy(update={"way": config.WayChoice.model_validate(way)})
    with pytest.raises(ConfigError, match=message):
        distil(told, tmp_path / "run", ignore)
    assert not (tmp_path / "run").exists()


def learnt(name: str, files: dict[str, Path], kind: str) -> dict[str, torch.Tensor]:
    """The student of a way whose models are of one kind: `""`, or `"careful_"`, which it equals."""
    told = table(name, files)

    def of_kind(model: config.ModelSpec) -> config.ModelSpec:
        own = "cnn" if model.name == "dense-cnn" else "mlp"
        return model.model_copy(update={"name": f"own_models:{kind}{own}"})

    def changed(part: Any) -> Any:
        return part.model_copy(update={"model": of_kind(part.model)})

    update = {"teachers": tuple(map(changed, told.teachers)), "student": changed(told.student)}
    ready = prepare.prepare(told.model_copy(update=update))

    def stage(name: str, model: nn.Module, train: Any, **_: Any) -> None:
        with torch_default(torch.Generator().manual_seed(0)):
            train(lambda *_: None)
        model.eval()

    whole = ready.shares.whole
    inputs = [whole.train.x, whole.test.x]
    before = [each.clone() for each in inputs]
    fresh = partial(ready.student, ready.teachers)
    student_run = StudentRun(ready.distillation, ready.shares, ready.teachers, stage, fresh)
    student = ready.way.learn(student_run, ready.params)
    assert all(torch.equal(*pair) for pair in zip(inputs, before, strict=True))
    return student.state_dict()


@pytest.mark.parametrize("name", [name for name in WAYS if name != "privileged"])
def test_a_model_that_overwrites_its_inputs_changes_nothing(
    name: str, files: dict[str, Path]
) -> None:
    ours, twins = (learnt(name, files, kind) for kind in ("", "careful_"))
    assert all(torch.equal(ours[key], twins[key]) for key in twins)
