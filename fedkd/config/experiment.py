"""A federation: what one TOML file says."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from fedkd.config.asynchronous import Asynchronous
from fedkd.config.evaluation import FederationOutput
from fedkd.config.exchange import Exchange
from fedkd.config.models import ModelSpec
from fedkd.config.partition import Dirichlet, Natural, Partition
from fedkd.config.parts import (
    CLASSIFICATION,
    NAME,
    Choice,
    Frozen,
    Hardware,
    TaskChoice,
    absent,
    is_classification,
)
from fedkd.config.robust import Robust
from fedkd.config.source import PublicData, Source
from fedkd.config.training import DPSGD, Optimisation


def _dealt(value: Any) -> Any:
    """Lists of names as tuples; one list stands for all clients."""
    if not isinstance(value, list | tuple):
        return value
    each = [value] if value and all(isinstance(name, str) for name in value) else value
    return tuple(tuple(one) if isinstance(one, list) else one for one in each)


class Data(Source):
    """Where data comes from and how it is split among the clients."""

    scale: Literal["public"] | None = None
    """Rows of features: `public` scales columns without limits by the proxy set."""
    public: PublicData | None = None
    partition: Partition = Dirichlet(scheme="dirichlet")

    @model_validator(mode="after")
    def _clients_have_what_they_have(self) -> Self:
        """Files of clients are nobody else's, so that to deal them anew must be asked for."""
        if self.clients and "partition" not in self.model_fields_set:
            object.__setattr__(self, "partition", Natural(scheme="natural"))
        return self

    @model_validator(mode="after")
    def _scaled_by_something(self) -> Self:
        if self.scale and self.public is None:
            raise ValueError(
                "data.scale is 'public', and there is no [data.public]: add one, or give limits by "
                "data.limits"
            )
        return self


class Privileged(Frozen):
    """What the clients' teachers see, and the global student never does.

    Vapnik & Vashist 2009; as distillation, Lopez-Paz et al. 2016, arXiv:1511.03643.
    """

    columns: tuple[str, ...] = Field(min_length=1)
    """Names of tests, each with all the columns that it is encoded as, or of single columns."""


class Alignment(Frozen):
    """How teachers are brought near to the domain of the proxy set: `"batch-norm"`, or a table."""

    name: Literal["batch-norm", "coral"]
    """See `fedkd.learning.alignment`."""
    weight: float = Field(default=1.0, gt=0)
    """`coral`: of the distance between covariances, beside the loss on labels."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Clients(Frozen):
    """The parties: how many, which models, how they train, how many must answer."""

    count: int | None = Field(default=None, ge=1)
    """How many; required unless the partition is `natural`, which knows."""
    models: tuple[ModelSpec, ...] = Field(default=(ModelSpec(name="lenet5"),), min_length=1)
    """Dealt in turn: client i gets models[i mod len]."""
    training: Optimisation = Optimisation()
    views: Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_dealt)] = Field(
        default=(), exclude_if=absent
    )
    """The views of a record that teachers see, one list for all, or one for each client, _dealt in
    turn as models are; all unless given."""
    align: Alignment | None = Field(default=None, exclude_if=absent)
    """How teachers are brought near to the proxy set, where that is another domain; None: not."""
    privileged: Privileged | None = None
    """What only the teachers see; None: the student sees what they see."""
    participation: float = Field(default=1.0, gt=0, le=1)
    """The share of clients sampled each round: the cohort."""
    quorum: float = Field(default=0.5, gt=0, le=1)
    """The share of the cohort that must answer for a round to count."""
    max_weight: float | None = Field(default=None, gt=0, le=1)
    """The largest share of all samples that one client is believed to hold, whatever it claims; of
    n clients (1 + 1/n) / 2 unless given, which is most of them. 1 takes every claim as it comes.
    Of a single class a client may hold more, and methods without counts have no such bound."""
    test_share: float | None = Field(default=None, gt=0, lt=1)
    """The share of its own records that each client keeps from training, to score its own model and
    the student on, each by a hash of itself; None: none. Scores on private records are facts about
    them, so they are withheld under a privacy unit and under secure aggregation."""
    deadline: float | None = Field(default=None, gt=0)
    """Seconds after which a round goes on without those who have not answered."""
    asynchronous: Asynchronous | None = Field(default=None, exclude_if=absent)
    """How the server goes on without those who are late; None: each round waits for its cohort."""


class Student(Frozen):
    """The one global model that comes out."""

    model: ModelSpec = ModelSpec(name="lenet5")
    views: tuple[str, ...] = Field(default=(), exclude_if=absent)
    """The views of a record that it sees; all unless given."""


class MethodChoice(Choice):
    """A federated method by name or import path; every other key is the method's own parameter."""


class Privacy(DPSGD):
    """What is protected, how much of it may be spent, and how. Only `none` protects nothing.

    `record`: each client's teacher learns by DP-SGD, so that whatever comes from it hides any one
    record. `client-votes`, `client-logits`: the server, which is trusted, adds noise to what it
    combines, so that the student hides any one client.
    """

    unit: Literal["none", "record", "client-votes", "client-logits"] = "none"
    epsilon: float | None = Field(default=None, gt=0)
    """The budget: the most that one data set may ever cost. Naming one makes the unit `record`."""
    count_noise: float = Field(default=10.0, gt=0)
    """`record`: the scale of the Laplace noise on a count, in records; each count is sent once."""
    secure_aggregation: bool = False
    """The server sees the sum of what clients send and no client's own part; under `record` noise
    is added to that sum once, a share by each client. For methods that need only the sum."""
    spare_rounds: int = Field(default=0, ge=0)
    """Rounds paid for beyond those planned: one is used up where a crash cuts off a training."""

    @model_validator(mode="before")
    @classmethod
    def _budget_means_record(cls, value: Any) -> Any:
        named = isinstance(value, Mapping) and "epsilon" in value and "unit" not in value
        return {**value, "unit": "record"} if named else value

    @model_validator(mode="after")
    def _budget_is_named(self) -> Self:
        if self.unit != "none" and self.epsilon is None:
            raise ValueError(
                f"privacy.epsilon is missing: privacy.unit = {self.unit!r} needs a budget, "
                "such as epsilon = 8"
            )
        if self.secure_aggregation and self.unit.startswith("client"):
            raise ValueError(
                f"privacy.secure_aggregation hides the answers that the server protects by "
                f"privacy.unit = {self.unit!r}: leave it out, or take unit = 'record'"
            )
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        idle = [
            name for name, value in self if value != defaults[name] and name != "secure_aggregation"
        ]
        if self.unit == "none" and idle:
            raise ValueError(
                f"privacy.{idle[0]} is {getattr(self, idle[0])!r}, and with privacy.unit = 'none' "
                "it would protect nothing: name a budget, such as epsilon = 8, or leave it out"
            )
        return self


class Engine(Hardware):
    """Where clients run in a simulation."""

    kind: Literal["in-process", "processes", "ray"] = "in-process"
    """Threads of this process, forks of it, or Ray's workers: docs/devices.md says when which."""
    threads: int = Field(default=0, ge=0)
    """Clients at a time; 0: one a core. The result does not depend on it."""


class Experiment(Frozen):
    """One experiment, complete."""

    name: str = Field(pattern=NAME, max_length=80)
    seed: int = Field(default=0, ge=0)
    rounds: int = Field(default=1, ge=1)
    task: TaskChoice = Field(default=CLASSIFICATION, exclude_if=is_classification)
    """What is asked of models."""
    data: Data = Data()
    clients: Clients
    student: Student = Student()
    method: MethodChoice
    robust: Robust | None = Field(default=None, exclude_if=absent)
    """What the server does about clients that lie; None: nothing."""
    exchange: Exchange | None = Field(default=None, exclude_if=absent)
    """How answers are written on the wire; None: in float16, anew in every round."""
    privacy: Privacy = Privacy()
    engine: Engine = Engine()
    output: FederationOutput = FederationOutput()

    @model_validator(mode="after")
    def _count_is_known(self) -> Self:
        natural = isinstance(self.data.partition, Natural)
        if not natural and self.clients.count is None:
            raise ValueError("clients.count is missing: how many clients share the data?")
        return self

    @model_validator(mode="after")
    def _every_stage_comes(self) -> Self:
        stream = self.data.stream
        if stream is not None and self.rounds <= (stream.count - 1) * stream.rounds:
            raise ValueError(
                f"rounds is {self.rounds}, and data.stream has {stream.count} stages of "
                f"{stream.rounds} rounds: expected {stream.count * stream.rounds}"
            )
        return self

    @model_validator(mode="after")
    def _sees_by_one_key(self) -> Self:
        if self.clients.privileged is not None and (self.clients.views or self.student.views):
            raise ValueError(
                "clients.privileged and views both say who sees what: name the student's columns "
                "as a view by [data.views] and student.views, or leave views out"
            )
        if self.data.views and not (any(self.clients.views) or self.student.views):
            raise ValueError("[data.views] names views that nobody sees: leave it out")
        return self

    @model_validator(mode="after")
    def _sees_whom_to_judge(self) -> Self:
        if self.robust is not None and self.privacy.secure_aggregation:
            raise ValueError(
                "[robust] compares clients with each other, and privacy.secure_aggregation shows "
                "the server their sum alone: leave one of the two out"
            )
        if self.robust is not None and self.privacy.unit.startswith("client"):
            raise ValueError(
                "[robust] lets what one client says decide how others count, and the noise of "
                f"privacy.unit = {self.privacy.unit!r} covers a client that moves its own part "
                "alone: leave [robust] out, or take unit = 'record'"
            )
        return self

    @model_validator(mode="after")
    def _writes_what_both_sides_can_read(self) -> Self:
        if self.exchange is not None:
            self.exchange.check_beside(
                unit=self.privacy.unit,
                securely=self.privacy.secure_aggregation,
                participation=self.clients.participation,
                asynchronous=self.clients.asynchronous is not None,
            )
        return self

    @model_validator(mode="after")
    def _adds_up_one_round(self) -> Self:
        if self.clients.asynchronous is not None and self.privacy.secure_aggregation:
            raise ValueError(
                "clients.asynchronous takes answers one by one, and privacy.secure_aggregation "
                "shows the server the sum of a round alone: leave one of the two out"
            )
        return self

    @property
    def unlike_views(self) -> bool:
        """Whether some party sees other views or columns of a record than another."""
        views = {*(self.clients.views or ((),)), self.student.views}
        return self.clients.privileged is not None or len(views) > 1

    def client_model(self, client: int) -> ModelSpec:
        """The model of client `client`."""
        return self.clients.models[client % len(self.clients.models)]

    def to_toml(self) -> str:
        """The complete experiment as TOML; `load` reads it back equal."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def to_json(self) -> str:
        """The complete experiment as one JSON string, for the wire."""
        return self.model_dump_json(exclude_none=True)
