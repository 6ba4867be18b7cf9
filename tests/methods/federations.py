"""A federation without a network: hand-made contexts, tiny samples, small models."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fedkd import config, methods, tasks
from fedkd.clock import Clock
from fedkd.data.stream import stages
from fedkd.data.types import Samples
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.messages import Broadcast, Upload
from fedkd.learning import evaluate
from fedkd.methods.core.base import ClientContext, Method, ServerContext, Setting

ROWS, IMAGES, CLASSES = (5,), (1, 8, 8), 3
SMALL = {"name": "mlp", "hidden": [12]}
WIDE = {"name": "mlp", "hidden": [16]}
STILL = {"epochs": 1, "learning_rate": 1e-12, "momentum": 0.0}
"""Training that changes nothing, so that the rest of a method can be seen."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def samples(size: int, shape: tuple[int, ...], seed: int) -> Samples:
    """Separable: a class is where its inputs are bright."""
    draws = generator(seed)
    y = torch.randint(CLASSES, (size,), generator=draws)
    x = 0.4 * torch.rand(size, *shape, generator=draws)
    for sample, label in zip(x.flatten(1), y.tolist(), strict=True):
        third = len(sample) // CLASSES
        sample[label * third : (label + 1) * third] += 0.6
    return Samples(x, y)


def table(method: dict[str, Any] | str, **changes: Any) -> dict[str, Any]:
    """An experiment of three equal clients."""
    training = {"epochs": 3, "batch_size": 8, "learning_rate": 0.1}
    clients = {"count": 3, "models": [SMALL], "training": training}
    return {
        "name": "tiny",
        "seed": changes.pop("seed", 1),
        "rounds": changes.pop("rounds", 1),
        "task": changes.pop("task", {"name": "classification"}),
        "data": {"public": changes.pop("public", {"size": 30})},
        "student": {"model": changes.pop("student", SMALL)},
        "method": {"name": method} if isinstance(method, str) else method,
        "clients": {**clients, **changes},
    }


@dataclass
class Federation:
    """A method, its setting, and what the parties remember."""

    method: Method
    setting: Setting
    data: list[Samples]
    test: Samples
    student: nn.Module
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    server_state: dict[str, Tensor] = field(default_factory=dict)

    def client_context(self, client: int, round: int = 1) -> ClientContext:
        state = self.states.setdefault(client, {})
        clock = Clock(lambda *_: None)
        return ClientContext(self.setting, round, client, self.data[client], state, clock)

    def server_context(self, round: int = 1, threads: int = 1) -> ServerContext:
        return ServerContext(
            setting=self.setting,
            round=round,
            student=self.student,
            state=self.server_state,
            clock=Clock(lambda *_: None),
            threads=threads,
            test=self.test,
            pooled=self.pooled,
            robust=self.setting.experiment.robust,
        )

    def pooled(self) -> Samples:
        return Samples(torch.cat([d.x for d in self.data]), torch.cat([d.y for d in self.data]))

    def begin(self) -> Broadcast:
        return copy.deepcopy(self.method.begin(self.server_context(round=0)))

    def ask(self, client: int, round: int, broadcast: Broadcast) -> Upload:
        """The client's answer; it remembers its teacher, as the client app makes it do."""
        ctx = self.client_context(client, round)
        received = broadcast.to(str(self.setting.experiment.client_model(client)), client)
        upload = self.method.client(ctx, decode(encode(received)))
        if ctx.has_teacher:
            state = ctx.teacher.state_dict()
            ctx.keep("teacher", {name: tensor.clone() for name, tensor in state.items()})
        return upload

    def wire(self, client: int, upload: Upload) -> dict[str, Tensor]:
        """What the server lets in."""
        payload = encode({name: value.data for name, value in upload.values.items()})
        return decode(payload, self.method.expects(self.setting, client))

    def round(
        self, number: int, broadcast: Broadcast, cohort: list[int] | None = None
    ) -> tuple[Broadcast, ServerContext]:
        everybody = list(range(self.setting.clients))
        uploads = {
            client: self.wire(client, self.ask(client, number, broadcast))
            for client in (everybody if cohort is None else cohort)
        }
        ctx = self.server_context(number)
        return copy.deepcopy(self.method.server(ctx, uploads)), ctx

    def accuracy(self) -> float:
        return evaluate.accuracy(self.student, self.test)


def federation(
    method: dict[str, Any] | str,
    shape: tuple[int, ...] = ROWS,
    sizes: tuple[int, ...] = (24, 16, 8),
    *,
    draw: Callable[[int, tuple[int, ...], int], Samples] = samples,
    outputs: int = CLASSES,
    stream: config.Stream | None = None,
    **changes: Any,
) -> Federation:
    """A federation whose client i holds sizes[i] samples, as `draw` makes them.

    With a stream rounds have stages, and clients all their samples in each, as if of one stage.
    """
    experiment = config.parse(table(method, **changes))
    data = experiment.data.model_copy(update={"stream": stream})
    experiment = experiment.model_copy(update={"data": data})
    names = [str(number) for number in range(outputs)]
    task = tasks.build(experiment.task, inputs=shape, names=names)
    chosen, experiment = methods.resolve(experiment, task=task)
    public = experiment.data.public
    setting = Setting(
        experiment=experiment,
        task=task,
        clients=len(sizes),
        public=None if public is None else draw(public.size, shape, 50).x,
        stages=stages(stream, names, "classes"),
    )
    data = [draw(size, shape, seed) for seed, size in enumerate(sizes)]
    student = setting.build(experiment.student.model, purpose="student")
    return Federation(chosen, setting, data, draw(60, shape, 99), student)


def protected(setting: Setting) -> Setting:
    """The same setting under record-level differential privacy."""
    privacy = config.Privacy(unit="record", epsilon=8.0)
    experiment = setting.experiment.model_copy(update={"privacy": privacy})
    return replace(setting, experiment=experiment)


class Paying:
    """An allowance that writes down what it is asked for."""

    def __init__(self) -> None:
        self.spent: list[Any] = []

    def spend(self, event: Any, **_: str) -> None:
        self.spent.append(event)


def paying(
    fed: Federation, privacy: config.Privacy, data: Samples | None = None
) -> tuple[ClientContext, Paying]:
    """Client 0 under record-level differential privacy, and what it pays for."""
    experiment = fed.setting.experiment.model_copy(update={"privacy": privacy})
    allowance, ctx = Paying(), fed.client_context(0)
    setting = replace(fed.setting, experiment=experiment)
    own = ctx._data if data is None else data
    return replace(ctx, setting=setting, _data=own, allowance=allowance), allowance


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's state."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Bitwise equality of tensors by name."""
    return set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)


def tensors(upload: Upload) -> dict[str, Tensor]:
    """An upload without its provenance."""
    return {name: value.data for name, value in upload.values.items()}
