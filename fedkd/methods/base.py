"""What a method is: a client part, a server part and its parameters, in one file.

A method sees a context and tensors, nothing of Flower and nothing of the round loop, so it is
tested on tiny tensors. It keeps no state of its own: what must last goes into `ctx.state`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedkd import models, rng
from fedkd.config import Experiment, Frozen, ModelSpec, Optimisation
from fedkd.data.types import Samples
from fedkd.exchange.codec import Expected, TensorSpec
from fedkd.exchange.messages import (
    Broadcast,
    PostProcessing,
    Provenance,
    Release,
    Tensors,
    Upload,
    Value,
    group,
    prefixed,
    values,
)
from fedkd.learning import evaluate, offline, optim, supervised
from fedkd.privacy.events import Unprotected

PHASES = ("distil", "train", "answer", "evaluate")
"""What a client can be doing; a fixed list, so that the server need not read a client's words."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits, targets), each (N, C), to a loss per sample (N,)."""

Notify = Callable[[str, int, int], None]
"""Called with a phase, steps done and steps in all."""


class Clock:
    """Seconds by phase, and a word to whoever watches."""

    def __init__(self, notify: Notify) -> None:
        self.seconds: dict[str, float] = {}
        self.current = ""
        """The phase under way, or the one that an exception ended."""
        self._notify = notify

    @contextmanager
    def phase(self, name: str, steps: int = 1) -> Iterator[Callable[[], None]]:
        """Time a phase; the function that it yields reports one more step done."""
        done = 0
        started = time.perf_counter()

        def advance() -> None:
            nonlocal done
            done += 1
            self._notify(name, done, steps)

        self.current = name
        self._notify(name, 0, steps)
        yield advance
        self.current = ""
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class Setting:
    """What both sides of a federation know: the experiment and the shapes of its data."""

    experiment: Experiment
    shape: tuple[int, ...]
    classes: int
    clients: int
    public: Tensor | None
    """The proxy set's inputs (N, *shape), unlabelled; None where there is none."""
    _specs: dict[str, Expected] = field(default_factory=dict, repr=False)

    def build(
        self, spec: ModelSpec, *, purpose: str, round: int = 0, client: int | None = None
    ) -> nn.Module:
        """A fresh model, initialised from the stream of (round, client, purpose)."""
        generator = rng.stream(self.experiment.seed, purpose=purpose, round=round, client=client)
        return models.build(spec, shape=self.shape, classes=self.classes, generator=generator)

    @property
    def proxy(self) -> Tensor:
        """The proxy set of a method that cannot do without."""
        if self.public is None:
            raise ValueError("Expected a public set; the method's card must say that it needs one.")
        return self.public

    def model_and_count(self, client: int) -> Expected:
        """What `ClientContext.model_and_count` of this client must look like."""
        spec = self.experiment.client_model(client)
        return {**self.model_specs(spec), "count": TensorSpec((), torch.int64, low=1)}

    def proxy_subset(self, size: int | None, round: int) -> Tensor:
        """The indices into the proxy set that every party draws alike for `round`."""
        total = len(self.proxy)
        if size is None or size >= total:
            return torch.arange(total)
        generator = rng.stream(self.experiment.seed, purpose="proxy-subset", round=round)
        return torch.randperm(total, generator=generator)[:size].sort().values

    def proxy_inputs(self, size: int | None, round: int) -> Tensor:
        """The proxy inputs of `proxy_subset`."""
        return self.proxy[self.proxy_subset(size, round)]

    def model_specs(self, spec: ModelSpec) -> Expected:
        """What a state dict of this model must look like, under `model/`."""
        key = str(spec)
        if key not in self._specs:
            state = self.build(spec, purpose="specification").state_dict()
            # A negative variance would turn every answer of the model into NaN.
            self._specs[key] = {
                name: TensorSpec.of(t, low=0 if name.endswith(".running_var") else -math.inf)
                for name, t in prefixed("model", state).items()
            }
        return self._specs[key]


@dataclass
class ClientContext:
    """One client in one round."""

    setting: Setting
    round: int
    client: int
    data: Samples
    """Private. Nothing of it leaves except in a `Value`."""
    state: dict[str, Tensor]
    """The client's own, kept from round to round on its own side."""
    clock: Clock

    @property
    def training(self) -> Optimisation:
        """How the teacher is to be trained."""
        return self.setting.experiment.clients.training

    @cached_property
    def teacher(self) -> nn.Module:
        """The client's private model: as it was after its last round, or fresh."""
        model = self.setting.build(self.spec, purpose="teacher", client=self.client)
        if saved := group("teacher", self.state):
            model.load_state_dict(saved)
        return model

    @property
    def has_teacher(self) -> bool:
        """Whether this round touched the teacher."""
        return "teacher" in self.__dict__

    @property
    def spec(self) -> ModelSpec:
        """The client's model by name."""
        return self.setting.experiment.client_model(self.client)

    def keep(self, prefix: str, tensors: Tensors) -> None:
        """Keep tensors under `prefix` until the client's next round."""
        self.state.update(prefixed(prefix, tensors))

    def rng(self, purpose: str) -> torch.Generator:
        """This client's stream in this round for `purpose`."""
        seed = self.setting.experiment.seed
        return rng.stream(seed, purpose=purpose, round=self.round, client=self.client)

    def train(self, *, anchor: Tensors | None = None, proximal: float = 0.0) -> None:
        """Train the teacher on the private data, keeping the optimiser from round to round.

        With an `anchor` the teacher starts each round from the server's model, so the optimiser
        starts afresh as well.
        """
        optimiser = optim.build(self.teacher.parameters(), self.training)
        if anchor is None and (saved := group("optimiser", self.state)):
            optim.unpack(optimiser, saved)
        with self.clock.phase("train", self.training.epochs) as advance:
            supervised.train(
                self.teacher,
                self.data,
                self.training,
                self.rng("batches"),
                optimiser=optimiser,
                anchor=anchor,
                proximal=proximal,
                on_epoch=lambda _epoch, _loss: advance(),
            )
        if anchor is None:
            self.keep("optimiser", optim.pack(optimiser))

    def distil(self, inputs: Tensor, targets: Tensor, loss: Loss, how: Optimisation) -> None:
        """Fit the teacher to `targets`, row by row the server's word on `inputs`."""
        with self.clock.phase("distil", how.epochs) as advance:
            offline.distil(
                self.teacher,
                inputs,
                targets,
                loss,
                how,
                self.rng("distillation"),
                on_epoch=lambda _epoch, _loss: advance(),
            )

    @property
    def from_teacher(self) -> Provenance:
        """The provenance of what is computed from the teacher alone."""
        return PostProcessing(of=Unprotected("teacher training"))

    def example_count(self) -> Value:
        """How many samples this client holds: a fact about private data, hence a release."""
        return Value(torch.tensor(len(self.data)), Release(Unprotected("example count")))

    def model(self) -> Upload:
        """The teacher itself."""
        return Upload(values("model", self.teacher.state_dict(), self.from_teacher))

    def model_and_count(self) -> Upload:
        """The teacher itself, and how many samples taught it."""
        return self.model().with_values({"count": self.example_count()})

    def answer(self, inputs: Tensor) -> Tensor:
        """The teacher's logits on `inputs`, (N, *shape) -> (N, C) float32."""
        with self.clock.phase("answer"):
            return evaluate.logits(self.teacher, inputs)


@dataclass
class ServerContext:
    """The server in one round."""

    setting: Setting
    round: int
    student: nn.Module
    """The global student; the server part trains it in place."""
    state: dict[str, Tensor]
    """The method's own, kept from round to round and in checkpoints."""
    clock: Clock
    threads: int
    """For work that can be split without changing its result."""
    test: Samples
    """For measuring alone; nothing is fitted to it or chosen by it."""
    pooled: Callable[[], Samples]
    """All clients' private data: in a simulation only, for the upper bound."""
    losses: dict[str, float] = field(default_factory=dict)
    """Mean losses worth a line in the round's record."""
    curve: list[float] = field(default_factory=list)
    """The student's test accuracy within the round, where a method measures it."""
    ensemble_accuracy: float | None = None
    """Of the teachers' ensemble on the test set, where the server holds the teachers."""
    generated: Samples | None = None
    """Set by data-free methods: synthetic images and the classes that they were made for."""

    def rng(self, purpose: str) -> torch.Generator:
        """The server's stream in this round for `purpose`."""
        return rng.stream(self.setting.experiment.seed, purpose=purpose, round=self.round)

    def measure(self) -> None:
        """Add the student's test accuracy, as it is now, to the curve."""
        self.curve.append(evaluate.accuracy(self.student, self.test))

    def measure_ensemble(self, logits: Callable[[Tensor], Tensor]) -> None:
        """Record the test accuracy of the ensemble, given as inputs -> logits (N, C)."""
        right = logits(self.test.x).argmax(dim=1) == self.test.y
        self.ensemble_accuracy = float(right.double().mean())

    def distil(
        self,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
        how: Optimisation,
        *,
        model: nn.Module | None = None,
    ) -> None:
        """Fit the student, or another `model`, to `targets`, row by row those of `inputs`."""
        with self.clock.phase("distil", how.epochs) as advance:
            losses = offline.distil(
                self.student if model is None else model,
                inputs,
                targets,
                loss,
                how,
                self.rng("distillation"),
                on_epoch=lambda _epoch, _loss: advance(),
            )
        self.losses["distil"] = losses[-1]

    def load_teachers(self, uploads: "Uploads") -> dict[int, nn.Module]:
        """The uploaded models as modules, by client."""
        teachers = {}
        for client, upload in uploads.items():
            spec = self.setting.experiment.client_model(client)
            teachers[client] = self.setting.build(spec, purpose="specification")
            teachers[client].load_state_dict(group("model", upload))
        return teachers


Uploads = Mapping[int, Tensors]
"""What the server has let in, by client in ascending order."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a method exchanges and asks for, in words and in flags."""

    paper: str
    sends: str
    needs: str
    returns: str
    unlike_models: bool = True
    """Whether clients may have different architectures, and another one than the student's."""
    needs_public: bool = False
    one_shot: bool = False
    simulation_only: bool = False
    has_teachers: bool = True


class Method:
    """The base of every method: its parameters, and the parts that most share."""

    card: ClassVar[Card]
    Params: ClassVar[type[Frozen]] = Frozen

    def __init__(self, params: Frozen) -> None:
        self.params = params

    def check(self, setting: Setting) -> None:
        """Refuse what the method cannot run, where the card's flags do not say it.

        Called before anything runs.

        Raises:
            ConfigError: with the keys that do not fit.
        """

    def expects(self, setting: Setting, client: int) -> Expected:
        """What this client's upload must hold, exactly."""
        raise NotImplementedError

    def begin(self, ctx: ServerContext) -> Broadcast:  # noqa: ARG002
        """What clients receive in the first round."""
        return Broadcast()

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        """Learn, then say what the client sends."""
        raise NotImplementedError

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        """Aggregate, distil into `ctx.student`, and say what clients receive next."""
        raise NotImplementedError
