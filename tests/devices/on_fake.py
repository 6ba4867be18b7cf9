"""Run every method, every way, DP-SGD, sums under masks and audits on the CPU and on `fake`.

A program, since the fake device changes torch for its whole process. It prints, as JSON and by
case, the largest difference of what came out, how many operations the device did, or the error.
"""

import faulthandler
import json
import secrets
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import fake_device
import numpy as np
import tiny
import torch
from golden_cases import CASES, METHODS, MLP, WAYS
from golden_run import draw_nothing
from safetensors.torch import load_file, save_file
from same_keys import Keys
from torch import Tensor

from fedkd import config, devices, models, rng
from fedkd.auditing import inversion, structure
from fedkd.federation import engines
from fedkd.federation.prepare import prepare
from fedkd.federation.server import Checkpoint
from fedkd.jobs.audit import canary_run
from fedkd.jobs.audit.messages import audit_exchange
from fedkd.jobs.audit.teachers import audit_teacher
from fedkd.jobs.distil import distil
from fedkd.learning.ensemble import Ensemble
from fedkd.models import call
from fedkd.privacy import accountant

Numbers = Mapping[str, Tensor]
"""What came out of a case, by name."""
Case = Callable[[str, Path], Numbers]
"""Runs on a device, into a folder."""

ONCE = {"epochs": 1, "batch_size": 16, "learning_rate": 0.05}
SHORT = {"student": ONCE, "steps": 3}
"""What methods are told of their own length."""
RECORD = {"epsilon": 8.0, "sample_rate": 0.2, "batch_size": 16}
SOME_FORMS = ("kd", "fitnets", "at", "vid", "ab", "ft", "rkd", "graph")
"""At least one of each family, and each that learns something of its own."""


class Kept:
    """A keeper that remembers what a round leaves, and that all of it is on the CPU."""

    def __init__(self) -> None:
        self.numbers: dict[str, Tensor] = {}

    def resume(self) -> None:
        return None

    def keep(self, _record: Any, checkpoint: Checkpoint, generated: Any) -> None:
        parts = {"student": checkpoint.student, "state": checkpoint.state}
        parts["broadcast"] = checkpoint.broadcast.common
        if generated is not None:
            parts["generated"] = {"x": generated.x, "y": generated.y}
        for part, tensors in parts.items():
            for name, tensor in tensors.items():
                if tensor.device.type != "cpu":
                    raise ValueError(f"Expected {part} {name} on the CPU, not {tensor.device}.")
                self.numbers[f"{part} {name}"] = tensor.clone()


def federated(table: dict[str, Any], file: Path, *, fakes: int = 1, **changes: Any) -> Case:
    """A federation, each model of which is trained for an epoch."""
    table = deepcopy(table) | deepcopy(changes)
    table["data"]["name"] = str(file)
    table["clients"]["training"] = ONCE
    own = {key: value for key, value in SHORT.items() if key in table["method"]}
    table["method"] |= own

    def run(device: str, folder: Path) -> Numbers:
        if device == "fake":
            device = ",".join(f"fake:{number}" for number in range(fakes))
        told = {**table, "engine": {"threads": 1, "device": device}}
        kept = Kept()
        states = folder if "privacy" in table else None
        engines.simulate(prepare(config.parse(told)), kept, tiny.Quiet(), states=states)
        return kept.numbers

    return run


def distilled(table: dict[str, Any], file: Path) -> Case:
    """One party's distillation, in a run folder."""
    table = deepcopy(table)
    table["data"] = {**table.get("data", {}), "name": str(file)}

    def run(device: str, folder: Path) -> Numbers:
        told = {**table, "engine": {"device": device}}
        distil(config.validate(config.Distillation, told), folder)
        return load_file(folder / "student.safetensors")

    return run


def privately_taught(file: Path, folder: Path) -> Case:
    """A student that learns by DP-SGD from a teacher that is given."""
    draws = rng.stream(0, purpose="given")
    spec = config.ModelSpec.model_validate(MLP)
    teacher = models.build(spec, shape=(10,), classes=tiny.CLASSES, generator=draws)
    save_file(teacher.state_dict(), folder / "given.safetensors")
    given = {"model": MLP, "weights": str(folder / "given.safetensors"), "data": "public"}
    student = {"model": MLP, "training": ONCE}
    table = {
        "name": "tiny",
        "plain": False,
        "teachers": [given],
        "student": student,
        "knowledge": [{"name": "kd"}, {"name": "fitnets"}],
        "privacy": RECORD,
    }
    return distilled(table, file)


def audited(file: Path) -> Case:
    """What an attacker makes of recorded messages, inversion and all."""
    changes = {
        "rounds": 1,
        "clients.count": 2,
        "clients.models": [MLP],
        "clients.training": ONCE,
        "data.public.size": 30,
        "method.student": ONCE,
        "student.model": MLP,
    }

    def run(device: str, folder: Path) -> Numbers:
        told = tiny.experiment(file, {**changes, "engine.device": device})
        canary_run.record(told, canary_run.Canaries(20), folder, tiny.Quiet())
        found = audit_exchange(folder, lambda *_: None, count=2)
        drawn = {f"drawn {each.client}": each.drawn for each in found.inversions}
        if not drawn:
            raise ValueError("Expected images that were drawn.")
        areas = [each.roc.auc.value for each in found.attacks]
        return {**drawn, "areas": torch.tensor(areas, dtype=torch.float64)}

    return run


def audited_teacher(file: Path) -> Case:
    """Canaries in a protected training."""
    changes = {
        "rounds": 1,
        "clients.models": [MLP],
        "clients.training.epochs": 1,
        **{f"privacy.{key}": value for key, value in RECORD.items()},
    }

    def run(device: str, _folder: Path) -> Numbers:
        told = tiny.experiment(file, {**changes, "engine.device": device})
        found = audit_teacher(told, lambda *_: None, canaries=20)
        return {"bounds": torch.tensor([each.epsilon for v in found.verdicts for each in v.bounds])}

    return run


def with_targets(rows: Path, task: str) -> Path:
    """The same inputs with two targets each: numbers, or yes or no."""
    arrays = dict(np.load(rows))
    for name in ("y_train", "y_test"):
        y = arrays[name]
        both = np.stack([y, y > 0], axis=1)
        arrays[name] = both.astype(np.float32) if task == "regression" else (both > 0).astype(int)
    np.savez(file := rows.with_name(f"{task}.npz"), **arrays)
    return file


def cases(folder: Path) -> dict[str, Case]:
    """All cases, by name."""
    rows = tiny.write_rows(folder / "rows.npz", samples=120)
    squares = tiny.write_images(folder / "squares.npz", side=8, samples=60)
    more = tiny.write_images(folder / "more.npz", side=8, samples=120)
    files = {"rows": rows, "squares": squares}
    methods = {name: CASES[f"method-{name}"][2] for name in METHODS}
    ways = {name: CASES[f"way-{name}"] for name in WAYS}
    masked = {**RECORD, "secure_aggregation": True}
    return {
        **{f"method {name}": federated(table, squares) for name, table in methods.items()},
        **{f"way {name}": distilled(table, files[data]) for name, (_, data, table) in ways.items()},
        **{f"form {name}": distilled(CASES[f"form-{name}"][2], squares) for name in SOME_FORMS},
        "DP-SGD": federated(methods["fedprox"], squares, privacy=RECORD),
        "DP-SGD from a teacher": privately_taught(rows, folder),
        "sums under masks, with noise": federated(methods["analytic"], squares, privacy=masked),
        **{
            f"task {task}": federated(
                methods["feddf"] | {"task": {"name": task}}, with_targets(rows, task), rounds=1
            )
            for task in ("regression", "multi-label")
        },
        "two devices": federated(methods["fedavg"], squares, fakes=2, rounds=1),
        "audit of messages": audited(more),
        "audit of a teacher": audited_teacher(rows),
    }


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """What a case gives on the CPU against what it gives on the device."""
    found: list[Numbers] = []
    try:
        for device in ("cpu", "fake"):
            secrets.token_bytes = Keys()
            fake_device.DONE.clear()
            found.append(case(device, folder / device))
    except Exception:  # noqa: BLE001 - the others go on
        return {"error": traceback.format_exc()}
    there, here = found
    if there.keys() != here.keys():
        return {"error": f"Expected {sorted(there)}, not {sorted(here)}."}
    gaps = [float((there[name].double() - here[name].double()).abs().max()) for name in there]
    return {"gap": max(gaps), "operations": dict(fake_device.DONE)}


def refused() -> str:
    """What the device says of an operation between it and the CPU."""
    try:
        torch.ones(2, device="fake") + torch.ones(2)
    except fake_device.MixedDevicesError as error:
        return str(error)
    return ""


def seeds() -> list[int]:
    """The seed of the device's generator before, while and after it is borrowed."""
    every = fake_device.Backend.seeds
    found = [every[0]]
    with rng.torch_default(rng.stream(0, purpose="seeds"), torch.device("fake", 0)):
        found.append(every[0])
    return [*found, every[0]]


def ends() -> bool:
    """Whether teachers' gradients come back under autograd's own thread for the device."""
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    x = torch.rand(5, 4).to("fake").requires_grad_()
    faulthandler.dump_traceback_later(120, exit=True)  # rather than wait for ever
    with fake_device.threads_of_autograd(), Ensemble([net.to("fake")] * 2, threads=2) as ensemble:
        ensemble.observe(x).logits.square().sum().backward()
    faulthandler.cancel_dump_traceback_later()
    return x.grad is not None


def comes_home() -> bool:
    """Whether a model is back on the CPU after an error, its parameters the same objects."""
    model = torch.nn.Linear(2, 2)
    before = [id(parameter) for parameter in model.parameters()]
    with suppress(KeyError), devices.visiting(torch.device("fake", 1), model):
        if devices.of(model) != torch.device("fake", 1):
            return False
        raise KeyError
    return devices.of(model) == devices.CPU and before == [id(each) for each in model.parameters()]


def main() -> None:
    """Run those that the arguments name, or all."""
    draw_nothing()
    torch.set_num_threads(1)
    # As on a device: what differs is where tensors are, not how images lie and so what is rounded.
    call.layout = lambda _model, _device: torch.preserve_format
    inversion._STEPS, structure._STEPS, accountant._INTERVAL = 20, 20, 1e-3
    with tempfile.TemporaryDirectory() as folder:
        every = cases(Path(folder))
        found: dict[str, Any] = {
            "refused": refused(),
            "seeds": seeds(),
            "comes home": comes_home(),
            "ends": ends(),
        }
        for number, name in enumerate(sys.argv[1:] or every):
            place = Path(folder) / str(number)
            place.mkdir()
            found[name] = compare(every[name], place)
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
