"""A few test records with what is true of them and what models answer, for a run's report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn

from fedkd.data.types import Samples
from fedkd.errors import RunFolderError
from fedkd.exchange.codec import encode
from fedkd.files import write_atomically
from fedkd.learning import evaluate
from fedkd.rows import one
from fedkd.tasks import Targets, Task

FILE = "examples.safetensors"
SHOWN: tuple[Targets, ...] = ("masks", "boxes", "points")
"""Targets that are something in an image, and so are shown."""
_COUNT = 4
_ANSWER, _ABOUT = "answer/", "fedkd examples 1"


@dataclass(frozen=True)
class Shown:
    """What a run folder shows of n test records.

    Attributes:
        kind: what targets are, one of `SHOWN`.
        x: images (n, C, H, W).
        targets: what is true, (n, *T), as `fedkd.tasks.Targets` says.
        answers: by the model's name, as targets are.
        classes: names by label, or of numbers and points.
    """

    kind: Targets
    x: NDArray[np.floating]
    targets: NDArray[np.generic]
    answers: Mapping[str, NDArray[np.generic]]
    classes: tuple[str, ...]


def write(folder: Path, task: Task, test: Samples, asked: Mapping[str, nn.Module]) -> None:
    """Keep what models answer of a few test records; nothing for a task that is not shown.

    Args:
        folder: of the run.
        task: what is asked of the models.
        test: of which `_COUNT` records are chosen, at equal distances.
        asked: models by name; at least one.

    Raises:
        StorageError: it does not reach the disk.
    """
    if task.targets not in SHOWN or "image" not in task.offers:
        return
    count = min(_COUNT, len(test))
    some = test.subset(torch.arange(count) * len(test) // count)
    answers = {
        f"{_ANSWER}{name}": task.likelihood.decide(evaluate.answers(model, some.x))
        for name, model in asked.items()
    }
    tensors = {"x": one(some.x[torch.arange(count)]), task.targets: some.y, **answers}
    about = json.dumps({"classes": task.names, "models": list(asked)})
    write_atomically(folder / FILE, encode(tensors, {_ABOUT: about}))


def read(folder: Path) -> Shown | None:
    """What `write` kept; None where it kept nothing.

    Raises:
        RunFolderError: the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        with safe_open(file, "numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            about = json.loads(opened.metadata()[_ABOUT])
        (kind,) = (kind for kind in SHOWN if kind in tensors)
        x, targets = tensors["x"], tensors[kind]
        answers = {name: tensors[f"{_ANSWER}{name}"] for name in about["models"]}
        classes = tuple(about["classes"])
        if x.ndim != 4 or any(len(each) != len(x) for each in (targets, *answers.values())):
            raise ValueError("Expected images, and as many targets and answers.")
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise RunFolderError(
            f"{str(file)!r} is corrupt (safetensors with x, targets and answers); run the "
            "experiment again"
        ) from error
    return Shown(kind, x, targets, answers, classes)
