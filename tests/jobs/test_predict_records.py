"""Students of all that is no text, asked about what their data had been, which is gone."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from PIL import Image

from fedkd import config
from fedkd.cli import app
from fedkd.cli.command import command_of
from fedkd.config import Data, TaskChoice
from fedkd.errors import DataError, UsageError
from fedkd.jobs.predict import predict
from fedkd.jobs.predicting.prediction import FoundBox, FoundMask, FoundPoint
from fedkd.jobs.simulate import simulate
from fedkd.runs import student as students
from fedkd.runs.student import FinishedStudent
from fedkd.tasks import build


class Fixed(torch.nn.Module):
    """Answers what it was made with, whatever it is asked."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(len(x), *self.answer.shape)


def of(
    task: str, shape: tuple[int, ...], names: tuple[str, ...], model: Any, **data: Any
) -> FinishedStudent:
    """A student of a task, as a run's folder gives it."""
    asked = build(TaskChoice(name=task), inputs=shape, names=names)
    made = model if isinstance(model, torch.nn.Module) else Fixed(torch.as_tensor(model).float())
    features, scale = data.pop("features", ()), data.pop("scale", {})
    return FinishedStudent(
        name="fixed",
        model=made.eval(),
        shape=shape,
        class_names=asked.names,
        features=features,
        scale=scale,
        task=asked,
        source=Data(**data),
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a table that is deleted: two columns, one with gaps, limits, and classes by name."""
    place = tmp_path_factory.mktemp("table")
    draws = np.random.default_rng(0)
    rows = ["age,pressure,sick"]
    for n in range(160):
        age, sick = 20 + n % 50, "yes" if n % 50 > 25 else "no"
        pressure = "" if n % 7 == 0 else f"{100 + draws.integers(40)}"
        rows.append(f"{age},{pressure},{sick}")
    (place / "patients.csv").write_text("\n".join(rows))
    changes = {
        "rounds": 1,
        "data.label": "sick",
        "data.missing": "indicate",
        "data.limits": {"age": [20, 70], "pressure": [80, 160]},
        "data.public": None,
        "clients.count": 2,
        "clients.models": [{"name": "mlp", "hidden": [8]}],
        "clients.training.epochs": 30,
        "student.model": {"name": "mlp", "hidden": [8]},
        "method": {"name": "fedavg"},
    }
    experiment = config.parse(tiny.table(place / "patients.csv", changes))
    simulate(experiment, place / "run", tiny.Quiet())
    (place / "patients.csv").unlink()
    return place / "run"


def test_rows_are_answered_by_name_with_their_data_deleted(table: Path, tmp_path: Path) -> None:
    young, old = predict(table, [{"age": 21, "pressure": 120}, {"pressure": None, "age": 69}])
    assert (young.answer, old.answer) == ("no", "yes")
    assert predict(table, {"age": 21, "pressure": 120, "name": "left out"}) == [young]
    frame = SimpleNamespace(  # as pandas has it
        columns=["age"], to_dict=lambda how: [{"age": 69, "pressure": math.nan}] if how else None
    )
    assert predict(table, frame)[0].scores == pytest.approx(old.scores, rel=1e-4)
    (tmp_path / "more.csv").write_text("pressure;age\n120;21\n;69\n")
    assert [each.scores for each in predict(table, tmp_path / "more.csv")] == [
        young.scores,
        old.scores,
    ]
    said = CliRunner().invoke(
        command_of(app), ["predict", str(table), "--input", str(tmp_path / "more.csv"), "--json"]
    )
    assert json.loads(said.output)[1] == old.as_json() | {"input": 1}
    # What an array is asked about is not scaled by hand either.
    as_array = predict(table, np.array([[21, 120, 0, 0]])[:, [0, 2, 1, 3]])
    assert as_array[0].scores == pytest.approx(young.scores)


def test_a_run_is_its_three_files(table: Path, tmp_path: Path) -> None:
    for name in ("config.toml", "summary.json", "student.safetensors"):
        shutil.copy(table / name, tmp_path / name)
    assert predict(tmp_path, {"age": 69, "pressure": 100})[0].answer == "yes"


def test_decimals_have_the_point_of_the_runs_data(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table, tmp_path / "run")
    told = (table / "config.toml").read_text().replace("[data]", '[data]\ndecimal = ","', 1)
    (tmp_path / "run" / "config.toml").write_text(told)
    [one] = predict(table, {"age": 44.5, "pressure": 120.0})
    for row in ({"age": "44,5", "pressure": "120"}, {"age": 44.5, "pressure": np.float64(120)}):
        assert predict(tmp_path / "run", row) == [one]


def test_what_a_student_does_not_take_is_one_line(table: Path, tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    for given, match in (
        ({"age": 3}, "no column 'pressure', which the student takes"),
        ({"age": "old", "pressure": 1}, "'old' is no finite number"),
        (np.zeros(3), r"shape \(3,\) was given, and the student takes records of shape \(4,\)"),
        ([], "nothing was given"),
        (tmp_path / "a.png", "is a picture, and the student takes records of shape"),
        (tmp_path / "a.doc", "expected a folder of pictures, or a file that ends in"),
        (tmp_path / "a.npy", "cannot be read as arrays"),
        (np.array(["a"]), "expected numbers"),
    ):
        with pytest.raises((DataError, UsageError), match=match) as refused:
            predict(table, given)
        assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="--most is for a student of texts"):
        predict(table, {"age": 3, "pressure": 1}, most=3)
    nothing = CliRunner().invoke(command_of(app), ["predict", str(table)])
    assert "name texts by --text, or files by --input" in str(nothing.exception)


def test_patients_are_told_by_their_tests_as_uci_has_them() -> None:
    class First(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2]

    seen = ("age", "thal=7")
    student = of(
        "classification", (2,), ("healthy", "ill"), First(), features=seen, name="heart-disease"
    )
    [old, unknown] = predict(
        student, [{"age": 80, "sex": 1, "cp": 4, "thal": 7}, {"age": 55, "sex": 0, "cp": 1}]
    )
    assert old.scores == pytest.approx({"healthy": 0.5, "ill": 0.5})  # both are 1
    assert unknown.scores == pytest.approx({"healthy": 0.5, "ill": 0.5})  # both are 0
    with pytest.raises(DataError, match=r"line 0: age is missing, which every patient has"):
        predict(student, {"sex": 1, "cp": 4})


def mean_brightness() -> torch.nn.Module:
    """Two logits of an image: its mean, and nothing."""

    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = x.flatten(1).mean(dim=1)
            return torch.stack([bright, torch.zeros_like(bright)], dim=1)

    return Mean()


@pytest.mark.parametrize("form", ["file", "folder", "bytes", "channel", "batch", "float", ".npz"])
def test_an_image_in_any_form_is_the_same_image(form: str, tmp_path: Path) -> None:
    student = of("classification", (1, 4, 6), ("bright", "dark"), mean_brightness())
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.savez(tmp_path / "a.npz", x=pixels[None])
    makes: dict[str, Callable[[], Any]] = {
        "file": lambda: tmp_path / "a.png",
        "folder": lambda: str(tmp_path),
        "bytes": lambda: pixels,
        "channel": lambda: torch.from_numpy(pixels)[None],
        "batch": lambda: pixels[None, :, :, None],
        "float": lambda: pixels / 255,
        ".npz": lambda: tmp_path / "a.npz",
    }
    [found] = predict(student, makes[form]())
    mean = pixels.mean() / 255
    assert found.answer == "bright"
    assert found.scores["bright"] == pytest.approx(1 / (1 + math.exp(-mean)), abs=1e-6)


def test_pictures_are_brought_to_the_form_that_the_run_had(tmp_path: Path) -> None:
    pixels = np.full((8, 12, 3), 128, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    names = ("bright", "dark")
    student = of("classification", (1, 4, 6), names, mean_brightness(), size=(4, 6), channels=1)
    [found] = predict(student, tmp_path / "a.png")
    assert found.scores["bright"] == pytest.approx(1 / (1 + math.exp(-128 / 255)), abs=1e-4)
    window = of("classification", (1, 2, 2), names, mean_brightness(), window=(0, 100))
    [cut] = predict(window, np.full((2, 2), 999.0))
    assert cut.scores["bright"] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    unlike = of("classification", (1, 4, 6), names, mean_brightness())
    with pytest.raises(DataError, match="has 3 channels; expected 1"):
        predict(unlike, tmp_path / "a.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="has 8x12 pixels; expected 4x6"):
        predict(unlike, tmp_path / "b.png")


def test_values_stand_on_the_scale_and_the_range_of_the_run() -> None:
    student = of(
        "classification",
        (1, 2, 2),
        ("bright", "dark"),
        mean_brightness(),
        range=(-100, 300),
        scale={"*": (0.25, 0.75)},
    )
    [found] = predict(student, np.full((2, 2), 200.0))  # 0.75 of the range, 1 on the scale
    assert found.scores["bright"] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    with pytest.raises(DataError, match=r"is 301.0 at index .*; expected a number within data.ran"):
        predict(student, np.full((2, 2), 301.0))


def test_images_scaled_by_a_public_set_keep_their_scale(tmp_path: Path) -> None:
    changes = {
        "rounds": 1,
        "data.scale": "public",
        "clients.count": 2,
        "method.student.epochs": 1,
    }
    data = tiny.write_images(tmp_path / "images.npz", side=4)
    simulate(tiny.experiment(data, changes), tmp_path / "run", tiny.Quiet())
    data.unlink()
    kept = students.load(tmp_path / "run")
    partition = json.loads((tmp_path / "run" / "partition.json").read_text())
    assert kept.scale == {"*": tuple(partition["scale"]["*"])}
    file = tmp_path / "run" / "summary.json"
    summary = json.loads(file.read_text())
    del summary["inputs"]["scale"]  # as a run was written before
    file.write_text(json.dumps(summary))
    assert students.load(tmp_path / "run").scale == kept.scale
    del summary["inputs"]
    file.write_text(json.dumps(summary))
    with pytest.raises(DataError, match="kept nothing of its student's inputs, and its data is"):
        students.load(tmp_path / "run")


def test_labels_numbers_and_items() -> None:
    logits = [math.log(3), -math.log(3), 0.1]
    [labels] = predict(of("multi-label", (2,), ("a", "b", "c"), logits), [0.5, 0.5])
    assert labels.answer == ("a", "c")
    assert labels.scores == pytest.approx({"a": 0.75, "c": 1 / (1 + math.exp(-0.1)), "b": 0.25})
    [none] = predict(of("multi-label", (2,), ("a", "b"), [-1, -1]), [[0.5, 0.5]])
    assert (none.answer, str(none)) == ((), "none")
    regression = of("regression", (2,), ("price", "rent"), [1.5, -2])
    [numbers] = predict(regression, [0, 1])
    assert numbers.answer == {"price": 1.5, "rent": -2}
    assert str(numbers) == "price 1.5, rent -2"
    items = of("recommendation", (3,), ("Alien", "Brazil", "Casablanca"), [-1e4, 2, 1])
    [found] = predict(items, [["Alien"]])
    assert found.answer == ("Brazil", "Casablanca")
    assert sum(found.scores.values()) == pytest.approx(1)
    with pytest.raises(DataError, match=r"item .Allien. is none of 3 .*did you mean 'Alien'"):
        predict(items, [["Allien"]])


def test_masks_of_pictures_that_are_larger_than_a_square_are_whole(tmp_path: Path) -> None:
    class Threshold(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = x[:, 0] - 0.5
            return torch.stack([-bright, bright], dim=-1)

    student = of("segmentation", (1, 4, 4), ("0", "1"), Threshold(), tile=4)
    for shape in ((4, 4), (9, 6), (3, 5), (2, 2)):
        pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        [found] = predict(student, tmp_path / "a.png")
        assert isinstance(found.answer, FoundMask)
        assert found.answer.classes.tolist() == (pixels > 127.5).tolist()
        assert found.scores["1"] == pytest.approx((pixels > 127.5).mean())
    assert found.as_json()["answer"]["classes"] == (pixels > 127.5).tolist()


def test_boxes_points_and_vectors() -> None:
    cells = torch.full((2, 2, 6), -9.0)
    cells[1, 0] = torch.tensor([-9.0, 2.0, math.log(0.5), math.log(1.0), 0, 0])
    [boxes] = predict(of("detection", (1, 8, 8), ("cat", "dog"), cells), np.zeros((8, 8)))
    [box] = boxes.answer
    assert isinstance(box, FoundBox)
    assert (box.name, box.score) == ("dog", pytest.approx(1 / (1 + math.exp(-2))))
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((1, 4, 3, 8))
    heat = torch.zeros(2, 2, 1)
    heat[0, 1] = 1
    [points] = predict(of("keypoints", (1, 8, 8), ("nose",), heat), np.zeros((8, 8)))
    assert points.answer == {"nose": FoundPoint(6.0, 2.0)}
    student = of("embedding", (2,), ("anna", "ben"), torch.tensor([3.0, 4.0] + [0.0] * 62))
    [vector] = predict(student, [0.5, 0.5])
    assert isinstance(vector.answer, np.ndarray)
    assert vector.answer[:2] == pytest.approx([0.6, 0.8])
    assert "anna" not in str(vector.as_json())
