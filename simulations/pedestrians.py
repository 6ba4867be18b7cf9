"""Pedestrians: OpenCV's people detector, of which only answers are seen, teaches a small network.

    python simulations/pedestrians.py [--seeds 0 1 2] [--video FILE]    # a table, in minutes
    python simulations/pedestrians.py --write FOLDER                    # the frames alone

The video is Debian's vtest.avi (package opencv-doc): 795 frames of people who walk across a square.
Nobody has drawn boxes around them, so what is scored is how far the student agrees with its
teacher. Every eighth frame is taken, at half its size and in grey: the first 70% to learn from, the
rest for the test. The teacher is histograms of oriented gradients with a linear classifier (Dalal
and Triggs 2005, CVPR), which OpenCV brings with its weights.

`pedestrians.toml` says how the student learns, and `People` is the teacher:
`PYTHONPATH=simulations fedkd distil pedestrians` finds it. A teacher without anything
to train may be any module whose answers are those of the task.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedkd import config, optional
from fedkd.jobs.distil import distil
from fedkd.tasks import Task
from fedkd.tasks.boxes import grid
from fedkd.tasks.boxes.geometry import PADDING

CONFIG = Path(__file__).parents[1] / "fedkd" / "configs" / "pedestrians.toml"
VIDEO = Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi")
EVERY, SHRUNK, TRAINING = 8, 2, 0.7
FIGURES = ("ap50", "ap")


class People(nn.Module):
    """OpenCV's people detector as a teacher: (N, 1, H, W) in [0, 1] -> answers on the task's grid.

    It looks at images at `SHRUNK` times their size. A box is as likely as the classifier's margin
    says, as log odds.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.grid = task.answer[:2]
        self.stride = task.inputs[1] // task.answer[0]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        boxes = [people((255 * each[0]).byte().numpy()) for each in x]
        found = torch.full((len(x), max(1, *map(len, boxes)), 6), float(PADDING))
        for row, own in zip(found, boxes, strict=True):
            row[: len(own)] = own
        return grid.answered(found, self.grid, stride=self.stride, classes=1)


def people(image: NDArray[np.uint8]) -> Tensor:
    """The boxes of people in a grey image (H, W): (K, 6), as `grid.found` has them."""
    cv2 = optional.load("cv2", extra="opencv")
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    large = cv2.resize(image, None, fx=SHRUNK, fy=SHRUNK)
    corners, margins = detector.detectMultiScale(large, winStride=(8, 8), scale=1.05)
    rows = []
    for (left, top, width, height), margin in zip(corners, np.ravel(margins), strict=True):
        ends = np.array([left, top, left + width, top + height]) / SHRUNK
        ends = ends.clip(0, [*image.shape[::-1]] * 2)
        rows.append([0, *ends, margin])
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)


def frames(video: Path) -> list[NDArray[np.uint8]]:
    """Every eighth frame of a video, grey (H, W), sides that eight divides."""
    cv2 = optional.load("cv2", extra="opencv")
    opened, found = cv2.VideoCapture(str(video)), []
    while True:
        there, frame = opened.read()
        if not there:
            break
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        height, width = (side // SHRUNK // 8 * 8 for side in grey.shape)
        found.append(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA))
    if not found:
        raise SystemExit(
            f"{video}: no frame can be read; install Debian's opencv-doc, or say --video FILE"
        )
    return found[::EVERY]


def write(folder: Path, video: Path) -> None:
    """The frames, each with the teacher's boxes, as `pedestrians.npz`."""
    seen = frames(video)
    cut = int(TRAINING * len(seen))
    arrays: dict[str, Any] = {}
    for part, own in (("train", seen[:cut]), ("test", seen[cut:])):
        boxes = [people(image)[:, :5].numpy() for image in own]
        y = np.full((len(own), max(1, *map(len, boxes)), 5), PADDING, np.float32)
        for row, found in zip(y, boxes, strict=True):
            row[: len(found)] = found
        arrays |= {f"x_{part}": np.stack(own), f"y_{part}": y}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "pedestrians.npz", **arrays)


def main() -> None:
    """Run everything and print the table, or write the frames alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--video", type=Path, default=VIDEO)
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.write is not None:
        write(given.write, given.video)
        return
    with tempfile.TemporaryDirectory() as temporary:
        write(folder := Path(temporary), given.video)
        found = []
        for seed in given.seeds:
            place = [f"data.name={folder / 'pedestrians.npz'}", f"seed={seed}"]
            own = config.load_distillation(CONFIG, place)
            found.append(distil(own, folder / f"run-{seed}")["student"])
    print("| agreement with the teacher | mean | by seed |\n|---|---|---|")
    for figure in FIGURES:
        values = [each[figure] for each in found]
        shown = ", ".join(f"{value:.3f}" for value in values)
        print(f"| {figure} | {statistics.mean(values):.3f} | {shown} |")


if __name__ == "__main__":
    main()
