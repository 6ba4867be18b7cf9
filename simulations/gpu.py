"""What a GPU is worth, and whether it gives what the CPU gives.

    python simulations/gpu.py                  # the first accelerator that torch finds; minutes
    python simulations/gpu.py --device cuda:1
    python simulations/gpu.py --tiny --device cpu    # only whether the script itself runs

Runs the demo, DENSE, fedpair and FedAvg by DP-SGD at reduced size, and trains a ResNet-18 on
made-up images of 224x224, each on the CPU and on the device, and prints seconds, speed-up and how
far students and their answers are apart. DP noise comes from the operating system, so two protected
students differ on any device: there the gap says nothing. The machine should be idle.
"""

import argparse
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fedkd import config, devices, models, rng
from fedkd.config import Experiment, ModelSpec, Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.federation import engines
from fedkd.federation.answers import Record, Unwatched
from fedkd.federation.prepare import prepare
from fedkd.federation.server import Checkpoint
from fedkd.learning import evaluate, supervised

CONFIGS = Path(__file__).resolve().parents[1] / "fedkd" / "configs"
PROTECTED = {"epsilon": 8.0, "sample_rate": 0.05}
CASES: dict[str, dict[str, Any]] = {
    "the demo": {"rounds": 2},
    "DENSE": {
        "rounds": 1,
        "method": {"name": "dense", "epochs": 5, "steps": 10},
    },
    "fedpair": {"rounds": 1, "method": {"name": "fedpair", "images": 6000, "epochs": 1}},
    "FedAvg by DP-SGD": {"rounds": 1, "method": {"name": "fedavg"}, "privacy": PROTECTED},
}
"""What is changed of the demo's configuration."""
ONE_MODEL = ("fedpair", "FedAvg by DP-SGD")
console = Console()


class Forgetful:
    """A keeper of rounds that keeps none."""

    def resume(self) -> None:
        """Begin anew."""

    def keep(self, record: Record, checkpoint: Checkpoint, generated: Samples | None) -> None:
        """Let it go."""


def experiment(case: str, device: str, *, tiny: bool) -> Experiment:
    """The demo's configuration, changed."""
    table = config.read(CONFIGS / "demo.toml") | CASES[case]
    table["engine"] = {"device": device}
    clients: dict[str, Any] = table["clients"]
    table["clients"] = {**clients, "training": {**clients.get("training", {}), "epochs": 1}}
    if case in ONE_MODEL:
        table["clients"]["models"], table["student"] = ["lenet5"], {"model": "lenet5"}
    if tiny:
        table["clients"]["count"], table["rounds"] = 2, 1
        if case == "DENSE":
            table["method"] = {"name": "dense", "epochs": 1, "steps": 2, "batch_size": 16}
        if case == "fedpair":
            table["method"] = {"name": "fedpair", "images": 200, "epochs": 1}
    return config.parse(table)


def federation(case: str, device: str, *, tiny: bool) -> tuple[nn.Module, Tensor]:
    """The student of a case, and what it answers of some test inputs."""
    prepared = prepare(experiment(case, device, tiny=tiny))
    with tempfile.TemporaryDirectory() as states:
        student = engines.simulate(prepared, Forgetful(), Unwatched(), states=Path(states))
    return student, evaluate.answers(student, prepared.in_students_view.data.test.x[:100])


def resnet(device: str, *, tiny: bool) -> tuple[nn.Module, Tensor]:
    """A ResNet-18 after some steps on made-up images; a resnet8 where torchvision is missing."""
    size, side, name = (32, 64, "resnet8") if tiny else (256, 224, "torchvision/resnet18")
    name = name if find_spec("torchvision") else "resnet8"
    draws = rng.stream(0, purpose="images")
    x = torch.rand(size, 3, side, side, generator=draws)
    samples = Samples(x, torch.arange(size) % 10)
    spec, weights = ModelSpec(name=name), rng.stream(0, purpose="weights")
    model = models.build(spec, shape=(3, side, side), classes=10, generator=weights)
    how = Optimisation(epochs=1, batch_size=32, learning_rate=0.01)
    (place,) = devices.resolve(device, key="--device")
    with devices.visiting(place, model):
        supervised.train(model, samples, how, rng.stream(0, purpose="batches"))
        answers = evaluate.answers(model, x[:32])
    return model, answers


def timed(case: str, device: str, *, tiny: bool) -> tuple[float, nn.Module, Tensor]:
    """Seconds, and what came out; all of it is on the CPU, so that the device is done."""
    started = time.perf_counter()
    if case in CASES:
        model, answers = federation(case, device, tiny=tiny)
    else:
        model, answers = resnet(device, tiny=tiny)
    return time.perf_counter() - started, model, answers


def gap(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of two models' weights."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def main() -> int:
    """Run all cases on both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="whether the script runs, no more")
    told = parser.parse_args()
    try:
        (device, *_) = devices.resolve(told.device, key="--device")
    except ConfigError as error:
        console.print(str(error))
        return error.exit_status
    if device == devices.CPU and told.device == "auto":
        console.print("There is no GPU here, or torch was built without it: nothing to compare.")
        return 0
    table = Table("", str(device), "CPU", "speed-up", "weights apart", "answers apart")
    for case in [*CASES, "ResNet-18, 224x224"]:
        if device.type != "cpu":
            (torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)).cpu()  # wakes it
        fast, there, theirs = timed(case, str(device), tiny=told.tiny)
        slow, here, ours = timed(case, "cpu", tiny=told.tiny)
        apart = float((theirs - ours).abs().max())
        table.add_row(
            case, f"{fast:.1f} s", f"{slow:.1f} s", f"{slow / fast:.1f}",
            f"{gap(there, here):.1e}", f"{apart:.1e}",
        )  # fmt: skip
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
