"""What both sides of a federation know, and the clock that they run by."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from fedkd import devices, rng
from fedkd.config import Experiment, ModelSpec
from fedkd.data.views import Sight
from fedkd.devices import CPU
from fedkd.exchange.codec import Expected
from fedkd.learning.dp import sgd
from fedkd.learning.teacher_statistics import feature_width
from fedkd.methods.core.model_specs import specs_of
from fedkd.models.stock import Stock
from fedkd.privacy.events import Gaussian, Laplace
from fedkd.rows import Rows, shapes_of, take
from fedkd.specs import TensorSpec
from fedkd.tasks import Task, with_inputs
from fedkd.tasks.stages import Stages

_V = TypeVar("_V")

Count = Literal["example count", "class counts"]
"""A fact about private data that no teacher covers, so that it is paid for as an event."""

Sum = Literal["sums of features", "sum of gradients"]
"""A sum over private data, noised once as a whole, so that it is paid for as one event."""

EACH_ROUND: tuple[Sum, ...] = ("sum of gradients",)
"""Those that are others in each round, and so drawn and paid for anew."""

_MOST_EXAMPLES = 10**9

PHASES = ("distil", "train", "answer", "evaluate")
"""What a client can be doing; a fixed list, so that the server need not read a client's words."""


@dataclass(frozen=True)
class Setting:
    """What both sides of a federation know: the experiment and the shapes of its data."""

    experiment: Experiment
    task: Task
    clients: int
    public: Rows | None
    """The proxy set's N inputs, unlabelled; None where there is none."""
    examples: Rows | None = None
    """M inputs that all parties hold and that look like the data, to try out models."""
    seen: Sight | None = None
    """What the student sees of a record; None: all."""
    views: tuple[Sight | None, ...] = ()
    """What clients' teachers see, dealt in turn; without any, all of a record."""
    devices: tuple[torch.device, ...] = (CPU,)
    """Where models learn and answer on this machine, which is each party's own affair."""
    stages: Stages | None = None
    """What comes after what, where data comes in stages (`data.stream`)."""
    _specs: dict[str, Expected] = field(default_factory=dict, repr=False)
    kept: dict[int, tuple[Rows, str, Tensor]] = field(default_factory=dict, init=False, repr=False)
    """In this process alone, by client: its inputs, what of, and their features: see `sums`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one record's inputs."""
        return self.task.inputs

    @property
    def classes(self) -> int:
        """The number C of classes, for methods that ask for classes."""
        return self.task.classes

    def device(self, client: int | None = None) -> torch.device:
        """Where a client's models learn, by turns; the server's, which is None, on the first."""
        return self.devices[(client or 0) % len(self.devices)]

    def visiting(self, device: torch.device, *models: nn.Module) -> AbstractContextManager[None]:
        """Have models on a device, computing in the engine's precision: see `devices.visiting`."""
        precision = self.experiment.engine.precision
        return devices.visiting(device, *models, precision=precision)

    def build(self, spec: ModelSpec, *, purpose: str, client: int | None = None) -> nn.Module:
        """A fresh model on the CPU, initialised from the stream of (client, purpose)."""
        return self.models.build(spec, purpose=purpose, client=client)

    @cached_property
    def models(self) -> Stock:
        """What builds this setting's models."""
        columns = None
        if self.examples is not None and isinstance(few := self.examples[torch.arange(0)], Mapping):
            columns = {n: each.new_zeros(2, *each.shape[1:]) for n, each in few.items()}
        return Stock(self.experiment.seed, self.shape, self.classes, columns, self.task)

    def students_view(self, x: Rows) -> Rows:
        """What the student sees of inputs."""
        return x if self.seen is None else self.seen.of(x)

    def clients_sight(self, client: int) -> Sight | None:
        """What a client's teacher sees of a record; None: all."""
        return self.views[client % len(self.views)] if self.views else None

    def clients_view(self, client: int, x: Rows) -> Rows:
        """What a client's teacher sees of inputs."""
        sight = self.clients_sight(client)
        return x if sight is None else sight.of(x)

    @cached_property
    def student(self) -> "Setting":
        """The setting as the student sees it: its shape, its proxy set, the models it builds.

        Where it sees all of a record it is this one.
        """
        return self if self.seen is None else self._as_seen(self.seen)

    def of_client(self, client: int) -> "Setting":
        """The setting as a client's teacher sees it; where that sees all it is this one."""
        return self._of_clients[client % len(self._of_clients)]

    @cached_property
    def _of_clients(self) -> tuple["Setting", ...]:
        return tuple(self if s is None else self._as_seen(s) for s in self.views) or (self,)

    def _as_seen(self, sight: Sight) -> "Setting":
        public, examples = (
            None if each is None else sight.of(each) for each in (self.public, self.examples)
        )
        known = public if examples is None else examples
        if known is None:
            raise ValueError("Expected records that all parties hold, to see a part of.")
        shape = shapes_of(known)
        words = sight.among(self.task.vocabularies)
        task = with_inputs(self.task, shape if isinstance(shape, tuple) else (), words)
        return replace(
            self,
            task=task,
            public=public,
            examples=examples,
            seen=None,
            views=(),
            _specs={},
        )

    @property
    def first_clients(self) -> list[int]:
        """The first client of each architecture and of what it sees."""
        found: dict[tuple[str, int], int] = {}
        for client in range(self.clients):
            seen = client % len(self.views) if self.views else 0
            found.setdefault((str(self.experiment.client_model(client)), seen), client)
        return list(found.values())

    @property
    def proxy(self) -> Rows:
        """The proxy set of a method that cannot do without."""
        if self.public is None:
            raise ValueError("Expected a public set; the method's card must say that it needs one.")
        return self.public

    @property
    def noise(self) -> sgd.Noise:
        """How a teacher's steps are protected, under `record`."""
        experiment = self.experiment
        privacy, training = experiment.privacy, experiment.clients.training
        return sgd.Noise(
            noise_multiplier=self._noise_multiplier,
            clip=privacy.clip,
            sample_rate=privacy.sample_rate,
            batch_size=privacy.batch_size or training.batch_size,
            clipping=privacy.clipping,
        )

    @property
    def training(self) -> Gaussian:
        """The event of one round's DP-SGD on a teacher."""
        rate = self.experiment.privacy.sample_rate
        steps = sgd.steps(self.experiment.clients.training.epochs, rate)
        return Gaussian("teacher training", self._noise_multiplier, rate, steps)

    def counting(self, what: Count) -> Laplace:
        """The event of sending a count, or the counts of all classes: one record changes one."""
        return Laplace(what, self.experiment.privacy.count_noise)

    def summing(self, what: Sum) -> Gaussian:
        """The event of sending a sum over all records, with noise in all of it at once.

        Under secure aggregation it is what happens to the clients' sum: no client's own part has
        so much noise, and none is seen.
        """
        together = ", summed over clients" if self.securely else ""
        return Gaussian(f"{what}{together}", self._noise_multiplier)

    @property
    def securely(self) -> bool:
        """Whether the server sees nothing but the sum of what clients send."""
        return self.experiment.privacy.secure_aggregation

    @property
    def noise_share(self) -> float:
        """What a client adds to its sums, in the standard deviation of one release's noise.

        Under secure aggregation any sum has as many clients as must answer, so that these few have
        one release's variance together; whatever the server says.
        """
        return 1 / math.sqrt(self.quorum(self.cohort_size)) if self.securely else 1.0

    def combining(self, rows: int) -> Gaussian:
        """The event of the server's noise on `rows` combined answers, under the client units."""
        noise = self._noise_multiplier
        what, steps = "mean of probabilities", 1
        if self.experiment.privacy.unit == "client-votes":
            what, steps = "votes", rows
        return Gaussian(what, noise, steps=steps, unit="client", adjacency="replace-one")

    @property
    def _noise_multiplier(self) -> float:
        noise = self.experiment.privacy.noise_multiplier
        if noise is None:
            raise ValueError("Expected privacy.noise_multiplier, which `prepare` resolves.")
        return noise

    @property
    def example_count(self) -> TensorSpec:
        """What `ClientContext.example_count` must look like."""
        return TensorSpec((), torch.int64, low=1, high=_MOST_EXAMPLES)

    @property
    def class_counts(self) -> TensorSpec:
        """What `ClientContext.class_counts` must look like."""
        return TensorSpec((self.classes,), torch.int64, low=0, high=_MOST_EXAMPLES)

    def model_and_count(self, client: int) -> Expected:
        """What `ClientContext.model_and_count` of this client must look like."""
        spec = self.experiment.client_model(client)
        return {**self.of_client(client).model_specs(spec), "count": self.example_count}

    def model_and_class_counts(self, client: int) -> Expected:
        """What `ClientContext.model_and_class_counts` of this client must look like."""
        models = self.of_client(client).model_specs(self.experiment.client_model(client))
        return {**models, "counts": self.class_counts}

    def feature_width(self, spec: ModelSpec) -> int:
        """How wide the features of this model are: see `observe.feature_width`."""
        key = f"features of {spec}"
        if key not in self._specs:
            width = feature_width(self.build(spec, purpose="specification"))
            self._specs[key] = {"features": TensorSpec((width,))}
        return self._specs[key]["features"].shape[0]

    def features_norm(self, intercept: float) -> float:
        """The most that (features, intercept) measure in L2 norm, under `record`."""
        return math.hypot(self.experiment.privacy.clip, intercept)

    def cohort(self, round: int) -> list[int]:
        """The clients that are asked in a round, in ascending order."""
        generator = rng.stream(self.experiment.seed, purpose="cohort", round=round)
        drawn = torch.randperm(self.clients, generator=generator)[: self.cohort_size]
        return sorted(drawn.tolist())

    @property
    def cohort_size(self) -> int:
        """How many clients are asked in a round."""
        share = self.experiment.clients.participation
        return max(1, math.floor(share * self.clients + 0.5))

    def quorum(self, asked: int) -> int:
        """How many of those asked must answer; to a secure sum more than half of anyone's peers."""
        wanted = max(1, math.ceil(self.experiment.clients.quorum * asked - 1e-9))
        return max(wanted, asked // 2 + 1 + asked % 2) if self.securely else wanted

    def proxy_subset(self, size: int | None, round: int) -> Tensor:
        """The indices into the proxy set that every party draws alike for `round`."""
        total = len(self.proxy)
        if size is None or size >= total:
            return torch.arange(total)
        # Where rounds are asynchronous all have the first's, to which late answers are answers too.
        drawn = round if self.experiment.clients.asynchronous is None else 1
        generator = rng.stream(self.experiment.seed, purpose="proxy-subset", round=drawn)
        return torch.randperm(total, generator=generator)[:size].sort().values

    def proxy_inputs(self, size: int | None, round: int) -> Rows:
        """The proxy inputs of `proxy_subset`."""
        return take(self.proxy, self.proxy_subset(size, round))

    def sent(self, spec: ModelSpec, state: Mapping[str, _V]) -> dict[str, _V]:
        """What messages have of a state dict of this model: all but what is `weights.fixed`."""
        names = self.model_specs(spec)
        return {name: value for name, value in state.items() if f"model/{name}" in names}

    def model_specs(self, spec: ModelSpec) -> Expected:
        """What messages have of a state dict of this model must look like, under `model/`."""
        key = str(spec)
        if key not in self._specs:
            self._specs[key] = specs_of(spec, self.build(spec, purpose="specification"))
        return self._specs[key]
