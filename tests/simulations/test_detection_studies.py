"""The studies of boxes write files that are read as they were meant, and say what they lack."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fedkd import tasks
from fedkd.config import TaskChoice
from fedkd.data.readers.pictures import boxes

SIMULATIONS = Path(__file__).parents[2] / "simulations"


def study(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SIMULATIONS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_squares_are_written_with_the_boxes_that_are_read_again() -> None:
    held = np.array([[0, 0, 3, 17, 20.5], [0, 4, 5, 128, 128]], np.float32)
    again = boxes.voc(study("detection").voc(held))
    assert np.array_equal(boxes.targets(again, ["crown"]), held)
    assert boxes.voc(study("detection").voc(held[:0])) == []


def test_without_the_crowns_the_study_says_where_they_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="crowns: not found; set FEDKD_DATA"):
        study("detection").write(tmp_path)


def test_every_eighth_frame_is_read_at_half_its_size(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV reads the video: pip install 'fedkd[opencv]'")
    video = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for brightness in range(17):
        writer.write(np.full((64, 96, 3), 10 * brightness, np.uint8))
    writer.release()
    frames = study("pedestrians").frames(video)
    assert [frame.shape for frame in frames] == [(32, 48)] * 3
    assert [int(frame.mean().round()) for frame in frames] == pytest.approx([0, 80, 160], abs=3)
    with pytest.raises(SystemExit, match=r"none\.avi: no frame can be read; install .* --video"):
        study("pedestrians").frames(tmp_path / "none.avi")


def test_the_people_detector_answers_on_the_task_s_grid_and_sees_nobody_in_the_dark() -> None:
    pytest.importorskip(
        "cv2", reason="the people detector is OpenCV's: pip install 'fedkd[opencv]'"
    )
    choice = TaskChoice(name="detection", stride=8)
    task = tasks.build(choice, inputs=(1, 144, 96), names=("person",))
    answers = study("pedestrians").People(task)(torch.zeros(2, 1, 144, 96))
    assert answers.shape == (2, *task.answer)
    assert (answers[..., 0].sigmoid() < 0.01).all()
