"""What a file for other programs says of its student: one JSON text in the file's own metadata.

In ONNX it is the property `fedkd` of the model, in TorchScript the extra file `fedkd.json`. So a
program that has the file alone knows what to give it and what its answers mean.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch

from fedkd.runs.student import FinishedStudent
from fedkd.tasks import WRITTEN, Targets, Task
from fedkd.version import __version__

PROPERTY, EXTRA_FILE = "fedkd", "fedkd.json"

_MEANING: Mapping[Targets, str] = {
    "binary": "logits of labels: the sigmoid of each is how likely it is",
    "boxes": "a grid of cells: logits of classes that a box has its centre there, then the logs of "
    "its width and height and how far right and down of the cell's middle its centre is, in cells",
    "classes": "logits of classes: their softmax is how likely each is",
    "identities": "a vector: the cosine of two is how alike they are",
    "items": "logits of items: their softmax is how likely a user takes each",
    "masks": "logits of classes for each pixel, on the last axis",
    "next-tokens": "logits of the token that follows each",
    "numbers": "numbers, of which limits say what -1 and 1 are",
    "points": "a heatmap for each point, on the last axis",
    "spans": "logits of where the answer begins and ends",
    "tags": "logits of classes for each token, on the last axis",
    "tokens": "logits of each token that is written",
}


def about(student: FinishedStudent) -> str:
    """Task, inputs, names and scaling, as JSON.

    `inputs.columns` are the columns in their order, where there are some. `inputs.scale` is what
    becomes -1 and 1 of a column, or by the name `*` of all values; `inputs.range`, before that,
    what becomes 0 and 1. `answer.names` are those of its last axis.
    """
    task = student.task
    return json.dumps(
        {
            "fedkd": __version__,
            "experiment": student.name,
            "task": task.name,
            "inputs": {
                "shape": student.shape,
                "values": _values(student),
                "columns": student.features,
                "range": student.source.range,
                "scale": student.scale,
            },
            "answer": {
                "shape": task.answer,
                "meaning": _MEANING[task.targets],
                # Of what is written they are the tokeniser's, which lies beside the file.
                "names": () if task.targets in WRITTEN else task.names,
                **_limits(task),
            },
        },
        ensure_ascii=False,
    )


def _values(student: FinishedStudent) -> str:
    if student.tokenizer is not None:
        return "token numbers of tokenizer.json"
    if student.features or len(student.shape) == 1:
        return "as the columns are"
    return "within the range" if student.source.range else "bytes by 255, or floats in [0, 1]"


def _limits(task: Task) -> dict[str, Any]:
    """Of numbers, what -1 and 1 of an answer are in their own units."""
    if task.targets != "numbers":
        return {}
    ends = torch.tensor([[-1.0], [1.0]]).expand(2, task.classes)
    return {"limits": task.likelihood.decide(ends).T.tolist()}
