"""A teacher, a student and a handful of samples, for tests of what passes between them."""

from typing import Any

import torch
from torch import nn

from fedkd import models
from fedkd.config import Knowledge, ModelSpec, validate
from fedkd.data.types import Samples
from fedkd.learning import forms
from fedkd.learning.forms import terms
from fedkd.learning.forms.terms import Terms
from fedkd.models.layers import inspect_layers

SHAPE, CLASSES = (1, 12, 12), 3
NAMED: dict[str, dict[str, Any]] = {
    "ab": {"student": "norm", "teacher": "norm1"},
    "reviewkd": {
        "student": ["stage1", "stage2", "flatten"],
        "teacher": ["pool1", "pool2", "flatten"],
    },
    "graph": {"student": ["stage1", "stage2"], "teacher": ["pool1", "pool2"]},
}
"""Layers where a form has none by default: of a `resnet8` and a `dense-cnn`."""
OF_CLASSES = [n for n, form in forms.BUILT_IN.items() if not {"boxes", "text"} & {*form.asks}]
ALONE = [n for n in OF_CLASSES if not ((form := forms.find(n)).couples or form.first or form.joint)]


def build(spec: Any, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return models.build(
        ModelSpec.model_validate(spec), shape=SHAPE, classes=CLASSES, generator=generator
    )


def a_teacher() -> nn.Module:
    model = build("dense-cnn", seed=1)
    model.requires_grad_(requires_grad=False)
    return model.eval()


def a_student(norm: str = "batch") -> nn.Module:
    return build({"name": "resnet8", "width": 2, "norm": norm}, seed=2)


def samples(count: int = 12, seed: int = 3) -> Samples:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(count, *SHAPE, generator=draw)
    return Samples(x, torch.randint(CLASSES, (count,), generator=draw))


def between(
    student: nn.Module, teacher: nn.Module, *tables: dict[str, Any], seed: int = 4
) -> Terms:
    ours, theirs = inspect_layers(student, SHAPE), inspect_layers(teacher, SHAPE)
    known = [validate(Knowledge, {**NAMED.get(each["name"], {}), **each}) for each in tables]
    resolved = terms.resolve(known, ours, theirs)
    return terms.build(resolved, ours, theirs, torch.Generator().manual_seed(seed))
