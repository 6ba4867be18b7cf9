r"""What each form of knowledge is worth: one teacher, one small student, thirteen methods.

    python simulations/thirteen_methods.py [--seeds 3] [--out runs/thirteen-methods]
    python simulations/thirteen_methods.py --later --seeds 5 \
        --train 5000 --teacher-epochs 6 --batch 64

Complete Fashion-MNIST, no augmentation. The teacher is a ResNet-8 (77,754 parameters), trained once
and given to all; the student is a strided CNN of a tenth (8,446). All students have the same start,
batches, epochs and optimiser, seed by seed, so that gains are paired. A method looks at the last
layers that it can. Where it trains something first (AB, FT), that is one epoch more.

Weights published for CIFAR-100 (RepDistiller's) are far too large for five epochs here, so each
method has 1, 0.1 or 0.01 of its own, whichever is best on 10,000 training images that a student of
20,000 others has not seen (three epochs, a seed of its own). KD's and DIST's stay as published. No
choice was made on test images. Of fewer training images (--train) a student learns from all, there
too, and is asked about others.

Beside it stands what the survey's literature reports on CIFAR-100 for ResNet-56 to ResNet-20, over
a plain student of 69.06: RepDistiller's README (arXiv:1910.10699), for DKD and DIST their own.

With --later the forms are those that came after the survey, and KD beside them, whose weight is
chosen then too; their CIFAR-100 figures are those of the authors' READMEs, ReviewKD's as that of
KD++ quotes it.

A run that is there already is not run again.
"""

import argparse
import json
import statistics
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from fedkd import config, data, rng
from fedkd.config import Distillation, validate
from fedkd.data import Samples
from fedkd.jobs.distil import distil
from fedkd.learning import forms
from fedkd.reports.bar import progress

CIFAR_PLAIN, CIFAR_TEACHER = 69.06, 72.34
FACTORS = (1.0, 0.1, 0.01)
"""Of the published weight."""
AS_PUBLISHED = ("kd", "dist")
CHOOSING_SEED = 100
LABELS_ONLY = dict.fromkeys(("kd", "logit-standardisation", "mlkd", "ctkd"), 0.1)
"""The weight of cross-entropy where it is not 1."""
LAYERS: dict[str, dict[str, object]] = {
    "ab": {"student": "norm3", "teacher": "stage3"},
    "ofa": {"student": ["relu2", "relu3"]},
    "reviewkd": {"student": ["relu1", "relu2", "relu3"], "teacher": ["stage1", "stage2", "stage3"]},
}
"""AB looks before the ReLU; which of the teacher's neurons are on shows after it as well."""
METHODS: dict[str, float | None] = {
    "kd": 70.66,
    "dkd": 71.97,
    "dist": 71.75,
    "fitnets": 69.21,
    "at": 70.55,
    "nst": 69.60,
    "vid": 70.38,
    "ab": 69.47,
    "ft": 69.84,
    "sp": 69.67,
    "pkt": 70.34,
    "cc": 69.63,
    "rkd": 69.61,
}
"""Forms of knowledge by name, and their accuracy on CIFAR-100 in per cent."""
LATER: dict[str, float | None] = {
    "kd": 70.66,
    "logit-standardisation": 71.43,
    "mlkd": None,
    "ctkd": 71.19,
    "wkd-l": None,
    "ofa": None,
    "reviewkd": 71.89,
    "wkd-f": None,
    "crd": 71.16,
}
"""Likewise; None where it was not read."""
TRAINING = {
    "batch_size": 128,
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "schedule": "cosine",
}
TEACHER = "resnet8"
console = Console()


def small(*, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A strided CNN: maps of 12, 24 and 24 channels, the last two a quarter of the side."""
    widths = [shape[0], 12, 24, 24]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (kernel, stride) in enumerate([(5, 2), (3, 2), (3, 1)], start=1):
        inputs, outputs = widths[number - 1 : number + 1]
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        layers[f"conv{number}"] = convolution
        layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{number}"] = nn.ReLU()
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(widths[-1], classes)
    return nn.Sequential(layers)


def teaching(given: argparse.Namespace) -> Distillation:
    """The run that trains the teacher; the student in it is not used."""
    table = {
        "name": "teacher",
        "data": {"name": data_of(given)},
        "plain": False,
        "teachers": [{"model": TEACHER, "training": {**TRAINING, "epochs": given.teacher_epochs}}],
        "student": {"model": {"name": "mlp", "hidden": []}, "training": {"epochs": 1}},
        "way": {"name": "offline"},
        "knowledge": [{"name": "kd"}],
    }
    return validate(Distillation, table)


def taught(
    given: argparse.Namespace, form: str, seed: int, factor: float, *, choosing: bool = False
) -> Distillation:
    """A student that learns by one form; beside KD the plain student is trained as well."""
    weights = given.out / "teacher" / "checkpoints" / "teacher-0.safetensors"
    weight = factor * forms.find(form).Params().weight
    part = f"choice-{form}-{factor:g}" if choosing else f"{form}-{factor:g}-{seed}"
    table = {
        "name": part,
        "seed": seed,
        "data": {"name": str(given.out / "held-out.npz") if choosing else data_of(given)},
        "plain": form == "kd" and factor == 1 and not choosing,
        "teachers": [{"model": TEACHER, "weights": str(weights)}],
        "student": {
            "model": f"{Path(__file__).stem}:small",
            "training": {
                **TRAINING,
                "batch_size": given.batch,
                "epochs": 3 if choosing else given.epochs,
            },
        },
        "way": {"name": "offline", "labels": LABELS_ONLY.get(form, 1.0)},
        "knowledge": [{"name": form, "weight": weight, **LAYERS.get(form, {})}],
    }
    return validate(Distillation, table)


def data_of(given: argparse.Namespace) -> str:
    """What teacher and students learn from."""
    return given.data if given.train is None else str(given.out / "fewer.npz")


def write_parts(given: argparse.Namespace) -> None:
    """Images to learn from, and of training images 20,000 to learn from and 10,000 to choose by."""
    loaded = data.load(config.Data(name=given.data), seed=0)
    train = loaded.train
    order = torch.randperm(len(train), generator=rng.stream(0, purpose="held out"))
    count = len(train) if given.train is None else given.train
    asked = train.subset(order[-len(train) // 6 :])
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "held-out.npz", train.subset(order[: min(count, len(train) // 3)]), asked)
    if given.train is not None:
        write(given.out / "fewer.npz", train.subset(order[:count]), loaded.test)


def write(path: Path, train: Samples, test: Samples) -> None:
    """A file of training and of test images."""
    arrays = {"x_train": train.x, "y_train": train.y, "x_test": test.x, "y_test": test.y}
    np.savez(path, **{key: value.numpy() for key, value in arrays.items()})


def chosen(given: argparse.Namespace, form: str) -> float:
    """The best share of the published weight on held-out training images."""
    if form in AS_PUBLISHED and not given.later:
        return 1.0
    reached = {
        factor: run(taught(given, form, CHOOSING_SEED, factor, choosing=True), given.out)
        for factor in FACTORS
    }
    return max(FACTORS, key=lambda factor: reached[factor]["student"]["accuracy"])


def run(distillation: Distillation, out: Path) -> dict:
    """The run's summary; a run that is finished is only read."""
    folder = out / distillation.name
    if not (folder / "summary.json").exists():
        console.print(distillation.name)
        with progress(console) as notify:
            distil(distillation, folder, notify, resume=folder.exists())
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def spread(values: list[float], sign: str = "") -> str:
    """Percentages as mean and sample standard deviation."""
    mean = 100 * statistics.mean(values)
    return f"{mean:{sign}.2f}" + (
        f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    )


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5, help="of each student")
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128, help="of each student")
    parser.add_argument("--train", type=int, help="training images; all unless given")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--only", choices={**METHODS, **LATER}, help="one method")
    parser.add_argument("--later", action="store_true", help="forms that came after the survey")
    parser.add_argument("--out", type=Path, default=Path("runs/thirteen-methods"))
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))  # where the student's model is found
    if not (given.out / "held-out.npz").exists():
        write_parts(given)
    run(teaching(given), given.out)
    plain = [run(taught(given, "kd", seed, 1.0), given.out) for seed in range(given.seeds)]
    weight = chosen(given, "kd")
    by_kd = [run(taught(given, "kd", seed, weight), given.out) for seed in range(given.seeds)]
    beside = [each["student"]["accuracy"] for each in by_kd]
    columns = ["method", "weight", "accuracy", "gain", "over KD"]
    table = Table(*columns, "CIFAR-100", "gain there", "seconds")
    table.add_row(
        "teacher",
        "",
        spread([plain[0]["teachers"][0]["accuracy"]]),
        "",
        "",
        f"{CIFAR_TEACHER:.2f}",
    )
    alone = spread([each["plain"] for each in plain])
    table.add_row("student alone", "", alone, "", "", f"{CIFAR_PLAIN:.2f}")
    for form, published in (LATER if given.later else METHODS).items():
        if given.only not in (None, form):
            continue
        factor = chosen(given, form)
        told = [run(taught(given, form, seed, factor), given.out) for seed in range(given.seeds)]
        reached = [each["student"]["accuracy"] for each in told]
        gains = [ours - each["plain"] for ours, each in zip(reached, plain, strict=True)]
        more = [ours - theirs for ours, theirs in zip(reached, beside, strict=True)]
        table.add_row(
            form,
            f"{factor:g} x {forms.find(form).Params().weight:g}",
            spread(reached),
            spread(gains, "+"),
            "" if form == "kd" else spread(more, "+"),
            "" if published is None else f"{published:.2f}",
            "" if published is None else f"{published - CIFAR_PLAIN:+.2f}",
            f"{statistics.mean(each['seconds'] for each in told):.0f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
