"""What each form of knowledge is worth: one teacher, one small student, thirteen methods.

    python simulations/thirteen_methods.py [--seeds 3] [--out runs/thirteen-methods]

Complete Fashion-MNIST, no augmentation. The teacher is a ResNet-8 (77,754 parameters), trained once
and given to all; the student is a strided CNN of a tenth (8,446). All students have the same start,
batches, epochs and optimiser, seed by seed, so that gains are paired. Each method has its published
weight (RepDistiller's for CIFAR-100) and looks at the last layers that it can; nothing was tuned.
Where a method trains something first (AB, FT), that is one epoch more.

Beside it stands what the survey's literature reports on CIFAR-100 for ResNet-56 to ResNet-20, over
a plain student of 69.06: RepDistiller's README (arXiv:1910.10699), for DKD and DIST their own.

A run that is there already is not run again.
"""

import argparse
import json
import statistics
import sys
from collections import OrderedDict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import nn

from fedkd.config import Distillation, validate
from fedkd.runs.bar import progress
from fedkd.runs.distil import distil

CIFAR_PLAIN, CIFAR_TEACHER = 69.06, 72.34
LABELS_ONLY = {"kd": 0.1}
"""The weight of cross-entropy where it is not 1."""
LAST = {"student": "norm3", "teacher": "stage3"}
"""AB looks before the ReLU; which of the teacher's neurons are on shows after it as well."""
METHODS = {
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
TRAINING = {
    "batch_size": 128,
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "schedule": "cosine",
}
TEACHER = {"model": "resnet8", "training": {**TRAINING, "epochs": 10}}
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
        "data": {"name": given.data},
        "plain": False,
        "teachers": [TEACHER],
        "student": {"model": {"name": "mlp", "hidden": []}, "training": {"epochs": 1}},
        "way": {"name": "offline"},
        "knowledge": [{"name": "kd"}],
    }
    return validate(Distillation, table)


def taught(given: argparse.Namespace, form: str, seed: int) -> Distillation:
    """A student that learns by one form; beside KD the plain student is trained as well."""
    weights = given.out / "teacher" / "checkpoints" / "teacher-0.safetensors"
    table = {
        "name": f"{form}-{seed}",
        "seed": seed,
        "data": {"name": given.data},
        "plain": form == "kd",
        "teachers": [{"model": TEACHER["model"], "weights": str(weights)}],
        "student": {
            "model": f"{Path(__file__).stem}:small",
            "training": {**TRAINING, "epochs": given.epochs},
        },
        "way": {"name": "offline", "labels": LABELS_ONLY.get(form, 1.0)},
        "knowledge": [{"name": form, **(LAST if form == "ab" else {})}],
    }
    return validate(Distillation, table)


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
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--only", choices=METHODS, help="one method")
    parser.add_argument("--out", type=Path, default=Path("runs/thirteen-methods"))
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))  # where the student's model is found
    run(teaching(given), given.out)
    plain = [run(taught(given, "kd", seed), given.out) for seed in range(given.seeds)]
    table = Table("method", "accuracy", "gain", "CIFAR-100", "gain there", "seconds")
    table.add_row(
        "teacher",
        spread([plain[0]["teachers"][0]["accuracy"]]),
        "",
        f"{CIFAR_TEACHER:.2f}",
    )
    table.add_row("student alone", spread([each["plain"] for each in plain]), "", f"{CIFAR_PLAIN}")
    for form, published in METHODS.items():
        if given.only not in (None, form):
            continue
        told = [run(taught(given, form, seed), given.out) for seed in range(given.seeds)]
        reached = [each["student"]["accuracy"] for each in told]
        gains = [ours - each["plain"] for ours, each in zip(reached, plain, strict=True)]
        table.add_row(
            form,
            spread(reached),
            spread(gains, "+"),
            f"{published:.2f}",
            f"{published - CIFAR_PLAIN:+.2f}",
            f"{statistics.mean(each['seconds'] for each in told):.0f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
